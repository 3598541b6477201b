"""Base models from a folder as `diffusers` saves it: unet/, vae/, scheduler/. Only this file loads with it.

`diffusers` fills what a file lacks with random numbers and goes on; here everything that is missing or has
another shape is listed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gencodec.codec import WeightsMissing
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.generator import BaseModels, PaperGenerator, alpha_bar_of

PARTS = ("unet", "vae", "scheduler")
HELP = "docs/methods/s2vc-paper.md says how to assemble the folder"


def load_base(folders: Mapping[str, Path]) -> tuple[BaseModels | None, list[str]]:
    """Base models from the folder of each part, and what is wrong with their files; nothing is then built.

    Raises WeightsMissing where diffusers or peft are not installed.
    """
    diffusers = _diffusers()
    found: dict[str, Any] = {}
    problems: list[str] = []
    classes = (diffusers.UNet2DConditionModel, diffusers.AutoencoderKL)
    for part, cls in zip(PARTS, classes, strict=False):
        found[part], wrong = _model(cls, folders[part], part)
        problems += wrong
    try:
        scheduler = diffusers.DDIMScheduler.from_pretrained(str(folders["scheduler"]), local_files_only=True)
        alpha_bar = alpha_bar_of(scheduler)
    except (OSError, ValueError) as error:
        return None, [*problems, f"scheduler: {_first_line(error)}"]
    return (None if problems else BaseModels(found["unet"], found["vae"], alpha_bar)), problems


def _model(cls: Any, folder: Path, part: str) -> tuple[Any, list[str]]:
    """A model with every tensor that it needs, or what is wrong.

    Old files name the autoencoder's attention otherwise; `from_pretrained` knows those names, which is why
    the tensors are not simply read here. Without `low_cpu_mem_usage` it reports all instead of the first.
    """
    options = {"ignore_mismatched_sizes": True, "low_cpu_mem_usage": False, "output_loading_info": True}
    try:
        with _quiet():
            model, info = cls.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        return None, [f"{part}: {_first_line(error)}"]
    wrong = [f"{part}: no tensor {name}" for name in sorted(info["missing_keys"])]
    wrong += [f"{part}: {name} is not of this model" for name in sorted(info["unexpected_keys"])]
    for name, there, wanted in info["mismatched_keys"]:
        wrong.append(f"{part}: {name} is {tuple(there)}, not {tuple(wanted)}")
    return model, wrong


def _diffusers() -> Any:
    try:
        import diffusers
        import peft  # noqa: F401 - diffusers loads it by itself, with a worse message
    except ImportError as error:
        raise WeightsMissing(
            f'the paper preset needs diffusers and peft ({error}): pip install "gencodec[paper]"'
        ) from error
    return diffusers


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about what is reported here anyway."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def sketch(
    unet_config: Mapping[str, Any], vae_config: Mapping[str, Any], config: PaperConfig
) -> PaperGenerator:
    """The generator without numbers (meta device), from the configurations alone: names, shapes, counts.

    Raises ValueError for configurations that do not fit one another.
    """
    diffusers = _diffusers()
    with _quiet(), torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(dict(unet_config))
        vae = diffusers.AutoencoderKL.from_config(dict(vae_config))
        return PaperGenerator(BaseModels(unet, vae, alpha_bar=0.5), config)
