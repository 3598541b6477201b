"""The order in which the vectors of a motion field are coded, from coarse to fine, and what each should be.

every 8th block ─► centres of the squares ─► middles of their sides ─► the same at 4, 2 and 1 blocks
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self

LIMIT = 255  # of a component of a vector, in steps
TOP = 8  # blocks between the vectors that are coded first
LEVELS = 3  # 4 blocks apart, 2, 1
NEIGHBOURS = 4
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
DIRECT = ((0, -1), (0, 1), (-1, 0), (1, 0))


class Places(NamedTuple):
    """Blocks that are coded together, and four known neighbours of each: indices into rows and columns."""

    level: int
    rows: np.ndarray  # (n)
    columns: np.ndarray
    near_rows: np.ndarray  # (4,n)
    near_columns: np.ndarray


@lru_cache(maxsize=8)
def stages(height: int, width: int) -> tuple[Places, ...]:
    """The blocks of a field in coding order."""
    return tuple(_stages(height, width))


def expected_at(known: np.ndarray, places: Places, before: np.ndarray | None) -> np.ndarray:
    """What `places` are expected to have, (2,n), from what is `known` (2,h,w) of their neighbours."""
    if places.level == 0:  # none is known there
        before = np.zeros_like(known) if before is None else before
        return before[:, places.rows, places.columns]
    near = np.sort(known[:, places.near_rows, places.near_columns], axis=1)  # (2,4,n)
    return (near[:, 1] + near[:, 2] + 1) >> 1


def spread_at(known: np.ndarray, places: Places) -> np.ndarray:
    """How far the neighbours of `places` lie apart, x and y together, (n)."""
    near = known[:, places.near_rows, places.near_columns]  # (2,4,n)
    return (near.max(1) - near.min(1)).sum(0)


class Candidates(NamedTuple):
    """Vectors (2,c,...) of which blocks may take one: first what is expected, last what neighbours have.

    number (c,...): 1 for the first and 1 more for each that is unlike those before it, 0 for the others.
    """

    vectors: np.ndarray
    number: np.ndarray
    agreeing: np.ndarray  # (...) neighbours that have what is expected
    has_before: bool

    @classmethod
    def at(cls, known: np.ndarray, places: Places, before: np.ndarray | None) -> Self:
        """Of `places`, from what is `known` (2,h,w) and the field before (2,h,w), or None."""
        near = known[:, places.near_rows, places.near_columns]
        there = None if before is None else before[:, places.rows, places.columns]
        return cls.of(expected_at(known, places, before), there, near)

    @classmethod
    def of(cls, expected: np.ndarray, before: np.ndarray | None, near: np.ndarray) -> Self:
        """From vectors (2,...) that are expected, that the frame before had, and of neighbours (2,4,...)."""
        others = [] if before is None else [np.broadcast_to(before, expected.shape)[:, None]]
        vectors = np.concatenate([expected[:, None], *others, near], 1)
        keys = _keys(vectors)
        is_new = [np.ones(keys.shape[1:], bool)]
        for at in range(1, len(keys)):
            is_new.append((keys[:at] != keys[at]).all(0))
        number = np.cumsum(is_new, 0) * is_new
        return cls(vectors, number, (keys[-NEIGHBOURS:] == keys[0]).sum(0), before is not None)

    @property
    def size(self) -> np.ndarray:
        """How many there are, no two alike, (...)."""
        return self.number.max(0)

    def choice(self, wanted: np.ndarray) -> np.ndarray:
        """The number of `wanted` (2,...) among them, int32 (...); 0 where it is none of them."""
        return ((_keys(self.vectors) == _keys(wanted)) * self.number).sum(0).astype(np.int32)

    def chosen(self, number: np.ndarray) -> np.ndarray:
        """The vectors (2,...) of these numbers (...), 1 to `size`."""
        at = (self.number == number).argmax(0)
        return np.take_along_axis(self.vectors, at[None, None], 1)[:, 0]


def _keys(vectors: np.ndarray) -> np.ndarray:
    """One integer for each of vectors (2,...), the same for none that differ."""
    return vectors[0].astype(np.int64) * 2**16 + vectors[1]


def _stages(height: int, width: int) -> Iterator[Places]:
    rows, columns = _grid(height, width, 0, 0, TOP, TOP)
    nothing = np.zeros((4, len(rows)), np.int64)
    yield Places(0, rows, columns, nothing + rows, nothing + columns)  # nothing is known yet
    for level, step in enumerate((4, 2, 1), 1):
        rows, columns = _grid(height, width, step, step, 2 * step, 2 * step)
        yield _with_neighbours(level, rows, columns, step, DIAGONAL, height, width)
        parts = [
            _grid(height, width, 0, step, 2 * step, 2 * step),
            _grid(height, width, step, 0, 2 * step, 2 * step),
        ]
        rows, columns = (np.concatenate(axis) for axis in zip(*parts, strict=True))
        yield _with_neighbours(level, rows, columns, step, DIRECT, height, width)


def _grid(
    height: int, width: int, top: int, left: int, down: int, across: int
) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.meshgrid(np.arange(top, height, down), np.arange(left, width, across), indexing="ij")
    return rows.ravel(), columns.ravel()


def _with_neighbours(
    level: int,
    rows: np.ndarray,
    columns: np.ndarray,
    step: int,
    around: tuple[tuple[int, int], ...],
    height: int,
    width: int,
) -> Places:
    """Neighbours `step` away; in place of one outside the one across, or else the first that is inside."""
    near = []
    for down, right in around:
        r = _inside(rows + step * down, rows - step * down, height)
        c = _inside(columns + step * right, columns - step * right, width)
        near.append((r, c, (r >= 0) & (c >= 0)))
    first_r, first_c = np.zeros_like(rows), np.zeros_like(columns)
    for r, c, there in reversed(near):
        first_r, first_c = np.where(there, r, first_r), np.where(there, c, first_c)
    near_rows = np.stack([np.where(there, r, first_r) for r, _, there in near])
    near_columns = np.stack([np.where(there, c, first_c) for _, c, there in near])
    return Places(level, rows, columns, near_rows, near_columns)


def _inside(wanted: np.ndarray, across: np.ndarray, size: int) -> np.ndarray:
    """`wanted` where it lies in 0..size-1, else `across`, else -1."""
    good = (wanted >= 0) & (wanted < size)
    spare = (across >= 0) & (across < size)
    return np.where(good, wanted, np.where(spare, across, -1))
