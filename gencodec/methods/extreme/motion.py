"""How things go on moving: the velocity that a restart's coded motion implies, and pictures moved on by it.

A restart is coded against the last coded frame, so its motion tells both sides, exactly and for nothing, how
fast every block went since. A median over neighbours takes out blocks that chose what is cheap to code. And
an encoder may tell how the camera moves, a pan: predictors then see and show a picture that stands still.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.methods.extreme.events import PAN_LIMIT, PAN_UNIT, STILL
from gencodec.methods.s2vc.model import STEPS_PER_PIXEL
from gencodec.nn.motion import BLOCK, upsampled
from gencodec.nn.warp import warp

COARSE, REACH = 4, 12  # pixels a side that the pan is first searched in; such pixels each way
OTHER = 24.0  # grey levels: what differs by more is something else
AROUND = 5  # blocks a side of the median
PASSES = 2


def velocity_of(motion: Tensor, distance: int) -> Tensor:
    """Pixels a frame (B,2,h,w), x and y, that lead back in time.

    `motion` (B,2,h,w) in half pixels, over `distance` frames.
    """
    velocity = motion.float() / (STEPS_PER_PIXEL * distance)
    for _ in range(PASSES):
        velocity = _median(velocity)
    return velocity


def moved_on(picture: Tensor, velocity: Tensor, ahead: Tensor) -> Tensor:
    """The picture (B,3,H,W) as it is `ahead` (B,n) frames later, (B,n,3,H,W), by its blocks' velocity."""
    height, width = picture.shape[2:]
    flow = upsampled(velocity, BLOCK)[:, None, :, :height, :width] * ahead[:, :, None, None, None]
    count = ahead.shape[1]
    return warp(picture.repeat_interleave(count, 0), flow.flatten(0, 1)).unflatten(0, (-1, count))


def panned(frame: Tensor, pan: tuple[int, int], frames: int) -> Tensor:
    """A frame (3,H,W) as a camera that pans sees it `frames` frames later; edges repeated.

    `pan` in steps as in `events.Event`; whole pixels, halves rounded up.
    """
    if pan == STILL:
        return frame
    height, width = frame.shape[-2:]
    x, y = ((2 * step * frames + PAN_UNIT) // (2 * PAN_UNIT) for step in pan)
    rows = (torch.arange(height) + y).clamp(0, height - 1)
    columns = (torch.arange(width) + x).clamp(0, width - 1)
    return frame[:, rows][:, :, columns]


@torch.no_grad()
def pan_between(before: Tensor, after: Tensor, frames: int) -> tuple[int, int]:
    """The pan of `after`, `frames` frames behind `before`, uint8 (3,H,W) both: encoders search it.

    The one at which most pixels differ little; single things that move on their own do not count for more
    than they are large.
    """
    old, new = (f.float().mean(0)[None, None] for f in (before, after))
    reach = max(1, min(REACH, min(new.shape[2:]) // (3 * COARSE)))
    small = [F.avg_pool2d(x, COARSE, ceil_mode=True) for x in (old, new)]
    x, y = _nearest(small[0], small[1], 0, 0, reach)
    x, y = _nearest(old, new, COARSE * x, COARSE * y, COARSE - 1)
    steps = [(2 * PAN_UNIT * n + frames) // (2 * frames) for n in (x, y)]
    return (max(-PAN_LIMIT, min(steps[0], PAN_LIMIT)), max(-PAN_LIMIT, min(steps[1], PAN_LIMIT)))


def _nearest(old: Tensor, new: Tensor, x: int, y: int, reach: int) -> tuple[int, int]:
    """The shift within `reach` of (x, y) that makes old (1,1,H,W) most like new."""
    height, width = new.shape[2:]
    most = reach + max(abs(x), abs(y))
    wide = F.pad(old, (most,) * 4, mode="replicate")[0, 0]

    def error(place: tuple[int, int]) -> float:
        left, top = place[0] + most, place[1] + most
        part = wide[top : top + height, left : left + width]
        return float((part - new[0, 0]).abs_().clamp_(max=OTHER).mean())

    around = range(-reach, reach + 1)
    places = [(x + column, y + row) for row in around for column in around]
    return min([(x, y), *places], key=error)  # the first of equals


def _median(field: Tensor) -> Tensor:
    b, _, height, width = field.shape
    near = F.unfold(F.pad(field, (AROUND // 2,) * 4, mode="replicate"), AROUND)
    return near.view(b, 2, AROUND**2, height, width).median(2).values
