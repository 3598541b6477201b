"""A folder with the weights of the paper preset: what is in it, its id, and the generator made from it.

    diffsit-paper.safetensors    frame type embedding, trained encoder, LoRA or transformer, tables of motion
    empty-prompt.safetensors     what Wan's text encoder makes of "": `prompt.write_prompt`
    vae/ transformer/            the parts of Wan2.1 as `diffusers` saves them
    base.json                    instead of those: the hub ids that have them, {"vae": "owner/name", ...}
    s2vc-tiny-2.safetensors, intra-tiny-4.safetensors      code backbones; without them the shipped ones
docs/methods/diffsit-paper.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gencodec.codec import Weights, WeightsMissing
from gencodec.methods.diffsit.paper.base import CONFIG, HELP, PARTS, load_base, sketch
from gencodec.methods.diffsit.paper.config import parse_config
from gencodec.methods.diffsit.paper.generator import PaperGenerator, own_names
from gencodec.methods.diffsit.paper.prompt import FILE as PROMPT
from gencodec.methods.diffsit.paper.prompt import HOW, read_prompt
from gencodec.methods.diffsit.rendering import PREFIX
from gencodec.nn.pretrained import (
    Shapes,
    config_digest,
    differences,
    part_folder,
    read_json,
    tensor_files,
)
from gencodec.weights import ZOO, file_digest, id_of, load_file

OWN = "diffsit-paper.safetensors"
STEM = ("s2vc-tiny-2", "intra-tiny-4")  # what codes backbones: part of the bytes' promise
MV_PARTS = tuple(f"mv.{part}" for part in ("cdf", "offset", "mode", "length", "skip"))


def read_folder(path: str | Path | None) -> Weights:
    """What `load_paper` and the coder are built from. Raises WeightsMissing with all that is absent.

    The id is over every file that decoding loads, and over the configurations.
    """
    if path is None:
        raise WeightsMissing(f"the paper preset has no shipped weights: give a folder; {HELP}")
    folder = Path(path)
    if not folder.is_dir():
        raise WeightsMissing(f"{folder} is no folder; {HELP}")
    parts = base_folders(folder)
    stem = [_stem_file(folder, name) for name in STEM]
    base = [file for part in PARTS for file in tensor_files(parts[part], HELP)]
    files = [folder / OWN, folder / PROMPT, *stem, *base]
    configs = [parts[part] / CONFIG for part in PARTS]
    if absent := [str(file) for file in (*files, *configs) if not file.is_file()]:
        how = "" if (folder / PROMPT).is_file() else f"; {HOW}"
        raise WeightsMissing(f"the paper preset lacks {', '.join(absent)}{how}; {HELP}")
    own, *coders = (load_file(file) for file in (folder / OWN, *stem))
    roles = dict(zip(("diffsit", "s2vc", "intra"), (own, *coders), strict=True))
    tensors = {role: loaded[0] for role, loaded in roles.items()} | {"prompt": read_prompt(folder)}
    places = {part: str(parts[part]) for part in PARTS}
    metadata = {role: loaded[1] for role, loaded in roles.items()} | {"base": places}
    digests = [file_digest(file) for file in files] + [config_digest(file, HELP) for file in configs]
    return Weights("paper", tensors, metadata, id_of(digests))


def base_folders(folder: Path) -> dict[str, Path]:
    """Where each base model is. Raises WeightsMissing where one on the hub is not to be had."""
    return {part: part_folder(folder, part, HELP) for part in PARTS}


def load_paper(weights: Weights, device: torch.device | str) -> PaperGenerator:
    """The generator, ready to render.

    Raises WeightsMissing with all that is wrong, ValueError for a configuration of another version.
    """
    tensors, notes = weights.files["diffsit"], weights.metadata["diffsit"]
    config, prompt = parse_config(notes.get("generator", "{}")), weights.files["prompt"]["embedding"]
    folders = {part: Path(weights.metadata["base"][part]) for part in PARTS}
    base, problems = load_base(folders, prompt)
    configs = [read_json(folders[part] / CONFIG, HELP) for part in PARTS]
    wanted = expected(sketch(configs[0], configs[1], config, prompt))
    problems += [f"{OWN}: {problem}" for problem in differences(wanted, tensors)]
    if problems or base is None:
        raise WeightsMissing(f"the paper preset cannot be loaded ({HELP}):\n  " + "\n  ".join(problems))
    generator = PaperGenerator(base, config)
    fill(generator, tensors)
    return generator.for_rendering().to(device)


@torch.no_grad()
def fill(generator: PaperGenerator, tensors: Mapping[str, Tensor]) -> None:
    """Put this project's tensors, checked before, into the generator."""
    state = generator.state_dict()
    for name in own_names(generator):
        state[name].copy_(tensors[PREFIX + name].float())


def expected(generator: PaperGenerator) -> Shapes:
    """Names and shapes of the tensors in this project's file: the generator's, tables of motion."""
    state = generator.state_dict()
    shapes: Shapes = {PREFIX + name: tuple(state[name].shape) for name in own_names(generator)}
    return shapes | dict.fromkeys(MV_PARTS)


def _stem_file(folder: Path, name: str) -> Path:
    own = folder / f"{name}.safetensors"
    return own if own.is_file() else ZOO / own.name
