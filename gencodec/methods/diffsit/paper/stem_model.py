"""The learned STEM: backbones coded under a context of the backbone before, MV frames by their motion alone.

    features of the last backbone ─► three sizes ─► moved by the coded flow ─► contexts
    x ─► encoder ◄─ contexts ─► y ─► (coder) ─► y_hat ─► decoder ◄─ contexts ─► features ─► picture
    backbone ─► warped by the coded flow of an MV frame ─► its picture

Conditional coding, no residual. Every `reset_period` backbones, and behind a key frame, features are made
from the picture. What re-enters runs in float32; what decides about a symbol is in the exact priors alone.
Sizes as in DCVC-FM (arXiv 2402.17414), which Diff-SIT (arXiv 2603.18501) seems to build on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencodec.methods.diffsit.paper.motion_codec import LOG2_GAINS, MotionCodec, gain, resized
from gencodec.methods.diffsit.paper.stem_config import StemConfig
from gencodec.methods.s2vc.paper.blocks import Down, ResidualBlock, Up
from gencodec.methods.s2vc.paper.latents import PaperLatents
from gencodec.methods.s2vc.paper.prior import SymbolState
from gencodec.nn.quality import QualityTable
from gencodec.nn.warp import warp

STRIDE = 64  # of z: pictures are padded to multiples of it
Contexts = tuple[Tensor, Tensor, Tensor]  # (B,w,H,W) at full size, a half, a quarter


class LearnedState(NamedTuple):
    """What the next backbone is coded against.

    Picture (B,3,H,W); features (B,w,H,W), None behind a key frame; state of the temporal prior at 1/16; the
    number of backbones since the key frame.
    """

    picture: Tensor
    features: Tensor | None
    memory: Tensor
    age: int


class ContextNet(nn.Module):
    """Features to contexts at three sizes, moved; finer ones also see the coarser."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        full, half, quarter = widths
        self.enter = nn.ModuleList([ResidualBlock(full, full), Down(full, half), Down(half, quarter)])
        self.up = nn.ModuleList([Up(half, full), Up(quarter, half)])
        self.leave = nn.ModuleList(ResidualBlock(w, w) for w in widths)

    def forward(self, features: Tensor, flow: Tensor) -> Contexts:
        """Features (B,w,H,W), flow (B,2,H,W) in pixels."""
        moved: list[Tensor] = []
        for level, enter in enumerate(self.enter):
            features = enter(features)
            moved.append(warp(features, resized(flow, 2.0**-level)))
        quarter = self.leave[2](moved[2])
        half = self.leave[1](moved[1] + self.up[1](quarter))
        return self.leave[0](moved[0] + self.up[0](half)), half, quarter


class UNet(nn.Module):
    """A residual over three sizes, of equal width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([Down(width, width), Down(width, width)])
        self.middle = ResidualBlock(width, width)
        self.up = nn.ModuleList([Up(width, width), Up(width, width)])
        self.leave = ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B,width,H,W), sides multiples of 4."""
        half = self.down[0](x)
        inner = half + self.up[1](self.middle(self.down[1](half)))
        out: Tensor = self.leave(x + self.up[0](inner))
        return out


class StemModel(nn.Module):
    """All networks of the learned STEM; the exact ones are in the three `latents` and in `temporal`."""

    def __init__(self, config: StemConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or StemConfig()
        full, half, quarter = c.widths
        y = c.y_channels
        self.motion, self.mv = MotionCodec(c), MotionCodec(c)
        self.from_picture, self.from_features = ResidualBlock(3, full), ResidualBlock(full, full)
        self.contexts = ContextNet(c.widths)
        first = nn.Sequential(nn.PixelUnshuffle(2), ResidualBlock(4 * (3 + full), half))
        self.see = nn.ModuleList([first, Down(2 * half, quarter), Down(2 * quarter, y)])
        self.see_last = Down(y, y)
        self.show_first = nn.Sequential(Up(y, y), Up(y, quarter))
        self.show = nn.ModuleList([Up(2 * half, full), Up(2 * quarter, half)])
        self.reconstruct = nn.Sequential(nn.Conv2d(2 * full, full, 1), UNet(full), UNet(full))
        self.to_picture = nn.Conv2d(full, 3, 3, padding=1)
        self.latents = PaperLatents(c.prior())
        self.temporal = SymbolState(c.key_channels, y, c.state_channels)
        self.log2_gain = QualityTable(y, *LOG2_GAINS).requires_grad_(False)

    def begin(self, picture: Tensor, y_hat: Tensor) -> LearnedState:
        """Behind a key frame: the coded picture (B,3,H,W), sides multiples of 64; `intra`'s y_hat at 1/16."""
        return LearnedState(picture, None, self.temporal.begin(y_hat), 0)

    def context(self, state: LearnedState, flow: Tensor) -> Contexts:
        """What is known of a backbone that moves by `flow` (B,2,H,W) from the last one."""
        if state.features is None or state.age % self.config.reset_period == 0:
            known: Tensor = self.from_picture(state.picture)
        else:
            known = self.from_features(state.features)
        contexts: Contexts = self.contexts(known, flow)
        return contexts

    def encode(self, x: Tensor, contexts: Contexts, quality: Tensor) -> Tensor:
        """x (B,3,H,W) in [0,1] -> y (B,y_channels,H/16,W/16) in steps of its gains."""
        h = 2 * x - 1
        for see, context in zip(self.see, contexts, strict=True):
            h = see(torch.cat([h, context], 1))
        y: Tensor = self.see_last(h)
        return y * gain(self.log2_gain, quality)

    def decode(
        self, y_hat: Tensor, log2_step: Tensor, contexts: Contexts, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """y_hat and its steps -> features (B,w,H,W) and picture (B,3,H,W) in [0,1]."""
        full, half, quarter = contexts
        h = self.show_first(y_hat * torch.exp2(log2_step) / gain(self.log2_gain, quality))
        h = self.show[1](torch.cat([h, quarter], 1))
        h = self.show[0](torch.cat([h, half], 1))
        features = self.reconstruct(torch.cat([h, full], 1))
        return features, clamped(self.to_picture(features) + 0.5)

    def after(self, state: LearnedState, features: Tensor, picture: Tensor, y_hat: Tensor) -> LearnedState:
        """The state that a backbone leaves."""
        return LearnedState(picture, features, self.temporal.update(state.memory, y_hat), state.age + 1)

    def codecs(self) -> dict[str, PaperLatents]:
        """The latents that are coded, by their prefix among the tensors."""
        parts = {"latents.": self.latents}
        return parts | {"motion.latents.": self.motion.latents, "mv.latents.": self.mv.latents}


def clamped(x: Tensor) -> Tensor:
    """To [0,1]; gradients pass as if it were not."""
    return x + (x.clamp(0, 1) - x).detach() if x.requires_grad else x.clamp(0, 1)
