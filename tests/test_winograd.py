"""Winograd convolutions against plain ones: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gencodec.nn import winograd
from gencodec.nn.winograd import WinogradConv2d, convolve, transform_kernel, use_winograd


@pytest.mark.parametrize("size", [(8, 8), (12, 16), (15, 27), (6, 7), (1, 65)])  # the last two the plain way
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_plain_convolution(size: tuple[int, int], kernel: int, bias: bool) -> None:
    random = torch.Generator().manual_seed(sum(size))
    conv = nn.Conv2d(5, 7, kernel, padding=kernel // 2, bias=bias).requires_grad_(False)
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


@pytest.mark.parametrize("kernel", [3, 5])
def test_parts_of_a_batch_are_a_batch(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 4, 10, 9, generator=torch.Generator().manual_seed(kernel))
    weight = transform_kernel(torch.randn(6, 4, kernel, kernel, generator=torch.Generator().manual_seed(1)))
    whole = convolve(x, weight)
    monkeypatch.setattr(winograd, "AT_ONCE", 2 * 9 * len(weight) * 6)  # two pictures
    torch.testing.assert_close(convolve(x, weight), whole)


def test_replaces_wide_layers_only() -> None:
    layers = {"0": nn.Conv2d(3, 64, 3, padding=1), "2": nn.Conv2d(64, 64, 3, padding=1)}
    wide = {"5": nn.Conv2d(64, 128, 3, padding=1), "7": nn.Conv2d(64, 128, 5, padding=2)}
    others = {"9": nn.Conv2d(64, 128, 5, padding=1), "11": nn.Conv2d(64, 128, 3, 2, padding=1)}
    convs = nn.ModuleDict(layers | wide | others)
    use_winograd(convs)
    assert [name for name, conv in convs.items() if isinstance(conv, WinogradConv2d)] == list(wide)
