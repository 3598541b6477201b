"""Scene cuts: where nothing of the frame before helps to predict the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def scenes_of(frames: Iterable[Tensor], length: int) -> Iterator[list[Tensor]]:
    """Runs of at most `length` frames, uint8 (3,H,W), with no cut in them."""
    taken: list[Tensor] = []
    for frame in frames:
        if taken and (len(taken) == length or is_cut(taken[-1], frame)):
            yield taken
            taken = []
        taken.append(frame)
    if taken:
        yield taken


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
