"""How large the parts are at the paper's sizes, without their numbers: on torch's meta device.

The configurations are those that Wan-AI/Wan2.1-T2V-1.3B-Diffusers publishes, without fields at the library's
defaults; those of the autoencoder all are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gencodec.methods.diffsit.paper.base import sketch
from gencodec.methods.diffsit.paper.config import PaperConfig
from gencodec.methods.diffsit.paper.generator import PaperGenerator
from gencodec.methods.diffsit.paper.prompt import TOKENS
from gencodec.methods.diffsit.paper.stem_model import StemModel

WAN_VAE: dict[str, Any] = {}
WAN_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "ffn_dim": 8960,
    "num_layers": 30,
    "text_dim": 4096,
}

# Millions of parameters of Wan2.1's parts, counted by others
PUBLISHED = {"Wan encoder": 53.6, "Wan decoder": 73.3, "DiT with embedders": 1419.0}


def whole(config: PaperConfig | None = None) -> PaperGenerator:
    """The generator at full size, on the meta device."""
    prompt = torch.empty(TOKENS, WAN_TRANSFORMER["text_dim"], device="meta")
    return sketch(WAN_VAE, WAN_TRANSFORMER, config or PaperConfig(), prompt)


def parameters(config: PaperConfig | None = None) -> dict[str, int]:
    """Parameters of every part: those of `PUBLISHED`, and what this project has beside them."""
    generator = whole(config)
    vae, lora = generator.vae, 0
    for name, parameter in generator.dit.named_parameters():
        lora += parameter.numel() if ".lora_" in name else 0
    return {
        "Wan encoder": _count(vae.encoder, vae.quant_conv),
        "Wan decoder": _count(vae.decoder, vae.post_quant_conv),
        "DiT with embedders": _count(generator.dit) - lora,
        "LoRA": lora,
        "FTE": _count(generator.types) if generator.config.fte else 0,
        "empty prompt": generator.prompt.numel(),
    } | parameters_of_stem()


def parameters_of_stem() -> dict[str, int]:
    """Of the learned STEM, whose published sizes are not known."""
    with torch.device("meta"):
        model = StemModel()
    exact = [latents.prior for latents in model.codecs().values()]
    counts = {
        "STEM, motion of backbones": _count(model.motion) - _count(model.motion.latents.prior),
        "STEM, motion of MV frames": _count(model.mv) - _count(model.mv.latents.prior),
        "STEM, exact priors": _count(*exact, model.temporal),
    }
    return counts | {"STEM, the rest": _count(model) - sum(counts.values())}


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
