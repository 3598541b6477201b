"""The frame type embedding (FTE): which frames were coded and which only moved, said to the generator.

    pixel     type of each frame ─► 16 numbers ─► one colour, added to the frame before the encoder
    latent    types of a latent's four frames ─► 4 x 16 numbers ─► added to each place of the latent

The first latent covers one frame, which stands for four. Both begin as nothing. Paper: Diff-SIT (arXiv
2603.18501), figure of the frame type embedding; of its two readings the first keeps each frame's own type.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gencodec.methods.diffsit.paper.config import GROUP, Place

TYPES, CHANNELS = 2, 16


class FrameTypes(nn.Module):
    """What is added for the types of a clip's frames."""

    def __init__(self, at: Place, latents: int) -> None:
        super().__init__()
        self.at = at
        self.embedding = nn.Embedding(TYPES, CHANNELS)
        self.out = nn.Linear(CHANNELS, 3) if at == "pixel" else nn.Linear(GROUP * CHANNELS, latents)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, is_mv: Tensor) -> Tensor:
        """is_mv (T,) bool -> (T,3) at pixels, (1+(T-1)/4, latents) at latents."""
        if self.at == "pixel":
            return cast("Tensor", self.out(self.embedding(is_mv.long())))
        groups = torch.cat([is_mv[:1].expand(GROUP - 1), is_mv]).long().unflatten(0, (-1, GROUP))
        return cast("Tensor", self.out(self.embedding(groups).flatten(1)))
