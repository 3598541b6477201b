"""Which qualities a batch is trained at, and what losses weigh at each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gencodec.nn.quality import NUM_QUALITIES, log_spaced


def draw_quality(size: int, generator: np.random.Generator) -> Tensor:
    """Qualities (size,), one from each `size`-th part of the range: steps differ less so."""
    parts = (np.arange(size) + generator.random(size)) * (NUM_QUALITIES / size)
    return torch.from_numpy(parts.astype(np.int64))


def loss_weights(quality: Tensor, fine: float) -> Tensor:
    """What losses of pictures weigh at `quality` (B,): (B,), `fine` times as much at 63 as at 0, 1 in the
    middle.

    By themselves those of low qualities are several times as large, and high ones would learn little.
    """
    return log_spaced(quality, fine**-0.5, fine**0.5)
