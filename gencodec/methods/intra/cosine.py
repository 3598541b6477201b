"""The cosine transform that analysis and synthesis begin as, and how coarse each coefficient may be."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

SIZE = 16  # pixels a side of a block
COARSER = 0.04  # octaves by which a coefficient's step grows for each unit of its frequency
MEANS = 0.5  # octaves by which the step of a block's mean is finer than that of a frequency of 0


def frequencies() -> list[tuple[int, int]]:
    """Vertical and horizontal frequency of each coefficient, in half periods a block, lowest first."""
    places = ((u, v) for u in range(SIZE) for v in range(SIZE))
    return sorted(places, key=lambda f: (f[0] ** 2 + f[1] ** 2, f))


def split(channels: int) -> tuple[int, int, int]:
    """How many channels see brightness (five eighths), and each of the two colour differences."""
    chroma = channels * 3 // 16
    return channels - 2 * chroma, chroma, chroma


def dct_basis(channels: int) -> Tensor:
    """The lowest frequencies of brightness and of the colour differences, (channels,3,16,16), orthonormal."""
    n = torch.arange(SIZE)
    cosine = torch.cos(math.pi / SIZE * (n[None] + 0.5) * n[:, None])  # (frequency,place)
    cosine *= math.sqrt(2 / SIZE)
    cosine[0] /= math.sqrt(2)
    blocks = torch.stack([cosine[u][:, None] * cosine[v][None] for u, v in frequencies()])  # (256,16,16)
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]])
    colours /= colours.norm(dim=1, keepdim=True)
    parts = [
        blocks[:count, None] * colour[:, None, None]
        for count, colour in zip(split(channels), colours, strict=True)
    ]
    return torch.cat(parts)


def from_blocks(y: Tensor, basis: Tensor) -> Tensor:
    """The picture (B,3,16h,16w) that coefficients y (B,C,h,w) of `basis` (C,3,16,16) add up to.

    As a matrix product: a transposed convolution takes four times as long.
    """
    height, width = y.shape[-2:]
    blocks = y.flatten(2).transpose(1, 2) @ basis.flatten(1)  # (B,hw,3*16*16)
    size = {"h": height, "w": width, "i": SIZE, "j": SIZE}
    return rearrange(blocks, "b (h w) (c i j) -> b c (h i) (w j)", **size)


def log2_weights(channels: int) -> Tensor:
    """Octaves by which each channel's gain differs from an even one, (channels,)."""
    steps = torch.tensor([MEANS if f == (0, 0) else -COARSER * math.hypot(*f) for f in frequencies()])
    return torch.cat([steps[:count] for count in split(channels)])
