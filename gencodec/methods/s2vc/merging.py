"""Merging of motion: blocks take what their neighbours lead a decoder to expect, where that costs little.

Block matching weighs a vector against its neighbours' median; what it costs follows from how
`entropy.motion` codes it, from coarse to fine. So the field is walked in that order once more, and a block
whose own vector gains less than its bits takes the expected one, which is next to free. At equal prediction
that takes a third of the motion's bits away. Where tables are at hand, a second walk (`cheaper`) knows what
each vector really costs, and tries the one of the frame before too: 10 to 20 % fewer bits of motion again.
Encoders only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.motion_order import Places, expected_at, stages
from gencodec.nn.block_search import at_steps, block_errors

if TYPE_CHECKING:
    from gencodec.entropy.motion import MotionCoder  # training does without the entropy coder

OTHER = 3.0  # bits of a component that is not as expected ...
DOUBLING = 1.4  # ... and for each doubling of 1 + distance


@torch.no_grad()
def merged(before: Tensor, after: Tensor, motion: Tensor, price: Tensor, steps: int) -> Tensor:
    """Motion (B,2,h,w) that is cheaper to code: integers, `steps` a pixel, from `after` back to `before`.

    Pictures (B,3,H,W) in [0,1]; `price` (B,) as in `nn.block_search.block_motion`.
    """
    pair = Pair.of(before, after, steps)
    errors = block_errors(pair.old, pair.new, motion, steps)  # (B,h,w)
    for group in _groups(motion.shape[2], motion.shape[3]).to(motion.device):
        expected = expected_motion(motion)
        tried = torch.where(group, expected, motion)
        found = block_errors(pair.old, pair.new, tried, steps)
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


class Pair(NamedTuple):
    """A picture (B,1,steps H,steps W) and the one that is predicted from it, (B,1,H,W).

    Motion has `steps` a pixel, 1 or 2.
    """

    old: Tensor
    new: Tensor
    steps: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor, steps: int) -> Pair:
        """From pictures (B,3,H,W) in [0,1]."""
        return cls(at_steps(before.mean(1, keepdim=True), steps), after.mean(1, keepdim=True), steps)

    def errors(self, field: np.ndarray) -> np.ndarray:
        """Mean absolute error of each block moved by field (2,h,w): (h,w)."""
        motion = torch.from_numpy(field).to(self.old.device)[None]
        return block_errors(self.old, self.new, motion, self.steps)[0].cpu().numpy()


@torch.no_grad()
def cheaper(
    coder: MotionCoder, pair: Pair, field: np.ndarray, inherited: np.ndarray | None, price: float
) -> np.ndarray:
    """`field` (2,h,w), or where error + `price` x bits is less, what is expected or was `inherited`.

    Fields are integers in steps; `inherited` is that of the frame before, None behind a key frame. What a
    choice does to blocks that come later is not looked at.
    """
    errors, field = pair.errors(field), field.copy()
    of_inherited = None if inherited is None else pair.errors(inherited)
    for places in stages(*field.shape[1:]):
        rows, columns = places.rows, places.columns
        best, error = field[:, rows, columns], errors[rows, columns]
        cost = error + price * coder.bits_at(field, places, inherited, best)
        for other, missed in _others(pair, field, places, inherited, of_inherited):
            costs = missed + price * coder.bits_at(field, places, inherited, other)
            taken = costs < cost
            best, error = np.where(taken, other, best), np.where(taken, missed, error)
            cost = np.minimum(cost, costs)
        field[:, rows, columns], errors[rows, columns] = best, error
    return field


def _others(
    pair: Pair,
    field: np.ndarray,
    places: Places,
    inherited: np.ndarray | None,
    of_inherited: np.ndarray | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vectors (2,n) that `places` could have as well, and the errors (n) that they leave."""
    rows, columns = places.rows, places.columns
    expected, tried = expected_at(field, places, inherited), field.copy()
    tried[:, rows, columns] = expected
    yield expected, pair.errors(tried)[rows, columns]
    if inherited is not None and of_inherited is not None:
        yield inherited[:, rows, columns], of_inherited[rows, columns]


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
