"""Motion fields: integer vectors of blocks, coded from coarse to fine under counted tables.

    what is expected, what the frame before had, what four known neighbours have ─► candidates, no two alike
    which of them a block takes, or none ─► for none: by how much x, then y, differ from what is expected

Neighbours (`motion_order`) are nearer at each level. The first vectors of all have none: these are coded by
what they differ by from those of the frame before. Which table a choice has follows from how many candidates
there are and how many neighbours have what is expected; that of a difference from how far the neighbours lie
apart, and for y also from the difference of x. All of it is integers. A field takes 20 stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from torch import Tensor

from gencodec.codec import CorruptStream
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.motion_order import LIMIT, Candidates, expected_at, spread_at, stages
from gencodec.entropy.motion_tables import NONE, NUM_TABLES, choice_table, difference_table
from gencodec.entropy.tables import CdfTables

# (symbols or None, table_index) -> symbols, both int32 (n)
Stage = Callable[[np.ndarray | None, np.ndarray], np.ndarray]


def code_field(
    field: np.ndarray | None, shape: tuple[int, int], code: Stage, before: np.ndarray | None = None
) -> np.ndarray:
    """Walk over a field (2,h,w) of integers within ±LIMIT; gives the field that `code` knows.

    `code` is called with the symbols where `field` is given and gives them back, else it reads them.
    `before` (2,h,w) is the field of the frame before, None behind a key frame. Raises CorruptStream for a
    choice that there is not.
    """
    known = np.zeros((2, *shape), np.int32)
    for places in stages(*shape):
        wanted = None if field is None else field[:, places.rows, places.columns]
        if places.level == 0:
            coded, is_free = expected_at(known, places, before), np.ones(len(places.rows), bool)
        else:
            coded, is_free = _chosen(Candidates.at(known, places, before), wanted, places.level, code)
        spread = spread_at(known, places)[is_free]
        wanted = None if wanted is None else wanted[:, is_free]
        coded[:, is_free] = _differing(coded[:, is_free], wanted, spread, places.level, code)
        known[:, places.rows, places.columns] = coded
    return known


def _chosen(
    candidates: Candidates, wanted: np.ndarray | None, level: int, code: Stage
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (2,n), what is expected where none was chosen, and where that is, bool (n)."""
    choice = code(
        None if wanted is None else candidates.choice(wanted),
        choice_table(level, candidates.size, candidates.agreeing, candidates.has_before),
    )
    if ((choice < NONE) | (choice > candidates.size)).any():
        raise CorruptStream("a packet chooses a motion that is not there to be chosen")
    return candidates.chosen(np.maximum(choice, 1)), choice == NONE


def _differing(
    expected: np.ndarray, wanted: np.ndarray | None, spread: np.ndarray, level: int, code: Stage
) -> np.ndarray:
    """Vectors (2,n), coded by what they differ by from what is `expected`."""
    found, missed = np.zeros_like(expected), np.zeros(expected.shape[1], np.int32)
    for component in (0, 1):
        index = difference_table(level, component, spread, missed)
        missed = code(
            None if wanted is None else (wanted[component] - expected[component]).astype(np.int32), index
        )
        found[component] = expected[component] + missed
    return found


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
        """Put a field (2,h,w) of integers within ±LIMIT into `encoder`; its symbols by stage, int32.

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
        """Read a field of `shape` (h,w): int32 (2,h,w), and its symbols. Raises CorruptStream."""
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

    def difference_bits(
        self, wanted: np.ndarray, expected: np.ndarray, spread: np.ndarray, level: int | np.ndarray
    ) -> np.ndarray:
        """Bits (...) of vectors (2,...) coded by what they differ by from those `expected`."""
        total, missed = np.zeros(1), np.zeros(1, np.int32)
        for component in (0, 1):
            index = difference_table(level, component, spread, missed)
            missed = wanted[component] - expected[component]
            total = total + self.costs[index, np.clip(missed, -2 * LIMIT, 2 * LIMIT) + 2 * LIMIT]
        return total

    @cached_property
    def costs(self) -> np.ndarray:
        """Bits of the symbols -2 LIMIT..2 LIMIT in every table, float32 (NUM_TABLES,4*LIMIT+1)."""
        symbols = np.arange(-2 * LIMIT, 2 * LIMIT + 1)
        return self.tables.bits(symbols, np.arange(NUM_TABLES)[:, None]).astype(np.float32)


def _size(field: np.ndarray) -> tuple[int, int]:
    return field.shape[1], field.shape[2]
