"""Transforms of the key-frame codec: a linear analysis, and a synthesis that repairs what it inverts.

    x ─► Analysis ─► y ─► x gain[quality] ─► latent coder ─► y_hat
    y_hat ─► x 1/gain[quality] ─┬─► linear ─► edges smooth ────────┬─► x_hat
                                └─► Synthesis: repair and texture ─┘

x is (B,3,H,W) in [0,1], H and W multiples of 16; y is (B,y_channels,H/16,W/16). The linear paths are a cosine
transform and its inverse; docs/decisions.md says why. One gain for each quality: Cui et al. 2021 (arXiv
2003.02012).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.methods.intra.cosine import SIZE, dct_basis, from_blocks, log2_weights
from gencodec.methods.intra.grain import Grain
from gencodec.nn.deblock import smoothed
from gencodec.nn.layers import ResidualBlock, Upsample, compand, conv3x3, init_unit
from gencodec.nn.quality import QualityTable

STRIDE = SIZE  # of y against x
LOG2_GAINS = (-3.4, 0.5)  # at quality 0 and 63, before the weights of `cosine`


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the tiny preset."""

    y_channels: int = 192
    synthesis_widths: tuple[int, int, int, int] = (112, 88, 56, 24)  # at 1/16, 1/8, 1/4, 1/2
    repair_blocks: tuple[int, int] = (6, 3)  # at 1/4, 1/2
    prior_widths: tuple[int, ...] = (96, 128, 160, 160, 160)  # of the networks of each group, see `stages`


class Analysis(nn.Conv2d):
    """x -> y before gains: one linear map of every block of 16x16 pixels."""

    def __init__(self, config: Config) -> None:
        super().__init__(3, config.y_channels, STRIDE, stride=STRIDE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,y_channels,H/16,W/16)."""
        return super().forward(4 * x - 2)


class InverseTransform(nn.ConvTranspose2d):
    """y before gains -> what it stands for: the other way of `Analysis`, in ±2."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.y_channels, 3, STRIDE, stride=STRIDE, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B,y_channels,H/16,W/16) -> (B,3,H,W)."""
        return from_blocks(input, self.weight)


class Synthesis(nn.Module):
    """y_hat without its gains -> x_hat, not yet clamped to [0,1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c16, c8, c4, c2 = config.synthesis_widths
        n4, n2 = config.repair_blocks
        self.first = conv3x3(config.y_channels, c16)
        self.quality = QualityTable(c16)
        self.see4, self.see2 = conv3x3(48, c4), conv3x3(12, c2)  # the linear path's picture
        self.at16 = nn.Sequential(ResidualBlock(c16), ResidualBlock(c16), Upsample(c16, c8))
        self.at8 = nn.Sequential(ResidualBlock(c8), ResidualBlock(c8), Upsample(c8, c4))
        self.at4 = nn.Sequential(Grain(c4), *(ResidualBlock(c4) for _ in range(n4)), Upsample(c4, c2))
        self.at2 = nn.Sequential(Grain(c2), *(ResidualBlock(c2) for _ in range(n2)), conv3x3(c2, 12))
        self.log2_strength = QualityTable(12)  # of the repair; the better the latents, the less is left to do
        self.linear = InverseTransform(config)

    def forward(self, y_hat: Tensor, quality: Tensor, picture: Tensor) -> Tensor:
        """y_hat (B,y_channels,h,w), and what the linear path makes of it (B,3,16h,16w), both of that size."""
        return self.repaired(self.latent(y_hat, quality), 4 * picture - 2, quality) / 4 + 0.5

    def latent(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """(B,y_channels,h,w) -> what the repair grows from, (B,c8,2h,2w)."""
        return self.at16(self.first(compand(y_hat)) + self.quality(quality)[:, :, None, None])

    def repaired(self, latent: Tensor, picture: Tensor, quality: Tensor) -> Tensor:
        """The picture (B,3,16h,16w) of the linear path, in ±2, with what it lacks; the same range."""
        h = self.at8(latent) + self.see4(F.pixel_unshuffle(picture, 4))  # (B,c4,4h,4w)
        h = self.at4(h) + self.see2(F.pixel_unshuffle(picture, 2))  # (B,c2,8h,8w)
        repair = self.at2(h) * torch.exp2(self.log2_strength(quality))[:, :, None, None]
        return F.pixel_shuffle(repair, 2) + picture


class Transforms(nn.Module):
    """Analysis, synthesis and the gains between them and the latent coder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.analysis = Analysis(config)
        self.synthesis = Synthesis(config)
        self.log2_gain = QualityTable(config.y_channels, *LOG2_GAINS).requires_grad_(False)
        self._begin_as_dct()

    @torch.no_grad()
    def _begin_as_dct(self) -> None:
        """Start as a transform codec: a cosine transform, its inverse, and a repair that does nothing yet."""
        init_unit(self.synthesis)
        self.log2_gain.anchors.add_(log2_weights(len(self.analysis.weight)))
        basis = dct_basis(len(self.analysis.weight))
        scale = torch.ones(len(basis), 1, 1, 1)
        scale[0] = 0.5  # brightness: else it leaves the range of the context network
        self.analysis.weight.copy_(basis * scale)
        self.synthesis.linear.weight.copy_(basis / scale)
        self.synthesis.at2[-1].get_parameter("weight").zero_()

    def to_latents(self, x: Tensor, quality: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> y in quantisation steps, (B,y_channels,H/16,W/16)."""
        return self.analysis(x) * torch.exp2(self.log2_gain(quality))[:, :, None, None]

    def to_picture(self, y_hat: Tensor, quality: Tensor, blocks: Tensor | None = None) -> Tensor:
        """The other way; (B,3,H,W), not clamped. `blocks` as in `to_linear_picture`."""
        picture, scaled = self.to_linear_picture(y_hat, quality, blocks)
        return self.synthesis(scaled, quality, picture)

    def to_linear_picture(
        self, y_hat: Tensor, quality: Tensor, blocks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The picture (B,3,H,W) of the linear path alone, not clamped, and y_hat without its gains.

        `blocks`: how strongly edges of each block are smoothed, see `nn.deblock.smoothed`; None: not.
        """
        scaled = self.without_gain(y_hat, quality)
        picture = self.synthesis.linear(scaled) / 4 + 0.5
        if blocks is not None:
            picture = smoothed(picture, blocks, self.mean_step(quality))
        return picture, scaled

    def mean_step(self, quality: Tensor) -> Tensor:
        """What a step of the brightness of a block is in its pixels, (B,): edges are judged by it."""
        return torch.exp2(-self.log2_gain(quality)[:, 0]) / (2 * SIZE)

    def without_gain(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat as the synthesis sees it, the same shape."""
        return y_hat * torch.exp2(-self.log2_gain(quality))[:, :, None, None]
