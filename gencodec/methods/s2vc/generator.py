"""What renders a coded frame in one step; outside the coding loop, in any precision.

    coded picture, y_hat ─► feature buffer ─► content adapter ─► U-Net (tokens, diffusion buffer) ─► lack
    coded picture ─► cosine transform ─► r
    latent = r + lack ─► decoder, which also sees the picture ─► x_hat

r is the residual form of the one diffusion step: the degraded picture's own latent takes the place of the
noisy one, and the network says what it lacks. (The form at t = 999 with predicted noise, 14.65 r - 14.61 eps,
means something only for a pre-trained predictor: the paper preset.) No noise is drawn but the decoder's fixed
grain. The decoder is that of `intra` and begins with its weights.
Paper: S2VC (arXiv 2512.07480).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.methods.intra.cosine import SIZE
from gencodec.methods.intra.networks import Config as IntraConfig
from gencodec.methods.intra.networks import Synthesis
from gencodec.methods.s2vc.blocks import chain
from gencodec.methods.s2vc.features import F8, UNSHUFFLED, FeatureBuffer, small_flow
from gencodec.methods.s2vc.model import CodedFrame
from gencodec.methods.s2vc.semantic import SemanticHead, Semantics
from gencodec.methods.s2vc.unet import UNet

PREFIX = "generator."  # of its tensors in a weights file


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Sizes of the tiny preset, and the switches of the paper's ablations."""

    features: int = 80
    content: int = 64
    widths: tuple[int, int, int] = (64, 96, 128)
    tokens: int = 80
    semantics: Semantics = "paired"
    temporal: bool = True  # TCG
    unet: bool = True  # False: a plain decoder
    repair_blocks: tuple[int, int] = (3, 1)  # of the decoder, at 1/4 and 1/2; `intra` has more


class Memory(NamedTuple):
    """What the next frame may look at: features and the levels of the diffusion buffer."""

    features: Tensor
    levels: list[Tensor]


class Rendered(NamedTuple):
    """The picture (B,3,H,W), not clamped, the tokens (B,N,tokens), and the memory for the next frame."""

    picture: Tensor
    tokens: Tensor
    memory: Memory


class Generator(nn.Module):
    """A coded frame to its picture."""

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or GeneratorConfig()
        intra = IntraConfig(repair_blocks=c.repair_blocks)
        self.analysis = nn.Conv2d(3, intra.y_channels, SIZE, stride=SIZE, bias=False)
        self.decoder = Synthesis(intra)
        del self.decoder.linear  # the coding loop has made the picture
        if not c.unet:
            return
        self.features = FeatureBuffer(c.features)
        self.content = chain(UNSHUFFLED + c.features, c.content, 1)
        self.semantics = SemanticHead(c.features, c.tokens, c.semantics)
        self.unet = UNet(c.content, intra.synthesis_widths[1], c.widths, c.tokens)
        if not c.temporal:
            self.unet.fusions = nn.ModuleList()

    def forward(self, frame: CodedFrame, quality: Tensor, memory: Memory | None = None) -> Rendered:
        """Render `frame`, whose sides are multiples of 16, at `quality` (B,), `intra`'s.

        `memory` is that of the frame before; None for a key frame and at a reset.
        """
        if not self.config.unet:
            latent = self.latent_of(frame.picture, quality)
            nothing = latent[:, :0]
            picture = self.decode(latent, frame.picture, quality)
            return Rendered(picture, nothing, Memory(nothing, []))
        features = self.remember(frame, memory)
        tokens = self.semantics(features, features if memory is None else memory.features)
        return self.render(frame, quality, features, tokens, memory)

    def remember(self, frame: CodedFrame, memory: Memory | None) -> Tensor:
        """The feature buffer after `frame`."""
        if memory is None:
            return self.features(frame.picture, frame.scaled, None, None)
        return self.features(frame.picture, frame.scaled, memory.features, frame.flow)

    def render(
        self, frame: CodedFrame, quality: Tensor, features: Tensor, tokens: Tensor, memory: Memory | None
    ) -> Rendered:
        """Content adapter, U-Net, decoder."""
        content = self.content(torch.cat([F.pixel_unshuffle(frame.picture - 0.5, F8), features], 1))
        levels = memory.levels if memory else None
        lack, kept = self.unet(content, tokens, quality, levels, small_flow(frame.flow))
        latent = self.latent_of(frame.picture, quality) + lack
        return Rendered(self.decode(latent, frame.picture, quality), tokens, Memory(features, kept))

    def latent_of(self, picture: Tensor, quality: Tensor) -> Tensor:
        """r: (B,3,H,W) in [0,1] -> (B,88,H/8,W/8)."""
        return self.decoder.latent(self.analysis(_signed(picture)), quality)

    def decode(self, latent: Tensor, picture: Tensor, quality: Tensor) -> Tensor:
        """A latent (B,88,H/8,W/8) and the picture that it repairs -> (B,3,H,W), not clamped."""
        return self.decoder.repaired(latent, _signed(picture), quality) / 4 + 0.5


def _signed(picture: Tensor) -> Tensor:
    return 4 * picture - 2
