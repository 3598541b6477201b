"""Motion that is learned: found by a pyramid, coded as latents, and read back as a flow. In float32.

    x, reference ─► FlowNet ─► flow ─► encoder ─► y ─► (coder) ─► y_hat ─► decoder ─► flow

STEM has two of it, of equal layout and with weights of their own: for backbones against the backbone before,
and for MV frames against their backbone, which need no residual. Only an encoder runs the left half.
Sizes: DCVC-FM (arXiv 2402.17414), whose flow network has four levels of SPyNet's (arXiv 1611.00850).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.methods.diffsit.paper.stem_config import StemConfig
from gencodec.methods.s2vc.paper.blocks import Down, ResidualBlock, Up
from gencodec.methods.s2vc.paper.latents import PaperLatents
from gencodec.nn.quality import QualityTable
from gencodec.nn.warp import warp

WIDTHS = (8, 32, 64, 32, 16, 2)  # of a level of the pyramid
KERNELS = (7, 7, 5, 5)  # from an eighth of the size to all of it
LOG2_GAINS = (-2.0, 2.0)  # of latents, at quality 0 and 63


class FlowNet(nn.Module):
    """Flow (B,2,H,W), pixels x and y, that brings `reference` onto x; sides multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(kernel) for kernel in KERNELS)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in [0,1]."""
        pyramid = [(x, reference)]
        for _ in KERNELS[1:]:
            pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
        flow = torch.zeros_like(pyramid[-1][0][:, :2])
        for level, (a, b) in zip(self.levels, reversed(pyramid), strict=True):
            flow = resized(flow, a.shape[-1] / flow.shape[-1])
            flow = flow + level(torch.cat([a, warp(b, flow), flow], 1))
        return flow


class MotionCodec(nn.Module):
    """Flow to latents (B,motion_channels,H/16,W/16) and back."""

    def __init__(self, c: StemConfig) -> None:
        super().__init__()
        m = c.motion_channels
        self.flow = FlowNet()
        # no strided 1x1 convolution of two channels: torch 2.15 on some CPUs writes beyond its gradients
        halved = [nn.PixelUnshuffle(2), nn.Conv2d(8, m, 3, padding=1)]
        self.encoder = nn.Sequential(*halved, ResidualBlock(m, m), Down(m, m), Down(m, m), Down(m, m))
        self.decoder = nn.Sequential(
            Up(m, m), Up(m, m), ResidualBlock(m, m), Up(m, m), Up(m, m), nn.Conv2d(m, 2, 3, padding=1)
        )
        self.latents = PaperLatents(c.motion_prior())
        self.log2_gain = QualityTable(m, *LOG2_GAINS).requires_grad_(False)

    def analyse(self, x: Tensor, reference: Tensor, quality: Tensor) -> Tensor:
        """What is found between two pictures (B,3,H,W), in steps of the gains."""
        found: Tensor = self.encoder(self.flow(x, reference))
        return found * gain(self.log2_gain, quality)

    def synthesise(self, y_hat: Tensor, log2_step: Tensor, quality: Tensor) -> Tensor:
        """y_hat and its steps -> flow (B,2,H,W) in pixels."""
        flow: Tensor = self.decoder(y_hat * torch.exp2(log2_step) / gain(self.log2_gain, quality))
        return flow

    def still(self, y: Tensor) -> Tensor:
        """The state of the prior for latents like y: motion is coded without any."""
        return torch.zeros_like(y[:, :1]).expand(-1, self.latents.prior.state_channels, -1, -1)


def gain(table: QualityTable, quality: Tensor) -> Tensor:
    """What latents are multiplied by, (B,C,1,1)."""
    return torch.exp2(table(quality))[:, :, None, None]


def resized(flow: Tensor, factor: float) -> Tensor:
    """A flow (B,2,h,w) for pictures `factor` times as large; its vectors grow with it."""
    if factor == 1:
        return flow
    return factor * F.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False)


def _level(kernel: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before, after in pairwise(WIDTHS):
        parts += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*parts[:-1])
