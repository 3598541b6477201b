"""Conditional coding of a predicted frame against the feature buffer; everything here is inside the loop.

    buffer ─► aligned by the frame's motion ─► Extractor ─► context, prediction
    x, prediction, context ─► Analysis ─► y ─► (coder) ─► y_hat ─► Decoder, context ─► buffer of the next

The buffer holds features at an eighth of the size and the picture that they stand for, which is what a plain
decoder would show. Analysis and Decoder have a linear path, a cosine transform of what the prediction misses,
and networks beside it that begin at zero: docs/decisions.md says why. The generator never enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.methods.intra.cosine import SIZE, dct_basis, log2_weights
from gencodec.methods.s2vc.blocks import chain, zero
from gencodec.nn.layers import Upsample
from gencodec.nn.motion import BLOCK, compensate, upsampled
from gencodec.nn.quality import QualityTable
from gencodec.nn.warp import warp

F8 = 8  # pixels a place of the features
UNSHUFFLED = 3 * F8 * F8
LOG2_GAINS = (-3.2, 0.2)  # of the residual at quality 0 and 63
MAX_STEP = 1.0  # octaves by which the adaptive step may differ


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the tiny preset."""

    features: int = 96
    y_channels: int = 192
    z_channels: int = 32
    state_channels: int = 32  # of the integer temporal prior
    prior_width: int = 64
    context_width: int = 96
    blocks: int = 3
    key_channels: int = 192  # of `intra`'s y


class Buffer(NamedTuple):
    """What the next frame is coded against: picture (B,3,H,W) around [0,1], features (B,C,H/8,W/8)."""

    picture: Tensor
    features: Tensor


class Context(NamedTuple):
    """Prediction (B,3,H,W), features (B,C,H/8,W/8) and log2 of the adaptive step (B,Cy,H/16,W/16)."""

    prediction: Tensor
    features: Tensor
    log2_step: Tensor


class KeyAdaptor(nn.Module):
    """The buffer after a key frame: its linear picture and y_hat, never the generator's picture."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.features
        self.latents = nn.Sequential(nn.Conv2d(config.key_channels, c, 1), Upsample(c, c))
        self.body = chain(UNSHUFFLED + c, c, 2)
        self.repair = zero(nn.Conv2d(c, UNSHUFFLED, 1))

    def forward(self, picture: Tensor, y_hat: Tensor) -> Buffer:
        """picture (B,3,H,W); y_hat (B,key_channels,H/16,W/16) without its gains."""
        seen = torch.cat([F.pixel_unshuffle(picture, F8), self.latents(y_hat)], 1)
        features = self.body(seen)
        return Buffer(picture + F.pixel_shuffle(self.repair(features), F8), features)


class Extractor(nn.Module):
    """Feature adaptor and context extractor: the aligned buffer to prediction, context and adaptive step."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.features
        self.adaptor = chain(UNSHUFFLED + c, c, config.blocks)
        self.repair = zero(nn.Conv2d(c, UNSHUFFLED, 1))
        self.step = zero(nn.Conv2d(c, config.y_channels, 2, stride=2)).requires_grad_(False)

    def forward(self, buffer: Buffer, flow: Tensor) -> Context:
        """flow (B,2,H/16,W/16), pixels, from this frame to the one before."""
        picture = compensate(buffer.picture, flow)
        features = warp(buffer.features, upsampled(flow, BLOCK // F8) / F8)
        context = self.adaptor(torch.cat([F.pixel_unshuffle(picture, F8), features], 1))
        prediction = picture + F.pixel_shuffle(self.repair(context), F8)
        return Context(prediction, context, MAX_STEP * torch.tanh(self.step(context)))


class Residuals(nn.Module):
    """y of a frame given its context, and back: the linear path, gains, and the networks beside it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c, y = config.features, config.y_channels
        self.linear = nn.Conv2d(3, y, SIZE, stride=SIZE, bias=False)
        self.inverse = nn.ConvTranspose2d(y, 3, SIZE, stride=SIZE, bias=False)
        self.embed = nn.Conv2d(UNSHUFFLED, c, 1)
        self.analysis = chain(2 * c, c, config.blocks)
        self.analysis_out = zero(nn.Conv2d(c, y, 2, stride=2))
        self.enter = Upsample(y, c)
        self.synthesis = chain(2 * c, c, config.blocks)
        self.repair = zero(nn.Conv2d(c, UNSHUFFLED, 1))
        self.log2_gain = QualityTable(y, *LOG2_GAINS).requires_grad_(False)
        with torch.no_grad():
            basis = dct_basis(y)
            self.linear.weight.copy_(basis)
            self.inverse.weight.copy_(basis)
            self.log2_gain.anchors.add_(log2_weights(y))

    def encode(self, x: Tensor, context: Context, quality: Tensor) -> Tensor:
        """x (B,3,H,W) in [0,1] -> y (B,y_channels,H/16,W/16) in quantisation steps."""
        missing = self.linear(4 * (x - context.prediction))
        seen = torch.cat([self.embed(F.pixel_unshuffle(x, F8)), context.features], 1)
        return (missing + self.analysis_out(self.analysis(seen))) * self._gain(context, quality)

    def decode(self, y_hat: Tensor, context: Context, quality: Tensor) -> Buffer:
        """The buffer of the next frame, which is also what the generator renders."""
        scaled = y_hat / self._gain(context, quality)
        features = self.synthesis(torch.cat([self.enter(scaled), context.features], 1))
        picture = context.prediction + self.inverse(scaled) / 4
        return Buffer(picture + F.pixel_shuffle(self.repair(features), F8), features)

    def _gain(self, context: Context, quality: Tensor) -> Tensor:
        return torch.exp2(self.log2_gain(quality)[:, :, None, None] - context.log2_step)
