"""Small pieces of pictures with their latents: what the synthesis is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.intra.networks import STRIDE

MARGIN = 16  # pixels of a patch that the perceptual distances leave out at each side, give or take a half
SHIFTS = 16  # pixels of a patch that LPIPS-Alex leaves out, so that its strides fall everywhere


class Patches(NamedTuple):
    """y_hat (N,C,size,size), the pictures there x (N,3,16 size,16 size), their quality (N,), and how strongly
    edges of their blocks are smoothed, (N,size,size).
    """

    y_hat: Tensor
    x: Tensor
    quality: Tensor
    blocks: Tensor


def cut_patches(
    y_hat: Tensor, x: Tensor, quality: Tensor, count: int, size: int, generator: np.random.Generator
) -> Patches:
    """`count` patches of `size` latents a side at random places of pictures (B,3,H,W), in turn."""
    height, width = y_hat.shape[-2:]
    rows = generator.integers(0, height - size + 1, count).tolist()
    columns = generator.integers(0, width - size + 1, count).tolist()
    owners = [i % len(x) for i in range(count)]
    places = list(zip(owners, rows, columns, strict=True))
    side = size * STRIDE
    return Patches(
        torch.stack([y_hat[i, :, r : r + size, c : c + size] for i, r, c in places]),
        torch.stack([_cut(x[i], r * STRIDE, c * STRIDE, side) for i, r, c in places]),
        quality[torch.tensor(owners, device=quality.device)],
        torch.zeros(count, size, size, dtype=torch.int64, device=x.device),
    )


def cut_window(pictures: list[Tensor], generator: np.random.Generator, margin: int = MARGIN) -> list[Tensor]:
    """The same random window of all pictures (N,3,S,S), two margins smaller and about one off the border.

    At the border of a patch the synthesis lacks the latents that it would see in a frame.
    """
    side = pictures[0].shape[-1] - 2 * margin
    top, left = (int(n) for n in generator.integers(margin // 2, 3 * margin // 2 + 1, 2))
    return [_cut(x, top, left, side).contiguous(memory_format=torch.channels_last) for x in pictures]


def random_window(pictures: Iterable[Tensor], size: int, random: np.random.Generator) -> list[Tensor]:
    """The same random part of all pictures (N,3,H,W), `size` pixels a side, away from the border."""
    pictures = list(pictures)
    corner = []
    for side in pictures[0].shape[-2:]:
        spare = (side - size) // 4
        corner.append(int(random.integers(spare, side - size - spare + 1)))
    top, left = corner
    return [_cut(x, top, left, size).contiguous(memory_format=torch.channels_last) for x in pictures]


def _cut(x: Tensor, top: int, left: int, side: int) -> Tensor:
    return x[..., top : top + side, left : left + side]
