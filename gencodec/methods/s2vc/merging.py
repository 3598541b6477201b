"""Merging of motion: blocks take what their neighbours lead a decoder to expect, where that costs little.

Block matching weighs a vector against its neighbours' median; what it costs follows from how
`entropy.motion` codes it, from coarse to fine. So the field is walked in that order once more, and a block
whose own vector gains less than its bits takes the expected one, which is next to free. For training, where
no tables are at hand yet; with tables, `field_choice` does better.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.motion_order import stages
from gencodec.nn.block_search import at_steps, block_errors

OTHER = 3.0  # bits of a component that is not as expected ...
DOUBLING = 1.4  # ... and for each doubling of 1 + distance


@torch.no_grad()
def merged(before: Tensor, after: Tensor, motion: Tensor, price: Tensor, steps: int) -> Tensor:
    """Motion (B,2,h,w) that is cheaper to code: integers, `steps` a pixel, from `after` back to `before`.

    Pictures (B,3,H,W) in [0,1]; `price` (B,) as in `nn.block_search.block_motion`.
    """
    old, new = (picture.mean(1, keepdim=True) for picture in (before, after))
    old = at_steps(old, steps)
    errors = block_errors(old, new, motion, steps)  # (B,h,w)
    for group in _groups(motion.shape[2], motion.shape[3]).to(motion.device):
        expected = expected_motion(motion)
        tried = torch.where(group, expected, motion)
        found = block_errors(old, new, tried, steps)
        taken = group & (found < errors + price[:, None, None] * _bits(motion - expected))
        motion, errors = torch.where(taken[:, None], tried, motion), torch.where(taken, found, errors)
    return motion


def expected_motion(motion: Tensor) -> Tensor:
    """What a decoder expects at each block, (B,2,h,w), once it knows those before; zero at the first.

    There it expects what the frame before had, of which nothing is known here: one block in 64.
    """
    places = _near(motion.shape[2], motion.shape[3]).to(motion.device)  # (4,h,w)
    middle = motion.flatten(2)[..., places].sort(2).values[:, :, 1:3].sum(2)
    expected = torch.floor((middle + 1) / 2)
    return torch.where(_groups(motion.shape[2], motion.shape[3])[0].to(motion.device), 0, expected)


def _bits(distance: Tensor) -> Tensor:
    """About what residuals (B,2,h,w) cost, (B,h,w)."""
    size = distance.abs()
    return ((size > 0) * OTHER + DOUBLING * torch.log2(1 + size)).sum(1)


@lru_cache(maxsize=8)
def _groups(height: int, width: int) -> Tensor:
    """Which blocks each group of the coding order holds, bool (7,h,w)."""
    groups = np.zeros((len(stages(height, width)), height, width), bool)
    for group, places in zip(groups, stages(height, width), strict=True):
        group[places.rows, places.columns] = True
    return torch.from_numpy(groups)


@lru_cache(maxsize=8)
def _near(height: int, width: int) -> Tensor:
    """The four neighbours of each block, as numbers of blocks, (4,h,w)."""
    near = np.zeros((4, height, width), np.int64)
    for places in stages(height, width):
        near[:, places.rows, places.columns] = places.near_rows * width + places.near_columns
    return torch.from_numpy(near)
