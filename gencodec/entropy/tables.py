"""Integer tables of cumulative frequencies: what the entropy coder knows about a symbol before it reads it.

A table spreads 65536 counts, at least 1 each, over the symbols `offset .. offset + length - 2` and one last
bin, the escape, for all other symbols. Tables are built once, when weights are exported, and stored with
them; nothing is computed from floats when a stream is coded. Bins begin at the mode, the most probable
symbol, so that a run of it costs nothing at the coder's start. docs/entropy.md is normative.

    symbol   mode  mode+1  ..  offset+length-2   offset  ..  mode-1    escape
    bin        0      1    ..                    ..        length-2   length-1
    cdf    0 ─────────────────────────────────────────────────────────────────► 65536
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import constriction
import numpy as np

from gencodec.entropy.scales import NUM_SCALES, SCALE_MAX, SCALE_MIN, SKIPPED_SCALES

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

TOTAL = 65536  # counts of every table
ESCAPED = -32768  # in a Lookup: no bin, no symbol
MAX_SYMBOL = 32767  # symbols are -MAX_SYMBOL .. MAX_SYMBOL; callers clamp before they encode
MAX_TABLES = 65536
MAX_LENGTH = 4096


class Lookup(NamedTuple):
    """One table, ready for use: `bins[clip(symbol - low)]` is a symbol's bin; `symbols[bin]` undoes it."""

    model: Any  # constriction's, of 24-bit frequencies: 256 x the counts
    low: int  # offset - 1
    bins: np.ndarray  # int32 (length + 1), ESCAPED at both ends
    symbols: np.ndarray  # int32 (length), ESCAPED at the end


@dataclass(frozen=True, eq=False)
class CdfTables:
    """A set of tables. Raises ValueError, on construction, for anything that is not one.

    cdf: int32 (num_tables, max_length + 1); row t rises strictly from 0 to 65536 at `length[t]`, and stays.
    offset, mode: int32 (num_tables), the smallest symbol of each table and the symbol of bin 0.
    length: int32 (num_tables), the number of bins, escape included, 2 to 4096.
    skip: symbols of the tables below this index are zero by definition and not coded, 0 to num_tables.
    """

    cdf: np.ndarray
    offset: np.ndarray
    mode: np.ndarray
    length: np.ndarray
    skip: int = 0
    _lookups: list[Lookup | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check(self)
        for name in ("cdf", "offset", "mode", "length"):
            array = np.ascontiguousarray(getattr(self, name))
            object.__setattr__(self, name, array.copy() if array.flags.writeable else array)
            getattr(self, name).setflags(write=False)
        object.__setattr__(self, "_lookups", [None] * self.num_tables)

    @property
    def num_tables(self) -> int:
        """The number of tables."""
        return len(self.length)

    @classmethod
    def from_counts(cls, counts: Sequence[np.ndarray], offset: Sequence[int], *, skip: int = 0) -> Self:
        """Tables from the counts of the symbols `offset[t], offset[t] + 1, ...`, the escape's count last."""
        length = np.array([len(row) for row in counts], np.int32)
        modes = [int(np.argmax(row[:-1])) for row in counts]
        cdf = np.full((len(counts), int(length.max()) + 1), TOTAL, np.int32)
        cdf[:, 0] = 0
        for row, source, mode in zip(cdf, counts, modes, strict=True):
            bins = np.concatenate([source[mode:-1], source[:mode], source[-1:]])
            row[1 : len(bins) + 1] = np.cumsum(bins)
        start = np.array(offset, np.int32)
        return cls(cdf, start, start + np.array(modes, np.int32), length, skip)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> Self:
        """Tables from the tensors that `to_tensors` makes. Raises ValueError for others."""
        names = ("cdf", "offset", "mode", "length", "skip")
        missing = [name for name in names if f"{prefix}.{name}" not in tensors]
        if missing:
            raise ValueError(f"tables {prefix!r} lack {missing}")
        cdf, offset, mode, length, skip = (tensors[f"{prefix}.{name}"].cpu().numpy() for name in names)
        if skip.shape != (1,) or skip.dtype != np.int32:
            raise ValueError(f"{prefix}.skip must be one int32, got {skip.dtype} {skip.shape}")
        return cls(cdf, offset, mode, length, int(skip[0]))

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """These tables as int32 tensors: `prefix.cdf`, `.offset`, `.mode`, `.length` and `.skip`."""
        import torch

        arrays = {"cdf": self.cdf, "offset": self.offset, "mode": self.mode, "length": self.length}
        arrays["skip"] = np.array([self.skip], np.int32)
        return {f"{prefix}.{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def counts(self, table: int) -> np.ndarray:
        """Counts of one table's bins, int32 (length[table]): bin 0 is the mode's, the last the escape's."""
        return np.diff(self.cdf[table, : self.length[table] + 1])

    def lookup(self, table: int) -> Lookup:
        """One table in the coder's form, made at its first use."""
        known = self._lookups[table]
        if known is None:
            known = self._lookups[table] = self._make_lookup(table)
        return known

    def _make_lookup(self, table: int) -> Lookup:
        model = constriction.stream.model.Categorical(self.counts(table) / TOTAL, perfect=True)
        first, regular = int(self.offset[table]), int(self.length[table]) - 1
        shift = int(self.mode[table]) - first
        symbols = np.append(np.roll(np.arange(first, first + regular), -shift), ESCAPED).astype(np.int32)
        bins = np.append(ESCAPED, np.append(np.roll(np.arange(regular), shift), ESCAPED)).astype(np.int32)
        return Lookup(model, first - 1, bins, symbols)

    def bits(self, symbols: np.ndarray, table_index: np.ndarray) -> np.ndarray:
        """Ideal cost of each symbol, float64 in the arrays' common shape; escapes in full, skipped 0."""
        symbols, index = np.broadcast_arrays(np.asarray(symbols, np.int64), np.asarray(table_index, np.int64))
        regular = self.length[index] - 1
        inside = (symbols >= self.offset[index]) & (symbols < self.offset[index] + regular)
        bins = np.where(inside, (symbols - self.mode[index]) % regular, regular)
        cost = np.asarray(self._costs[index, bins])
        if not inside.all():
            out = ~inside & (index >= self.skip)
            escape = escape_code(symbols[out], self.offset[index[out]], regular[out])
            width = np.frexp(escape + 1.0)[1] - 1  # the floor of log2(escape + 1), exactly
            cost[out] += width + np.minimum(width + 1, 16)
        return cost

    @cached_property
    def _costs(self) -> np.ndarray:
        """Bits of every bin, float64 (num_tables, max_length)."""
        cost = 16 - np.log2(np.maximum(np.diff(self.cdf, axis=1), 1))
        cost[: self.skip] = 0
        return cost


def escape_code(symbols: np.ndarray, offset: np.ndarray, regular: np.ndarray) -> np.ndarray:
    """Number the symbols outside `offset .. offset + regular - 1`: 0, 2, 4 .. above, 1, 3, 5 .. below."""
    above = symbols - (offset + regular)
    return np.where(above >= 0, 2 * above, 2 * (offset - 1 - symbols) + 1)


def quantise(pmf: np.ndarray) -> np.ndarray:
    """Counts, int64 (n), at least 1 each and 65536 together, close to a float64 pmf (n). For export time."""
    ideal = np.asarray(pmf, np.float64) / np.sum(pmf) * TOTAL
    if ideal.ndim != 1 or not 2 <= len(ideal) <= MAX_LENGTH or not np.all(ideal >= 0):
        raise ValueError(f"a pmf has 2 to {MAX_LENGTH} probabilities, not negative, got shape {ideal.shape}")
    counts = np.maximum(np.floor(ideal), 1).astype(np.int64)
    while left := TOTAL - int(counts.sum()):
        step = 1 if left > 0 else -1
        gain = np.where((step > 0) | (counts > 1), step * (ideal - counts), -np.inf)
        counts[np.argmax(gain)] += step
    return counts


def gaussian_scales() -> np.ndarray:
    """The scale_table: standard deviations in symbols, float64 (64), log-spaced from 0.11 to 32."""
    return np.geomspace(SCALE_MIN, SCALE_MAX, NUM_SCALES)


def gaussian_tables(*, skip: int = SKIPPED_SCALES) -> CdfTables:
    """Tables of zero-mean Gaussians at `gaussian_scales()`, for integer symbols `round(y - mean)`.

    A table ends where what lies beyond, on both sides together, has a mass below one count: 3 bins to 277.
    """
    counts, offsets = [], []
    for scale in gaussian_scales():
        tails = [math.erfc((radius + 0.5) / (scale * math.sqrt(2))) for radius in range(int(8 * scale) + 3)]
        radius = next(r for r, tail in enumerate(tails) if r >= 1 and tail * TOTAL < 1)
        side = -np.diff(np.array(tails[: radius + 1])) / 2
        counts.append(quantise(np.concatenate([side[::-1], [1 - tails[0]], side, [tails[radius]]])))
        offsets.append(-radius)
    return CdfTables.from_counts(counts, offsets, skip=skip)


def factorized_tables(pmfs: Sequence[np.ndarray], offsets: Sequence[int]) -> CdfTables:
    """A table per channel, for hyper-latents: `pmfs[c]` are the probabilities of `offsets[c]` and upwards.

    Symbols rarer than half a count are cut off at both ends; what is missing to 1 becomes the escape's.
    """
    counts, starts = [], []
    for pmf, offset in zip(pmfs, offsets, strict=True):
        kept = np.flatnonzero(np.asarray(pmf) * TOTAL >= 0.5)
        if not len(kept):
            raise ValueError("a pmf without a symbol of probability 2^-17 or more")
        inside = np.asarray(pmf, np.float64)[kept[0] : kept[-1] + 1]
        counts.append(quantise(np.append(inside, max(0.0, 1 - inside.sum()))))
        starts.append(int(offset + kept[0]))
    return CdfTables.from_counts(counts, starts)


def _check(tables: CdfTables) -> None:
    cdf, offset, mode, length = tables.cdf, tables.offset, tables.mode, tables.length
    if any(array.dtype != np.int32 for array in (cdf, offset, mode, length)) or cdf.ndim != 2:
        raise ValueError("tables are int32 arrays, cdf (num_tables, max_length + 1), the others (num_tables)")
    num_tables, columns = cdf.shape
    if not 1 <= num_tables <= MAX_TABLES or any(a.shape != (num_tables,) for a in (offset, mode, length)):
        raise ValueError(
            f"1 to {MAX_TABLES} tables, each with one offset, mode and length, got cdf {cdf.shape}"
        )
    if length.min() < 2 or length.max() > MAX_LENGTH or columns != length.max() + 1:
        raise ValueError(
            f"a table has 2 to {MAX_LENGTH} bins, the longest fills its row, got {length.tolist()}"
        )
    inside = np.arange(columns - 1) < length[:, None]
    steps = np.diff(cdf.astype(np.int64), axis=1)
    if (
        (cdf[:, 0] != 0).any()
        or (cdf[:, -1] != TOTAL).any()
        or (steps < 0).any()
        or ((steps > 0) != inside).any()
    ):
        raise ValueError(f"a cdf rises strictly from 0 to {TOTAL} over the bins of its table and stays there")
    last = offset.astype(np.int64) + length - 2
    if offset.min() < -MAX_SYMBOL or last.max() > MAX_SYMBOL or (mode < offset).any() or (mode > last).any():
        raise ValueError(f"symbols of a table lie in +-{MAX_SYMBOL} and its mode among them")
    if not 0 <= tables.skip <= num_tables:
        raise ValueError(f"skip is 0 to {num_tables}, got {tables.skip}")
