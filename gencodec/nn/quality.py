"""What depends on the quality index 0..63: rows of small tables, interpolated between anchors in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NUM_QUALITIES = 64
NUM_ANCHORS = 9


def anchor_weights() -> Tensor:
    """Linear interpolation from anchors to qualities, (64,9); each row sums to one."""
    place = torch.arange(NUM_QUALITIES) * ((NUM_ANCHORS - 1) / (NUM_QUALITIES - 1))
    return (1 - (place[:, None] - torch.arange(NUM_ANCHORS)).abs()).clamp_min(0)


class QualityTable(nn.Module):
    """A learned row of `channels` values for each quality; anchors are trained, the table of 64 rows is what
    ships.

    The rows are stored rather than interpolated at load: a fused multiply-add may round otherwise on another
    device.
    """

    rows: Tensor

    def __init__(self, channels: int, first: float = 0.0, last: float | None = None) -> None:
        super().__init__()
        start = torch.linspace(first, first if last is None else last, NUM_ANCHORS)
        self.anchors = nn.Parameter(start[:, None].repeat(1, channels))
        self.register_buffer("rows", torch.zeros(NUM_QUALITIES, channels))
        self.frozen = False

    def forward(self, quality: Tensor) -> Tensor:
        """Rows for `quality` (B,) int64 in 0..63 -> (B,channels)."""
        return self.table()[quality]

    def table(self) -> Tensor:
        """All rows, (64,channels): those of a file, or from the anchors."""
        if self.frozen:
            return self.rows
        with torch.autocast(self.anchors.device.type, enabled=False):  # what ships is float32
            return anchor_weights().to(self.anchors) @ self.anchors


def log_spaced(quality: Tensor, first: float, last: float) -> Tensor:
    """From `first` at quality 0 to `last` at 63, evenly in the logarithm; (B,)."""
    return first * (last / first) ** (quality.float() / (NUM_QUALITIES - 1))


def led(quality: int, lead: int) -> int:
    """`lead` qualities above `quality`, at most the best; less below it, for 0 asks for the least."""
    return min(quality + min(quality, lead), NUM_QUALITIES - 1)
