"""How things go on moving: the velocity that a restart's coded motion implies, and pictures moved on by it.

A restart is coded against the last coded frame, so its motion tells both sides, exactly and for nothing, how
fast every block went since. A median over neighbours takes out blocks that chose what is cheap to code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gencodec.methods.s2vc.model import STEPS_PER_PIXEL
from gencodec.nn.motion import upsampled
from gencodec.nn.warp import warp

AROUND = 5  # blocks a side of the median
PASSES = 2
BLOCK = 16


def velocity_of(motion: Tensor, distance: int) -> Tensor:
    """Pixels a frame (B,2,h,w), x and y, that lead back in time.

    `motion` (B,2,h,w) in half pixels, over `distance` frames.
    """
    velocity = motion.float() / (STEPS_PER_PIXEL * distance)
    for _ in range(PASSES):
        velocity = _median(velocity)
    return velocity


def moved_on(picture: Tensor, velocity: Tensor, ahead: Tensor) -> Tensor:
    """The picture (B,3,H,W) as it is `ahead` (B,n) frames later, (B,n,3,H,W); velocity (B,2,h,w) of blocks."""
    height, width = picture.shape[2:]
    flow = upsampled(velocity, BLOCK)[:, None, :, :height, :width] * ahead[:, :, None, None, None]
    count = ahead.shape[1]
    return warp(picture.repeat_interleave(count, 0), flow.flatten(0, 1)).unflatten(0, (-1, count))


def _median(field: Tensor) -> Tensor:
    b, _, height, width = field.shape
    near = F.unfold(F.pad(field, (AROUND // 2,) * 4, mode="replicate"), AROUND)
    return near.view(b, 2, AROUND**2, height, width).median(2).values
