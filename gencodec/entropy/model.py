"""The shared latent model as it is trained: a prior, and the rate of latents under it.

Rate and reconstruction both see rounded symbols, with straight-through gradients. Uniform noise in the rate
(Ballé et al. 2017, arXiv 1611.01704) is the custom, but most latents of these rates are zero, and there the
noisy estimate was eight times the true one (at 0.02 bpp). `latents.LatentCoder` codes the same symbols.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencodec.entropy.prior import round_index
from gencodec.entropy.scales import NUM_SCALES, SCALE_MAX, SCALE_MIN, SKIPPED_SCALES
from gencodec.entropy.staged import StagedPrior
from gencodec.nn.exact import round_clamp

TAIL = 4.2  # deviations beyond which less than one count of 65536 is left: the tables' escape
SKIPPED_RESIDUALS = 2  # what a prediction misses has long tails: where nothing is expected, much may come
LOG_SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (NUM_SCALES - 1)


class LatentEstimate(NamedTuple):
    """y_hat (B,C,H,W) and its estimated bits (B,).

    `symbols` and `scale_index` (B,C,H,W) are what y is coded as, and under which scale.
    """

    y_hat: Tensor
    bits: Tensor
    symbols: Tensor
    scale_index: Tensor


def index_to_scale(index: Tensor) -> Tensor:
    """Standard deviation of a scale index 0..63: log-spaced from 0.11 to 32."""
    return SCALE_MIN * torch.exp(index * LOG_SCALE_STEP)


def gaussian_bits(residual: Tensor, scale: Tensor) -> Tensor:
    """-log2 P of the unit interval around `residual` under a normal of deviation `scale`, elementwise.

    Beyond `TAIL` it costs what an escape does, about 16 bits and 2 for each doubling of the distance. A
    probability that is clamped instead has no gradient: deviations predicted too small for large residuals
    would never be put right.
    """
    upper = (0.5 - residual.abs()) / scale
    near = upper.clamp_min(-TAIL)
    mass = torch.erfc(-near / math.sqrt(2)) - torch.erfc((1 / scale - near) / math.sqrt(2))
    nats = math.log(2) - torch.log(mass)  # erfc, as torch's ndtr is 0 beyond 5.5 deviations
    escape = 2 * torch.log1p(TAIL / 2 * (near - upper))  # of the same slope at TAIL
    return (nats + escape) / math.log(2)


class LatentModel(nn.Module):
    """A prior, and what its latents cost."""

    def __init__(self, prior: StagedPrior) -> None:
        super().__init__()
        self.prior = prior
        self.skip = SKIPPED_RESIDUALS if prior.centred else SKIPPED_SCALES  # tables below are not coded

    @torch.no_grad()
    def calibrate(self, y: Tensor, quality: Tensor) -> None:
        """Let the scales begin at each channel's deviation in y (B,y_channels,H,W); the same arguments.

        A bias that has to grow to -8 would take a run's first thousands of steps.
        """
        deviation = y.square().mean((2, 3)).sqrt().clamp_min(SCALE_MIN)
        self.prior.begin_at(torch.log(deviation / SCALE_MIN) / LOG_SCALE_STEP, quality)

    def forward(self, y: Tensor, quality: Tensor, extra: Tensor | None = None) -> LatentEstimate:
        """Quantise y (B,y_channels,H,W), in quantisation steps, and estimate its bits; quality (B,) int64."""
        y_hat, symbols, indices = (torch.zeros_like(y) for _ in range(3))  # without gradients
        bits = y.new_zeros(len(y))
        for number, turn in enumerate(self.prior.turns(y.shape[2], y.shape[3], y.device)):
            mean, index = self.prior.predict(number, y_hat, quality, extra)
            index = round_index(index)
            coded = round_clamp(self._residual(turn.of(y), mean, index), 1.0)
            bits = bits + self._bits(coded[..., turn.mask], index[..., turn.mask])
            with torch.no_grad():
                turn.put(y_hat, coded + mean)
                turn.put(symbols, coded)
                turn.put(indices, index)
        y_hat = y_hat + (y - y.detach())  # a mean cancels out: coded + mean has the gradient of y
        return LatentEstimate(y_hat, bits, symbols, indices)

    def _bits(self, coded: Tensor, index: Tensor) -> Tensor:
        """Of symbols (B,n) under scale indices (B,n): (B,)."""
        bits = gaussian_bits(coded, index_to_scale(index))
        return (bits if self.training else torch.where(index < self.skip, 0.0, bits)).sum(1)

    def _residual(self, y: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """y - mean; outside of training zero where the coder codes nothing, as `LatentCoder` does."""
        return y - mean if self.training else torch.where(index < self.skip, 0.0, y - mean)
