"""How strongly a frame's edges are smoothed, on the wire: an index of `nn.deblock.STRENGTHS`.

Mostly it is that of the frame before, KEPT / 65536; the others are equally likely.
"""

from __future__ import annotations

import numpy as np

from gencodec.entropy.flags import Decoder, Encoder
from gencodec.entropy.tables import TOTAL
from gencodec.nn.deblock import STRENGTHS

KEPT = 57346  # seven eighths, and what is left divides by three


def put_strength(encoder: Encoder, strength: int, before: int) -> None:
    """Add a strength, where the frame before had `before`."""
    encoder.put_counts(np.array([strength], np.int32), _counts(before))


def get_strength(decoder: Decoder, before: int) -> int:
    """Read it back."""
    return int(decoder.get_counts(1, _counts(before))[0])


def _counts(before: int) -> np.ndarray:
    """Of each strength, int64 (n), of sum TOTAL."""
    counts = np.full(len(STRENGTHS), (TOTAL - KEPT) // (len(STRENGTHS) - 1), np.int64)
    counts[before] = KEPT
    return counts
