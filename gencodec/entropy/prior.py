"""What priors are made of: the networks that say which table a latent has, exact and fed with integers only.

Source of gains for variable rate: Cui et al. 2021 (arXiv 2003.02012).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gencodec.entropy.scales import NUM_SCALES
from gencodec.nn.equalise import Link
from gencodec.nn.exact import ExactConv2d, round_clamp
from gencodec.nn.quality import QualityTable


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


def base_index(quality: Tensor) -> Tensor:
    """The scale index (B,1,1,1) that a head's 0 stands for at `quality` (B,).

    It rises by 3.6 octaves from quality 0 to 63, in whole indices.
    """
    return (20 + torch.div(28 * quality + 31, 63, rounding_mode="floor")).float().reshape(-1, 1, 1, 1)


def round_index(index: Tensor) -> Tensor:
    """Scale index on its grid 0..63; straight-through gradient."""
    centre = NUM_SCALES / 2
    return round_clamp(index - centre, 1.0, centre).clamp_max(centre - 1) + centre
