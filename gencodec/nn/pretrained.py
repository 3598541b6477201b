"""Base models that others have trained, from folders as `diffusers` saves them, or from the hub: strict.

`diffusers` fills what a file lacks with random numbers and goes on; here everything that is missing or has
another shape is listed. `advice` in every function ends the messages: where to read how a folder is made.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from gencodec.codec import WeightsMissing

HUB = "base.json"  # hub ids of what is not in the folder: {"unet": "owner/name", ...}
STEM = "diffusion_pytorch_model"  # of a file's name
Shapes = dict[str, "tuple[int, ...] | None"]  # of the tensors that a file must hold; None: checked elsewhere


def import_diffusers() -> Any:
    """The library. Raises WeightsMissing where it, or peft, is not installed."""
    try:
        import diffusers
        import peft  # noqa: F401 - diffusers loads it by itself, with a worse message
    except ImportError as error:
        raise WeightsMissing(
            f'the paper preset needs diffusers and peft ({error}): pip install "gencodec[paper]"'
        ) from error
    return diffusers


def load_model(cls: Any, folder: Path, part: str) -> tuple[Any, list[str]]:
    """A model of a class of diffusers with every tensor that it needs, and what is wrong with its files.

    Old files name the autoencoder's attention otherwise; `from_pretrained` knows those names, which is why
    the tensors are not simply read here. Without `low_cpu_mem_usage` it reports all instead of the first in
    old versions, too; but models that keep layers in float32 are only loaded with it.
    """
    in_float = bool(getattr(cls, "_keep_in_fp32_modules", None))
    options = {"ignore_mismatched_sizes": True, "low_cpu_mem_usage": in_float, "output_loading_info": True}
    try:
        with quiet():
            model, info = cls.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        return None, [f"{part}: {first_line(error)}"]
    wrong = [f"{part}: no tensor {name}" for name in sorted(info["missing_keys"])]
    wrong += [f"{part}: {name} is not of this model" for name in sorted(info["unexpected_keys"])]
    for name, there, wanted in info["mismatched_keys"]:
        wrong.append(f"{part}: {name} is {tuple(there)}, not {tuple(wanted)}")
    return model, wrong


def differences(wanted: Shapes, tensors: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with the tensors of a file of this project's, which must hold all of `wanted`."""
    missing = [f"no tensor {name}" for name in wanted if name not in tensors]
    other = [
        f"{name} is {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in wanted.items()
        if shape is not None and name in tensors and tuple(tensors[name].shape) != shape
    ]
    return [*missing, *other, *(f"{name} is not of this model" for name in tensors if name not in wanted)]


# ---- where the files are -----------------------------------------------------------------------------------


def part_folder(folder: Path, part: str, advice: str) -> Path:
    """Where a base model is: in the folder itself, else where base.json says. Raises WeightsMissing."""
    if (folder / part).is_dir() or not (folder / HUB).is_file():
        return folder / part
    source = read_json(folder / HUB, advice).get(part)
    if not isinstance(source, str):
        raise WeightsMissing(f"{folder / HUB} names no {part!r}, and {folder / part} is not there; {advice}")
    return _from_hub(source, part, advice)


def _from_hub(source: str, part: str, advice: str) -> Path:
    """The folder of a part of a hub repository, "owner/name" or "owner/name@revision"; downloaded once.

    What `from_pretrained` would do with the id; but the stream's header needs a hash of the files.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    wanted = [f"{part}/*.json", f"{part}/{STEM}.safetensors", f"{part}/{STEM}-*.safetensors"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted)) / part
    except (OSError, ValueError) as error:
        raise WeightsMissing(
            f"cannot get {part} of {source!r} from the hub: {first_line(error)}; {advice}"
        ) from error


def tensor_files(folder: Path, advice: str) -> list[Path]:
    """The files of a model: one, or those of its index."""
    index = folder / f"{STEM}.safetensors.index.json"
    if index.is_file() and not (folder / f"{STEM}.safetensors").is_file():
        return [
            folder / name for name in sorted(set(read_json(index, advice).get("weight_map", {}).values()))
        ]
    return [folder / f"{STEM}.safetensors"]


def config_digest(file: Path, advice: str) -> bytes:
    """SHA-256 of a configuration without the library's own notes, names that begin with "_"."""
    kept = {name: value for name, value in read_json(file, advice).items() if not name.startswith("_")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()


def read_json(file: Path, advice: str) -> dict[str, Any]:
    """A JSON object from a file. Raises WeightsMissing."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"cannot read {file}: {error}; {advice}") from error
    if not isinstance(found, dict):
        raise WeightsMissing(f"{file} holds no JSON object; {advice}")
    return found


# ---- the library's words -----------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings about what is reported here anyway."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_line(error: Exception) -> str:
    """Of what an error says, at most 300 characters."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
