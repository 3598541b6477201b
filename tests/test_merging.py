"""Merging of motion: what it expects is what the coder expects, and it trades error for bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.motion_counts import count_tables
from gencodec.entropy.motion_order import expected_at, stages
from gencodec.methods.s2vc.merging import expected_motion, merged
from gencodec.nn.block_search import at_steps, block_errors, block_motion


def pictures(seed: int, count: int = 2) -> Tensor:
    """Blurred noise, (count,3,128,160) in [0,1]."""
    noise = torch.rand(count, 3, 128, 160, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 5, 1, 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (8, 10), (16, 28)])
def test_what_is_expected_is_what_the_coder_expects(size: tuple[int, int]) -> None:
    field = np.random.default_rng(0).integers(-20, 21, (2, *size)).astype(np.int32)
    found = expected_motion(torch.from_numpy(field)[None].float())[0].numpy()
    for places in stages(*size):
        assert np.array_equal(found[:, places.rows, places.columns], expected_at(field, places, None))


def test_a_block_that_jumps_for_nothing_is_merged() -> None:
    flat = torch.full((1, 3, 128, 160), 0.5)
    motion = torch.zeros(1, 2, 8, 10)
    motion[0, :, 3, 5] = 7
    assert not merged(flat, flat, motion, torch.tensor([1e-4]), 1).any()


def test_motion_that_pays_is_kept() -> None:
    before = pictures(1, 1)
    after = before.roll((4, -6), (2, 3))
    motion = torch.tensor([6.0, -4.0])[None, :, None, None].expand(1, 2, 8, 10).contiguous()
    kept = merged(before, after, motion, torch.tensor([1e-4]), 1)
    assert torch.equal(kept[..., 1:-1, 1:-1], motion[..., 1:-1, 1:-1])


def test_a_dearer_bit_buys_fewer_of_them_and_more_error() -> None:
    before, after = pictures(2, 1), pictures(3, 1)
    found = (2 * block_motion(before, after, torch.tensor([1e-5]))).round()
    fields = [merged(before, after, found, torch.tensor([p]), 2) for p in (0.0, 5e-4, 5e-3)]
    coder = MotionCoder(count_tables([[f[0].int().numpy()] for f in fields]))
    bits = [coder.bits(f[0].int().numpy()) for f in fields]
    grey = [x.mean(1, keepdim=True) for x in (before, after)]
    errors = [float(block_errors(at_steps(grey[0], 2), grey[1], f, 2).mean()) for f in fields]
    assert bits[0] > 1.1 * bits[1] > 1.2 * bits[2]
    assert errors[0] < errors[1] < errors[2]


def test_a_batch_is_its_members() -> None:
    before, after = pictures(4), pictures(5)
    price = torch.tensor([1e-3, 1e-4])
    motion = block_motion(before, after, price).round()
    together = merged(before, after, motion, price, 1)
    for i in range(2):
        one = slice(i, i + 1)
        assert torch.equal(merged(before[one], after[one], motion[one], price[one], 1), together[one])
