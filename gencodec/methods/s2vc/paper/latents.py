"""The paper's latents as they are trained: hyper-analysis, prior, and the rate under both.

Like entropy/model.py, with two passes and a step of each latent that follows from z and earlier symbols.
`coder.PaperLatentCoder` codes the same symbols; nothing here needs the entropy coder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencodec.entropy.model import gaussian_bits, index_to_scale
from gencodec.entropy.prior import round_index
from gencodec.entropy.scales import NUM_SCALES
from gencodec.methods.s2vc.paper.blocks import Block4, Down
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.prior import PaperPrior, halves
from gencodec.nn.exact import ACT_MAX, round_clamp
from gencodec.nn.layers import compand
from gencodec.nn.quality import QualityTable


class PaperEstimate(NamedTuple):
    """y_hat in its steps and log2 of them, (B,C,H,W) each; estimated bits (B,) of y and of z; z_hat."""

    y_hat: Tensor
    log2_step: Tensor
    y_bits: Tensor
    z_bits: Tensor
    z_hat: Tensor


class PaperLatents(nn.Module):
    """Hyper-analysis (float, encoder only) and the exact prior."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        y = config.y_channels
        self.hyper_analysis = nn.Sequential(
            Block4(y, y), Block4(y, y), Down(y, y), Down(y, y), nn.Conv2d(y, config.z_channels, 1)
        )
        self.prior = PaperPrior(config)
        self.z_index = QualityTable(
            config.z_channels, 24.0, 40.0
        )  # training only: shipped tables are counted

    def hyper_symbols(self, y: Tensor) -> Tensor:
        """Integers z_hat (B,z_channels,H/4,W/4) within ±16 of y (B,y_channels,H,W), sides multiples of 4."""
        return round_clamp(self.hyper_analysis(compand(y)), 1.0, ACT_MAX)

    def forward(self, y: Tensor, quality: Tensor, state: Tensor) -> PaperEstimate:
        """Quantise y (B,y_channels,H,W), in steps of its gains, with straight-through gradients."""
        z_hat = self.hyper_symbols(y)
        z_scale = index_to_scale(self.z_index(quality).clamp(0, NUM_SCALES - 1))[:, :, None, None]
        z_bits = gaussian_bits(z_hat, z_scale).sum((1, 2, 3))
        params = self.prior.params(z_hat, quality, state)
        log2_step = self.prior.log2_step(params)
        scaled = y * torch.exp2(-log2_step)
        y_hat, bits = torch.zeros_like(y), torch.zeros_like(y)
        for turn, mask in enumerate(halves(*y.shape[1:], device=y.device)):
            mean, index = self.prior.predict(turn, params, y_hat, quality)
            coded = round_clamp(scaled - mean, 1.0)
            y_hat = torch.where(mask, coded + mean, y_hat)
            bits = torch.where(mask, gaussian_bits(coded, index_to_scale(round_index(index))), bits)
        return PaperEstimate(y_hat, log2_step, bits.sum((1, 2, 3)), z_bits, z_hat)
