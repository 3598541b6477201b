"""Motion fields: every block once, the same by a slow reference, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest

from gencodec.codec import CorruptStream
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.motion import (
    LIMIT,
    NUM_TABLES,
    MotionCoder,
    code_field,
    count_tables,
    table_index,
)
from gencodec.entropy.motion_order import stages

SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (8, 8), (9, 17), (16, 28)]


def field(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth with some that jump, int32 (2,height,width)."""
    generator = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(height), np.arange(width)) // 3
    jumps = generator.integers(-40, 40, (2, height, width)) * (generator.random((2, height, width)) < 0.1)
    return (np.stack([slope, -slope]) + jumps + generator.integers(-1, 2, (2, height, width))).astype(
        np.int32
    )


@pytest.fixture(scope="module")
def coder() -> MotionCoder:
    return MotionCoder(count_tables([[field(16, 28, seed) for seed in range(1, 8)]]))


@pytest.mark.parametrize("size", SIZES)
def test_every_block_is_coded_once_from_known_ones(size: tuple[int, int]) -> None:
    known = np.zeros(size, bool)
    for places in stages(*size):
        assert not known[places.rows, places.columns].any()
        if places.level:
            assert known[places.near_rows, places.near_columns].all()
        known[places.rows, places.columns] = True
    assert known.all()


@pytest.mark.parametrize("has_before", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_field_comes_back(coder: MotionCoder, size: tuple[int, int], has_before: bool) -> None:
    sent, encoder = field(*size), SymbolEncoder()
    before = field(*size, seed=3) if has_before else None
    symbols = coder.encode(encoder, sent, before)
    payload = encoder.finish()
    decoder = SymbolDecoder(payload)
    got, read = coder.decode(decoder, size, before)
    decoder.finish()
    assert np.array_equal(got, sent)
    assert all(np.array_equal(a, b) for a, b in zip(symbols, read, strict=True))
    assert coder.bits(sent, before) <= 8 * len(payload) <= coder.bits(sent, before) + 40


def test_a_field_like_the_one_before_costs_less() -> None:
    still = [field(16, 28, seed) for seed in range(4)]
    coder = MotionCoder(count_tables([[one] * 6 for one in still]))
    other = field(16, 28, 9)
    assert coder.bits(other, other) < 0.5 * coder.bits(other)


def residuals_ref(sent: np.ndarray, before: np.ndarray | None) -> list[tuple[int, int]]:
    """(residual, table) of every component, block by block with plain loops."""
    _, height, width = sent.shape
    known: dict[tuple[int, int], tuple[int, int]] = {}
    out: list[tuple[int, int]] = []

    def near(r: int, c: int, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        found = []
        for down, right in offsets:
            row = r + down if 0 <= r + down < height else r - down
            column = c + right if 0 <= c + right < width else c - right
            found.append((row, column) if 0 <= row < height and 0 <= column < width else None)
        first = next(place for place in found if place is not None)
        return [known[place or first] for place in found]

    def stage(level: int, places: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> None:
        for component in (0, 1):
            for r, c in places:
                around = near(r, c, offsets) if offsets else [(0, 0)] * 4
                low, high = sorted(v[component] for v in around)[1:3]
                expected = (low + high + 1) // 2
                spread = sum(max(v[k] for v in around) - min(v[k] for v in around) for k in (0, 1))
                missed = int(sent[0, r, c]) - first_guess[r, c] if component else 0
                index = int(table_index(level, component, np.array([spread]), np.array([missed]))[0])
                if before is not None:
                    there = int(before[component, r, c])
                    expected = expected if level else there
                    index += 86 * (4 + max(-3, min(3, there - expected)))
                if not component:
                    first_guess[r, c] = expected
                out.append((int(sent[component, r, c]) - expected, index))
        for r, c in places:
            known[r, c] = (int(sent[0, r, c]), int(sent[1, r, c]))

    first_guess: dict[tuple[int, int], int] = {}
    stage(0, [(r, c) for r in range(0, height, 8) for c in range(0, width, 8)], [])
    for level, step in ((1, 4), (2, 2), (3, 1)):
        odd_rows, odd_columns = range(step, height, 2 * step), range(step, width, 2 * step)
        even_rows, even_columns = range(0, height, 2 * step), range(0, width, 2 * step)
        corners = [(-step, -step), (-step, step), (step, -step), (step, step)]
        stage(level, [(r, c) for r in odd_rows for c in odd_columns], corners)
        sides = [(r, c) for r in even_rows for c in odd_columns] + [
            (r, c) for r in odd_rows for c in even_columns
        ]
        stage(level, sides, [(0, -step), (0, step), (-step, 0), (step, 0)])
    return out


@pytest.mark.parametrize("has_before", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_residuals_and_tables_are_those_of_the_reference(size: tuple[int, int], has_before: bool) -> None:
    sent = field(*size, seed=5)
    before = sent + np.random.default_rng(0).integers(-5, 6, sent.shape) if has_before else None
    seen: list[tuple[int, int]] = []

    def note(wanted: np.ndarray | None, index: np.ndarray) -> np.ndarray:
        assert wanted is not None
        seen.extend(zip(wanted.tolist(), index.tolist(), strict=True))
        return wanted

    assert np.array_equal(code_field(sent, size, note, before), sent)
    assert seen == residuals_ref(sent, before)


def test_still_pictures_cost_next_to_nothing() -> None:
    still = np.zeros((2, 16, 28), np.int32)
    coder = MotionCoder(count_tables([[still] * 20 + [field(16, 28)]]))
    assert coder.bits(still) < 0.1 * coder.bits(field(16, 28))


def test_a_motion_beyond_the_limit_is_corrupt(coder: MotionCoder) -> None:
    sent = np.zeros((2, 2, 2), np.int32)
    sent[0, 0, 0] = LIMIT + 1
    encoder = SymbolEncoder()
    coder.encode(encoder, sent)
    with pytest.raises(CorruptStream, match="motion"):
        coder.decode(SymbolDecoder(encoder.finish()), (2, 2))


def test_other_tables_are_refused(coder: MotionCoder) -> None:
    assert coder.tables.num_tables == NUM_TABLES
    with pytest.raises(ValueError, match="tables"):
        MotionCoder(type(coder.tables).from_counts([np.array([65535, 1])], [0]))
