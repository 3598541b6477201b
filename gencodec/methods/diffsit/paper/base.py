"""The parts of Wan2.1 from a folder as `diffusers` saves it: vae/, transformer/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencodec.methods.diffsit.paper.config import PaperConfig
from gencodec.methods.diffsit.paper.generator import BaseModels, PaperGenerator
from gencodec.nn.pretrained import import_diffusers, load_model, quiet

PARTS = ("vae", "transformer")
CONFIG = "config.json"
HELP = "docs/methods/diffsit-paper.md says how to assemble the folder"
PATCH = [1, 2, 2]  # of the transformer: latents, rows, columns
STAGES = [False, True, True]  # of the autoencoder: three halve the picture, two of them time


def load_base(folders: Mapping[str, Path], prompt: Tensor) -> tuple[BaseModels | None, list[str]]:
    """Base models from the folder of each part, and what is wrong with their files; nothing is then built.

    Raises WeightsMissing where diffusers or peft are not installed.
    """
    classes = _classes()
    found = {part: load_model(classes[part], folders[part], part) for part in PARTS}
    problems = [problem for _, wrong in found.values() for problem in wrong]
    if not problems:
        problems = misfits(found["vae"][0].config, found["transformer"][0].config, prompt.shape)
    if problems:
        return None, problems
    return BaseModels(found["vae"][0], found["transformer"][0], prompt.float()), []


def misfits(vae: Mapping[str, Any], transformer: Mapping[str, Any], prompt: tuple[int, ...]) -> list[str]:
    """Why these are not parts of one Wan2.1, if so; `prompt` is the shape of the embedding."""
    latents, width = vae["z_dim"], transformer["text_dim"]
    problems = [
        f"transformer: {name} is {transformer[name]}, the latents have {latents} channels"
        for name in ("in_channels", "out_channels")
        if transformer[name] != latents
    ]
    problems += [
        f"vae: {name} has {len(vae[name])} numbers for {latents} channels"
        for name in ("latents_mean", "latents_std")
        if len(vae[name]) != latents
    ]
    if list(vae["temperal_downsample"]) != STAGES or vae.get("patch_size") or vae.get("is_residual"):
        problems.append("vae: not that of Wan2.1, which takes 4 frames and 8x8 pixels to a latent")
    if list(transformer["patch_size"]) != PATCH or transformer.get("image_dim"):
        problems.append(f"transformer: not that of text to video with patches of {PATCH}")
    if len(prompt) != 2 or prompt[1] != width:
        problems.append(f"the empty prompt is {tuple(prompt)}, the transformer takes (tokens, {width})")
    return problems


def sketch(
    vae: Mapping[str, Any], transformer: Mapping[str, Any], config: PaperConfig, prompt: Tensor
) -> PaperGenerator:
    """The generator without numbers (meta device), from the configurations alone: names, shapes, counts."""
    classes = _classes()
    with quiet(), torch.device("meta"):
        autoencoder = classes["vae"].from_config(dict(vae))
        model = classes["transformer"].from_config(dict(transformer))
        return PaperGenerator(BaseModels(autoencoder, model, prompt.to("meta")), config)


def _classes() -> dict[str, Any]:
    diffusers = import_diffusers()
    return dict(zip(PARTS, (diffusers.AutoencoderKLWan, diffusers.WanTransformer3DModel), strict=True))
