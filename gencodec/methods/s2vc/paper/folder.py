"""A folder with the weights of the paper preset: what is in it, its id, and the codec made from it.

    s2vc-paper.safetensors     codec parts, entrance and adapters of the U-Net, TCG: trained by this project
    unet/ vae/ scheduler/      base models as `diffusers` saves them
    base.json                  instead of those: the hub ids that have them, {"unet": "owner/name", ...}
    intra-tiny-4.safetensors   key frames; without it the shipped one
docs/methods/s2vc-paper.md says more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencodec.codec import Weights, WeightsMissing
from gencodec.methods.intra.codec import KeyFrameCoder
from gencodec.methods.s2vc.paper.base import HELP, PARTS, load_base, sketch
from gencodec.methods.s2vc.paper.config import parse_config
from gencodec.methods.s2vc.paper.generator import PaperGenerator, own_names
from gencodec.methods.s2vc.paper.loop import NOT_FLOAT, PaperLoopCoder
from gencodec.methods.s2vc.paper.pcodec import PCodec
from gencodec.methods.s2vc.paper.rendering import PaperRenderer
from gencodec.nn.exact import ExactConv2d
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import float_names
from gencodec.weights import ZOO, file_digest, id_of, load_file

OWN, KEY_FRAMES, HUB = "s2vc-paper.safetensors", "intra-tiny-4.safetensors", "base.json"
PREFIX = "generator."
STEM = "diffusion_pytorch_model"
CONFIGS = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}
Shapes = dict[str, "tuple[int, ...] | None"]  # of the tensors that a file must hold; None: checked elsewhere


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
    files = [folder / OWN, key, *(file for part in PARTS[:2] for file in _tensor_files(parts[part]))]
    configs = [parts[part] / CONFIGS[part] for part in PARTS]
    if absent := [str(file) for file in (*files, *configs) if not file.is_file()]:
        raise WeightsMissing(f"the paper preset lacks {', '.join(absent)}; {HELP}")
    own, notes = load_file(folder / OWN)
    key_tensors, key_notes = load_file(key)
    digests = [file_digest(file) for file in files] + [_config_digest(file) for file in configs]
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
        wanted: Shapes = expected(PCodec(config))
    configs = [_json(folders[part] / CONFIGS[part]) for part in PARTS[:2]]
    wanted |= expected_of_generator(sketch(configs[0], configs[1], config))
    problems += [f"{OWN}: {problem}" for problem in _differences(wanted, tensors)]
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


def expected(model: PCodec) -> Shapes:
    """Names and shapes of the tensors of the loop: float ones, exact ones, tables."""
    state = model.state_dict()
    shapes: Shapes = {name: tuple(state[name].shape) for name in float_names(model, NOT_FLOAT)}
    in_table = {layer for _, layer in model.latents.prior.tables()}
    for name, layer in model.named_modules():
        if isinstance(layer, ExactConv2d):
            out = len(layer.bias)
            shapes[f"{name}.weight"], shapes[f"{name}.exponent"] = tuple(layer.weight.shape), (out,)
            shapes[f"{name}.bias"] = (NUM_QUALITIES, out) if layer in in_table else (out,)
    parts = ("cdf", "offset", "mode", "length", "skip")
    return shapes | {f"latents.{which}_tables.{part}": None for which in ("y", "z") for part in parts}


def expected_of_generator(generator: PaperGenerator) -> Shapes:
    """Names and shapes of this project's tensors in the generator."""
    state = generator.state_dict()
    return {PREFIX + name: tuple(state[name].shape) for name in own_names(generator)}


def _differences(wanted: Shapes, tensors: Mapping[str, Tensor]) -> list[str]:
    missing = [f"no tensor {name}" for name in wanted if name not in tensors]
    other = [
        f"{name} is {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in wanted.items()
        if shape is not None and name in tensors and tuple(tensors[name].shape) != shape
    ]
    return [*missing, *other, *(f"{name} is not of this model" for name in tensors if name not in wanted)]


# ---- base models in the folder or on the hub ---------------------------------------------------------------


def base_folders(folder: Path) -> dict[str, Path]:
    """Where each base model is. Raises WeightsMissing where one on the hub is not to be had."""
    return {part: _part_folder(folder, part) for part in PARTS}


def _part_folder(folder: Path, part: str) -> Path:
    """Where a base model is: in the folder itself, else where base.json says."""
    if (folder / part).is_dir() or not (folder / HUB).is_file():
        return folder / part
    source = _json(folder / HUB).get(part)
    if not isinstance(source, str):
        raise WeightsMissing(f"{folder / HUB} names no {part!r}, and {folder / part} is not there; {HELP}")
    return _from_hub(source, part)


def _from_hub(source: str, part: str) -> Path:
    """The folder of a part of a hub repository, "owner/name" or "owner/name@revision"; downloaded once.

    What `from_pretrained` would do with the id; but the stream's header needs a hash of the files.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    wanted = [f"{part}/*.json", f"{part}/{STEM}.safetensors", f"{part}/{STEM}-*.safetensors"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted)) / part
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsMissing(f"cannot get {part} of {source!r} from the hub: {reason}; {HELP}") from error


def _tensor_files(folder: Path) -> list[Path]:
    """The files of a model: one, or those of its index."""
    index = folder / f"{STEM}.safetensors.index.json"
    if index.is_file() and not (folder / f"{STEM}.safetensors").is_file():
        return [folder / name for name in sorted(set(_json(index).get("weight_map", {}).values()))]
    return [folder / f"{STEM}.safetensors"]


def _config_digest(file: Path) -> bytes:
    kept = {name: value for name, value in _json(file).items() if not name.startswith("_")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"cannot read {file}: {error}; {HELP}") from error
    if not isinstance(found, dict):
        raise WeightsMissing(f"{file} holds no JSON object; {HELP}")
    return found
