"""Metrics of how a clip moves: warping error and flicker. Both work on pairs of consecutive frames.

Warping error (Lai et al. 2018, arXiv 1808.00449): the mean squared difference of a decoded frame and its
predecessor warped onto it by the source's flow, over pixels that the source shows in both, times 1000, for
values in [0,1]. The source's own value stands beside it: lower than that means smoothed.

Flicker: mean absolute difference between the decoded change from frame to frame and the source's, in 8-bit
levels; needs no flow, and is 0 where the decoder's error stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gencodec.metrics.frames import check_frames
from gencodec.nn.warp import warp

FlowNet = Callable[[Tensor, Tensor], Tensor]  # SPyNet or RAFT: their values differ, so never mix them


class WarpingError(NamedTuple):
    """Of the decoded frames and of the source, float (N,)."""

    decoded: Tensor
    source: Tensor


class Motion(NamedTuple):
    """Of the source: where each pixel of the later frame was, (N,2,H,W), and 1 where both frames show it."""

    back: Tensor
    visible: Tensor


@torch.no_grad()
def motion_of(net: FlowNet, source: tuple[Tensor, Tensor]) -> Motion:
    """Motion of pairs (before, after) of uint8 frames (N,3,H,W). Raises ValueError."""
    check_frames(*source)
    a, b = (frame.float() / 255 for frame in source)
    back = net(b, a)
    return Motion(back, visible_in_both(back, net(a, b)))


def warping_error(
    motion: Motion, source: tuple[Tensor, Tensor], decoded: tuple[Tensor, Tensor]
) -> WarpingError:
    """Warping error of pairs (before, after) of uint8 frames (N,3,H,W), by the source's motion."""
    check_frames(*source)
    check_frames(*decoded)
    (a, b), (x, y) = (tuple(frame.float() / 255 for frame in pair) for pair in (source, decoded))
    return WarpingError(_error(x, y, *motion), _error(a, b, *motion))


def visible_in_both(back: Tensor, forward: Tensor) -> Tensor:
    """1 where the later frame's flow and the earlier one's agree, (N,1,H,W).

    Sundaram et al. 2010 ("Dense point trajectories by GPU-accelerated large displacement optical flow",
    equation 5).
    """
    returned = warp(forward, back)
    gap = (back + returned).square().sum(1, keepdim=True)
    size = back.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    return (gap <= 0.01 * size + 0.5).to(back)


def flicker(source: tuple[Tensor, Tensor], decoded: tuple[Tensor, Tensor]) -> Tensor:
    """Flicker of pairs (before, after) of uint8 frames (N,3,H,W): float64 (N,), levels. Raises ValueError."""
    check_frames(*source)
    check_frames(*decoded)
    changes = [after.int() - before.int() for before, after in (source, decoded)]
    return (changes[1] - changes[0]).abs().double().mean((1, 2, 3))


def _error(before: Tensor, after: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    squared = (after - warp(before, flow)).square().mean(1, keepdim=True) * visible
    return 1000 * squared.sum((1, 2, 3)) / visible.sum((1, 2, 3)).clamp_min(1)
