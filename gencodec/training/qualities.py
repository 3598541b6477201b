"""Which qualities a batch is trained at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gencodec.nn.quality import NUM_QUALITIES


def draw_quality(size: int, generator: np.random.Generator) -> Tensor:
    """Qualities (size,), one from each `size`-th part of the range: steps differ less so."""
    parts = (np.arange(size) + generator.random(size)) * (NUM_QUALITIES / size)
    return torch.from_numpy(parts.astype(np.int64))
