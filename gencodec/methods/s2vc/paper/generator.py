"""What renders a frame in one step: U-Net, x0, the autoencoder's decoder; behind the loop, in any precision.

    f_pix, tokens ─► U-Net at t = 999 ─► eps
    x0 = (r - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar) ─► decoder ─► x_hat

No noise is drawn: r stands where a sampler has its noisy latent. With Stable Diffusion 1.5's schedule x0 is
14.65 r - 14.61 eps, two large numbers that nearly cancel, so it is computed in float64.
Paper: S2VC (arXiv 2512.07480).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.pcodec import View
from gencodec.methods.s2vc.paper.unet import TIMESTEP, Adapter, GuidedUNet
from gencodec.methods.s2vc.paper.vae import use_windows


class BaseModels(NamedTuple):
    """What others have trained, and alpha_bar at t = 999 of the schedule that they used."""

    unet: Any  # diffusers' UNet2DConditionModel
    vae: Any  # its AutoencoderKL
    alpha_bar: float


class PaperRendered(NamedTuple):
    """The picture (B,3,H,W), not clamped, and the diffusion buffer for the next frame."""

    picture: Tensor
    levels: list[Tensor]


class PaperGenerator(nn.Module):
    """What is seen of a frame to its picture."""

    def __init__(self, base: BaseModels, config: PaperConfig) -> None:
        super().__init__()
        self.config, self.alpha_bar = config, base.alpha_bar
        self.guided = GuidedUNet(base.unet, config)
        self.vae: Any = base.vae
        use_windows(self.vae)

    def forward(self, view: View, adapter: Adapter, before: Sequence[Tensor] | None = None) -> PaperRendered:
        """Render `view`; `before` is the diffusion buffer, None for a key frame."""
        dtype = self.guided.unet.conv_in.weight.dtype
        eps, levels = self.guided(view.content.to(dtype), view.tokens.to(dtype), adapter, before)
        return PaperRendered(self.decode(self.x0(view.r, eps)), levels)

    def x0(self, r: Tensor, out: Tensor) -> Tensor:
        """What r (B,4,h,w) becomes with the U-Net's output, in the configured form; float32."""
        if self.config.form == "residual":
            return r.float() + out.float()
        noise = math.sqrt(1 - self.alpha_bar) * out.double()
        return ((r.double() - noise) / math.sqrt(self.alpha_bar)).float()

    def decode(self, x0: Tensor) -> Tensor:
        """Latent (B,4,h,w) -> picture (B,3,8h,8w) around [0,1], float32."""
        scaled = (x0 / self.vae.config["scaling_factor"]).to(self.vae.decoder.conv_in.weight.dtype)
        return self.vae.decode(scaled).sample.float() / 2 + 0.5

    @torch.no_grad()
    def latent(self, x: Tensor) -> Tensor:
        """The autoencoder's own latent (B,4,H/8,W/8) of pictures (B,3,H,W) in [0,1]; training only."""
        return self.vae.encode(2 * x - 1).latent_dist.mode() * self.vae.config["scaling_factor"]


def own_names(generator: PaperGenerator) -> list[str]:
    """Names of the tensors that are this project's: entrance, adapters, TCG. The rest are base models'."""
    names = generator.state_dict().keys()
    ours = ("guided.fusions.", "guided.unet.conv_in.")
    return [name for name in names if name.startswith(ours) or ".lora_" in name]


def alpha_bar_of(scheduler: Any) -> float:
    """alpha_bar at t = 999 of a DDIM scheduler. Raises ValueError for a shorter schedule."""
    if len(scheduler.alphas_cumprod) <= TIMESTEP:
        raise ValueError(f"the schedule has {len(scheduler.alphas_cumprod)} steps, {TIMESTEP + 1} are needed")
    return float(scheduler.alphas_cumprod[TIMESTEP])
