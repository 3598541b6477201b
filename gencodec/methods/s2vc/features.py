"""The feature buffer: what a decoder has seen, carried from frame to frame along the motion.

    features before ─► moved ─► normalised ─► context ─┐
    coded picture, y_hat ─► embedded ──────────────────┴─► features

Behind the coding loop: it is made of coded pictures and symbols alone, so encoders need not keep it. At a key
frame, and at every reset, it begins anew from the coded picture.
Paper: S2VC (arXiv 2512.07480), feature adaptor and context extractor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.methods.intra.networks import Config as IntraConfig
from gencodec.methods.s2vc.blocks import DepthBlock, chain
from gencodec.nn.layers import Upsample
from gencodec.nn.motion import BLOCK, upsampled
from gencodec.nn.warp import warp

F8 = 8  # pixels a place of the features
UNSHUFFLED = 3 * F8 * F8


class FeatureBuffer(nn.Module):
    """One frame's features (B,channels,H/8,W/8) from the last one's."""

    def __init__(self, channels: int, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(UNSHUFFLED, channels, 1)
        self.enter = Upsample(IntraConfig().y_channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.context = nn.Sequential(nn.Conv2d(channels, channels, 1), DepthBlock(channels))
        self.body = chain(2 * channels, channels, blocks)

    def forward(self, picture: Tensor, scaled: Tensor, before: Tensor | None, flow: Tensor | None) -> Tensor:
        """picture (B,3,H,W) in [0,1]; scaled (B,Cy,H/16,W/16), y_hat without gains; None, None: begin anew.

        `before` are the last features, `flow` (B,2,H/16,W/16) in pixels leads to them.
        """
        seen = self.embed(F.pixel_unshuffle(picture - 0.5, F8)) + self.enter(scaled)
        context = torch.zeros_like(seen)
        if before is not None and flow is not None:
            context = self.context(self._per_place(warp(before, small_flow(flow))))
        return self.body(torch.cat([seen, context], 1))

    def _per_place(self, x: Tensor) -> Tensor:
        """Normalised over channels at each place, so that features cannot grow as they run around."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def small_flow(flow: Tensor) -> Tensor:
    """Flow of blocks, in pixels, for every place of the features, in places."""
    return upsampled(flow, BLOCK // F8) / F8
