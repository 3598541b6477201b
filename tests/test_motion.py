"""Block motion: it finds what moved, prefers what neighbours found, and leaves still pictures alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gencodec.nn.motion import BLOCK, block_motion, upsampled
from gencodec.nn.warp import warp

LITTLE = torch.tensor([0.001])


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Blurred noise, (1,3,height,width) in [0,1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 5, 1, 2)


@pytest.mark.parametrize("shift", [(0, 0), (6, -4), (-13, 7), (20, 20)])
def test_finds_a_shift_of_whole_pixels(shift: tuple[int, int]) -> None:
    x, y = shift
    before = texture(128, 160)
    after = before.roll((-y, -x), (2, 3))  # what is at p was at p + shift
    flow = block_motion(before, after, LITTLE)
    assert flow.shape == (1, 2, 128 // BLOCK, 160 // BLOCK)
    inner = flow[0, :, 2:-2, 2:-2].flatten(1)
    assert inner.median(1).values.tolist() == [x, y]
    moved = warp(before, upsampled(flow, BLOCK))[..., 32:-32, 32:-32]
    assert (moved - after[..., 32:-32, 32:-32]).abs().mean() < 0.01


def test_finds_half_pixels() -> None:
    before = texture(96, 96)
    after = (before + before.roll(-1, 3)) / 2
    flow = block_motion(before, after, LITTLE)[0, :, 1:-1, 1:-1].flatten(1)
    assert flow.median(1).values.tolist() == [0.5, 0]


def test_a_still_noisy_picture_has_no_motion() -> None:
    before = texture(96, 96)
    noise = 0.02 * torch.randn(before.shape, generator=torch.Generator().manual_seed(1))
    assert block_motion(before, before + noise, torch.tensor([0.01])).abs().max() == 0


def test_a_batch_is_its_members() -> None:
    pairs = [(texture(64, 64, seed), texture(64, 64, seed + 1)) for seed in (0, 5)]
    before, after = (torch.cat(pictures) for pictures in zip(*pairs, strict=True))
    together = block_motion(before, after, torch.tensor([0.001, 0.01]))
    for i, (pair, smoothness) in enumerate(zip(pairs, (0.001, 0.01), strict=True)):
        alone = block_motion(pair[0], pair[1], torch.tensor([smoothness]))
        assert torch.equal(together[i : i + 1], alone)
