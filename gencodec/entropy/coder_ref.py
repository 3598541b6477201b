"""The reference twin of `coder`: the same bytes, one symbol after the other, in plain integers.

docs/entropy.md describes the format in words, this file in the fewest lines; tests hold `coder` to
it. It is some hundred times slower, and only tests call it. Every probability is an interval (start, size) of
the 24-bit numbers; a symbol is coded by its interval and found again by any number in it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gencodec.codec import CorruptStream

from .tables import MAX_SYMBOL, CdfTables

PRECISION = 24
Interval = tuple[int, int]


class AnsRef:
    """A stack of 32-bit words and a state: empty and 0, or at least 2^32 whenever there are words."""

    def __init__(self, payload: bytes = b"") -> None:
        padded = payload + bytes(-len(payload) % 4)
        self.words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
        self.state = 0
        self._refill()
        self._refill()

    def push(self, start: int, size: int) -> None:
        """Code a symbol of the interval from `start`."""
        if self.state >> (64 - PRECISION) >= size:
            self.words.append(self.state & 0xFFFFFFFF)
            self.state >>= 32
        self.state = (self.state // size << PRECISION) + start + self.state % size

    def peek(self) -> int:
        """A number in the interval of the symbol that was coded last."""
        return self.state & ((1 << PRECISION) - 1)

    def pop(self, start: int, size: int) -> None:
        """Take back that symbol, now that its interval is known."""
        self.state = (self.state >> PRECISION) * size + self.peek() - start
        self._refill()

    def payload(self) -> bytes:
        """The words and then the state, low half first, without zero bytes at the end."""
        words = [*self.words, self.state & 0xFFFFFFFF, self.state >> 32]
        return b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0")

    def _refill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = (self.state << 32) + self.words.pop()


class SymbolEncoderRef:
    """As `coder.SymbolEncoder`."""

    def __init__(self) -> None:
        self.intervals: list[Interval] = []

    def put(self, symbols: np.ndarray, table_index: np.ndarray, tables: CdfTables) -> None:
        """Add a stage."""
        escapes = []
        for symbol, table in _in_coding_order(symbols, table_index, tables):
            first, regular = int(tables.offset[table]), int(tables.length[table]) - 1
            place = (symbol - int(tables.mode[table])) % regular
            if symbol < first:
                escapes.append(2 * (first - 1 - symbol) + 1)
            elif symbol >= first + regular:
                escapes.append(2 * (symbol - first - regular))
            self.intervals.append(
                _bin(tables, table, place if first <= symbol < first + regular else regular)
            )
        widths = [(code + 1).bit_length() - 1 for code in escapes]
        self.intervals += [_width(width) for width in widths]
        for code, width in zip(escapes, widths, strict=True):
            if width:
                self.intervals.append(_uniform(code + 1 - (1 << width), 1 << width))

    def put_counts(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Add values under given counts."""
        for value, row in zip(
            values.tolist(), np.broadcast_to(counts, (len(values), counts.shape[-1])), strict=True
        ):
            self.intervals.append((256 * int(row[:value].sum()), 256 * int(row[value])))

    def put_uniform(self, values: np.ndarray, sizes: np.ndarray) -> None:
        """Add equally probable values."""
        self.intervals += [_uniform(v, size) for v, size in zip(values.tolist(), sizes.tolist(), strict=True)]

    def finish(self) -> bytes:
        """The payload."""
        coder = AnsRef()
        for start, size in reversed(self.intervals):
            coder.push(start, size)
        return coder.payload()


class SymbolDecoderRef:
    """As `coder.SymbolDecoder`."""

    def __init__(self, payload: bytes) -> None:
        if payload.endswith(b"\0"):
            raise CorruptStream("a zero byte at the end")
        self.coder = AnsRef(payload)

    def get(self, table_index: np.ndarray, tables: CdfTables) -> np.ndarray:
        """The next stage."""
        places = np.arange(table_index.size).reshape(table_index.shape)
        symbols = np.zeros(table_index.size, np.int32)
        escaped = []
        for place, table in _in_coding_order(places, table_index, tables):
            first, regular = int(tables.offset[table]), int(tables.length[table]) - 1
            found = self._find([_bin(tables, table, place) for place in range(regular + 1)])
            if found == regular:
                escaped.append((place, first, regular))
            else:
                symbols[place] = first + (int(tables.mode[table]) - first + found) % regular
        widths = [self._find([_width(width) for width in range(17)]) for _ in escaped]
        for (place, first, regular), width in zip(escaped, widths, strict=True):
            half, below = divmod((1 << width) + (self._uniform(1 << width) if width else 0) - 1, 2)
            symbols[place] = first - 1 - half if below else first + regular + half
            if abs(symbols[place]) > MAX_SYMBOL:
                raise CorruptStream("an escaped symbol out of range")
        return symbols.reshape(table_index.shape)

    def get_counts(self, count: int, counts: np.ndarray) -> np.ndarray:
        """The next values under given counts."""
        rows = np.broadcast_to(counts, (count, counts.shape[-1])).astype(int)
        edges = [[0, *np.cumsum(256 * row).tolist()] for row in rows]
        return np.array([self._find([(a, b - a) for a, b in pairwise(row)]) for row in edges], np.int32)

    def get_uniform(self, sizes: np.ndarray) -> np.ndarray:
        """The next values, equally probable."""
        return np.array([self._uniform(size) for size in sizes.tolist()], np.int32)

    def finish(self) -> None:
        """Check the end."""
        if self.coder.state or self.coder.words:
            raise CorruptStream("not the state in which the encoder began")

    def _find(self, intervals: list[Interval]) -> int:
        value = next(v for v, (start, size) in enumerate(intervals) if self.coder.peek() < start + size)
        self.coder.pop(*intervals[value])
        return value

    def _uniform(self, size: int) -> int:
        value = min(self.coder.peek() // ((1 << PRECISION) // size), size - 1)
        self.coder.pop(*_uniform(value, size))
        return value


def _in_coding_order(values: np.ndarray, table_index: np.ndarray, tables: CdfTables) -> list[tuple[int, int]]:
    """(value, table) of the coded ones, by falling table, equal tables in the order of the array."""
    pairs = zip(values.reshape(-1).tolist(), table_index.reshape(-1).tolist(), strict=True)
    return sorted([pair for pair in pairs if pair[1] >= tables.skip], key=lambda pair: -pair[1])


def _bin(tables: CdfTables, table: int, place: int) -> Interval:
    start, stop = tables.cdf[table, place : place + 2].tolist()
    return 256 * start, 256 * (stop - start)


def _width(width: int) -> Interval:
    """The number of bits of an escape: of width w with probability 2^-(w + 1), 16 as often as 15."""
    start = (1 << PRECISION) - (1 << PRECISION - width)
    return start, (1 << PRECISION) - start if width == 16 else 1 << PRECISION - 1 - width


def _uniform(value: int, size: int) -> Interval:
    """All of one length, only the last has the remainder too."""
    step = (1 << PRECISION) // size
    return value * step, step if value < size - 1 else (1 << PRECISION) - value * step
