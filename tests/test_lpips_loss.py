"""LPIPS to descend: its fast form against `Lpips` with autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss


def pictures(*shape: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(5)
    real = torch.rand(shape, generator=chance)
    decoded = (real + 0.1 * torch.randn(shape, generator=chance)).clamp(0, 1)
    return decoded.requires_grad_(), real


@pytest.mark.parametrize("shape", [(2, 3, 96, 80), (1, 3, 40, 70)])
def test_it_is_lpips_with_its_gradient(shape: tuple[int, ...]) -> None:
    lpips = Lpips.load()
    found: list[Tensor] = []
    expected: list[Tensor] = []
    for distance, into in ((LpipsLoss(lpips, half=False), found), (lpips.distance, expected)):
        decoded, real = pictures(*shape)
        values = distance(decoded, real)
        (values * torch.arange(1, len(values) + 1)).sum().backward()
        assert decoded.grad is not None
        into.extend([values.detach(), decoded.grad])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_half_precision_leads_the_same_way() -> None:
    gradients: list[Tensor] = []
    for half in (False, True):
        decoded, real = pictures(1, 3, 96, 80)
        LpipsLoss(Lpips.load(), half=half)(decoded, real).sum().backward()
        assert decoded.grad is not None
        gradients.append(decoded.grad.flatten())
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.97


def test_equal_pictures_have_no_gradient() -> None:
    decoded, _ = pictures(1, 3, 64, 64)
    LpipsLoss(Lpips.load(), half=False)(decoded, decoded.detach()).sum().backward()
    assert decoded.grad is not None
    assert float(decoded.grad.abs().max()) == 0


def test_the_original_gets_no_gradient_and_weights_stay_as_they_are() -> None:
    lpips = Lpips.load()
    before = [p.clone() for p in lpips.backbone.parameters()]
    decoded, real = pictures(1, 3, 64, 64)
    real.requires_grad_()
    LpipsLoss(lpips, half=True)(decoded, real).sum().backward()
    assert real.grad is None
    assert all(torch.equal(a, b) for a, b in zip(before, lpips.backbone.parameters(), strict=True))


def test_deep_maps_count_as_often_as_asked() -> None:
    loss = LpipsLoss(Lpips.load(), half=False)
    x, y = torch.rand(2, 1, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    never, once, twice = (loss(x, y, deep) for deep in (0.0, 1.0, 2.0))
    assert torch.equal(once, loss(x, y))
    assert never < once
    assert torch.allclose(twice - once, once - never, atol=1e-6)
