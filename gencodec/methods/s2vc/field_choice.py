"""Which motion field to send: vectors that fit, cost few bits, and let others cost few.

A search finds for each block what fits it best; what a vector costs depends on its neighbours, and what those
cost on it. So blocks take turns, in coding order: each takes, of what its neighbours have, what a decoder
expects and what the frame before had, whatever makes

    error under its window, or its square  +  price x bits of its own vector and of those that it predicts

least, all else given (iterated conditional modes, Besag 1986, Journal of the Royal Statistical Society B
48(3)). The price rises from walk to walk, so that good vectors spread before dear ones go. Encoders only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.motion_cost import FieldCost, Group, groups
from gencodec.entropy.motion_order import LIMIT
from gencodec.nn.block_search import at_steps
from gencodec.nn.block_windows import BlockWindows

if TYPE_CHECKING:
    from gencodec.entropy.motion import MotionCoder  # training does without the entropy coder

WALKS = (0.6, 1.2, 2.0)  # times the price that the search had, which looks at bits less closely
SPAN = 4 * LIMIT  # more than components of vectors differ by
AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x)  # neighbours whose vectors are tried


class Pair(NamedTuple):
    """The windows of two pictures, of which one is predicted from the other; motion has `steps` a pixel."""

    windows: BlockWindows
    steps: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor, steps: int) -> Pair:
        """From pictures (1,3,H,W) in [0,1]."""
        old, new = (picture.mean(1, keepdim=True) for picture in (before, after))
        return cls(BlockWindows(at_steps(old, steps), new, steps), steps)


@torch.no_grad()
def cheapest_field(
    coder: MotionCoder,
    pair: Pair,
    field: np.ndarray,
    inherited: np.ndarray | None,
    price: float,
    walks: Sequence[float] = WALKS,
    severe: float | None = None,
) -> np.ndarray:
    """`field` (2,h,w), integers in steps, changed to what makes error and bits small: int32.

    `price` of a bit as in `nn.block_search.block_motion`; `walks` say what is made of it, in turn.
    `inherited` (2,h,w) is what `coder` codes it against: the field of the frame before, or None. Errors count
    as their squares over `severe`, if it is given: a vector may take bits where much is wrong without it, not
    where noise fits noise a little better.
    """
    walk = _Walk(FieldCost(coder, inherited), pair.windows, field, inherited, severe)
    for factor in walks:
        walk.once(factor * price)
    return walk.field.reshape(field.shape).astype(np.int32)


class _Walk:
    """A field as it changes (2,h*w), with the error of each block."""

    def __init__(
        self,
        cost: FieldCost,
        windows: BlockWindows,
        field: np.ndarray,
        inherited: np.ndarray | None,
        severe: float | None,
    ) -> None:
        self.cost, self.windows, self.size, self.severe = cost, windows, field.shape[1:], severe
        self.field = field.reshape(2, -1).astype(np.int64)
        self.inherited = [] if inherited is None else [inherited.reshape(2, -1).astype(np.int64)]
        self.known: dict[int, float] = {}  # errors that were asked for before
        self.errors = self._errors(np.arange(self.field.shape[1]), self.field)

    def once(self, price: float) -> None:
        """Every block has its turn. What its neighbours have is as it was before the walk."""
        others = np.stack([*_around(self.field.reshape(2, *self.size)), *self.inherited])  # (k,2,h*w)
        for group in groups(*self.size):
            own, expected = self.field[:, group.blocks], self.cost.expected(self.field, group)
            tried = np.concatenate([own[None], expected[None], others[:, :, group.blocks]])
            is_new = _is_new(tried)
            has_choice = is_new.any(0)
            if has_choice.any():
                self._turn(group.of(has_choice), tried[..., has_choice], is_new[:, has_choice], price)

    def _turn(self, group: Group, tried: np.ndarray, is_new: np.ndarray, price: float) -> None:
        """Blocks of a group take the best of what is `tried` (k,2,n): what they have, or what is new."""
        is_open = is_new.copy()
        is_open[0] = True
        which, at = np.nonzero(is_open)  # by what is tried, so that what they have comes first
        vectors, own = tried[which, :, at].T, len(group.blocks)
        blocks = group.blocks[at]
        errors = np.concatenate([self.errors[blocks[:own]], self._errors(blocks[own:], vectors[:, own:])])
        costs = np.full(is_new.shape, np.inf)
        costs[which, at] = errors + price * self.cost.bits(self.field, group.of(at), vectors[None])[0]
        best = costs.argmin(0)
        missed = np.full(is_new.shape, np.inf)
        missed[which, at] = errors
        at = np.arange(own)
        self.field[:, group.blocks] = tried[best, :, at].T
        self.errors[group.blocks] = missed[best, at]

    def _errors(self, blocks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """What `BlockWindows.errors`, which is asked for each only once, count as."""
        keys = ((blocks * SPAN + vectors[0]) * SPAN + vectors[1]).tolist()
        asked = np.array([at for at, key in enumerate(keys) if key not in self.known], np.int64)
        found = self.windows.errors(blocks[asked], vectors[:, asked])
        if self.severe is not None:
            found = found**2 / self.severe
        self.known.update(zip((keys[at] for at in asked), found.tolist(), strict=True))
        return np.array([self.known[key] for key in keys])


def _is_new(tried: np.ndarray) -> np.ndarray:
    """Which of `tried` (k,2,n) do not come before in it, but for the first: bool (k,n)."""
    keys = tried[:, 0] * SPAN + tried[:, 1]
    earlier = np.tri(len(keys), k=-1, dtype=bool)[:, :, None]
    is_new = ~(earlier & (keys[:, None] == keys)).any(1)
    is_new[0] = False
    return is_new


def _around(field: np.ndarray) -> list[np.ndarray]:
    """What each block's eight neighbours have in field (2,h,w), (2,h*w) each; at borders its own."""
    height, width = field.shape[1:]
    padded = np.pad(field, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width].reshape(2, -1) for y, x in AROUND]
