"""Smooth edges: the filter against a plain twin, and as encoders choose it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.methods.intra import edge_choice
from gencodec.methods.intra.edge_choice import choose_edges
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.deblock import STRENGTHS, deblocked, no_edges, of_blocks, smoothed
from gencodec.nn.shares import grid_of
from gencodec.training import edges
from gencodec.training.edges import best_blocks

ALL = range(len(STRENGTHS))
STEP = 0.05


def drawn(height: int, width: int, seed: int = 0) -> Tensor:
    """Soft pictures (2,3,H,W) that jump at the edges of blocks of 16."""
    chance = torch.Generator().manual_seed(seed)
    blocks = torch.rand(2, 3, height // 16, width // 16, generator=chance)
    jumps = 0.15 * blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return 0.4 + jumps + 0.004 * torch.rand(2, 3, height, width, generator=chance)


def even(strength: int, picture: Tensor) -> np.ndarray:
    return np.full(grid_of(*picture.shape[-2:]), strength, np.int32)


def twin(picture: Tensor, strengths: np.ndarray, step: float) -> Tensor:
    """`deblocked` line by line, edge by edge, side by side."""
    x = picture.double().clone()
    down, right = x.shape[2] // 16, x.shape[3] // 16
    regions = strengths[np.arange(down) * strengths.shape[0] // down]
    blocks = regions[:, np.arange(right) * strengths.shape[1] // right]
    for _ in range(2):  # the second time columns are rows
        before = x.clone()
        for image, top, edge in np.ndindex(len(x), x.shape[2] // 4, x.shape[3] // 16 - 1):
            at, rows = 16 * (edge + 1), slice(4 * top, 4 * top + 4)
            lines = before[image, :, rows, at - 4 : at + 4]  # (C,4,8)
            gap = lines[..., 4] - lines[..., 3]
            bent = (lines[..., 1] - 2 * lines[..., 2] + lines[..., 3]).abs()
            bent = bent + (lines[..., 4] - 2 * lines[..., 5] + lines[..., 6]).abs()
            for side in (0, 1):
                reach, bend, jump = STRENGTHS[blocks[top // 4, edge + side]]
                flat = min(max(1 - float(bent.mean()) / (bend * step), 0), 1)
                small = min(max(2 - float(gap.abs().mean()) / (jump * step), 0), 1)
                for i in range(reach):
                    change = flat * small * (2 * i + 1) / (4 * reach) * gap
                    if side == 0:
                        x[image, :, rows, at - reach + i] += change
                    else:
                        x[image, :, rows, at + reach - 1 - i] -= change
        x, blocks = x.transpose(2, 3), blocks.T
    return x


@pytest.mark.parametrize("strength", [*ALL[1:], None])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 48), (64, 32), (80, 96)])
def test_the_filter_is_its_twin(strength: int | None, height: int, width: int) -> None:
    picture = drawn(height, width)
    strengths = even(strength or 0, picture)
    if strength is None:
        strengths = np.random.default_rng(0).integers(1, len(STRENGTHS), strengths.shape).astype(np.int32)
    smooth = deblocked(picture, strengths, STEP)
    assert torch.allclose(smooth.double(), twin(picture, strengths, STEP), atol=1e-6)
    if max(height, width) > 16:
        assert not torch.equal(smooth, picture)


def test_what_is_not_touched() -> None:
    picture = drawn(48, 48)
    assert deblocked(picture, no_edges(48, 48), STEP) is picture
    edge = torch.zeros(1, 3, 32, 32)
    edge[..., 16:] = 1.0  # a jump that no rounding makes
    assert torch.equal(deblocked(edge, even(2, edge), STEP), edge)
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(deblocked(noise, even(1, noise), STEP), noise), "texture"


def test_a_region_goes_by_its_own_strength() -> None:
    picture = drawn(32, 96)
    strengths = np.array([[0, 3, 0]], np.int32)
    smooth, whole = (deblocked(picture, s, STEP) for s in (strengths, even(3, picture)))
    assert torch.equal(smooth[..., :32], picture[..., :32])
    assert torch.equal(smooth[..., 64:], picture[..., 64:])
    assert torch.allclose(smooth[..., 32:64], whole[..., 32:64], atol=0.02)
    assert not torch.equal(smooth[..., 32:64], picture[..., 32:64])


def test_blocks_have_the_strength_of_their_region() -> None:
    strengths = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert of_blocks(strengths, 4, 6)[0].tolist() == strengths.repeat(2, 0).repeat(2, 1).tolist()
    odd = of_blocks(strengths, 3, 5)[0]
    assert odd.shape == (3, 5)
    assert set(odd.flatten().tolist()) == set(range(6))


def test_each_picture_of_a_batch_has_steps_of_its_own() -> None:
    picture, blocks = drawn(48, 64), torch.stack([torch.full((3, 4), 3), torch.full((3, 4), 2)])
    both = smoothed(picture, blocks, torch.tensor([0.02, 0.08]))
    for i, (strength, step) in enumerate([(3, 0.02), (2, 0.08)]):
        alone = picture[i : i + 1]
        assert torch.allclose(both[i : i + 1], deblocked(alone, even(strength, alone), step), atol=1e-6)


@pytest.mark.parametrize("strength", ALL[1:])
def test_turned_pictures_are_smoothed_alike(strength: int) -> None:
    picture = drawn(48, 64)
    turned = deblocked(picture.flip(3).flip(2), even(strength, picture), STEP).flip(2).flip(3)
    assert torch.allclose(turned, deblocked(picture, even(strength, picture), STEP), atol=1e-6)


def test_gradients_pass() -> None:
    picture = drawn(32, 32).requires_grad_()
    deblocked(picture, even(3, picture), STEP).square().sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().min() > 0


# ---- the choice --------------------------------------------------------------------------------------------


def blocky(soft: Tensor, seed: int = 1) -> Tensor:
    """A picture with a jump at the edges of blocks of 16."""
    height, width = (n // 16 for n in soft.shape[-2:])
    jumps = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) - 0.5
    return soft + 0.06 * jumps.repeat_interleave(16, 2).repeat_interleave(16, 3)


@pytest.fixture(scope="module")
def soft() -> Tensor:
    return F.interpolate(drawn(16, 32)[:1], scale_factor=8, mode="bicubic").clamp(0, 1)  # 128x256


@pytest.fixture(scope="module")
def judge() -> LpipsLoss:
    return LpipsLoss(Lpips.load())


def test_a_ramp_in_coarse_blocks_becomes_one_again() -> None:
    ramp = torch.linspace(0.2, 0.5, 128).expand(1, 3, 32, 128)
    blocks = ramp.unflatten(3, (-1, 16)).mean(4).repeat_interleave(16, 3)
    missed = [float((deblocked(blocks, even(s, blocks), STEP) - ramp).square().mean()) for s in ALL]
    assert missed[3] < 0.5 * missed[0]
    chosen = choose_edges(blocks, ramp, STEP, None, price=0.0)
    assert float((deblocked(blocks, chosen, STEP) - ramp).square().mean()) < 1.2 * min(missed)


def test_the_choice_is_by_what_is_seen(soft: Tensor, judge: LpipsLoss) -> None:
    """Soft blocks are smoothed; a picture that is as it should be is left alone."""
    coded = blocky(soft)
    chosen = choose_edges(coded, soft, STEP, judge, price=1.0)
    assert (chosen > 0).mean() > 0.8
    smooth = deblocked(coded, chosen, STEP)
    assert float(judge(smooth, soft)) < 0.8 * float(judge(coded, soft))
    alone = choose_edges(soft, soft, STEP, judge, price=1.0)
    assert float(judge(deblocked(soft, alone, STEP), soft)) < 1e-4, "what changes nothing may be told"


def test_regions_differ(soft: Tensor, judge: LpipsLoss) -> None:
    """Where blocks are the picture's own they stay, beside a half where they do not belong."""
    own = torch.cat([blocky(soft)[..., :128], soft[..., 128:]], 3)
    chosen = choose_edges(blocky(soft), own, STEP, judge, price=0.0)
    assert (chosen[:, :3] == 0).mean() > 0.8
    assert (chosen[:, 5:] > 0).mean() > 0.8


def test_dear_bits_keep_what_was(soft: Tensor, judge: LpipsLoss) -> None:
    coded, before = blocky(soft), even(2, soft)
    assert choose_edges(coded, soft, STEP, judge, 1e6, before) is before
    told = choose_edges(coded, soft, STEP, judge, 1e-3, no_edges(128, 256))
    assert (told > 0).mean() > 0.8


def test_training_smooths_as_encoders_do(soft: Tensor, judge: LpipsLoss) -> None:
    assert edges.TEXTURE == edge_choice.TEXTURE
    pictures = torch.cat([blocky(soft), soft])
    blocks = best_blocks(pictures, soft.expand(2, -1, -1, -1), torch.full((2,), STEP), judge)
    assert blocks.shape == (2, 8, 16)
    assert (blocks[0] > 0).float().mean() > 0.8
    smooth = smoothed(pictures, blocks, torch.full((2,), STEP))
    distances = judge(smooth, soft)
    assert distances[1] < 1e-4 < distances[0] < 0.8 * judge(pictures, soft)[0]
