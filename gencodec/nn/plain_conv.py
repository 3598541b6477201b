"""Convolution by plain sums of products, in float32 or float64: what `exact` computes with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_COLUMNS = 2**20  # numbers in an im2col matrix; beyond it does not stay in a core's cache


def plain_conv2d(x: Tensor, taps: Tensor, stride: int, padding: int) -> Tensor:
    """Convolve by plain sums of products: x (B,C,H,W), taps (O,k,k,C) in float32 or float64 -> float32.

    Every term is a product and every sum a sum, which torch's convolution does not promise (Winograd). Small
    maps are laid out as columns (im2col) for one matrix product. On large ones copying everything k x k
    times would cost more than the arithmetic: there each tap has its product, on a view of the padded map.
    """
    k = taps.shape[1]
    height, width = ((n + 2 * padding - k) // stride + 1 for n in x.shape[-2:])
    below = padding + (stride == 1 < k)  # a row more: views of whole lines end beyond the last one
    padded = F.pad(x.to(taps.dtype), (padding, padding, padding, below)) if k > 1 else x.to(taps.dtype)
    with torch.autocast(x.device.type, enabled=False):
        if height * width * x.shape[1] * k * k <= MAX_COLUMNS:
            return _by_columns(padded, taps, stride, (height, width)).float()
        return _by_taps(padded, taps, stride, (height, width)).float()


def _by_columns(padded: Tensor, taps: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """One product of the taps side by side with what each of them sees, copied."""
    batch, out, k = len(padded), *taps.shape[:2]
    b, c, row, column = padded.stride()
    shape = (batch, k, k, padded.shape[1], *size)
    seen = padded.as_strided(shape, (b, row, column, c, stride * row, stride * column))
    side_by_side = taps.reshape(1, out, -1).expand(batch, -1, -1)
    return torch.bmm(side_by_side, seen.reshape(batch, -1, size[0] * size[1])).reshape(batch, out, *size)


def _by_taps(padded: Tensor, taps: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """The sum of the taps' products. At stride 1 lines keep their padding until the end."""
    batch, out, k = len(padded), *taps.shape[:2]
    line = padded.shape[-1] if stride == 1 else size[1]
    total = padded.new_zeros(batch, out, size[0] * line)
    for i in range(k):
        for j in range(k):
            seen = _seen(padded, i, j, stride, (size[0], line))
            total.baddbmm_(taps[:, i, j].expand(batch, -1, -1), seen)
    return total.reshape(batch, -1, size[0], line)[..., : size[1]]


def _seen(padded: Tensor, row: int, column: int, stride: int, size: tuple[int, int]) -> Tensor:
    """What the tap at (row, column) sees of a padded picture for an output of `size`: (B,C,places)."""
    height, line = size
    if stride > 1:
        return padded[..., row::stride, column::stride][..., :height, :line].flatten(2)
    start = row * line + column
    return padded.flatten(2)[..., start : start + height * line]
