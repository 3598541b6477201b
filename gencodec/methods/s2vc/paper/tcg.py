"""Temporal Consistency Guidance: what the frame before showed at the same place of the U-Net.

    before ─► reduce ─┬─► mix ─┬─► join ─► out (begins at zero) ─► + x
    zeros ────────────┘   x ───┘

The zeros are what is left of a branch for motion in the released model; they keep its layout and its size.
Paper: S2VC (arXiv 2512.07480), temporal consistency guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gencodec.methods.s2vc.paper.blocks import Block5, chain5


class Fusion(nn.Module):
    """x + what `before` shows, both (B,channels,H,W); nothing until it is trained."""

    def __init__(self, channels: int, motion_channels: int) -> None:
        super().__init__()
        half, self.motion_channels = channels // 2, motion_channels
        seen = half + motion_channels
        self.reduce = Block5(channels, half)
        self.mix = chain5(seen, seen, half)
        self.join = chain5(half + channels, half + channels, channels)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """See the class."""
        small = self.reduce(before)
        nothing = small.new_zeros(len(small), self.motion_channels, *small.shape[2:])
        mixed = self.mix(torch.cat([small, nothing], 1))
        return x + self.out(self.join(torch.cat([mixed, x], 1)))
