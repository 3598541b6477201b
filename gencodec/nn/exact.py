"""Convolutions whose outputs are the same bits on every device: integers carried in floating point.

Activations lie on the grid ACT_STEP within ±ACT_MAX, weights are 8-bit multiples of a power of two per output
channel, biases lie on the product grid ACT_STEP x weight step. Every partial sum is then a multiple of the
product grid, and stays below 2^24 multiples, so that float32 holds it without rounding: any order of
summation gives the same bits. The bound is kept by projection in training and checked by `check_bound` when
weights are loaded.

Training goes through the same code with straight-through gradients. A network is first trained in float
(`exact = False`), then converted: `equalise.equalise` fills the activation range, `convert` freezes the
weights' grids.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.nn.plain_conv import plain_conv2d

ACT_STEP = 2.0**-3
ACT_MAX = 16.0
WEIGHT_MAX = 127  # weights are integers in ±127 times their channel's step
MAX_SUM = 2**24  # float32 holds every integer up to here
SLOPE = 2.0**-3  # of the leaky ReLU; a power of two keeps the product grid

Way = Literal["double", "single", "conv"]


class _RoundClamp(torch.autograd.Function):
    """Round to multiples of `step` and clamp to ±`limit`.

    The gradient passes through the rounding, and through the clamp where the value is inside or would move
    back in.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, limit: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limit = limit
        return _rounded(x, step, limit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore
        (x,) = ctx.saved_tensors
        grad = grads[0]
        stuck = ((x > ctx.limit) & (grad < 0)) | ((x < -ctx.limit) & (grad > 0))
        return grad.masked_fill(stuck, 0), None, None


def round_clamp(x: Tensor, step: float, limit: float = math.inf) -> Tensor:
    """Round `x` to multiples of `step`, a power of two, within ±limit; straight-through gradient."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _RoundClamp.apply(x, step, limit)
    return _rounded(x, step, limit)


def _rounded(x: Tensor, step: float, limit: float) -> Tensor:
    return torch.round(x / step).mul_(step).clamp_(-limit, limit)


def to_activation(x: Tensor) -> Tensor:
    """Bring `x` onto the activation grid: multiples of ACT_STEP within ±ACT_MAX."""
    return round_clamp(x, ACT_STEP, ACT_MAX)


def safe_way(device: torch.device) -> Way:
    """The fastest way of computing that no switch of the process can make inexact on `device`.

    A float32 product is plain on x86 CPUs unless the process asked for less precision; everywhere else
    float64 is.
    """
    x86 = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    return "single" if x86 and torch.get_float32_matmul_precision() == "highest" else "double"


class ExactConv2d(nn.Module):
    """A convolution on the integer grids, followed by a leaky ReLU (slope 1/8) where `activation` is set.

    In: (B,in_channels,H,W) on the activation grid. Out: (B,out_channels,H',W') on the activation grid, or,
    with `head`, the bare sums on the product grid. `bias_add` (B,out_channels), a table row that depends on
    the packet's quality for example, is rounded to the product grid like the bias.
    """

    exponent: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int = 3,
        *,
        stride: int = 1,
        activation: bool = True,
        head: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.activation, self.head = stride, k // 2, activation and not head, head
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, k, k))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_normal_(self.weight, a=SLOPE)
        self.register_buffer("exponent", torch.zeros(out_channels))  # weight step = 2^exponent
        self.exact = False
        self.way: Way | None = None  # None: `safe_way` of the input's device
        self.bias_add_max = 0.0  # largest |bias_add| that the bound allows for
        self.saturation = 0.0  # share of outputs clamped in the last training pass
        self._kept: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, x: Tensor, bias_add: Tensor | None = None) -> Tensor:
        """Apply the layer; see the class."""
        bias = self.bias.reshape(1, -1, 1, 1)
        if bias_add is not None:
            bias = bias + bias_add[:, :, None, None]
        if not self.exact:
            out = F.conv2d(x.to(self.weight), self.weight, stride=self.stride, padding=self.padding) + bias
            return F.leaky_relu(out, SLOPE) if self.activation else out
        product_step = self.product_step()[:, None, None]
        total = self._sums(x, "conv" if self.training else self.way or safe_way(x.device))
        total = total + round_clamp(bias / product_step, 1.0) * product_step
        return self._finish(total)

    def _sums(self, x: Tensor, way: Way) -> Tensor:
        """The bare convolution, in one of three ways.

        "double": products in float64. Nothing that a process can switch on touches float64: no TF32, bf16,
        autocast, Winograd or NNPACK. "single": the same in float32, five times faster; see `safe_way`. "conv"
        (training): torch's convolution, which may pick another algorithm and is exact only where proven.
        """
        if way != "conv":
            taps = self._taps(torch.float64 if way == "double" else torch.float32)
            return plain_conv2d(x, taps, self.stride, self.padding)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.float(), self.grid_weight(), stride=self.stride, padding=self.padding)

    def _taps(self, dtype: torch.dtype) -> Tensor:
        """Weights on their grid, a matrix (O,C) for each tap, (O,k,k,C); kept until weights change."""
        state = (self.weight.data_ptr(), self.weight._version, self.exponent._version, dtype)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self.grid_weight().detach().to(dtype).permute(0, 2, 3, 1).contiguous())
        return self._kept[1]

    def _finish(self, total: Tensor) -> Tensor:
        if self.head:
            return total
        if self.activation:
            total = F.leaky_relu(total, SLOPE)
        if self.training:
            self.saturation = float((total.detach().abs() > ACT_MAX).float().mean())
        return to_activation(total)

    def product_step(self) -> Tensor:
        """Grid of the sums, per output channel (O,)."""
        return torch.exp2(self.exponent) * ACT_STEP

    def grid_weight(self) -> Tensor:
        """Weights on their grid, (O,C,k,k)."""
        step = torch.exp2(self.exponent)[:, None, None, None]
        return round_clamp(self.weight / step, 1.0, WEIGHT_MAX) * step

    @torch.no_grad()
    def convert(self) -> None:
        """Choose each output channel's weight step, 2^ceil(log2(max / 127)); exact from here on."""
        largest = self.weight.abs().amax((1, 2, 3)).clamp_min(2.0**-20)
        self.exponent.copy_(torch.ceil(torch.log2(largest / WEIGHT_MAX)))
        self.exact = True
        self.project()

    @torch.no_grad()
    def largest_sum(self) -> Tensor:
        """Bound on |partial sum| in product steps, per output channel (O,): sum|w| x_max + |bias|."""
        weight, step = self.grid_weight().double(), self.product_step().double()
        bias = self.bias.double().abs() + self.bias_add_max + step  # one step more for its rounding
        return (weight.abs().sum((1, 2, 3)) * ACT_MAX + bias) / step

    @torch.no_grad()
    def project(self) -> None:
        """Shrink the channels that break the bound until they keep it; after every optimizer step."""
        for _ in range(8):
            excess = (self.largest_sum() / (MAX_SUM - 1)).float()
            if not bool((excess > 1).any()):
                return
            shrink = torch.where(excess > 1, 0.99 / excess, torch.ones_like(excess))
            self.weight.mul_(shrink[:, None, None, None])
            self.bias.mul_(shrink)

    def check_bound(self) -> None:
        """Raise ValueError if a sum could leave the range in which float32 is exact."""
        largest = float(self.largest_sum().max())
        if not largest < MAX_SUM:
            raise ValueError(f"exact layer may sum up to {largest:.0f} steps, allowed is {MAX_SUM}: refused")


class ExactPixelShuffle(nn.Module):
    """Double height and width: 1x1 convolution to 4 x channels, then a permutation, which cannot round."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ExactConv2d(in_channels, 4 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,out_channels,2H,2W), on the activation grid."""
        return F.pixel_shuffle(self.conv(x), 2)


class ExactResidual(nn.Module):
    """x + body(x), both on the activation grid, clamped to it again."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> the same shape."""
        total = x + self.body(x)
        exact = any(layer.exact for layer in exact_layers(self.body))
        return to_activation(total) if exact else total


def exact_layers(*modules: nn.Module) -> list[ExactConv2d]:
    """Every exact convolution inside `modules`, in order of registration."""
    return [m for module in modules for m in module.modules() if isinstance(m, ExactConv2d)]


def convert(*modules: nn.Module) -> None:
    """Convert every exact layer from float to its grid."""
    for layer in exact_layers(*modules):
        layer.convert()


def project(*modules: nn.Module) -> None:
    """Hold the exactness bound in every converted layer."""
    for layer in exact_layers(*modules):
        if layer.exact:
            layer.project()


def check_bounds(modules: Iterable[nn.Module]) -> None:
    """Raise ValueError if any layer breaks the exactness bound."""
    for layer in exact_layers(*modules):
        layer.check_bound()


def pattern(shape: tuple[int, ...], modulus: int) -> Tensor:
    """Fixed integers in ±modulus/2 that depend on nothing but the shape."""
    count = math.prod(shape)
    values = (torch.arange(count, dtype=torch.int64) * 7919 // 3) % modulus - modulus // 2
    return values.float().reshape(shape)
