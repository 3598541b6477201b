"""The one-step U-Net of the tiny preset, with cross-attention to tokens and temporal fusion (TCG).

    content ─► enter ─┬─ 1/8 ─ fuse ─┬────────────────────────────► leave ─► what the latent lacks
                      └─► 1/16 ─ fuse ─┬──────────────► up ──┘
                             └─► 1/32 ─► middle ─► up ─┘

Temporal Consistency Guidance: after a level, a block looks at the same level of the frame before, taken from
the diffusion buffer and aligned by the decoded motion, and adds what it finds through a convolution that
begins at zero. The buffer keeps what was there before fusing, so nothing runs around in it.
Paper: S2VC (arXiv 2512.07480), temporal consistency guidance; alignment by motion is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.methods.s2vc.blocks import DepthBlock, zero
from gencodec.nn.attention import CrossAttention
from gencodec.nn.layers import ResidualBlock, Upsample, conv3x3, pad_to_multiple
from gencodec.nn.quality import QualityTable
from gencodec.nn.warp import warp

Levels = Sequence[Tensor]  # of the diffusion buffer: (B,widths[0],H/8,W/8), (B,widths[1],H/16,W/16)
DEPTH = 4  # features are padded to multiples of this


class Level(nn.Module):
    """Two residual blocks with cross-attention between them."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.first = ResidualBlock(channels)
        self.attention = CrossAttention(channels, tokens)
        self.second = ResidualBlock(channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B,channels,H,W), tokens (B,N,tokens) -> the same shape as x."""
        return self.second(self.attention(self.first(x), tokens))


class Fusion(nn.Module):
    """x + what the frame before shows at this level; nothing until it is trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Sequential(nn.Conv2d(channels, half, 1), DepthBlock(half))
        self.mix = nn.Sequential(nn.Conv2d(channels + half, channels, 1), DepthBlock(channels))
        self.out = zero(nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Both (B,channels,H,W); `before` aligned to x."""
        return x + self.out(self.mix(torch.cat([x, self.reduce(before)], 1)))


class UNet(nn.Module):
    """Content features to what the latent lacks, in one step."""

    def __init__(self, content: int, out: int, widths: tuple[int, int, int], tokens: int) -> None:
        super().__init__()
        c8, c16, c32 = widths
        self.enter = conv3x3(content, c8)
        self.clock = QualityTable(c8)  # the noise level that a quality stands for
        self.down8, self.down16, self.down32 = (Level(c, tokens) for c in widths)
        self.to16, self.to32 = conv3x3(c8, c16, stride=2), conv3x3(c16, c32, stride=2)
        self.fusions = nn.ModuleList([Fusion(c8), Fusion(c16)])
        self.up16, self.up8 = Upsample(c32, c16), Upsample(c16, c8)
        self.join16, self.join8 = nn.Conv2d(2 * c16, c16, 1), nn.Conv2d(2 * c8, c8, 1)
        self.level16, self.level8 = Level(c16, tokens), Level(c8, tokens)
        self.leave = zero(nn.Conv2d(c8, out, 3, padding=1))

    def forward(
        self, content: Tensor, tokens: Tensor, quality: Tensor, before: Levels | None, flow: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """content (B,C,H,W) -> (B,out,H,W) and the levels for the diffusion buffer.

        `before` are the levels of the frame before and `flow` (B,2,H,W) leads to it, in places of this size;
        without them nothing is fused.
        """
        height, width = content.shape[-2:]
        x = pad_to_multiple(content, DEPTH)
        flow = None if flow is None else pad_to_multiple(flow, DEPTH)
        unfused8 = self.down8(self.enter(x) + self.clock(quality)[:, :, None, None], tokens)
        at8 = self._fused(0, unfused8, before, flow)
        unfused16 = self.down16(self.to16(F.leaky_relu(at8, 0.125)), tokens)
        at16 = self._fused(1, unfused16, before, flow)
        at32 = self.down32(self.to32(F.leaky_relu(at16, 0.125)), tokens)
        up = self.level16(self.join16(torch.cat([self.up16(at32), unfused16], 1)), tokens)
        up = self.level8(self.join8(torch.cat([self.up8(up), unfused8], 1)), tokens)
        return self.leave(up)[..., :height, :width], [unfused8, unfused16]

    def _fused(self, level: int, x: Tensor, before: Levels | None, flow: Tensor | None) -> Tensor:
        if not before or flow is None or not self.fusions:
            return x
        smaller = flow if level == 0 else F.avg_pool2d(flow, 2**level) / 2**level
        return cast("Fusion", self.fusions[level])(x, warp(before[level], smaller))
