"""Tables of motion fields, counted from fields that encoders chose. Training only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gencodec.entropy.motion import code_field
from gencodec.entropy.motion_order import LIMIT
from gencodec.entropy.motion_tables import DIFFERENCES, MOST, NUM_TABLES, PER_COUNT
from gencodec.entropy.tables import CdfTables, quantise

WIDE = 2 * LIMIT  # of differences
RADIUS = LIMIT // 2  # rarer ones take the escape
SHARED = 8.0  # choices that all tables of as many candidates stand for, together, in one's table


def count_tables(clips: Sequence[Sequence[np.ndarray]]) -> CdfTables:
    """Tables from the fields (2,h,w) of clips: histograms with a little smoothing and of a wide distribution.

    The first field of a clip is that of the frame behind its key frame.
    """
    return count_pairs(
        (field, fields[number - 1] if number else None)
        for fields in clips
        for number, field in enumerate(fields)
    )


def count_pairs(pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> CdfTables:
    """The same from fields (2,h,w), each with what `code_field` is given as the field before."""
    counts = np.zeros((NUM_TABLES, 2 * WIDE + 1))

    def count(wanted: np.ndarray | None, index: np.ndarray) -> np.ndarray:
        assert wanted is not None
        np.add.at(counts, (index, wanted + WIDE), 1)
        return wanted

    for field, before in pairs:
        code_field(field, (field.shape[1], field.shape[2]), count, before)
    differences = [_of_differences(row) for row in counts[:DIFFERENCES]]
    choices = _of_choices(counts[DIFFERENCES:, WIDE : WIDE + 1 + MOST])
    return CdfTables.from_counts([*differences, *choices], [-RADIUS] * len(differences) + [0] * len(choices))


def _of_differences(counts: np.ndarray) -> np.ndarray:
    """One table's counts, the escape's last: a distribution that is wider where little was counted."""
    flat = 0.5 ** (np.abs(np.arange(-WIDE, WIDE + 1)) / 12)
    near = np.convolve(counts, [0.25, 0.5, 0.25], "same")
    mixed = (0.9 * counts + 0.1 * near + 4 * flat / flat.sum()) / (counts.sum() + 4)
    kept = (mixed / mixed.sum())[WIDE - RADIUS : WIDE + RADIUS + 1]
    return quantise(np.append(kept, max(1e-6, 1 - kept.sum())))


def _of_choices(counts: np.ndarray) -> list[np.ndarray]:
    """Every table's counts, the escape's last, from counts (tables,1+MOST)."""
    parts = counts.reshape(-1, MOST, PER_COUNT, 1 + MOST) + 1e-2
    together = parts.sum((0, 2), keepdims=True)
    parts = parts + SHARED * together / together.sum(-1, keepdims=True)
    rows: list[np.ndarray] = []
    for count in np.arange(len(counts)) // PER_COUNT % MOST + 1:
        row = parts.reshape(counts.shape)[len(rows), : 1 + count]
        rows.append(quantise(np.append(row / row.sum(), 1e-6)))
    return rows
