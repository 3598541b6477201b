"""Motion fields are chosen by what vectors really cost, to themselves and to those that they predict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.motion_cost import FieldCost, groups
from gencodec.entropy.motion_counts import count_tables
from gencodec.entropy.motion_order import LIMIT, expected_at, stages
from gencodec.methods.s2vc.field_choice import Pair, cheapest_field
from gencodec.nn.block_search import at_steps, block_motion
from gencodec.nn.block_windows import BlockWindows

HEIGHT, WIDTH = 8, 10  # blocks


def pictures(seed: int) -> Tensor:
    """Blurred noise, (1,3,128,160) in [0,1]."""
    noise = torch.rand(1, 3, 16 * HEIGHT, 16 * WIDTH, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 5, 1, 2)


def noisy_field(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH), reach: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-reach, reach + 1, (2, *size)).astype(np.int32)


def coder_of(*fields: np.ndarray) -> MotionCoder:
    """Tables counted where every field comes twice: what was before is what comes."""
    return MotionCoder(count_tables([[f, f] for f in fields]))


@pytest.fixture(scope="module")
def coder() -> MotionCoder:
    return coder_of(*(noisy_field(seed) for seed in range(3)))


# ---- what a vector costs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (3, 3), (8, 10), (17, 9)])
def test_costs_change_as_those_of_the_whole_field(
    size: tuple[int, int], known: bool, coder: MotionCoder
) -> None:
    field, other = noisy_field(1, size, 9), noisy_field(2, size, 30)
    before = noisy_field(3, size, 9) if known else None
    cost = FieldCost(coder, before)
    flat = field.reshape(2, -1)
    whole = coder.bits(field, before)
    chance = np.random.default_rng(0)
    for group in groups(*size):
        if not len(group.blocks):
            continue
        tried = np.stack([flat[:, group.blocks], other.reshape(2, -1)[:, group.blocks]])
        bits = cost.bits(flat, group, tried)
        at = int(chance.integers(len(group.blocks)))
        changed = flat.copy()
        changed[:, group.blocks[at]] = tried[1, :, at]
        gained = coder.bits(changed.reshape(field.shape), before) - whole
        assert bits[1, at] - bits[0, at] == pytest.approx(gained, abs=1e-3)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 10), (16, 28)])
def test_what_is_expected_is_what_the_coder_expects(
    size: tuple[int, int], known: bool, coder: MotionCoder
) -> None:
    field, before = noisy_field(4, size), noisy_field(5, size) if known else None
    cost = FieldCost(coder, before)
    for group, places in zip(groups(*size), stages(*size), strict=True):
        found = cost.expected(field.reshape(2, -1), group)
        assert np.array_equal(found, expected_at(field, places, before))


def test_vectors_at_the_limit_have_a_cost(coder: MotionCoder) -> None:
    field = np.full((2, HEIGHT, WIDTH), LIMIT, np.int32)
    cost = FieldCost(coder, -field)
    group = groups(HEIGHT, WIDTH)[0]
    assert np.isfinite(
        cost.bits(field.reshape(2, -1), group, -field.reshape(1, 2, -1)[..., group.blocks])
    ).all()


# ---- what a block misses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2])
def test_windows_are_what_plain_loops_find(steps: int) -> None:
    old, new = at_steps(pictures(0).mean(1, keepdim=True), steps), pictures(1).mean(1, keepdim=True)
    blocks = np.arange(HEIGHT * WIDTH)
    vectors = noisy_field(6, reach=40).reshape(2, -1)
    found = BlockWindows(old, new, steps).errors(blocks, vectors)
    line = 1 - np.abs((np.arange(32) + 0.5) / 16 - 1)
    window = line[:, None] * line / np.square(line.sum())
    a, b = (picture[0, 0].numpy() for picture in (old, new))
    assert found == pytest.approx([_missed(a, b, n, vectors[:, n], window) for n in blocks], abs=1e-6)


def _missed(a: np.ndarray, b: np.ndarray, block: int, vector: np.ndarray, window: np.ndarray) -> float:
    """Pixel by pixel, where both pictures go on beyond their edges as they end."""
    steps = len(a) // len(b)
    row, column = (16 * n - 8 for n in divmod(block, WIDTH))
    total = 0.0
    for y, x in np.ndindex(32, 32):
        there = [np.clip(n, 0, s - 1) for n, s in zip((row + y, column + x), b.shape, strict=True)]
        from_ = (steps * (row + y) + vector[1], steps * (column + x) + vector[0])
        here = [np.clip(n, 0, s - 1) for n, s in zip(from_, a.shape, strict=True)]
        total += window[y, x] * abs(float(a[here[0], here[1]]) - float(b[there[0], there[1]]))
    return total


def test_vectors_that_point_far_outside_see_the_edge() -> None:
    old, new = pictures(0).mean(1, keepdim=True), pictures(1).mean(1, keepdim=True)
    windows = BlockWindows(old, new, 1)
    far = [windows.errors(np.array([0]), np.array([[-reach], [-reach]])) for reach in (40, 255)]
    assert far[0] == pytest.approx(far[1])


# ---- which field is chosen --------------------------------------------------------------------------------


def test_a_block_that_jumps_for_nothing_falls_back() -> None:
    flat, still = torch.full((1, 3, 128, 160), 0.5), np.zeros((2, HEIGHT, WIDTH), np.int32)
    jumping = still.copy()
    jumping[:, 3, 5] = 7
    coder = coder_of(still, jumping)
    assert not cheapest_field(coder, Pair.of(flat, flat, 1), jumping, None, 1e-4).any()


def test_the_motion_of_the_frame_before_is_taken_where_it_is_as_good() -> None:
    flat = torch.full((1, 3, 128, 160), 0.5)
    before = noisy_field(0, reach=1)
    coder = coder_of(before, noisy_field(1, reach=1), noisy_field(2, reach=1))
    is_off = np.random.default_rng(0).random(before.shape[1:]) < 0.2
    field = np.where(is_off, noisy_field(3, reach=6), before)
    found = cheapest_field(coder, Pair.of(flat, flat, 1), field, before, 1e-4)
    assert coder.bits(found, before) < 1.2 * coder.bits(before, before) < 0.3 * coder.bits(field, before)


def test_a_vector_that_pays_stays() -> None:
    picture = pictures(1)
    pair = Pair.of(picture, picture.roll((4, -6), (2, 3)), 1)
    motion = np.tile(np.array([6, -4], np.int32)[:, None, None], (1, HEIGHT, WIDTH))
    coder = coder_of(motion, np.zeros_like(motion))
    kept = cheapest_field(coder, pair, motion, np.zeros_like(motion), 1e-4)
    assert np.array_equal(kept[:, 1:-1, 1:-1], motion[:, 1:-1, 1:-1])


def test_good_vectors_spread() -> None:
    picture = pictures(1)
    pair = Pair.of(picture, picture.roll((4, -6), (2, 3)), 1)
    motion = np.zeros((2, HEIGHT, WIDTH), np.int32)
    motion[:, 3:5, 4:6] = np.array([6, -4])[:, None, None]
    found = cheapest_field(coder_of(motion), pair, motion, None, 1e-5)
    reached = (found == np.array([6, -4])[:, None, None]).all(0)
    assert reached[2:6, 3:7].all()


@pytest.mark.parametrize(
    ("contrast", "severe", "stays"), [(1, 0.03, True), (0.1, 0.03, False), (0.1, None, True)]
)
def test_where_errors_count_as_squares_faint_ones_are_not_worth_a_vector(
    contrast: float, severe: float | None, stays: bool
) -> None:
    picture = 0.5 + contrast * (pictures(1) - 0.5)
    pair = Pair.of(picture, picture.roll((4, -6), (2, 3)), 1)
    motion = np.zeros((2, HEIGHT, WIDTH), np.int32)
    motion[:, 4, 5] = 6, -4
    still = np.zeros_like(motion)
    found = cheapest_field(coder_of(still, motion), pair, motion, still, 2e-4, walks=(1.0,), severe=severe)
    assert (found[:, 4, 5] == (6, -4)).all() == stays


def test_a_dearer_bit_buys_fewer_of_them_and_more_error(coder: MotionCoder) -> None:
    before, after = pictures(2), pictures(3)
    found = (2 * block_motion(before, after, torch.tensor([1e-5]))).round()[0].int().numpy()
    pair = Pair.of(before, after, 2)
    fields = [cheapest_field(coder, pair, found, None, price) for price in (0.0, 2e-4, 2e-3)]
    bits = [coder.bits(field) for field in fields]
    every = np.arange(HEIGHT * WIDTH)
    errors = [pair.windows.errors(every, field.reshape(2, -1)).mean() for field in fields]
    assert bits[0] > 1.1 * bits[1] > 1.2 * bits[2]
    assert errors[0] < errors[1] < errors[2]
