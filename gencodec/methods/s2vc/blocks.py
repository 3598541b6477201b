"""Blocks that the networks of `s2vc` are made of: cheap convolutions and gated mixing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.125


class DepthBlock(nn.Module):
    """x + mixing of neighbours (depthwise 3x3), then x + gated mixing of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.leave = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Conv2d(channels, 4 * channels, 1)
        self.out = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,channels,H,W) -> the same shape."""
        x = self.leave(self.near(F.leaky_relu_(self.enter(x), SLOPE))).add_(x)
        a, b = (F.conv2d(x, *half) for half in self._gate_halves())
        return self.out(F.leaky_relu_(a, SLOPE) * b.sigmoid_()).add_(x)

    def _gate_halves(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Two convolutions give whole tensors, one would give views that are slow to go over."""
        return zip(self.gate.weight.chunk(2), cast("Tensor", self.gate.bias).chunk(2), strict=True)


def chain(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """A 1x1 convolution to `channels`, then `blocks` blocks."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1), *(DepthBlock(channels) for _ in range(blocks)))


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """The same, giving nothing until it is trained."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module
