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
from gencodec.nn.deblock import STRENGTHS, deblocked
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


def _missed(shown: Tensor, x: Tensor, grid: tuple[int, int], judge: LpipsLoss | None) -> Tensor:
    """How far each of pictures (N,3,H,W) is from x in each region, (N,rows,columns)."""
    if judge is not None:
        return judge.by_region(shown, x, grid, TEXTURE)
    return FIDELITY * F.adaptive_avg_pool2d((shown - x).square().mean(1, keepdim=True), grid)[:, 0]


def _mean(missed: np.ndarray, strengths: np.ndarray) -> float:
    """Over regions, of what each misses by its strength."""
    return float(np.take_along_axis(missed, strengths[None].astype(np.int64), 0).mean())
