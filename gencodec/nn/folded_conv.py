"""Frozen strided convolutions as ones of stride 1: AlexNet's first layer in less than half of its time.

Every `stride` x `stride` pixels become channels of one place. Three channels in, as a picture has, leave a
processor's vectors mostly empty, on the way back above all; 48 fill them. The same sums in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self


class FoldedConv(nn.Module):
    """A square convolution (O,C,K,K) of `stride` and `padding`; gradients flow to the input only."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = weight.shape[-1], stride, padding
        self.weight = nn.Parameter(folded(weight, stride), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """The same as `conv`, whose stride and padding are alike in both directions."""
        assert conv.bias is not None, "convolutions of backbones have a bias"
        padding = conv.padding[0]
        assert isinstance(padding, int), "padding is given in pixels"
        return cls(conv.weight, conv.bias, conv.stride[0], padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,O,H',W')."""
        right, below = (self._missing(side) for side in (x.shape[3], x.shape[2]))
        x = F.pad(x, (self.padding, right, self.padding, below))
        return F.conv2d(F.pixel_unshuffle(x, self.stride), self.weight, self.bias)

    def _missing(self, side: int) -> int:
        """Pixels behind the last one up to where the last place ends; below 0, pixels that no place sees."""
        places = (side + 2 * self.padding - self.kernel) // self.stride + 1
        return self.stride * (places - 1 + self.weight.shape[-1]) - side - self.padding


def folded(weight: Tensor, stride: int) -> Tensor:
    """(O,C,K,K) -> (O, C stride^2, K', K') with K' = ceil(K / stride), channels innermost."""
    out, channels, kernel, _ = weight.shape
    places = -(-kernel // stride)
    whole = F.pad(weight.detach(), (0, places * stride - kernel) * 2)
    parts = whole.view(out, channels, places, stride, places, stride).permute(0, 1, 3, 5, 2, 4)
    return parts.reshape(out, -1, places, places).contiguous(memory_format=torch.channels_last)
