"""Scene cuts: where nothing of the frame before helps to predict the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.layers import pad_to_multiple

SMALLER, USUAL = 8, 448  # the search sees one pixel for so many; the longer side of pictures at which it does
LEAST = 16  # small pixels on that side: there are as many in small pictures, where there can be
BLOCKS = (8, 4)  # small pixels a side: large ones hold more than they can follow, small ones fit by chance
REACH = 6  # small pixels each way
FLAT = 0.01  # of contrast, which every block is taken to have
FADE = 0.25  # of brightness, from frame to frame, that is not yet a cut
NOTICED = 0.03  # a mean error that is more than noise or a slow fade
UNMATCHED = 0.85  # of all contrast: a cut. Of 20,600 neighbours in 218 clips none has .84 to .87


def is_cut(before: Tensor, after: Tensor) -> bool:
    """Whether `after`, uint8 (3,H,W), begins a new scene: most of it has nowhere to come from."""
    return unmatched(before, after) > UNMATCHED


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive source frames of one GOP; `is_key` if the first begins it."""

    first_frame: int
    frames: list[Tensor]
    is_key: bool


def windows_of(frames: Iterable[Tensor], gop_length: int, size: int) -> Iterator[Window]:
    """Runs of at most `size` frames, uint8 (3,H,W), of one GOP, which ends at its length or at a cut."""
    taken: list[Tensor] = []
    first, start, age, before = 0, True, 0, None
    for frame in frames:
        ends = before is not None and (age == gop_length or is_cut(before, frame))
        if taken and (ends or len(taken) == size):
            yield Window(first, taken, start)
            first, taken, start = first + len(taken), [], False
        if ends:
            start, age = True, 0
        taken.append(frame)
        before, age = frame, age + 1
    if taken:
        yield Window(first, taken, start)


def scenes_of(frames: Iterable[Tensor], length: int) -> Iterator[list[Tensor]]:
    """Whole GOPs: runs of at most `length` frames, uint8 (3,H,W), with no cut in them."""
    return (window.frames for window in windows_of(frames, length, length))


@torch.no_grad()
def unmatched(before: Tensor, after: Tensor) -> float:
    """What no motion finds in `before` of `after`, uint8 (3,H,W) both: the error over the contrast.

    Blocks that take all from `before` have 0, and blocks that might as well be their own mean 1.
    """
    old, new = _small(before), _small(after)
    old = old + (new.mean() - old.mean()).clamp(-FADE, FADE)
    height, width = new.shape[-2:]
    moved = F.pad(old, (REACH,) * 4, mode="replicate")[0].unfold(1, height, 1).unfold(2, width, 1)
    missed = (moved[0].flatten(0, 1)[:, None] - new).abs()  # (motions,1,h,w)
    return sum(_over_contrast(missed, new, side) for side in BLOCKS) / len(BLOCKS)


def _over_contrast(missed: Tensor, new: Tensor, side: int) -> float:
    """The error of the best motion of each block, over what the block differs from its mean."""
    error = F.avg_pool2d(missed, side).amin(0)
    mean = F.interpolate(F.avg_pool2d(new, side), scale_factor=side)
    contrast = F.avg_pool2d((new - mean).abs(), side)
    return float(error.mean() / (contrast.mean() + FLAT)) if error.mean() > NOTICED else 0.0


def _small(frame: Tensor) -> Tensor:
    """Brightness at an eighth of the usual size, (1,1,h,w) in [0,1], in whole blocks."""
    longest = max(frame.shape[1:])
    factor = min(SMALLER, max(1, longest // LEAST)) * max(1, round(longest / USUAL))
    grey = pad_to_multiple(frame[None].float().mean(1, keepdim=True) / 255, factor * max(BLOCKS))
    return F.avg_pool2d(grey, factor)
