"""What the paper's prior computes, by exact networks from integers: law 3 of the entropy coder.

    z ─► hyper-decoder ────────────┐
    symbols of earlier frames      ├─► fusion ─► params = step, mean, index ─┐
      ─► state ─► reading ─────────┘                                         ├─► spatial prior ─► second half
                                                y_hat of the first half ─────┘

The paper's temporal prior reads a float feature, and its blocks are depthwise convolutions with shortcuts, in
float. Here the state is integers, as in entropy/temporal.py, and every part is a plain stack of exact
convolutions, whose one bound (sum of |weights|) is checked when they are loaded; widths are such that each
part has the published number of parameters. The step comes from the same output, on a grid of octaves / 8,
which both sides have to the bit; tables never depend on it. Two passes over a checkerboard whose halves of
channels are swapped (He et al. 2021, arXiv 2103.15306).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gencodec.entropy.means import MeanScale
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.nn.equalise import Link, headroom
from gencodec.nn.exact import ACT_MAX, ACT_STEP, ExactConv2d, ExactPixelShuffle, round_clamp, to_activation
from gencodec.nn.layers import compand
from gencodec.nn.quality import QualityTable

MAX_LOG2_STEP = 3.0  # octaves; the least is -1, a step of a half
LOG2_STEP_GRID = 2.0**-3
LEAK = 0.5  # of the state that a frame leaves; a power of two, so that it cannot round twice


def halves(
    channels: int, height: int, width: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Masks (1,channels,H,W) of what the first and the second pass code."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    board = ((rows[:, None] + columns) % 2 == 0)[None]  # (1,H,W)
    swapped = (torch.arange(channels, device=device) >= channels // 2)[:, None, None]
    first = (board ^ swapped)[None]
    return first, ~first


class SymbolState(nn.Module):
    """A leaky memory of what the symbols of a GOP's earlier frames were, (B,channels,H,W) at the size of y.

    Like entropy/temporal.py's, but with signs: y here is no residual, and its means follow from what was.
    """

    def __init__(self, key_channels: int, y_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.from_key = ExactConv2d(key_channels, channels)
        self.from_frame = ExactConv2d(y_channels + channels, channels)

    def begin(self, key_y_hat: Tensor) -> Tensor:
        """State after a key frame with y_hat (B,key_channels,H,W)."""
        return self.from_key(to_activation(compand(key_y_hat)))

    def update(self, state: Tensor, y_hat: Tensor) -> Tensor:
        """State after a predicted frame with y_hat (B,y_channels,H,W), in its steps."""
        total = LEAK * state + self.from_frame(torch.cat([to_activation(compand(y_hat)), state], 1))
        return to_activation(total) if self.from_frame.exact else total.clamp(-ACT_MAX, ACT_MAX)

    @torch.no_grad()
    def equalise(self, states: Tensor, prior: PaperPrior) -> None:
        """Scale the planes by powers of two so that `states` fill the range; before conversion."""
        factor = headroom(states)
        for producer in (self.from_key, self.from_frame):
            producer.weight.mul_(factor[:, None, None, None])
            producer.bias.mul_(factor)
        self.from_frame.weight[:, -self.channels :].div_(factor[:, None, None])
        prior.read_in.weight.div_(factor[:, None, None])


class PaperPrior(nn.Module):
    """Step, means and scale indices of y from z, the temporal state and the quality."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        c, y = config, config.y_channels
        self.y_channels, self.z_channels, self.state_channels = y, c.z_channels, c.state_channels
        self.hyper_in = ExactConv2d(c.z_channels, c.hyper_width)
        self.hyper_up1 = ExactPixelShuffle(c.hyper_width, c.hyper_width)
        self.hyper_mid = ExactConv2d(c.hyper_width, c.hyper_width)
        self.hyper_up2 = ExactPixelShuffle(c.hyper_width, y)
        self.read_in = ExactConv2d(c.state_channels, c.reading_width)
        self.read_out = ExactConv2d(c.reading_width, 2 * y, 1)
        self.fuse_in = ExactConv2d(3 * y, c.fusion_width)
        self.fuse_mid = ExactConv2d(c.fusion_width, c.fusion_width)
        self.fuse_out = ExactConv2d(c.fusion_width, 3 * y, 1, head=True)
        self.near_in = ExactConv2d(4 * y, c.context_width)
        self.near_mid = ExactConv2d(c.context_width, c.context_width)
        self.near_out = ExactConv2d(c.context_width, 2 * y, 1, head=True)
        self.hyper_quality, self.fuse_quality = QualityTable(c.hyper_width), QualityTable(c.fusion_width)
        self.near_quality = QualityTable(c.context_width)
        self.means = MeanScale()
        with torch.no_grad():  # steps begin at 1, means near zero
            self.fuse_out.weight[: 2 * y].mul_(0.05)
            self.near_out.weight[:y].mul_(0.05)

    def params(self, z_hat: Tensor, quality: Tensor, state: Tensor) -> Tensor:
        """Sums (B,3 y_channels,H,W) from integers z_hat (B,z_channels,H/4,W/4) and the state at (H,W)."""
        x = self.hyper_in(round_clamp(z_hat, ACT_STEP, ACT_MAX), self.hyper_quality(quality))
        x = self.hyper_up2(self.hyper_mid(self.hyper_up1(x)))[..., : state.shape[2], : state.shape[3]]
        x = torch.cat([x, self.read_out(self.read_in(state))], 1)
        return self.fuse_out(self.fuse_mid(self.fuse_in(x, self.fuse_quality(quality))))

    def log2_step(self, params: Tensor) -> Tensor:
        """Octaves by which each latent's step differs from its gain's, (B,y_channels,H,W) in -1..3."""
        return round_clamp(params[:, : self.y_channels], LOG2_STEP_GRID, MAX_LOG2_STEP).clamp_min(-1.0)

    def predict(self, turn: int, params: Tensor, y_known: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unrounded scale index (B,y_channels,H,W) of pass 0 or 1; pass 0 ignores y_known."""
        out = params[:, self.y_channels :]
        if turn:
            seen = torch.cat([to_activation(compand(y_known)), to_activation(params)], 1)
            out = self.near_out(self.near_mid(self.near_in(seen, self.near_quality(quality))))
        mean, index = out.chunk(2, 1)
        return self.means(mean, quality), 4 * index + _base_index(quality)

    def tables(self) -> list[tuple[QualityTable, ExactConv2d]]:
        """Each quality table with the layer to whose bias its rows are added."""
        return [
            (self.hyper_quality, self.hyper_in),
            (self.fuse_quality, self.fuse_in),
            (self.near_quality, self.near_in),
        ]

    def links(self) -> list[Link]:
        """The chain of layers, for `equalise`; what several parts feed stays as it is."""
        up1 = self.hyper_up1
        return [
            Link(self.hyper_in, self.hyper_in, [up1.conv], [self.hyper_quality.anchors]),
            Link(up1, up1.conv, [self.hyper_mid]),
            Link(self.hyper_mid, self.hyper_mid, [self.hyper_up2.conv]),
            Link(self.hyper_up2, self.hyper_up2.conv, [self.fuse_in]),
            Link(self.read_in, self.read_in, [self.read_out]),
            Link(self.fuse_in, self.fuse_in, [self.fuse_mid], [self.fuse_quality.anchors]),
            Link(self.fuse_mid, self.fuse_mid, [self.fuse_out]),
            Link(self.near_in, self.near_in, [self.near_mid], [self.near_quality.anchors]),
            Link(self.near_mid, self.near_mid, [self.near_out]),
        ]


def _base_index(quality: Tensor) -> Tensor:
    """Where scale indices begin: 20 at quality 0, 28 more (3.6 octaves) at 63; (B,1,1,1)."""
    return (20 + torch.div(28 * quality + 31, 63, rounding_mode="floor")).float().reshape(-1, 1, 1, 1)
