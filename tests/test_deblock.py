"""Smooth edges: the filter against a plain twin, on the wire, and as encoders choose it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.coder_ref import SymbolDecoderRef, SymbolEncoderRef
from gencodec.entropy.smoothing import KEPT, get_strength, put_strength
from gencodec.entropy.tables import TOTAL
from gencodec.methods.s2vc.edge_choice import best_strength
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.deblock import STRENGTHS, deblocked

ALL = range(len(STRENGTHS))
STEP = 0.05


def drawn(height: int, width: int, seed: int = 0) -> Tensor:
    """Soft pictures (2,3,H,W) that jump at the edges of blocks of 16."""
    chance = torch.Generator().manual_seed(seed)
    blocks = torch.rand(2, 3, height // 16, width // 16, generator=chance)
    jumps = 0.15 * blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return 0.4 + jumps + 0.004 * torch.rand(2, 3, height, width, generator=chance)


def twin(picture: Tensor, strength: int, step: float) -> Tensor:
    """`deblocked` line by line, edge by edge."""
    bend, jump = (step * threshold for threshold in STRENGTHS[strength])
    x = picture.double().clone()
    for _ in range(2):  # the second time columns are rows
        before = x.clone()
        for image, top, edge in np.ndindex(len(x), x.shape[2] // 4, x.shape[3] // 16 - 1):
            at = 16 * (edge + 1)
            lines = before[image, :, 4 * top : 4 * top + 4, at - 4 : at + 4]  # (C,4,8)
            gap = lines[..., 4] - lines[..., 3]
            bent = (lines[..., 1] - 2 * lines[..., 2] + lines[..., 3]).abs()
            bent = bent + (lines[..., 4] - 2 * lines[..., 5] + lines[..., 6]).abs()
            flat = min(max(1 - float(bent.mean()) / bend, 0), 1)
            small = min(max(2 - float(gap.abs().mean()) / jump, 0), 1)
            for i in range(4):
                share = flat * small * (2 * i + 1) / 16
                x[image, :, 4 * top : 4 * top + 4, at - 4 + i] += share * gap
                x[image, :, 4 * top : 4 * top + 4, at + 3 - i] -= share * gap
        x = x.transpose(2, 3)
    return x


@pytest.mark.parametrize("strength", ALL[1:])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 48), (64, 32)])
def test_the_filter_is_its_twin(strength: int, height: int, width: int) -> None:
    picture = drawn(height, width)
    smooth = deblocked(picture, strength, STEP)
    assert torch.allclose(smooth.double(), twin(picture, strength, STEP), atol=1e-6)
    if max(height, width) > 16:
        assert not torch.equal(smooth, picture)


def test_what_is_not_touched() -> None:
    picture = drawn(48, 48)
    assert deblocked(picture, 0, STEP) is picture
    edge = torch.zeros(1, 3, 32, 32)
    edge[..., 16:] = 1.0  # a jump that no rounding makes
    assert torch.equal(deblocked(edge, 2, STEP), edge)
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(deblocked(noise, 1, STEP), noise), "texture"


@pytest.mark.parametrize("strength", ALL[1:])
def test_turned_pictures_are_smoothed_alike(strength: int) -> None:
    picture = drawn(48, 64)
    turned = deblocked(picture.flip(3).flip(2), strength, STEP).flip(2).flip(3)
    assert torch.allclose(turned, deblocked(picture, strength, STEP), atol=1e-6)


def test_gradients_pass() -> None:
    picture = drawn(32, 32).requires_grad_()
    deblocked(picture, 2, STEP).square().sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().min() > 0


def test_a_ramp_in_coarse_blocks_becomes_one_again() -> None:
    ramp = torch.linspace(0.2, 0.5, 128).expand(1, 3, 32, 128)
    blocks = ramp.unflatten(3, (-1, 16)).mean(4).repeat_interleave(16, 3)
    missed = [float((deblocked(blocks, s, STEP) - ramp).square().mean()) for s in ALL]
    assert missed[2] < 0.9 * missed[0]
    assert best_strength(blocks, ramp, STEP, None) == int(np.argmin(missed)) != 0


def test_the_choice_is_by_what_is_seen() -> None:
    """Soft blocks are smoothed; a picture that is as it should be is left alone."""
    judge = LpipsLoss(Lpips.load())
    soft = torch.nn.functional.interpolate(drawn(16, 32)[:1], scale_factor=4, mode="bicubic").clamp(0, 1)
    blocky = soft + 0.04 * (
        torch.rand(1, 3, 4, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    ).repeat_interleave(16, 2).repeat_interleave(16, 3)
    assert best_strength(blocky, soft, STEP, judge) > 0
    assert best_strength(soft, soft, STEP, judge) == 0


# ---- on the wire -------------------------------------------------------------------------------------------


def test_counts_are_whole() -> None:
    assert KEPT + 3 * ((TOTAL - KEPT) // 3) == TOTAL


@pytest.mark.parametrize("before", ALL)
@pytest.mark.parametrize("strength", ALL)
def test_strengths_come_back(strength: int, before: int) -> None:
    encoder, other = SymbolEncoder(), SymbolEncoderRef()
    for one in (encoder, other):
        put_strength(one, strength, before)
    payload = encoder.finish()
    assert payload == other.finish()
    decoder = SymbolDecoder(payload)
    assert get_strength(decoder, before) == strength == get_strength(SymbolDecoderRef(payload), before)
    decoder.finish()
