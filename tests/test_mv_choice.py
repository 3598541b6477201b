"""The motion of MV frames: chosen by what is seen, of fields that take fewer and fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencodec.entropy.motion import MotionCoder
from gencodec.methods.diffsit.mv_choice import DEARER, best_seen, fields_from
from gencodec.methods.diffsit.stem import mv_field
from gencodec.methods.s2vc.field_choice import Pair
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.training.diffsit_sent import LOOP
from gencodec.weights import load_named

SIZE = (96, 128)


@pytest.fixture(scope="module")
def coder() -> MotionCoder:
    return MotionCoder.load(load_named(LOOP)[0])


@pytest.fixture(scope="module")
def distance() -> LpipsLoss:
    return LpipsLoss(Lpips.load(), half=False)


def texture(seed: int) -> Tensor:
    """Blurred noise, (1,3,96,128) in [0,1]."""
    noise = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    blurred = nn.functional.avg_pool2d(noise, 5, 1, 2)
    return (blurred - blurred.min()) / (blurred.max() - blurred.min())


def random_field(reach: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-reach, reach + 1, (2, SIZE[0] // 16, SIZE[1] // 16), np.int32)


def test_of_equal_pictures_the_one_of_fewer_bits(distance: LpipsLoss) -> None:
    shown = texture(0).expand(3, -1, -1, -1)
    assert best_seen(shown, texture(1), [300.0, 20.0, 100.0], 20, distance) == 1


def test_of_equal_bits_the_better_picture(distance: LpipsLoss) -> None:
    shown = torch.cat([texture(1), 0.7 * texture(0) + 0.3 * texture(1), texture(0)])
    assert best_seen(shown, texture(0), [50.0] * 3, 20, distance) == 2


@pytest.mark.parametrize(("bits", "best"), [(50.0, 1), (50_000.0, 0)])
def test_a_better_picture_is_worth_some_bits(bits: float, best: int, distance: LpipsLoss) -> None:
    shown = torch.cat([0.5 * texture(0) + 0.5 * texture(1), texture(0)])
    assert best_seen(shown, texture(0), [0.0, bits], 20, distance) == best


def test_fields_take_fewer_and_fewer_bits(coder: MotionCoder) -> None:
    pair = Pair.of(texture(0), texture(1), 1)
    fields = fields_from(random_field(8), coder, pair, None, 1e-4)
    bits = [coder.bits(field, None) for field in fields]
    assert len(fields) == 1 + len(DEARER)
    assert np.array_equal(fields[0], random_field(8))
    assert bits[0] > bits[1] > bits[2]


def test_what_cannot_be_cheaper_is_not_tried_twice(coder: MotionCoder) -> None:
    pair, still = Pair.of(texture(0), texture(0), 1), np.zeros_like(random_field(1))
    assert len(fields_from(still, coder, pair, None, 0.001)) == 1


def test_motion_that_shows_is_kept(coder: MotionCoder, distance: LpipsLoss) -> None:
    before = texture(0)
    x = before.roll((-4, 6), (2, 3))
    field = mv_field(x, before, 30, coder, None, distance)
    assert np.median(field[0]) == -6
    assert np.median(field[1]) == 4


def test_motion_that_nobody_sees_is_dropped(coder: MotionCoder, distance: LpipsLoss) -> None:
    backbone, x = texture(0), texture(1)  # nothing moves: best matches are by chance
    by_difference = mv_field(x, backbone, 50, coder)
    by_sight = mv_field(x, backbone, 50, coder, None, distance)
    assert coder.bits(by_sight, None) < 0.75 * coder.bits(by_difference, None)


def test_one_target_serves_many_pictures(distance: LpipsLoss) -> None:
    shown = torch.cat([texture(n) for n in range(3)])
    each = torch.cat([distance(one[None], texture(5)) for one in shown])
    assert torch.allclose(distance(shown, texture(5)), each, atol=1e-5)
