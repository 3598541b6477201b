"""From a head's sums to means of latents: how much of them counts at each quality, and when a mean is noise.

A head knows the quality by a bias alone, which cannot make its sums larger, and means grow with the quality
by four octaves. So each quality has a gain, found by what takes the fewest bits (`training.mean_gains`).
Where nothing is coded a mean of one step adds more error than it takes away, and is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gencodec.entropy.scales import MEAN_STEP
from gencodec.nn.exact import round_clamp
from gencodec.nn.quality import NUM_QUALITIES

MEAN_MAX = 1024.0
FIRST, LAST = -3.0, 1.0  # octaves of an even growth from quality 0 to where 64 would be


class MeanScale(nn.Module):
    """A gain for each of 64 qualities.

    One IEEE product and a rounding, so that every device gives the same bits.
    """

    gains: Tensor

    def __init__(self) -> None:
        super().__init__()
        share = torch.arange(NUM_QUALITIES) / NUM_QUALITIES
        self.register_buffer("gains", torch.exp2(FIRST + (LAST - FIRST) * share))

    def forward(self, raw: Tensor, quality: Tensor, is_idle: Tensor | None = None) -> Tensor:
        """Sums (B,C,H,W) at `quality` (B,) as means on their grid; `is_idle`: where nothing is coded.

        In training every mean counts: one that is left out would have no gradient to grow by.
        """
        mean = round_clamp(raw * self.gains[quality][:, None, None, None], MEAN_STEP, MEAN_MAX)
        if is_idle is None or self.training:
            return mean
        return torch.where(is_idle & (mean.abs() <= MEAN_STEP), 0.0, mean)

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """What a weights file holds of it: `prefix.gains`, float32 (64,)."""
        return {f"{prefix}.gains": self.gains.float()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Take the gains from a file. Raises ValueError for none, or another shape or type."""
        found = tensors.get(f"{prefix}.gains")
        if found is None or found.dtype != torch.float32 or found.shape != self.gains.shape:
            got = "none" if found is None else f"{found.dtype} {tuple(found.shape)}"
            raise ValueError(f"{prefix}.gains must be float32 {tuple(self.gains.shape)}, got {got}")
        self.gains.copy_(found)
