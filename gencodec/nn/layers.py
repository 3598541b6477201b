"""Building blocks of the float networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, or divides it by `stride`."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), both 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> the same shape."""
        return self.conv2(F.leaky_relu_(self.conv1(x), 0.125)).add_(x)  # in place: memory is what is slow


class Upsample(nn.Module):
    """Double height and width by a pixel shuffle after a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,out_channels,2H,2W)."""
        return F.pixel_shuffle(self.conv(x), 2)


def halved(picture: Tensor) -> Tensor:
    """Pictures (N,3,H,W) at half of their size: distances there cost a quarter, and choose as well."""
    return F.interpolate(picture, scale_factor=0.5, mode="bilinear", antialias=True)


def rounded(v: Tensor, dead_zone: float) -> Tensor:
    """Integers next to v, magnitudes rounded up from the fraction `dead_zone` on."""
    return v.sign() * (v.abs() + (1 - dead_zone)).floor()


def compand(x: Tensor) -> Tensor:
    """Slope 1 up to ±4, 1/8 up to ±36, 1/64 beyond: latents of all sizes in the range of a network.

    Means of brightness are hundreds of steps where a fine detail is one, and both matter. Exact in float32
    for multiples of 1/8 up to ±4096: clamps, differences, and products by powers of two.
    """
    inner = x.clamp(-4, 4)
    middle = (x - inner).clamp(-32, 32)
    return inner + middle / 8 + (x - inner - middle) / 64


def init_unit(module: nn.Module) -> None:
    """Keep deviations from layer to layer; residual blocks begin near the identity."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    for m in module.modules():
        if isinstance(m, ResidualBlock):
            m.conv2.weight.data.mul_(0.1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of x (B,C,H,W) until both sides are multiples of `multiple`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
