"""How strongly edges are smoothed, on the wire: indices of `nn.deblock.STRENGTHS`, region by region.

In row-major order; each is the likelier for being that on its left, that above, and that of the frame before,
2^2 times for each of them. Beyond the border there is none. A frame first says whether all is as it was in
the one before it, or is 0 where there is no such frame: KEPT / 65536.
"""

from __future__ import annotations

import numpy as np

from gencodec.entropy.flags import Decoder, Encoder, get_bits, put_bits
from gencodec.entropy.tables import TOTAL
from gencodec.nn.deblock import STRENGTHS

KEPT = 3 * TOTAL // 4
NONE = len(STRENGTHS)  # in place of a neighbour that there is not


def _counts() -> np.ndarray:
    """Of each strength, int64 [before,left,above] and itself: of sum TOTAL, what rounding leaves to 0."""
    before, left, above, own = np.indices((NONE + 1, NONE + 1, NONE + 1, NONE))
    like = (own == before).astype(np.int64) + (own == left) + (own == above)
    weights = 1 << (2 * like)
    counts = 1 + weights * (TOTAL - NONE) // weights.sum(3, keepdims=True)
    counts[..., 0] += TOTAL - counts.sum(3)
    return counts


COUNTS = _counts()
BITS = np.log2(TOTAL / COUNTS)  # what a strength costs there


def put_edges(encoder: Encoder, strengths: np.ndarray, before: np.ndarray | None) -> None:
    """Add strengths (rows,columns), where the frame before had `before`; None: there is no such frame."""
    kept = np.array_equal(strengths, np.zeros_like(strengths) if before is None else before)
    put_bits(encoder, np.array([kept]), KEPT)
    if not kept:
        left, above = neighbours(strengths)
        counts = COUNTS[none_like(strengths) if before is None else before, left, above]
        encoder.put_counts(strengths.ravel(), counts.reshape(-1, NONE))


def get_edges(decoder: Decoder, grid: tuple[int, int], before: np.ndarray | None) -> np.ndarray:
    """Read them back for a `grid` of rows and columns: int32."""
    if get_bits(decoder, 1, KEPT)[0]:
        return np.zeros(grid, np.int32) if before is None else before
    past = np.full(grid, NONE, np.int32) if before is None else before
    found = np.full((grid[0] + 1, grid[1] + 1), NONE, np.int32)  # with what stands beyond the border
    for row, column in np.ndindex(grid):
        counts = COUNTS[past[row, column], found[row + 1, column], found[row, column + 1]]
        found[row + 1, column + 1] = decoder.get_counts(1, counts)[0]
    return found[1:, 1:].copy()


def none_like(strengths: np.ndarray) -> np.ndarray:
    """What stands for the frame before where there is none."""
    return np.full_like(strengths, NONE)


def neighbours(strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is on the left of each and above it, (rows,columns) both."""
    padded = np.pad(strengths, 1, constant_values=NONE)
    return padded[1:-1, :-2], padded[:-2, 1:-1]
