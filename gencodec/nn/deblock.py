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
    blocks = x.unflatten(3, (-1, SIZE))  # (B,C,H,k,SIZE)
    left, right = blocks[..., :-1, -REACH:], blocks[..., 1:, :REACH]
    gap = right[..., 0] - left[..., -1]
    bent = _second(left[..., -3:]) + _second(right[..., :3])
    share = (1 - _judged(bent) / bend).clamp(0, 1) * (2 - _judged(gap.abs()) / jump).clamp(0, 1)
    weights = (2 * torch.arange(REACH, device=x.device) + 1) / (4 * REACH)
    change = (gap * share)[..., None] * weights  # rises towards the edge
    before = F.pad(-change.flip(-1), (0, SIZE - REACH, 1, 0))
    behind = F.pad(change, (SIZE - REACH, 0, 0, 1))
    return x + (before + behind).flatten(3)


def _second(x: Tensor) -> Tensor:
    """How far the middle of three (...,3) is from the line between the others, twice."""
    return (x[..., 0] - 2 * x[..., 1] + x[..., 2]).abs()


def _judged(x: Tensor) -> Tensor:
    """Means over channels and LINES of (B,C,H,k), (B,1,H,k)."""
    return F.avg_pool2d(x.mean(1, keepdim=True), (LINES, 1)).repeat_interleave(LINES, 2)
