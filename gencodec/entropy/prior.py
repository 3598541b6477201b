"""The networks that say which table a residual's latent has: exact, and fed with integers only.

    z ─► hyper ─► features ─┬─► first ───────────────────► index of the first quarter of y
                            └─► near[k] (+ quarters 0..k) ─► index of quarter k + 1, for k = 0, 1, 2
    features also take `extra`, integer planes of earlier frames.

In every 2x2 places each quarter of the channels has another turn, so that each pass sees something at every
place, and each channel fills its plane from coarse to fine. Latents are residuals of a prediction: their
means are zero, and the context looks at magnitudes, from which a network would first have to make them. Key
frames, which nothing predicts, have a prior of their own: `staged`.

Sources: checkerboard context, He et al. 2021 (arXiv 2103.15306); four passes with rotating channel groups, Li
et al. 2023 (DCVC-DC, arXiv 2302.14402, section 3.3); gains for variable rate, Cui et al. 2021 (arXiv
2003.02012).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from gencodec.entropy.scales import NUM_SCALES
from gencodec.entropy.turns import Turn, places
from gencodec.nn.equalise import Link
from gencodec.nn.exact import ACT_MAX, ACT_STEP, ExactConv2d, ExactPixelShuffle, round_clamp, to_activation
from gencodec.nn.layers import compand
from gencodec.nn.quality import QualityTable

HYPER_STRIDE = 4  # of z against y
PASSES = 4


def pass_masks(
    channels: int, height: int, width: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, ...]:
    """PASSES masks (1,channels,H,W) of the elements coded in each pass; every element is in one of them.

    A channel of the first quarter (every fourth one) takes the corners of 2x2 places in the order top left,
    bottom right, top right, bottom left; the others the same order with pairs or halves swapped.
    """
    turn = places(height, width, device) ^ (torch.arange(channels, device=device) % PASSES)[:, None, None]
    return tuple((turn == k)[None] for k in range(PASSES))


class Prior(Protocol):
    """What a latent coder asks for tables and means."""

    y_channels: int
    z_channels: int  # of hyper-latents; 0: there are none
    extra_channels: int  # of planes of earlier frames
    centred: bool  # all means are zero

    def turns(self, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Turn, ...]:
        """In which order y of that size is coded."""
        ...

    def features(
        self, z_hat: Tensor, quality: Tensor, size: tuple[int, int], extra: Tensor | None = None
    ) -> Tensor:
        """What is known of y (B,.,H,W) of `size` before its first turn."""
        ...

    def predict(self, turn: int, features: Tensor, y_known: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unrounded scale index of what `turn` codes, (B,n,h,w) each."""
        ...


class ContextNet(nn.Module):
    """The head's sums of one turn from what is known before it."""

    def __init__(self, in_channels: int, width: int, out: int) -> None:
        super().__init__()
        self.conv_in = ExactConv2d(in_channels, width)
        self.conv_mid = ExactConv2d(width, width)
        self.conv_out = ExactConv2d(width, out, 1, head=True)
        self.quality = QualityTable(width)

    def forward(self, known: Tensor, quality: Tensor) -> Tensor:
        """(B,in_channels,H,W) on the activation grid, quality (B,) -> (B,out,H,W)."""
        return self.conv_out(self.conv_mid(self.conv_in(known, self.quality(quality)))).float()

    def links(self) -> list[Link]:
        """For `equalise`."""
        return [
            Link(self.conv_in, self.conv_in, [self.conv_mid], [self.quality.anchors]),
            Link(self.conv_mid, self.conv_mid, [self.conv_out]),
        ]


class LatentPrior(nn.Module):
    """Scale indices of y (y_channels) from z (z_channels, a quarter the size), in four passes."""

    centred = True

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
        self.first_out = ExactConv2d(context, y_channels, 1, head=True)
        known = width + extra_channels + y_channels
        self.near = nn.ModuleList(ContextNet(known, context, y_channels) for _ in range(PASSES - 1))
        self.hyper_quality = QualityTable(width)
        self.first_quality = QualityTable(context)

    def turns(self, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Turn, ...]:
        """The passes over y of that size."""
        masks = pass_masks(self.y_channels, height, width, device=device)
        return tuple(Turn(slice(None), 1, mask[0]) for mask in masks)

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
            near = to_activation(compand(y_known)).abs()
            out = self.near[turn - 1](torch.cat([features, near], 1), quality)
        else:
            out = self.first_out(self.first_in(features, self.first_quality(quality)))
        return torch.zeros_like(out), 4 * out + base_index(quality)

    def heads(self) -> list[ExactConv2d]:
        """The last layer of each pass."""
        return [self.first_out, *(net.conv_out for net in self._near())]

    @torch.no_grad()
    def begin_at(self, index: Tensor, quality: Tensor) -> None:
        """Let the scales begin at `index` (B,y_channels), and depend on little else yet."""
        bias = ((index - base_index(quality)[:, :, 0, 0]) / 4).mean(0)
        for head in self.heads():
            head.weight.mul_(0.1)
            head.bias.copy_(bias)

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

    def _near(self) -> Iterator[ContextNet]:
        return cast("Iterator[ContextNet]", iter(self.near))


def predict_all(
    prior: Prior, features: Tensor, y_hat: Tensor, quality: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """`predict` of every turn where all of y_hat (B,C,H,W) is given: what devices are held to."""
    known, found = torch.zeros_like(y_hat), []
    for number, turn in enumerate(prior.turns(y_hat.shape[2], y_hat.shape[3], y_hat.device)):
        found.append(prior.predict(number, features, known, quality))
        turn.put(known, turn.of(y_hat))
    return found


def base_index(quality: Tensor) -> Tensor:
    """The scale index (B,1,1,1) that a head's 0 stands for at `quality` (B,).

    It rises by 3.6 octaves from quality 0 to 63, in whole indices.
    """
    return (20 + torch.div(28 * quality + 31, 63, rounding_mode="floor")).float().reshape(-1, 1, 1, 1)


def round_index(index: Tensor) -> Tensor:
    """Scale index on its grid 0..63; straight-through gradient."""
    centre = NUM_SCALES / 2
    return round_clamp(index - centre, 1.0, centre).clamp_max(centre - 1) + centre
