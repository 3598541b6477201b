"""Grain: noise that the synthesis shapes into texture too fine to be worth its bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gencodec.sampler.noise import Noise

TILE = 64  # positions a side; the decoder repeats this tile, so every decoder adds the same grain
PLANES = 8


def grain_tile() -> Tensor:
    """The tile of standard normals, (1,PLANES,TILE,TILE), the same bits everywhere."""
    return Noise(seed=0).normal((1, PLANES, TILE, TILE), step=0)


class Grain(nn.Module):
    """h + mix(amount(h) x noise): how much, and of what shape, is learned; which noise is fixed.

    A synthesis without a source of randomness paints regular patterns where a loss asks for texture. The
    idea is from Karras et al. 2019 (StyleGAN, arXiv 1812.04948, section 3.2), there with one plane and fixed
    amounts.
    """

    tile: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.amount = nn.Conv2d(channels, PLANES, 1)
        self.mix = nn.Conv2d(PLANES, channels, 1, bias=False)
        self.register_buffer("tile", grain_tile(), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """(B,channels,H,W) -> the same shape. Fresh noise in training, the tile otherwise."""
        return h + self.mix(self.amount(h) * self._noise(h))

    def _noise(self, h: Tensor) -> Tensor:
        height, width = h.shape[-2:]
        if self.training:
            shape = (len(h), PLANES, height, width)
            return torch.randn(shape, device=h.device, dtype=h.dtype)  # noqa: TID251 - training only
        tiled = self.tile.repeat(1, 1, -(-height // TILE), -(-width // TILE))
        return tiled[..., :height, :width].to(h.dtype)
