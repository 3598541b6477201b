"""Motion fields: every block once, the same by a slow reference, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest

from gencodec.codec import CorruptStream
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.motion import MotionCoder, code_field
from gencodec.entropy.motion_counts import count_tables
from gencodec.entropy.motion_order import LIMIT, stages
from gencodec.entropy.motion_tables import NUM_TABLES, choice_table, difference_table

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


Vector = tuple[int, int]


class Reference:
    """(symbol, table) of every stage, block by block with plain loops."""

    def __init__(self, sent: np.ndarray, before: np.ndarray | None) -> None:
        self.sent, self.before = sent, before
        self.known: dict[Vector, Vector] = {}
        self.out: list[tuple[int, int]] = []

    def walk(self) -> list[tuple[int, int]]:
        _, height, width = self.sent.shape
        top = [(r, c) for r in range(0, height, 8) for c in range(0, width, 8)]
        self.top(top)
        for level, step in ((1, 4), (2, 2), (3, 1)):
            odd_rows, odd_columns = range(step, height, 2 * step), range(step, width, 2 * step)
            even_rows, even_columns = range(0, height, 2 * step), range(0, width, 2 * step)
            corners = [(-step, -step), (-step, step), (step, -step), (step, step)]
            self.stage(level, [(r, c) for r in odd_rows for c in odd_columns], corners)
            sides = [(r, c) for r in even_rows for c in odd_columns]
            sides += [(r, c) for r in odd_rows for c in even_columns]
            self.stage(level, sides, [(0, -step), (0, step), (-step, 0), (step, 0)])
        return self.out

    def top(self, places: list[Vector]) -> None:
        expected = [(0, 0) if self.before is None else vector(self.before, place) for place in places]
        self.differing(0, [(place, there, 0) for place, there in zip(places, expected, strict=True)])
        self.known.update((place, vector(self.sent, place)) for place in places)

    def stage(self, level: int, places: list[Vector], offsets: list[Vector]) -> None:
        left: list[tuple[Vector, Vector, int]] = []
        for place in places:
            around, own = self.near(place, offsets), vector(self.sent, place)
            expected = middle(around, 0), middle(around, 1)
            there = [] if self.before is None else [vector(self.before, place)]
            options = list(dict.fromkeys([expected, *there, *around]))
            count, agreeing = np.array([len(options)]), np.array([around.count(expected)])
            choice = options.index(own) + 1 if own in options else 0
            table = choice_table(level, count, agreeing, self.before is not None)
            self.out.append((choice, int(table[0])))
            spread = sum(max(v[k] for v in around) - min(v[k] for v in around) for k in (0, 1))
            left += [] if choice else [(place, expected, spread)]
        self.differing(level, left)
        self.known.update((place, vector(self.sent, place)) for place in places)

    def differing(self, level: int, places: list[tuple[Vector, Vector, int]]) -> None:
        for component in (0, 1):
            for place, expected, spread in places:
                missed = [a - b for a, b in zip(vector(self.sent, place), expected, strict=True)]
                index = difference_table(level, component, np.array([spread]), np.array([missed[0]]))
                self.out.append((missed[component], int(index[0])))

    def near(self, place: Vector, offsets: list[Vector]) -> list[Vector]:
        _, height, width = self.sent.shape
        found = []
        for down, right in offsets:
            row = place[0] + down if 0 <= place[0] + down < height else place[0] - down
            column = place[1] + right if 0 <= place[1] + right < width else place[1] - right
            found.append((row, column) if 0 <= row < height and 0 <= column < width else None)
        first = next(there for there in found if there is not None)
        return [self.known[there or first] for there in found]


def vector(field: np.ndarray, place: Vector) -> Vector:
    row, column = place
    return int(field[0, row, column]), int(field[1, row, column])


def middle(around: list[Vector], component: int) -> int:
    low, high = sorted(v[component] for v in around)[1:3]
    return (low + high + 1) // 2


@pytest.mark.parametrize("has_before", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_symbols_and_tables_are_those_of_the_reference(size: tuple[int, int], has_before: bool) -> None:
    sent = field(*size, seed=5)
    before = sent + np.random.default_rng(0).integers(-5, 6, sent.shape) if has_before else None
    seen: list[tuple[int, int]] = []

    def note(wanted: np.ndarray | None, index: np.ndarray) -> np.ndarray:
        assert wanted is not None
        seen.extend(zip(wanted.tolist(), index.tolist(), strict=True))
        return wanted

    assert np.array_equal(code_field(sent, size, note, before), sent)
    assert seen == Reference(sent, before).walk()


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


def test_a_choice_that_there_is_not_is_corrupt() -> None:
    def read(_: np.ndarray | None, index: np.ndarray) -> np.ndarray:
        return np.full(len(index), 2, np.int32)  # where all vectors known are alike, there is but one

    with pytest.raises(CorruptStream, match="chosen"):
        code_field(None, (8, 8), read, None)


def test_other_tables_are_refused(coder: MotionCoder) -> None:
    assert coder.tables.num_tables == NUM_TABLES
    with pytest.raises(ValueError, match="tables"):
        MotionCoder(type(coder.tables).from_counts([np.array([65535, 1])], [0]))
