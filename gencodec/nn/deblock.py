"""Edges of blocks made smooth, in the coding loop: where both sides are flat, a jump between them is a fault.

The jump across an edge is spread over REACH pixels on either side,

    p_i + jump (2 i + 1) / 16,   q_i - jump (7 - 2 i) / 16,   i = 0 to 3 towards the right or downwards,

as far as its four lines are straight on both sides and the jump is not too large: two ramps in place of
HEVC's thresholds (Norkin et al. 2012, IEEE Transactions on Circuits and Systems for Video Technology 22(12)),
so that what rounds otherwise on another device stays a rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 16  # pixels from edge to edge
REACH = 4  # pixels on either side that change
LINES = 4  # that are judged together
STRENGTHS = ((0.0, 0.0), (0.25, 1.0), (1.0, 2.0), (4.0, 4.0))  # bends and jumps that are left alone, in steps


def deblocked(picture: Tensor, strength: int, step: float) -> Tensor:
    """A picture (B,C,H,W) with edges smooth, H and W multiples of SIZE; the same at strength 0.

    `strength` is an index of STRENGTHS, `step` what its thresholds are counted in, in the picture's units.
    """
    if not strength:
        return picture
    bend, jump = (step * threshold for threshold in STRENGTHS[strength])
    across = _smoothed(picture, bend, jump)
    return _smoothed(across.transpose(2, 3), bend, jump).transpose(2, 3)


def _smoothed(x: Tensor, bend: float, jump: float) -> Tensor:
    """Edges between columns alone."""
    if x.shape[3] == SIZE:
        return x  # it has none
    lines = x[..., SIZE // 2 : -SIZE // 2].unflatten(3, (-1, SIZE)).unbind(4)  # across edges
    left, right = lines[: SIZE // 2], lines[SIZE // 2 :]
    gap = right[0] - left[-1]
    bent = _second(*left[-3:]) + _second(*right[:3])
    share = (1 - _judged(bent) / bend).clamp(0, 1) * (2 - _judged(gap.abs()) / jump).clamp(0, 1)
    change = (gap * share)[..., None] * _ramps(x.device)
    return x + F.pad(change.flatten(3), (SIZE // 2, SIZE // 2))


def _ramps(device: torch.device) -> Tensor:
    """What of a jump comes to each of the SIZE pixels around it: rising towards it, falling behind it."""
    rising = (2 * torch.arange(REACH, device=device) + 1) / (4 * REACH)
    return F.pad(torch.cat([rising, -rising.flip(0)]), (SIZE // 2 - REACH, SIZE // 2 - REACH))


def _second(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """How far b is from the middle of a and c, twice."""
    return (a - 2 * b + c).abs()


def _judged(x: Tensor) -> Tensor:
    """Means over channels and LINES of (B,C,H,k), (B,1,H,k)."""
    return F.avg_pool2d(x.mean(1, keepdim=True), (LINES, 1)).repeat_interleave(LINES, 2)
