"""Motion fields: integer vectors of blocks, coded from coarse to fine under counted tables.

Each vector is predicted by the middle of four neighbours that are known (`motion_order`), nearer ones at each
level, and the first ones by what the frame before had there. How far the neighbours lie apart chooses the
table, with where the vector of the frame before would fall; the y component also looks at what x missed by.
All of it is integers. A field takes 14 stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from gencodec.codec import CorruptStream
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.motion_order import LEVELS, LIMIT, Places, expected_at, stages
from gencodec.entropy.tables import CdfTables, quantise

SPREADS = np.array([1, 2, 3, 5, 9, 17])  # where a wider table begins
MISSES = np.array([1, 3])  # of x, for y's table
PER_LEVEL = (len(SPREADS) + 1) * (1 + len(MISSES) + 1)
SPATIAL = 2 + LEVELS * PER_LEVEL  # tables where no field is before; the first two are the top's
NEAR_BEFORE = 3  # steps: the vector before falls this near to what is expected, or beyond
NUM_TABLES = SPATIAL * (2 + 2 * NEAR_BEFORE)  # as often again for each place of the vector before
SHARED = 8.0  # counts that all places of the vector before stand for, together, in one's table

# (residuals or None, table_index) -> residuals, both int32 (n)
Stage = Callable[[np.ndarray | None, np.ndarray], np.ndarray]


def code_field(
    field: np.ndarray | None, shape: tuple[int, int], code: Stage, before: np.ndarray | None = None
) -> np.ndarray:
    """Walk over a field (2,h,w) of integers within ±LIMIT, x before y; gives the field that `code` knows.

    `code` is called with the residuals where `field` is given and gives them back, else it reads them.
    `before` (2,h,w) is the field of the frame before, None behind a key frame.
    """
    known = np.zeros((2, *shape), np.int32)
    for places in stages(*shape):
        missed = np.zeros(len(places.rows), np.int32)
        for component, expected in enumerate(expected_at(known, places, before)):
            index = index_at(known, places, before, component, expected, missed)
            wanted = None
            if field is not None:
                wanted = (field[component][places.rows, places.columns] - expected).astype(np.int32)
            missed = code(wanted, index)
            known[component][places.rows, places.columns] = expected + missed
    return known


def index_at(
    known: np.ndarray,
    places: Places,
    before: np.ndarray | None,
    component: int,
    expected: np.ndarray,
    missed: np.ndarray,
) -> np.ndarray:
    """Which table each of `places` has for a component, (n); `missed` (n) is what x was off by."""
    index = table_index(places.level, component, _spread(known, places), missed)
    if before is None:
        return index
    return index + SPATIAL * _place_before(before[component][places.rows, places.columns] - expected)


def table_index(
    level: int | np.ndarray, component: int, spread: np.ndarray, missed: np.ndarray
) -> np.ndarray:
    """Which table each residual has, uint16; a level for all, or levels from 1 on, of shapes that fit."""
    if isinstance(level, int) and level == 0:
        return np.full(spread.shape, component, np.uint16)
    bucket = np.searchsorted(SPREADS, spread, side="right")
    if component:
        bucket = (
            len(SPREADS) + 1 + bucket * (len(MISSES) + 1) + np.searchsorted(MISSES, abs(missed), side="right")
        )
    return (2 + (level - 1) * PER_LEVEL + bucket).astype(np.uint16)


class MotionCoder:
    """Fields to symbols of a packet and back."""

    def __init__(self, tables: CdfTables) -> None:
        if tables.num_tables != NUM_TABLES:
            raise ValueError(f"motion has {NUM_TABLES} tables, got {tables.num_tables}")
        self.tables = tables

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], prefix: str = "motion_tables") -> MotionCoder:
        """The tables of a weights file. Raises ValueError for others."""
        return cls(CdfTables.from_tensors(tensors, prefix))

    def encode(
        self, encoder: SymbolEncoder, field: np.ndarray, before: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Put a field (2,h,w) of integers within ±LIMIT into `encoder`; its residuals by stage, int32.

        `before` as in `code_field`.
        """
        symbols = []

        def put(wanted: np.ndarray | None, index: np.ndarray) -> np.ndarray:
            assert wanted is not None
            encoder.put(wanted, index, self.tables)
            symbols.append(wanted)
            return wanted

        code_field(field, _size(field), put, before)
        return symbols

    def decode(
        self, decoder: SymbolDecoder, shape: tuple[int, int], before: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read a field of `shape` (h,w): int32 (2,h,w), and its residuals. Raises CorruptStream."""
        symbols = []

        def get(_: np.ndarray | None, index: np.ndarray) -> np.ndarray:
            symbols.append(decoder.get(index, self.tables))
            return symbols[-1]

        field = code_field(None, shape, get, before)
        if np.abs(field).max(initial=0) > LIMIT:
            raise CorruptStream(
                f"a packet claims a motion of {np.abs(field).max()} steps; {LIMIT} is the most"
            )
        return field, symbols

    def bits_of(
        self,
        wanted: np.ndarray,
        expected: np.ndarray,
        spread: np.ndarray,
        level: int | np.ndarray,
        before: np.ndarray | None,
    ) -> np.ndarray:
        """Bits (...) of vectors `wanted` (2,...) where (2,...) is expected and neighbours lie `spread` apart.

        level as in `table_index`; before (2,...) are the vectors of the frame before, None where none are.
        """
        total, missed = 0.0, np.zeros(1, np.int32)
        for component in (0, 1):
            index = table_index(level, component, spread, missed)
            if before is not None:
                index = index + SPATIAL * _place_before(before[component] - expected[component])
            missed = wanted[component] - expected[component]
            total = total + self.costs[index, np.clip(missed, -2 * LIMIT, 2 * LIMIT) + 2 * LIMIT]
        return np.asarray(total)

    @cached_property
    def costs(self) -> np.ndarray:
        """Bits of residuals -2 LIMIT..2 LIMIT in every table, float32 (NUM_TABLES,4*LIMIT+1)."""
        residuals = np.arange(-2 * LIMIT, 2 * LIMIT + 1)
        return self.tables.bits(residuals, np.arange(NUM_TABLES)[:, None]).astype(np.float32)

    def bits(self, field: np.ndarray, before: np.ndarray | None = None) -> float:
        """What a field costs, about."""
        total = 0.0

        def count(wanted: np.ndarray | None, index: np.ndarray) -> np.ndarray:
            nonlocal total
            assert wanted is not None
            total += float(self.tables.bits(wanted, index).sum())
            return wanted

        code_field(field, _size(field), count, before)
        return total


def count_tables(clips: Sequence[Sequence[np.ndarray]]) -> CdfTables:
    """Tables from the fields (2,h,w) of clips: histograms with a little smoothing and of a wide distribution.

    The first field of a clip is that of the frame behind its key frame.
    """
    return count_pairs(
        (field, fields[number - 1] if number else None)
        for fields in clips
        for number, field in enumerate(fields)
    )


def count_pairs(pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> CdfTables:
    """The same from fields (2,h,w), each with what `code_field` is given as the field before."""
    wide = 2 * LIMIT
    counts = np.zeros((NUM_TABLES, 2 * wide + 1))

    def count(wanted: np.ndarray | None, index: np.ndarray) -> np.ndarray:
        assert wanted is not None
        np.add.at(counts, (index, wanted + wide), 1)
        return wanted

    for field, before in pairs:
        code_field(field, _size(field), count, before)
    counts = _with_shared(counts)
    place = np.abs(np.arange(-wide, wide + 1))
    flat = 0.5 ** (place / 12)
    pmfs = [_smoothed(row, flat / flat.sum()) for row in counts]
    radius = LIMIT // 2  # rarer ones take the escape
    kept = slice(wide - radius, wide + radius + 1)
    rows = [quantise(np.append(p[kept], max(1e-6, 1 - p[kept].sum()))) for p in pmfs]
    return CdfTables.from_counts(rows, [-radius] * len(rows))


def _place_before(distance: np.ndarray) -> np.ndarray:
    """1 to 7: where the vector before falls, from `distance` (n) to what is expected."""
    return (np.clip(distance, -NEAR_BEFORE, NEAR_BEFORE) + NEAR_BEFORE + 1).astype(np.uint16)


def _with_shared(counts: np.ndarray) -> np.ndarray:
    """counts (NUM_TABLES,n) with SHARED of what was counted at all places of the vector before."""
    parts = counts.reshape(-1, SPATIAL, counts.shape[1])
    together = parts.sum(0)
    together /= np.maximum(together.sum(1, keepdims=True), 1)
    return (parts + SHARED * together).reshape(counts.shape)


def _smoothed(counts: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """A distribution from counts (n): wider where little was counted."""
    total = counts.sum()
    near = np.convolve(counts, [0.25, 0.5, 0.25], "same")
    mixed = (0.9 * counts + 0.1 * near + 4 * flat) / (total + 4)
    return mixed / mixed.sum()


def _size(field: np.ndarray) -> tuple[int, int]:
    return field.shape[1], field.shape[2]


def _spread(known: np.ndarray, places: Places) -> np.ndarray:
    """How far the neighbours lie apart, x and y together, (n)."""
    near = known[:, places.near_rows, places.near_columns]  # (2,4,n)
    return (near.max(1) - near.min(1)).sum(0)
