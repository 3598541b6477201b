"""Winograd convolutions against plain ones: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gencodec.nn.winograd import WinogradConv2d, use_winograd


@pytest.mark.parametrize("size", [(4, 8), (12, 16), (6, 7)])  # the last goes the plain way
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_plain_convolution(size: tuple[int, int], bias: bool) -> None:
    random = torch.Generator().manual_seed(sum(size))
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=bias).requires_grad_(False)
    fast = WinogradConv2d(conv)
    x = torch.randn(2, 5, *size, generator=random)
    weight = torch.randn(2, 7, *size, generator=random)
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for net, out in ((fast, found), (conv, expected)):
        leaf = x.clone().requires_grad_()
        y = net(leaf)
        (y * weight).sum().backward()
        assert leaf.grad is not None
        out += [y.detach(), leaf.grad]
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=2e-5 * float(b.abs().max()), rtol=0)


def test_replaces_wide_layers_only() -> None:
    layers = {"0": nn.Conv2d(3, 64, 3, padding=1), "2": nn.Conv2d(64, 64, 3, padding=1)}
    convs = nn.ModuleDict(layers | {"5": nn.Conv2d(64, 128, 3, padding=1)})
    use_winograd(convs)
    assert [isinstance(c, WinogradConv2d) for c in convs.values()] == [False, False, True]
