"""A folded convolution gives what the plain one gives, and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gencodec.nn.folded_conv import FoldedConv


@pytest.mark.parametrize("kernel", [3, 4, 11, 12])
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("size", [(16, 23), (31, 32), (37, 45)])
def test_it_is_the_plain_convolution(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, kernel, stride, padding).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    wanted = plain(x)
    slope = torch.randn_like(wanted)
    (expected,) = torch.autograd.grad(wanted, x, slope)
    given = FoldedConv.of(plain)(x)
    (gradient,) = torch.autograd.grad(given, x, slope)
    assert torch.allclose(given, wanted, atol=1e-12)
    assert torch.allclose(gradient, expected, atol=1e-12)


def test_its_weights_are_frozen() -> None:
    assert not any(p.requires_grad for p in FoldedConv.of(nn.Conv2d(3, 4, 5, 2)).parameters())
