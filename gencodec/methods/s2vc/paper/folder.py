"""A folder with the weights of the paper preset: what is in it, its id, and the codec made from it.

    s2vc-paper.safetensors     codec parts, entrance and adapters of the U-Net, TCG: trained by this project
    unet/ vae/ scheduler/      base models as `diffusers` saves them
    base.json                  instead of those: the hub ids that have them, {"unet": "owner/name", ...}
    intra-tiny-9.safetensors   key frames; without it the shipped one
docs/methods/s2vc-paper.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencodec.codec import Weights, WeightsMissing
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.paper.base import HELP, PARTS, load_base, sketch
from gencodec.methods.s2vc.paper.config import parse_config
from gencodec.methods.s2vc.paper.generator import PaperGenerator, own_names
from gencodec.methods.s2vc.paper.latents import PaperLatents
from gencodec.methods.s2vc.paper.loop import NOT_FLOAT, PaperLoopCoder
from gencodec.methods.s2vc.paper.pcodec import PCodec
from gencodec.methods.s2vc.paper.rendering import PaperRenderer
from gencodec.nn.exact import ExactConv2d
from gencodec.nn.pretrained import (
    Shapes,
    config_digest,
    differences,
    part_folder,
    read_json,
    tensor_files,
)
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import float_names
from gencodec.weights import ZOO, file_digest, id_of, load_file

OWN, KEY_FRAMES = "s2vc-paper.safetensors", "intra-tiny-9.safetensors"
PREFIX = "generator."
TABLE_PARTS = ("cdf", "offset", "mode", "length", "skip")
CONFIGS = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}


def read_folder(path: str | Path | None) -> Weights:
    """What `load_paper` builds from. Raises WeightsMissing with all that is absent.

    The id is over every file that decoding loads, and over the configurations without the library's own notes
    (names that begin with "_").
    """
    if path is None:
        raise WeightsMissing(f"the paper preset has no shipped weights: give a folder; {HELP}")
    folder = Path(path)
    if not folder.is_dir():
        raise WeightsMissing(f"{folder} is no folder; {HELP}")
    key = folder / KEY_FRAMES if (folder / KEY_FRAMES).exists() else ZOO / KEY_FRAMES
    parts = base_folders(folder)
    files = [folder / OWN, key, *(file for part in PARTS[:2] for file in tensor_files(parts[part], HELP))]
    configs = [parts[part] / CONFIGS[part] for part in PARTS]
    if absent := [str(file) for file in (*files, *configs) if not file.is_file()]:
        raise WeightsMissing(f"the paper preset lacks {', '.join(absent)}; {HELP}")
    own, notes = load_file(folder / OWN)
    key_tensors, key_notes = load_file(key)
    digests = [file_digest(file) for file in files] + [config_digest(file, HELP) for file in configs]
    metadata = {"s2vc": notes, "intra": key_notes, "base": {part: str(parts[part]) for part in PARTS}}
    return Weights("paper", {"s2vc": own, "intra": key_tensors}, metadata, id_of(digests))


def load_paper(weights: Weights, key: KeyFrameCoder, reset_period: int) -> tuple[Any, Any]:
    """Loop and renderer, with the interfaces of the tiny preset's.

    Raises WeightsMissing with all that is wrong, ValueError for a configuration of another version.
    """
    tensors, notes = weights.files["s2vc"], weights.metadata["s2vc"]
    config = parse_config(notes.get("config", "{}"))
    folders = {part: Path(weights.metadata["base"][part]) for part in PARTS}
    base, problems = load_base(folders)
    with torch.device("meta"):
        model = PCodec(config)
        wanted: Shapes = expected(model, {"latents.": model.latents}, NOT_FLOAT)
    configs = [read_json(folders[part] / CONFIGS[part], HELP) for part in PARTS[:2]]
    wanted |= expected_of_generator(sketch(configs[0], configs[1], config))
    problems += [f"{OWN}: {problem}" for problem in differences(wanted, tensors)]
    if problems or base is None:
        raise WeightsMissing(f"the paper preset cannot be loaded ({HELP}):\n  " + "\n  ".join(problems))
    loop = PaperLoopCoder(config, tensors, key, reset_period, notes.get("fingerprint", ""))
    generator = PaperGenerator(base, config)
    generator.vae.encoder = None  # of use in training only
    fill(generator, tensors)
    return loop, PaperRenderer(loop.model, generator, key.device, reset_period)


@torch.no_grad()
def fill(generator: PaperGenerator, tensors: Mapping[str, Tensor]) -> None:
    """Put this project's tensors, checked before, into the generator."""
    state = generator.state_dict()
    for name in own_names(generator):
        state[name].copy_(tensors[PREFIX + name].float())


# ---- what must be there ------------------------------------------------------------------------------------


def expected(model: nn.Module, codecs: Mapping[str, PaperLatents], not_float: Sequence[str]) -> Shapes:
    """Names and shapes of a loop's tensors: float ones, exact ones, tables of latents by their prefix."""
    state = model.state_dict()
    shapes: Shapes = {name: tuple(state[name].shape) for name in float_names(model, not_float)}
    in_table = {layer for latents in codecs.values() for _, layer in latents.prior.tables()}
    for name, layer in model.named_modules():
        if isinstance(layer, ExactConv2d):
            out = len(layer.bias)
            shapes[f"{name}.weight"], shapes[f"{name}.exponent"] = tuple(layer.weight.shape), (out,)
            shapes[f"{name}.bias"] = (NUM_QUALITIES, out) if layer in in_table else (out,)
    parts = [f"{which}_tables.{part}" for which in ("y", "z") for part in TABLE_PARTS]
    return shapes | {prefix + part: None for prefix in codecs for part in parts}


def expected_of_generator(generator: PaperGenerator) -> Shapes:
    """Names and shapes of this project's tensors in the generator."""
    state = generator.state_dict()
    return {PREFIX + name: tuple(state[name].shape) for name in own_names(generator)}


# ---- base models in the folder or on the hub ---------------------------------------------------------------


def base_folders(folder: Path) -> dict[str, Path]:
    """Where each base model is. Raises WeightsMissing where one on the hub is not to be had."""
    return {part: part_folder(folder, part, HELP) for part in PARTS}
