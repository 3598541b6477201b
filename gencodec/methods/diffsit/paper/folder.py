"""A folder with the weights of the paper preset: what is in it, its id, and the generator made from it.

    diffsit-paper.safetensors    frame type embedding, trained encoder, LoRA or transformer; the learned STEM,
                                 or tables of motion for the shipped one
    empty-prompt.safetensors     what Wan's text encoder makes of "": `prompt.write_prompt`
    vae/ transformer/            the parts of Wan2.1 as `diffusers` saves them
    base.json                    instead of those: the hub ids that have them, {"vae": "owner/name", ...}
    s2vc-tiny-6.safetensors, intra-tiny-9.safetensors      code backbones; without them the shipped ones
docs/methods/diffsit-paper.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencodec.codec import Weights, WeightsMissing
from gencodec.entropy.motion import MotionCoder
from gencodec.methods.diffsit.generator import PREFIX
from gencodec.methods.diffsit.paper.base import CONFIG, HELP, PARTS, load_base, sketch
from gencodec.methods.diffsit.paper.config import parse_config
from gencodec.methods.diffsit.paper.generator import PaperGenerator, own_names
from gencodec.methods.diffsit.paper.prompt import FILE as PROMPT
from gencodec.methods.diffsit.paper.prompt import HOW, read_prompt
from gencodec.methods.diffsit.paper.stem_coder import NOT_FLOAT, LearnedLoop, LearnedStem
from gencodec.methods.diffsit.paper.stem_config import StemConfig, parse_stem
from gencodec.methods.diffsit.paper.stem_model import StemModel
from gencodec.methods.diffsit.pieces import StemCoder
from gencodec.methods.diffsit.rendering import Renderer
from gencodec.methods.diffsit.settings import Options
from gencodec.methods.diffsit.stem import ALL_ANCHORS
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.methods.s2vc.paper.folder import TABLE_PARTS, expected
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
KEY, LOOP = "intra-tiny-9", "s2vc-tiny-6"  # code key frames, backbones: part of the bytes' promise
MV, LEARNED = "mv", "stem."  # tables of the shipped STEM's motion; the learned one's tensors
MV_TABLES: Shapes = {f"{MV}.{part}": None for part in TABLE_PARTS}


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
    coders = {"intra": _coder_file(folder, KEY), "s2vc": _coder_file(folder, LOOP)}
    base = [file for part in PARTS for file in tensor_files(parts[part], HELP)]
    files = [folder / OWN, folder / PROMPT, *coders.values(), *base]
    configs = [parts[part] / CONFIG for part in PARTS]
    if absent := [str(file) for file in (*files, *configs) if not file.is_file()]:
        how = "" if (folder / PROMPT).is_file() else f"; {HOW}"
        raise WeightsMissing(f"the paper preset lacks {', '.join(absent)}{how}; {HELP}")
    loaded = {"diffsit": load_file(folder / OWN)}
    if "stem" in loaded["diffsit"][1]:  # which codes backbones itself
        files.remove(coders.pop("s2vc"))
    loaded |= {role: load_file(file) for role, file in coders.items()}
    tensors = {role: found for role, (found, _) in loaded.items()} | {"prompt": read_prompt(folder)}
    places = {part: str(parts[part]) for part in PARTS}
    metadata = {role: notes for role, (_, notes) in loaded.items()} | {"base": places}
    digests = [file_digest(file) for file in files] + [config_digest(file, HELP) for file in configs]
    return Weights("paper", tensors, metadata, id_of(digests))


def base_folders(folder: Path) -> dict[str, Path]:
    """Where each base model is. Raises WeightsMissing where one on the hub is not to be had."""
    return {part: part_folder(folder, part, HELP) for part in PARTS}


def load_paper(weights: Weights, key: KeyFrameCoder, options: Options) -> tuple[Any, Renderer]:
    """Coder of pieces and renderer, with the interfaces of the tiny preset's.

    Raises WeightsMissing with all that is wrong, ValueError for a configuration of another version.
    """
    generator = load_generator(weights) if options.diffusion else None
    renderer = Renderer(generator and generator.to(key.device), options.clip_length, key.device)
    own, notes = weights.files["diffsit"], weights.metadata["diffsit"]
    if "stem" in notes:
        return load_stem(own, notes, key, options.chain), renderer
    loop = LoopCoder(weights.files["s2vc"], key, weights.metadata["s2vc"].get("fingerprint", ""), ALL_ANCHORS)
    return StemCoder(loop, MotionCoder.load(own, MV), options.chain), renderer


def load_stem(
    own: Mapping[str, Tensor], notes: Mapping[str, str], key: KeyFrameCoder, chain: int
) -> LearnedStem:
    """The learned STEM. Raises WeightsMissing with all that is wrong, InexactDevice."""
    config = parse_stem(notes["stem"])
    tensors = {n.removeprefix(LEARNED): t for n, t in own.items() if n.startswith(LEARNED)}
    if problems := differences(_expected_of_stem(config, ""), tensors):
        raise WeightsMissing(f"STEM cannot be loaded ({HELP}):\n  " + "\n  ".join(problems))
    return LearnedStem(LearnedLoop(config, tensors, key, notes.get("fingerprint", "")), chain)


def load_generator(weights: Weights) -> PaperGenerator:
    """The generator, ready to render, on the CPU; raises as `load_paper`."""
    tensors, notes = weights.files["diffsit"], weights.metadata["diffsit"]
    config, prompt = parse_config(notes.get("generator", "{}")), weights.files["prompt"]["embedding"]
    folders = {part: Path(weights.metadata["base"][part]) for part in PARTS}
    base, problems = load_base(folders, prompt)
    configs = [read_json(folders[part] / CONFIG, HELP) for part in PARTS]
    wanted = expected_of_generator(sketch(configs[0], configs[1], config, prompt))
    wanted |= _expected_of_stem(parse_stem(notes["stem"]), LEARNED) if "stem" in notes else MV_TABLES
    problems += [f"{OWN}: {problem}" for problem in differences(wanted, tensors)]
    if problems or base is None:
        raise WeightsMissing(f"the paper preset cannot be loaded ({HELP}):\n  " + "\n  ".join(problems))
    generator = PaperGenerator(base, config)
    fill(generator, tensors)
    return generator.for_rendering()


@torch.no_grad()
def fill(generator: PaperGenerator, tensors: Mapping[str, Tensor]) -> None:
    """Put this project's tensors, checked before, into the generator."""
    state = generator.state_dict()
    for name in own_names(generator):
        state[name].copy_(tensors[PREFIX + name].float())


def expected_of_generator(generator: PaperGenerator) -> Shapes:
    """Names and shapes of this project's tensors in the generator."""
    state = generator.state_dict()
    return {PREFIX + name: tuple(state[name].shape) for name in own_names(generator)}


def _expected_of_stem(config: StemConfig, prefix: str) -> Shapes:
    with torch.device("meta"):
        model = StemModel(config)
    return {prefix + name: s for name, s in expected(model, model.codecs(), NOT_FLOAT).items()}


def _coder_file(folder: Path, name: str) -> Path:
    own = folder / f"{name}.safetensors"
    return own if own.is_file() else ZOO / own.name
