"""Which qualities a batch is trained at, and what each one's rate weighs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gencodec.nn.quality import NUM_QUALITIES


def draw_quality(size: int, generator: np.random.Generator) -> Tensor:
    """Qualities (size,), one from each `size`-th part of the range: steps differ less so."""
    parts = (np.arange(size) + generator.random(size)) * (NUM_QUALITIES / size)
    return torch.from_numpy(parts.astype(np.int64))


def log_spaced(quality: Tensor, first: float, last: float) -> Tensor:
    """From `first` at quality 0 to `last` at 63, evenly in the logarithm; (B,)."""
    return first * (last / first) ** (quality.float() / (NUM_QUALITIES - 1))
