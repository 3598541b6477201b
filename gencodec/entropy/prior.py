"""The networks that say which table and which mean a latent has: exact, and fed with integers only.

    z ─► hyper ─► features ─┬─► first ───────────────────► mean, index of the first quarter of y
                            └─► near[k] (+ quarters 0..k) ─► mean, index of quarter k + 1, for k = 0, 1, 2
    features also take `extra`, integer planes of earlier frames, where a method has them.

y_hat lives on a grid of 1/8: an integer symbol plus a mean. In every 2x2 places each quarter of the channels
has another turn, so that each pass sees something at every place, and each channel fills its plane from
coarse to fine. Sources: checkerboard context, He et al. 2021 (arXiv 2103.15306); four passes with rotating
channel groups, Li et al. 2023 (DCVC-DC, arXiv 2302.14402, section 3.3); gains for variable rate, Cui et al.
2021 (arXiv 2003.02012).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from gencodec.entropy.scales import NUM_SCALES
from gencodec.nn.equalise import Link
from gencodec.nn.exact import ACT_MAX, ACT_STEP, ExactConv2d, ExactPixelShuffle, round_clamp, to_activation
from gencodec.nn.layers import compand
from gencodec.nn.quality import NUM_QUALITIES, QualityTable

MEAN_STEP = 2.0**-3
HYPER_STRIDE = 4  # of z against y
PASSES = 4


def quality_shift(quality: Tensor) -> Tensor:
    """Octaves by which latents of `quality` (B,) are larger than the networks' range: 0..4, (B,1,1,1)"""
    return (
        torch.div(quality * 4 + NUM_QUALITIES // 2, NUM_QUALITIES, rounding_mode="floor")
        .float()
        .reshape(-1, 1, 1, 1)
    )


def pass_masks(
    channels: int, height: int, width: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, ...]:
    """PASSES masks (1,channels,H,W) of the elements coded in each pass; every element is in one of them.

    A channel of the first quarter (every fourth one) takes the corners of 2x2 places in the order top left,
    bottom right, top right, bottom left; the others the same order with pairs or halves swapped.
    """
    rows, columns = torch.arange(height, device=device) % 2, torch.arange(width, device=device) % 2
    place = 2 * (rows[:, None] ^ columns) + rows[:, None]  # (H,W): 0 and 1 on the diagonal
    turn = place ^ (torch.arange(channels, device=device) % PASSES)[:, None, None]
    return tuple((turn == k)[None] for k in range(PASSES))


class NearNet(nn.Module):
    """Mean and index of one pass from features and the latents of the passes before."""

    def __init__(self, in_channels: int, y_channels: int, context: int, out: int, magnitudes: bool) -> None:
        super().__init__()
        self.magnitudes = magnitudes
        self.conv_in = ExactConv2d(in_channels + y_channels, context)
        self.conv_mid = ExactConv2d(context, context)
        self.conv_out = ExactConv2d(context, out, 1, head=True)
        self.quality = QualityTable(context)

    def forward(self, features: Tensor, y_known: Tensor, quality: Tensor) -> Tensor:
        """(B,in_channels,H,W), (B,y_channels,H,W) -> sums of the head (B,out,H,W)."""
        near = to_activation(compand(y_known))
        near = near.abs() if self.magnitudes else near
        x = self.conv_in(torch.cat([features, near], 1), self.quality(quality))
        return self.conv_out(self.conv_mid(x))

    def links(self) -> list[Link]:
        """For `equalise`."""
        return [
            Link(self.conv_in, self.conv_in, [self.conv_mid], [self.quality.anchors]),
            Link(self.conv_mid, self.conv_mid, [self.conv_out]),
        ]


class LatentPrior(nn.Module):
    """Means and scale indices of y (y_channels) from z (z_channels, a quarter the size), in four passes.

    `centred` is for latents without means, such as residuals of a prediction: their means are zero, and the
    context looks at magnitudes, from which a network would first have to make them.
    """

    def __init__(
        self,
        y_channels: int,
        z_channels: int,
        width: int = 64,
        context: int = 96,
        extra_channels: int = 0,
        *,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.centred = centred
        out = y_channels if centred else 2 * y_channels
        self.y_channels, self.z_channels, self.extra_channels = y_channels, z_channels, extra_channels
        self.hyper_in = ExactConv2d(z_channels, width)
        self.hyper_up1 = ExactPixelShuffle(width, width)
        self.hyper_mid = ExactConv2d(width, width)
        self.hyper_up2 = ExactPixelShuffle(width, width)
        self.first_in = ExactConv2d(width + extra_channels, context, 1)
        self.first_out = ExactConv2d(context, out, 1, head=True)
        self.near = nn.ModuleList(
            NearNet(width + extra_channels, y_channels, context, out, centred) for _ in range(PASSES - 1)
        )
        self.hyper_quality = QualityTable(width)
        self.first_quality = QualityTable(context)
        # Means begin near zero and move slowly: small latents round to zero best with a mean of zero, and the
        # noise of training costs more there than a mean gives.
        if not centred:
            with torch.no_grad():
                for head in self.heads():
                    head.weight[:y_channels].mul_(0.05)

    def features(
        self, z_hat: Tensor, quality: Tensor, size: tuple[int, int], extra: Tensor | None = None
    ) -> Tensor:
        """Features (B,width+extra,H,W) at y's `size` from integers z_hat (B,z_channels,H/4,W/4)."""
        x = self.hyper_in(round_clamp(z_hat, ACT_STEP, ACT_MAX), self.hyper_quality(quality))
        x = self.hyper_up2(self.hyper_mid(self.hyper_up1(x)))[..., : size[0], : size[1]]
        return x if extra is None else torch.cat([x, extra], 1)

    def predict(self, turn: int, features: Tensor, y_known: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unrounded scale index (B,y_channels,H,W) for pass `turn`, given y_hat of those before.

        y_known (B,y_channels,H,W) is zero where nothing is known yet; pass 0 does not look at it.
        """
        if turn:
            out = self.near[turn - 1](features, y_known, quality)
        else:
            out = self.first_out(self.first_in(features, self.first_quality(quality)))
        if self.centred:
            return torch.zeros_like(out), 4 * out + self._base_index(quality)
        mean, index = out.chunk(2, 1)
        shift = quality_shift(quality)
        mean = round_clamp(mean * torch.exp2(shift - 3), MEAN_STEP, 1024.0)  # small: see __init__
        return mean, 4 * index + self._base_index(quality)

    def predict_all(self, features: Tensor, y_hat: Tensor, quality: Tensor) -> list[tuple[Tensor, Tensor]]:
        """`predict` of every pass where all of y_hat (B,y_channels,H,W) is given: for tests of exactness."""
        masks = pass_masks(*y_hat.shape[1:], device=y_hat.device)
        known = [sum(masks[:turn], torch.zeros_like(y_hat)) for turn in range(PASSES)]
        return [self.predict(turn, features, y_hat * known[turn], quality) for turn in range(PASSES)]

    def heads(self) -> list[ExactConv2d]:
        """The last layer of each pass."""
        return [self.first_out, *(net.conv_out for net in self._near())]

    def tables(self) -> list[tuple[QualityTable, ExactConv2d]]:
        """Each quality table with the layer to whose bias its rows are added."""
        return [
            (self.hyper_quality, self.hyper_in),
            (self.first_quality, self.first_in),
            *((net.quality, net.conv_in) for net in self._near()),
        ]

    def links(self) -> list[Link]:
        """The chain of layers, for `equalise`."""
        up1, up2 = self.hyper_up1, self.hyper_up2
        return [
            Link(self.hyper_in, self.hyper_in, [up1.conv], [self.hyper_quality.anchors]),
            Link(up1, up1.conv, [self.hyper_mid]),
            Link(self.hyper_mid, self.hyper_mid, [up2.conv]),
            Link(up2, up2.conv, [self.first_in, *(net.conv_in for net in self._near())]),
            Link(self.first_in, self.first_in, [self.first_out], [self.first_quality.anchors]),
            *(link for net in self._near() for link in net.links()),
        ]

    @torch.no_grad()
    def rescale_extra(self, factor: Tensor) -> None:
        """Take an `extra` that is `factor` (extra_channels,) times what it was; compute the same."""
        width = len(self.hyper_up2.conv.bias) // 4
        for consumer in (self.first_in, *(net.conv_in for net in self._near())):
            consumer.weight[:, width : width + self.extra_channels].div_(factor[:, None, None])

    def bias_for(self, index: Tensor, quality: Tensor) -> Tensor:
        """The output of a head that stands for the scale index (B,C) at `quality` (B,)."""
        return (index - self._base_index(quality)[:, :, 0, 0]) / 4

    def _base_index(self, quality: Tensor) -> Tensor:
        # 3.6 octaves from quality 0 to 63, in whole indices; without the jumps of `quality_shift`
        return (20 + torch.div(28 * quality + 31, 63, rounding_mode="floor")).float().reshape(-1, 1, 1, 1)

    def _near(self) -> Iterator[NearNet]:
        return cast("Iterator[NearNet]", iter(self.near))


def round_index(index: Tensor) -> Tensor:
    """Scale index on its grid 0..63; straight-through gradient."""
    centre = NUM_SCALES / 2
    return round_clamp(index - centre, 1.0, centre).clamp_max(centre - 1) + centre
