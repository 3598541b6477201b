"""How large the parts are at the paper's sizes, without their numbers: on torch's meta device.

The configurations of the base models are those that runwayml/stable-diffusion-v1-5 and
stabilityai/stable-diffusion-2-1 publish, without fields at the library's defaults.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gencodec.methods.s2vc.paper.base import sketch
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.generator import PaperGenerator
from gencodec.methods.s2vc.paper.pcodec import PCodec
from gencodec.methods.s2vc.paper.unet import ADAPTERS

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SD21_VAE: dict[str, Any] = {
    "sample_size": 768,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}

# Millions of parameters, from the sizes of the released files and the paper's layout
PUBLISHED = {
    "encoder": 37.35,
    "decoder": 37.06,
    "semantic head": 31.06,
    "feature extractor": 16.1,
    "content head": 7.46,
    "prior fusion": 3.56,
    "spatial prior": 3.48,
    "feature adaptors": 3.99,
    "temporal prior": 2.1,
    "hyper": 1.73,
    "embedding": 0.0741,  # .07 in print, one 8x8 convolution to 384 channels
    "P codec": 143.98,
    "U-Net": 859.5,
    "LoRA iframe": 67.25,
    "LoRA pframe": 67.25,
    "TCG 1": 12.5,
    "TCG 2": 44.2,
    "TCG 3": 168.0,
    "VAE decoder": 49.5,
    "VAE encoder": 34.2,
}


def parts_of_codec(model: PCodec) -> dict[str, list[nn.Module]]:
    """The modules of each published part of the P codec."""
    prior = model.latents.prior
    hyper = [prior.hyper_in, prior.hyper_up1, prior.hyper_mid, prior.hyper_up2, prior.hyper_quality]
    return {
        "encoder": [model.encoder],
        "decoder": [model.decoder],
        "semantic head": [model.semantics],
        "feature extractor": [model.extractor],
        "content head": [model.content],
        "prior fusion": [prior.fuse_in, prior.fuse_mid, prior.fuse_out, prior.fuse_quality],
        "spatial prior": [prior.near_in, prior.near_mid, prior.near_out, prior.near_quality],
        "feature adaptors": [model.adaptor_p, model.adaptor_i],
        "temporal prior": [model.temporal, prior.read_in, prior.read_out],
        "hyper": [model.latents.hyper_analysis, *hyper],
        "embedding": [model.embed],
    }


def parameters(config: PaperConfig | None = None) -> dict[str, int]:
    """Parameters of every part: those of `PUBLISHED`, and what this project has beside them."""
    config = config or PaperConfig()
    with torch.device("meta"):
        model = PCodec(config)
    counts = {name: _count(*modules) for name, modules in parts_of_codec(model).items()}
    counts["P codec"] = sum(counts.values())
    counts["key frames"] = _count(model.key)
    counts["reduction"] = _count(model.reduction)
    return counts | _of_generator(sketch(SD15_UNET, SD21_VAE, config))


def _of_generator(generator: PaperGenerator) -> dict[str, int]:
    guided = generator.guided
    named = list(guided.unet.named_parameters())
    lora = {a: sum(p.numel() for name, p in named if f".{a}." in name) for a in ADAPTERS}
    fusions = {f"TCG {i + 1}": _count(fusion) for i, fusion in enumerate(guided.fusions)}
    return {
        "U-Net": _count(guided.unet) - sum(lora.values()),
        **{f"LoRA {name}": count for name, count in lora.items()},
        **fusions,
        "VAE decoder": _count(generator.vae.decoder, generator.vae.post_quant_conv),
        "VAE encoder": _count(generator.vae.encoder, generator.vae.quant_conv),
    }


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
