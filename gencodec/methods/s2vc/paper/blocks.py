"""Blocks that the paper's networks are made of. Pictures are (B,C,H,W); a block that changes H, W says so.

With these the parameter counts of every part come out as published (docs/methods/s2vc-paper.md). That fixes
the layout where the paper is silent: a halving has a 3x3 convolution of stride 2, a second 3x3 and a 1x1
shortcut of stride 2; a doubling has a 1x1 convolution before its pixel shuffle in body and shortcut alike.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def _shortcut(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)


class DepthConv(nn.Module):
    """Mixing of channels to `factor` times as many, of neighbours (depthwise k x k), of channels again."""

    def __init__(self, in_channels: int, out_channels: int, k: int, factor: int) -> None:
        super().__init__()
        inner = factor * in_channels
        self.enter = nn.Conv2d(in_channels, inner, 1)
        self.near = nn.Conv2d(inner, inner, k, padding=k // 2, groups=inner)
        self.leave = nn.Conv2d(inner, out_channels, 1)
        self.shortcut = _shortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,in_channels,H,W) -> (B,out_channels,H,W)."""
        return self.leave(self.near(F.leaky_relu(self.enter(x), 0.01))) + self.shortcut(x)


class FeedForward(nn.Module):
    """x + mixing of channels; the two halves of the middle differ in the slope of their leaky ReLU."""

    def __init__(self, channels: int, factor: int = 2) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, 2 * factor * channels, 1)
        self.leave = nn.Conv2d(factor * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        a, b = self.enter(x).chunk(2, 1)
        return x + self.leave(F.leaky_relu(a, 0.1) + F.leaky_relu(b, 0.01))


class Block4(nn.Sequential):
    """B4: depthwise 3x3, feed-forward."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(DepthConv(in_channels, out_channels, 3, 1), FeedForward(out_channels))


class Block5(nn.Sequential):
    """B5: depthwise 5x5 on twice the channels, feed-forward, depthwise 3x3, feed-forward."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            DepthConv(in_channels, in_channels, 5, 2),
            FeedForward(in_channels),
            DepthConv(in_channels, out_channels, 3, 1),
            FeedForward(out_channels),
        )


def chain5(*widths: int) -> nn.Sequential:
    """B5 blocks from each width to the next."""
    return nn.Sequential(*(Block5(a, b) for a, b in pairwise(widths)))


class ResidualBlock(nn.Module):
    """RB: two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = _shortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,in_channels,H,W) -> (B,out_channels,H,W)."""
        return self.second(F.gelu(self.first(x))) + self.shortcut(x)


class Down(nn.Module):
    """Half of height and width, both even."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B,in_channels,H,W) -> (B,out_channels,H/2,W/2)."""
        return self.second(F.gelu(self.first(x))) + self.shortcut(x)


class Up(nn.Module):
    """Twice the height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 4 * out_channels, 1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, 4 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,in_channels,H,W) -> (B,out_channels,2H,2W)."""
        h = self.second(F.gelu(F.pixel_shuffle(self.first(x), 2)))
        return h + F.pixel_shuffle(self.shortcut(x), 2)
