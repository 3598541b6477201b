"""What an encoder decided, told in the packet: events, choices and small integers, through the same coder.

Each `put_*` has its `get_*`, called at the same place of the packet with the same arguments. Probabilities
are fixed where they are known; where the packet shows how frequent a value is, `AdaptiveCounts` follows it.
All of it is integer arithmetic.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .tables import TOTAL


class Encoder(Protocol):
    """What is needed of `coder.SymbolEncoder` or its twin."""

    def put_counts(self, values: np.ndarray, counts: np.ndarray) -> None: ...  # noqa: D102
    def put_uniform(self, values: np.ndarray, sizes: np.ndarray) -> None: ...  # noqa: D102


class Decoder(Protocol):
    """What is needed of `coder.SymbolDecoder` or its twin."""

    def get_counts(self, count: int, counts: np.ndarray) -> np.ndarray: ...  # noqa: D102
    def get_uniform(self, sizes: np.ndarray) -> np.ndarray: ...  # noqa: D102


class AdaptiveCounts:
    """Counts of `size` values (2..256) that follow what was coded; a new one starts every packet.

    Every value begins with frequency 1 and gains 2 when it occurs; at a sum above 1024 all are halved,
    rounded up, so that about the last 500 events matter.
    """

    GAIN, LIMIT = 2, 1024

    def __init__(self, size: int) -> None:
        if not 2 <= size <= 256:
            raise ValueError(f"size is 2..256, got {size}")
        self.size = size
        self._frequencies = [1] * size

    def counts(self) -> np.ndarray:
        """Now, int64 (size): 1 each, the rest of 65536 by frequency, what rounding leaves to the largest."""
        total = sum(self._frequencies)
        counts = [1 + frequency * (TOTAL - self.size) // total for frequency in self._frequencies]
        counts[self._frequencies.index(max(self._frequencies))] += TOTAL - sum(counts)
        return np.array(counts, np.int64)

    def update(self, value: int) -> None:
        """Count one more `value`."""
        self._frequencies[value] += self.GAIN
        if sum(self._frequencies) > self.LIMIT:
            self._frequencies = [(frequency + 1) // 2 for frequency in self._frequencies]


def put_bits(encoder: Encoder, bits: np.ndarray, ones: int = TOTAL // 2) -> None:
    """Add bits (n), each 1 with probability ones / 65536, `ones` 1..65535."""
    encoder.put_counts(np.asarray(bits, np.int32), np.array([TOTAL - ones, ones]))


def get_bits(decoder: Decoder, count: int, ones: int = TOTAL // 2) -> np.ndarray:
    """The next `count` bits, int32 of 0 and 1."""
    return decoder.get_counts(count, np.array([TOTAL - ones, ones]))


def put_integers(encoder: Encoder, values: np.ndarray, size: int) -> None:
    """Add equally probable values (n) in 0..size-1, `size` 1..65536. Of size 1 they cost nothing."""
    values = np.asarray(values, np.int32)
    if size > 1:
        encoder.put_uniform(values, np.full(len(values), size, np.int32))
    elif size < 1 or values.any():
        raise ValueError(f"values are 0..size-1, got {values} and {size = }")


def get_integers(decoder: Decoder, count: int, size: int) -> np.ndarray:
    """The next `count` equally probable values, int32 in 0..size-1."""
    return decoder.get_uniform(np.full(count, size, np.int32)) if size > 1 else np.zeros(count, np.int32)


def put_adaptive(encoder: Encoder, values: np.ndarray, model: AdaptiveCounts) -> None:
    """Add values (n) in 0..model.size-1, each under the counts that those before it left."""
    rows = np.empty((len(values), model.size), np.int64)
    for row, value in zip(rows, np.asarray(values).tolist(), strict=True):
        if not 0 <= value < model.size:
            raise ValueError(f"values are 0..{model.size - 1}, got {value}")
        row[:] = model.counts()
        model.update(value)
    encoder.put_counts(np.asarray(values, np.int32), rows)


def get_adaptive(decoder: Decoder, count: int, model: AdaptiveCounts) -> np.ndarray:
    """The next `count` values, int32, each under the counts that those before it left."""
    values = np.empty(count, np.int32)
    for place in range(count):
        values[place] = decoder.get_counts(1, model.counts())[0]
        model.update(int(values[place]))
    return values
