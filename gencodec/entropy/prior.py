"""The networks that say which table and which mean a latent has: exact, and fed with integers only.

    z ─► hyper ─► features ─┬─► first ──────────────► mean, index of the first half of y
                            └─► second (+ first half) ─► mean, index of the second half
    features also take `extra`, integer planes of earlier frames, where a method has them.

y_hat lives on a grid of 1/8: an integer symbol plus a mean. Which half an element belongs to alternates over
places and between the two halves of the channels, so that each pass sees something at every place. Sources:
checkerboard context, He et al. 2021 (arXiv 2103.15306), in the two-pass form with alternating channel groups
of Li et al. 2023 (DCVC-DC, arXiv 2302.14402); gains for variable rate, Cui et al. 2021 (arXiv 2003.02012).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gencodec.entropy.scales import NUM_SCALES
from gencodec.nn.exact import (
    ACT_MAX,
    ACT_STEP,
    ExactConv2d,
    ExactPixelShuffle,
    Link,
    round_clamp,
    to_activation,
)
from gencodec.nn.layers import compand
from gencodec.nn.quality import NUM_QUALITIES, QualityTable

MEAN_STEP = 2.0**-3
HYPER_STRIDE = 4  # of z against y


def quality_shift(quality: Tensor) -> Tensor:
    """Octaves by which latents of `quality` (B,) are larger than the networks' range: 0..4, (B,1,1,1)"""
    return (
        torch.div(quality * 4 + NUM_QUALITIES // 2, NUM_QUALITIES, rounding_mode="floor")
        .float()
        .reshape(-1, 1, 1, 1)
    )


def first_half(channels: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Mask (1,channels,H,W) of the elements coded first: a checkerboard, turned in the upper channels."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    upper = torch.arange(channels, device=device) >= channels // 2
    return ((rows[:, None] + columns + upper[:, None, None]) % 2 == 0)[None]


class LatentPrior(nn.Module):
    """Means and scale indices of y (y_channels) from z (z_channels, a quarter of the size), in two passes."""

    def __init__(
        self, y_channels: int, z_channels: int, width: int = 64, context: int = 96, extra_channels: int = 0
    ) -> None:
        super().__init__()
        self.y_channels, self.z_channels, self.extra_channels = y_channels, z_channels, extra_channels
        self.hyper_in = ExactConv2d(z_channels, width)
        self.hyper_up1 = ExactPixelShuffle(width, width)
        self.hyper_mid = ExactConv2d(width, width)
        self.hyper_up2 = ExactPixelShuffle(width, width)
        self.first_in = ExactConv2d(width + extra_channels, context, 1)
        self.first_out = ExactConv2d(context, 2 * y_channels, 1, head=True)
        self.second_in = ExactConv2d(width + extra_channels + y_channels, context)
        self.second_mid = ExactConv2d(context, context)
        self.second_out = ExactConv2d(context, 2 * y_channels, 1, head=True)
        self.hyper_quality = QualityTable(width)
        self.first_quality = QualityTable(context)
        self.second_quality = QualityTable(context)
        # Means begin near zero and move slowly: small latents round to zero best with a mean of zero, and the
        # noise of training costs more there than a mean gives.
        with torch.no_grad():
            for head in (self.first_out, self.second_out):
                head.weight[:y_channels].mul_(0.05)

    def features(
        self, z_hat: Tensor, quality: Tensor, size: tuple[int, int], extra: Tensor | None = None
    ) -> Tensor:
        """Features (B,width+extra,H,W) at y's `size` from integers z_hat (B,z_channels,H/4,W/4)."""
        x = self.hyper_in(round_clamp(z_hat, ACT_STEP, ACT_MAX), self.hyper_quality(quality))
        x = self.hyper_up2(self.hyper_mid(self.hyper_up1(x)))[..., : size[0], : size[1]]
        return x if extra is None else torch.cat([x, extra], 1)

    def first(self, features: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unrounded scale index (B,y_channels,H,W) for the first half."""
        x = self.first_in(features, self.first_quality(quality))
        return self._head(self.first_out, x, quality)

    def second(self, features: Tensor, y_first: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the second half, given the first half's y_hat (zero elsewhere)."""
        near = to_activation(compand(y_first))
        x = self.second_in(torch.cat([features, near], 1), self.second_quality(quality))
        return self._head(self.second_out, self.second_mid(x), quality)

    def tables(self) -> list[tuple[QualityTable, ExactConv2d]]:
        """Each quality table with the layer to whose bias its rows are added."""
        return [
            (self.hyper_quality, self.hyper_in),
            (self.first_quality, self.first_in),
            (self.second_quality, self.second_in),
        ]

    def links(self) -> list[Link]:
        """The chain of layers, for `equalise`."""
        up1, up2 = self.hyper_up1, self.hyper_up2
        return [
            Link(self.hyper_in, self.hyper_in, [up1.conv], [self.hyper_quality.anchors]),
            Link(up1, up1.conv, [self.hyper_mid]),
            Link(self.hyper_mid, self.hyper_mid, [up2.conv]),
            Link(up2, up2.conv, [self.first_in, self.second_in]),
            Link(self.first_in, self.first_in, [self.first_out], [self.first_quality.anchors]),
            Link(self.second_in, self.second_in, [self.second_mid], [self.second_quality.anchors]),
            Link(self.second_mid, self.second_mid, [self.second_out]),
        ]

    def bias_for(self, index: Tensor, quality: Tensor) -> Tensor:
        """The output of a head that stands for the scale index (B,C) at `quality` (B,)."""
        return (index - self._base_index(quality)[:, :, 0, 0]) / 4

    def _base_index(self, quality: Tensor) -> Tensor:
        # 3.6 octaves from quality 0 to 63, in whole indices; without the jumps of `quality_shift`
        return (20 + torch.div(28 * quality + 31, 63, rounding_mode="floor")).float().reshape(-1, 1, 1, 1)

    def _head(self, head: ExactConv2d, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        mean, index = head(x).chunk(2, 1)
        shift = quality_shift(quality)
        mean = round_clamp(mean * torch.exp2(shift - 3), MEAN_STEP, 1024.0)  # small: see __init__
        return mean, 4 * index + self._base_index(quality)


def round_index(index: Tensor) -> Tensor:
    """Scale index on its grid 0..63; straight-through gradient."""
    centre = NUM_SCALES / 2
    return round_clamp(index - centre, 1.0, centre).clamp_max(centre - 1) + centre
