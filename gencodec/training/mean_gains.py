"""Which gains means have at each quality, found on pictures when weights are exported.

For one quality after the other: the gain at which bits x distortion is least, around an even growth. It
changes what later stages see, so each is tried with all stages. Distortion is the geometric mean of squared
error and LPIPS-Alex.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.means import MeanScale
from gencodec.methods.intra.model import IntraModel
from gencodec.metrics.lpips import Lpips
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.training.banks import sharpness
from gencodec.training.data import PictureBank

OCTAVES = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)  # around an even growth
DRAWN, KEPT = 128, 16  # pictures


def mixed(pictures: PictureBank, seed: int = 0) -> Tensor:
    """KEPT pictures (KEPT,3,H,W) from the softest to the sharpest of DRAWN, evenly."""
    x = pictures.batch(DRAWN, np.random.default_rng(seed))
    by_sharpness = sorted(range(DRAWN), key=lambda n: sharpness(x[n]))
    return x[by_sharpness[DRAWN // KEPT // 2 :: DRAWN // KEPT]]


@torch.inference_mode()
def fit_means(model: IntraModel, x: Tensor) -> None:
    """Set the gains of `model`'s prior, exact by now, by pictures x (B,3,H,W) in [0,1]."""
    gains, even, lpips = model.latents.prior.means.gains, MeanScale().gains.log2().tolist(), Lpips.load()
    for quality in range(NUM_QUALITIES):
        costs = [cost(model, lpips, x, quality, 2 ** (even[quality] + step)) for step in OCTAVES]
        gains[quality] = 2 ** (even[quality] + lowest(OCTAVES, costs))


def lowest(places: Sequence[float], costs: Sequence[float]) -> float:
    """Where a parabola through the least of the costs and both beside it is least; `places` evenly spaced."""
    at = min(range(1, len(costs) - 1), key=costs.__getitem__)
    before, here, behind = costs[at - 1 : at + 2]
    bend = before - 2 * here + behind
    moved = (before - behind) / (2 * bend) if bend > 0 else 0.0
    return places[at] + min(max(moved, -1), 1) * (places[1] - places[0])


@torch.inference_mode()
def cost(model: IntraModel, lpips: Lpips, x: Tensor, quality: int, gain: float) -> float:
    """Bits x distortion of pictures x at a gain, the mean of its logarithm; the gain stays."""
    asked = torch.full((len(x),), quality)
    model.latents.prior.means.gains[quality] = gain
    estimate = model.latents(model.transforms.to_latents(x, asked), asked)
    picture = model.transforms.to_linear_picture(estimate.y_hat, asked)[0].clamp(0, 1)
    error = (picture - x).square().mean((1, 2, 3))
    seen = lpips((255 * picture).round().to(torch.uint8), (255 * x).round().to(torch.uint8))
    return float((estimate.bits.clamp_min(1).log() + (error.log() + seen.log()) / 2).mean())
