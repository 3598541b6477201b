"""Which table each symbol of a motion field has; see `motion`. Without the entropy coder, for training."""

from __future__ import annotations

import numpy as np

from gencodec.entropy.motion_order import LEVELS, NEIGHBOURS

SPREADS = np.array([1, 2, 3, 5, 9, 17])  # where a wider table begins
MISSES = np.array([1, 3])  # of x, for y's table
PER_LEVEL = (len(SPREADS) + 1) * (1 + len(MISSES) + 1)
DIFFERENCES = 2 + LEVELS * PER_LEVEL  # tables of differences; the first two are the top's
MOST = 2 + NEIGHBOURS  # candidates
PER_COUNT = 2 * (NEIGHBOURS + 1)  # tables of choices, for each level and number of candidates
NUM_TABLES = DIFFERENCES + LEVELS * MOST * PER_COUNT
NONE = 0  # the choice of none; number n + 1 is the n-th candidate


def difference_table(
    level: int | np.ndarray, component: int, spread: np.ndarray, missed: np.ndarray
) -> np.ndarray:
    """Which table each difference has, uint16; a level for all, or levels from 1 on, of shapes that fit.

    `missed` is the difference of x, for y's table.
    """
    if isinstance(level, int) and level == 0:
        return np.full(spread.shape, component, np.uint16)
    bucket = np.searchsorted(SPREADS, spread, side="right")
    if component:
        bucket = (
            len(SPREADS) + 1 + bucket * (len(MISSES) + 1) + np.searchsorted(MISSES, abs(missed), side="right")
        )
    return (2 + (level - 1) * PER_LEVEL + bucket).astype(np.uint16)


def choice_table(
    level: int | np.ndarray, count: np.ndarray, agreeing: np.ndarray, has_before: bool
) -> np.ndarray:
    """Which table each choice has, uint16, by how many candidates there are, and neighbours as expected."""
    of_count = (level - 1) * MOST + count - 1
    return (DIFFERENCES + of_count * PER_COUNT + agreeing * 2 + has_before).astype(np.uint16)
