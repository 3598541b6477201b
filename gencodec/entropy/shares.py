"""Shares of a repair on the wire: whether a packet tells new ones, and if so which, region by region.

In row-major order; each is expected to be like the one on its left and the one above, every step away from
either half as likely and more: 2^-SHARPNESS. Beyond the border stands PLAIN. Without new ones, those of the
packet before hold; behind a key frame all are PLAIN.
"""

from __future__ import annotations

import numpy as np

from gencodec.entropy.flags import Decoder, Encoder, get_bits, put_bits
from gencodec.entropy.tables import TOTAL
from gencodec.nn.shares import PLAIN, SHARES

TOLD_BEHIND_KEY, TOLD = 15 * TOTAL // 16, TOTAL // 64  # how likely shares come with a key frame, and later
HALVES = 3  # of an octave, by which a step away from one neighbour is less likely


def _counts() -> np.ndarray:
    """Of each index beside each pair, int64 (6,6,6), [left,above]: of sum TOTAL, what rounding leaves to the
    left one.
    """
    size = len(SHARES)
    left, above, own = np.indices((size, size, size))
    away = abs(own - left) + abs(own - above)
    weights = 1 << (HALVES * 2 * (size - 1) - HALVES * away) // 2
    counts = 1 + weights * (TOTAL - size) // weights.sum(2, keepdims=True)
    counts[left[..., 0], above[..., 0], left[..., 0]] += TOTAL - counts.sum(2)
    return counts


COUNTS = _counts()
BITS = np.log2(TOTAL / COUNTS)  # what an index costs there, (6,6,6)


def put_shares(encoder: Encoder, index: np.ndarray | None, *, is_key: bool) -> None:
    """Add indices (rows,columns), or (None) that there are no new ones."""
    put_bits(encoder, np.array([index is not None]), TOLD_BEHIND_KEY if is_key else TOLD)
    if index is not None:
        encoder.put_counts(index.ravel(), COUNTS[neighbours(index)].reshape(-1, len(SHARES)))


def get_shares(decoder: Decoder, grid: tuple[int, int], *, is_key: bool) -> np.ndarray | None:
    """Read them back for a `grid` of rows and columns: int32, or None."""
    if not get_bits(decoder, 1, TOLD_BEHIND_KEY if is_key else TOLD)[0]:
        return None
    index = np.full((grid[0] + 1, grid[1] + 1), PLAIN, np.int32)  # with what stands beyond the border
    for row, column in np.ndindex(grid):
        counts = COUNTS[index[row + 1, column], index[row, column + 1]]
        index[row + 1, column + 1] = decoder.get_counts(1, counts)[0]
    return index[1:, 1:].copy()


def neighbours(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is on the left of each and above it, (rows,columns) both."""
    padded = np.pad(index, 1, constant_values=PLAIN)
    return padded[1:-1, :-2], padded[:-2, 1:-1]
