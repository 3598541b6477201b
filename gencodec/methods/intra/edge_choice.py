"""How strongly edges of a coded picture are smoothed, region by region: as looks best for its bits.

Where a picture is soft, jumps between blocks are faults, where it is sharp they are mostly its own, and no
rule tells one from the other as well as a look at the source. Encoders only.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.entropy.edges import BITS, NONE, neighbours, none_like
from gencodec.methods.intra.cheapest import cheapest
from gencodec.methods.intra.perceptual import FIDELITY
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.deblock import SIZE, STRENGTHS, deblocked, smoothed
from gencodec.nn.layers import halved
from gencodec.nn.shares import grid_of

TEXTURE = 2.0  # LPIPS that wholly other statistics are worth, see `LpipsLoss.by_region`


@torch.no_grad()
def choose_edges(
    picture: Tensor,
    x: Tensor,
    step: float,
    judge: LpipsLoss | None,
    price: float,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """Strengths, int32 (rows,columns), at which picture (1,3,H,W) is most like x, in [0,1] both.

    By LPIPS-Alex and statistics of its maps, or where `judge` is None by the squared error. `step` as in
    `deblocked`; `price`: LPIPS that a bit a pixel is worth; `before`: strengths of the frame before.
    """
    grid = grid_of(*x.shape[-2:])
    even = [np.full(grid, strength, np.int32) for strength in range(len(STRENGTHS))]
    shown = torch.cat([deblocked(picture, one, step) for one in even]).clamp(0, 1)
    missed = _missed(shown, x, grid, judge).cpu().numpy()
    bit = price / x[0, 0].numel()
    past, kept = (none_like(even[0]), even[0]) if before is None else (before, before)
    chosen = cheapest(missed / even[0].size, bit, BITS[past], NONE)
    left, above = neighbours(chosen)
    told = bit * (2 + float(BITS[past, left, above, chosen].sum()))
    return chosen if _mean(missed, chosen) + told < _mean(missed, kept) else kept


@torch.no_grad()
def best_blocks(pictures: Tensor, x: Tensor, step: Tensor, judge: LpipsLoss) -> Tensor:
    """Strengths of blocks, int64 (N,H/16,W/16), whatever they cost: for training on pictures (N,3,H,W).

    `step` (N,) of each; H and W multiples of two blocks, which have one strength. Judged at half of the size,
    four times as fast.
    """
    count, _, *size = pictures.shape
    height, width = (n // SIZE for n in size)
    every = torch.arange(len(STRENGTHS), device=pictures.device).repeat_interleave(count)
    blocks = every[:, None, None].expand(-1, height, width)
    many = step.repeat(len(STRENGTHS))
    shown = smoothed(pictures.repeat(len(STRENGTHS), 1, 1, 1), blocks, many).clamp(0, 1)
    target = halved(x).repeat(len(STRENGTHS), 1, 1, 1)
    missed = judge.by_region(halved(shown), target, (height // 2, width // 2), TEXTURE)
    best = missed.unflatten(0, (len(STRENGTHS), count)).argmin(0)
    return best.repeat_interleave(2, 1).repeat_interleave(2, 2)


def _missed(shown: Tensor, x: Tensor, grid: tuple[int, int], judge: LpipsLoss | None) -> Tensor:
    """How far each of pictures (N,3,H,W) is from x in each region, (N,rows,columns)."""
    if judge is not None:
        return judge.by_region(shown, x, grid, TEXTURE)
    return FIDELITY * F.adaptive_avg_pool2d((shown - x).square().mean(1, keepdim=True), grid)[:, 0]


def _mean(missed: np.ndarray, strengths: np.ndarray) -> float:
    """Over regions, of what each misses by its strength."""
    return float(np.take_along_axis(missed, strengths[None].astype(np.int64), 0).mean())
