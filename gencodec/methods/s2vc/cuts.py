"""Scene cuts: where nothing of the frame before helps to predict the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.layers import pad_to_multiple

SMALLER = 8  # the search sees one pixel for so many
BLOCK = 8  # small pixels a side
REACH = 6  # small pixels each way
SHARE, OFFSET = 0.8, 0.03  # a block is lost that misses by more than this share of its contrast, and this
FADE = 0.25  # of brightness, from frame to frame, that is not yet a cut
LOST = 0.37  # of all blocks: a cut. Neighbours in 71 clips had at most 0.27, but for three cuts from 0.46


def is_cut(before: Tensor, after: Tensor) -> bool:
    """Whether `after`, uint8 (3,H,W), begins a new scene: most of it has nowhere to come from."""
    return lost_share(before, after) > LOST


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
def lost_share(before: Tensor, after: Tensor) -> float:
    """Share of the blocks of `after` that no motion finds in `before`, 0..1; uint8 (3,H,W) both."""
    old, new = _small(before), _small(after)
    old = old + (new.mean() - old.mean()).clamp(-FADE, FADE)
    height, width = new.shape[-2:]
    moved = F.pad(old, (REACH,) * 4, mode="replicate")[0].unfold(1, height, 1).unfold(2, width, 1)
    errors = F.avg_pool2d((moved[0].flatten(0, 1)[:, None] - new).abs(), BLOCK)
    mean = F.interpolate(F.avg_pool2d(new, BLOCK), scale_factor=BLOCK)
    contrast = F.avg_pool2d((new - mean).abs(), BLOCK)[0]
    lost = errors.amin(0) > SHARE * contrast + OFFSET
    return float(lost.float().mean())


def _small(frame: Tensor) -> Tensor:
    """Brightness at an eighth of the size, (1,1,h,w) in [0,1], in whole blocks."""
    grey = pad_to_multiple(frame[None].float().mean(1, keepdim=True) / 255, SMALLER * BLOCK)
    return F.avg_pool2d(grey, SMALLER)
