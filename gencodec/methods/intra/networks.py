"""Analysis and synthesis of the key-frame codec, with learned gains for the quality.

    x ─► Analysis ─► y ─► x gain[quality] ─► latent coder ─► y_hat
    y_hat ─► x inverse_gain[quality] ─► Synthesis ─► x_hat

x is (B,3,H,W) in [0,1], H and W multiples of 16; y is (B,y_channels,H/16,W/16). The transforms run mostly at
1/4 and 1/8 of the size, where a convolution costs little. Gains: Cui et al. 2021 (arXiv 2003.02012),
equations 4 to 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.nn.layers import ResidualBlock, Upsample, conv3x3, init_unit
from gencodec.nn.quality import QualityTable

STRIDE = 16  # of y against x


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the tiny preset."""

    y_channels: int = 96
    z_channels: int = 32
    analysis_widths: tuple[int, int, int] = (48, 80, 112)  # at 1/4, 1/8, 1/16
    synthesis_widths: tuple[int, int, int, int] = (112, 88, 56, 24)  # at 1/16, 1/8, 1/4, 1/2
    prior_width: int = 64
    context_width: int = 96


class Analysis(nn.Module):
    """x -> y before gains."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c4, c8, c16 = config.analysis_widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv3x3(48, c4),
            ResidualBlock(c4),
            conv3x3(c4, c8, stride=2),
            ResidualBlock(c8),
            ResidualBlock(c8),
            conv3x3(c8, c16, stride=2),
        )
        self.quality = QualityTable(c16)
        self.last = nn.Sequential(ResidualBlock(c16), nn.Conv2d(c16, config.y_channels, 1))
        self.linear = nn.Conv2d(3, config.y_channels, STRIDE, stride=STRIDE, bias=False)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,y_channels,H/16,W/16)."""
        x = 4 * x - 2
        h = self.layers(x)  # (B,c16,H/16,W/16)
        return self.last(h + self.quality(quality)[:, :, None, None]) + self.linear(x)


class Synthesis(nn.Module):
    """y_hat after inverse gains -> x_hat, not yet clamped to [0,1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c16, c8, c4, c2 = config.synthesis_widths
        self.first = conv3x3(config.y_channels, c16)
        self.quality = QualityTable(c16)
        self.at16 = nn.Sequential(ResidualBlock(c16), ResidualBlock(c16), Upsample(c16, c8))
        self.at8 = nn.Sequential(ResidualBlock(c8), ResidualBlock(c8), Upsample(c8, c4))
        self.at4 = nn.Sequential(ResidualBlock(c4), ResidualBlock(c4), Upsample(c4, c2))
        self.at2 = nn.Sequential(ResidualBlock(c2), conv3x3(c2, 12))
        self.linear = nn.ConvTranspose2d(config.y_channels, 3, STRIDE, stride=STRIDE, bias=False)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """(B,y_channels,h,w) -> (B,3,16h,16w)."""
        h = self.first(y_hat) + self.quality(quality)[:, :, None, None]  # (B,c16,h,w)
        h = self.at4(self.at8(self.at16(h)))  # (B,c2,8h,8w)
        return (F.pixel_shuffle(self.at2(h), 2) + self.linear(y_hat)) / 4 + 0.5


def dct_basis(channels: int) -> Tensor:
    """The lowest frequencies of the cosine transform on 16x16 blocks, (channels,3,16,16), orthonormal.

    Five eighths of the channels see brightness, the others the two colour differences.
    """
    n = torch.arange(STRIDE)
    cosine = torch.cos(math.pi / STRIDE * (n[None] + 0.5) * n[:, None]) * math.sqrt(
        2 / STRIDE
    )  # (frequency,place)
    cosine[0] /= math.sqrt(2)
    order = sorted(
        ((u, v) for u in range(STRIDE) for v in range(STRIDE)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f)
    )
    blocks = torch.stack([cosine[u][:, None] * cosine[v][None] for u, v in order])  # (256,16,16)
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]])
    colours /= colours.norm(dim=1, keepdim=True)
    chroma = channels * 3 // 16
    counts = (channels - 2 * chroma, chroma, chroma)
    parts = [
        blocks[:count, None] * colour[:, None, None] for count, colour in zip(counts, colours, strict=True)
    ]
    return torch.cat(parts)


class Transforms(nn.Module):
    """Analysis, synthesis and the gains between them and the latent coder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.analysis = Analysis(config)
        self.synthesis = Synthesis(config)
        self.log2_gain = QualityTable(config.y_channels, -1.0, 3.0)
        self.log2_inverse_gain = QualityTable(config.y_channels, 1.0, -3.0)
        self._begin_as_dct()

    @torch.no_grad()
    def _begin_as_dct(self) -> None:
        """Start as a transform codec: the linear paths are a cosine transform and its inverse.

        From a random start most channels die under the first rate term, and the picture's mean takes hundreds
        of steps.
        """
        init_unit(self)
        basis = dct_basis(len(self.analysis.linear.weight))
        scale = torch.ones(len(basis), 1, 1, 1)
        scale[0] = 0.5  # brightness: else it leaves the range of the context network
        self.analysis.linear.weight.copy_(basis * scale)
        self.synthesis.linear.weight.copy_(basis / scale)
        self.analysis.last[-1].get_parameter("weight").mul_(0.1)
        self.synthesis.at2[-1].get_parameter("weight").mul_(0.1)

    def to_latents(self, x: Tensor, quality: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> y in quantisation steps, (B,y_channels,H/16,W/16)."""
        return self.analysis(x, quality) * torch.exp2(self.log2_gain(quality))[:, :, None, None]

    def to_picture(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """The other way; (B,3,H,W), not clamped."""
        return self.synthesis(y_hat * torch.exp2(self.log2_inverse_gain(quality))[:, :, None, None], quality)
