"""Edges of blocks made smooth, in the coding loop: where both sides are flat, a jump between them is a fault.

The jump across an edge is spread over pixels on either side, `reach` of them, i towards the right or down,

    p_i + jump (2 i + 1) / (4 reach),   q_i - jump (2 reach - 1 - 2 i) / (4 reach),   i = 0 to reach - 1

as far as its four lines are straight on both sides and the jump is not too large: two ramps in place of
HEVC's thresholds (Norkin et al. 2012, IEEE Transactions on Circuits and Systems for Video Technology 22(12)),
so that what rounds otherwise on another device stays a rounding. How strongly is told for each
region of `nn.shares`, and each side of an edge goes by its own: soft backgrounds want what fine texture does
not bear. An encoder tells, `entropy.edges`; 0 leaves a region as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.shares import grid_of

SIZE = 16  # pixels from edge to edge
LINES = 4  # that are judged together


class Strength(NamedTuple):
    """How far an edge is spread, and which bends and jumps are left alone, in steps."""

    reach: int
    bend: float
    jump: float


STRENGTHS = (
    Strength(0, 1.0, 1.0),  # nothing is changed
    Strength(8, 0.25, 1.0),
    Strength(8, 1.0, 2.0),
    Strength(6, 4.0, 4.0),
)


def no_edges(height: int, width: int) -> np.ndarray:
    """Strengths of a picture whose edges stay, int32 (rows,columns)."""
    return np.zeros(grid_of(height, width), np.int32)


def deblocked(picture: Tensor, strengths: np.ndarray, step: float) -> Tensor:
    """A picture (B,C,H,W) with edges smooth, H and W multiples of SIZE.

    `strengths`: indices (rows,columns) of STRENGTHS, a row and column for each region of `nn.shares.grid_of`.
    `step`: what thresholds are counted in, in the picture's units.
    """
    if not strengths.any():
        return picture
    height, width = (size // SIZE for size in picture.shape[-2:])
    blocks = of_blocks(strengths, height, width).to(picture.device)
    return smoothed(picture, blocks, picture.new_tensor(step))


def of_blocks(strengths: np.ndarray, height: int, width: int) -> Tensor:
    """Strengths (rows,columns) for each of (height,width) blocks, int64 (1,height,width)."""
    rows, columns = (
        np.arange(size) * regions // size
        for size, regions in zip((height, width), strengths.shape, strict=True)
    )
    return torch.from_numpy(strengths[rows][:, columns]).long()[None]


def smoothed(picture: Tensor, blocks: Tensor, step: Tensor) -> Tensor:
    """Pictures (B,C,H,W) with edges smooth by the strengths of blocks, int64 (B or 1,H/16,W/16).

    `step`, a scalar or (B,): as in `deblocked`, of all pictures or of each.
    """
    step = step.reshape(-1, 1, 1, 1)
    across = _across(picture, blocks, step)
    return _across(across.transpose(2, 3), blocks.transpose(1, 2), step).transpose(2, 3)


def _across(x: Tensor, blocks: Tensor, step: Tensor) -> Tensor:
    """Edges between columns alone."""
    if x.shape[3] == SIZE:
        return x  # it has none
    lines = x[..., SIZE // 2 : -SIZE // 2].unflatten(3, (-1, SIZE)).unbind(4)  # across edges
    left, right = lines[: SIZE // 2], lines[SIZE // 2 :]
    gap = right[0] - left[-1]
    bent = _judged(_second(*left[-3:]) + _second(*right[:3]))
    wide = _judged(gap.abs())
    rows = blocks.repeat_interleave(SIZE // LINES, 1)[:, None]  # (B,1,H/4,W/16)
    halves = zip((rows[..., :-1], rows[..., 1:]), _ramps(x.device).split(SIZE // 2, 1), strict=True)
    shares = torch.cat([_share(bent, wide, own, step)[..., None] * ramp[own] for own, ramp in halves], 4)
    change = gap[..., None] * shares.repeat_interleave(LINES, 2)
    return x + F.pad(change.flatten(3), (SIZE // 2, SIZE // 2))


def _share(bent: Tensor, wide: Tensor, own: Tensor, step: Tensor) -> Tensor:
    """How much of an edge is smoothed, (B,1,H/4,k), by the strengths of one side."""
    bend, jump = (bent.new_tensor([s[i] for s in STRENGTHS])[own] for i in (1, 2))
    return (1 - bent / (step * bend)).clamp(0, 1) * (2 - wide / (step * jump)).clamp(0, 1)


def _ramps(device: torch.device) -> Tensor:
    """What of a jump comes to each of the SIZE pixels around it, for every strength, (n,SIZE)."""
    rows = []
    for reach, _, _ in STRENGTHS:
        rising = (2 * torch.arange(reach, device=device) + 1) / max(4 * reach, 1)
        rows.append(F.pad(torch.cat([rising, -rising.flip(0)]), (SIZE // 2 - reach, SIZE // 2 - reach)))
    return torch.stack(rows)


def _second(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """How far b is from the middle of a and c, twice."""
    return (a - 2 * b + c).abs()


def _judged(x: Tensor) -> Tensor:
    """Means over channels and LINES of (B,C,H,k), (B,1,H/4,k)."""
    return F.avg_pool2d(x.mean(1, keepdim=True), (LINES, 1))
