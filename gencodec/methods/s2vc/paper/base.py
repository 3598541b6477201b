"""Base models from a folder as `diffusers` saves it: unet/, vae/, scheduler/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.generator import BaseModels, PaperGenerator, alpha_bar_of
from gencodec.nn.pretrained import first_line, import_diffusers, load_model, quiet

PARTS = ("unet", "vae", "scheduler")
HELP = "docs/methods/s2vc-paper.md says how to assemble the folder"


def load_base(folders: Mapping[str, Path]) -> tuple[BaseModels | None, list[str]]:
    """Base models from the folder of each part, and what is wrong with their files; nothing is then built.

    Raises WeightsMissing where diffusers or peft are not installed.
    """
    diffusers = import_diffusers()
    found: dict[str, Any] = {}
    problems: list[str] = []
    classes = (diffusers.UNet2DConditionModel, diffusers.AutoencoderKL)
    for part, cls in zip(PARTS, classes, strict=False):
        found[part], wrong = load_model(cls, folders[part], part)
        problems += wrong
    try:
        scheduler = diffusers.DDIMScheduler.from_pretrained(str(folders["scheduler"]), local_files_only=True)
        alpha_bar = alpha_bar_of(scheduler)
    except (OSError, ValueError) as error:
        return None, [*problems, f"scheduler: {first_line(error)}"]
    return (None if problems else BaseModels(found["unet"], found["vae"], alpha_bar)), problems


def sketch(
    unet_config: Mapping[str, Any], vae_config: Mapping[str, Any], config: PaperConfig
) -> PaperGenerator:
    """The generator without numbers (meta device), from the configurations alone: names, shapes, counts.

    Raises ValueError for configurations that do not fit one another.
    """
    diffusers = import_diffusers()
    with quiet(), torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(dict(unet_config))
        vae = diffusers.AutoencoderKL.from_config(dict(vae_config))
        return PaperGenerator(BaseModels(unet, vae, alpha_bar=0.5), config)
