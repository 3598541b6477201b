"""The entropy coder of one packet: stages of symbols in, bytes out; and back, stage by stage.

ANS gives back last what it took first, so the encoder collects its stages and codes them backwards, and the
decoder meets them in the order of the calls: what one stage says may choose the tables of the next.

    encode   put(z) ─► put(y, pass 1) ─► put(y, pass 2) ─► finish() codes pass 2, pass 1, z ─► payload
    decode   get(z) ─► get(y, pass 1) ─► get(y, pass 2) ─► finish() checks that nothing is left

Within a stage, symbols of one table are coded together, so that one call codes thousands. docs/entropy.md
says which bytes that gives; `coder_ref` is the same coder, slow and readable.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np

from gencodec.codec import CorruptStream

from .tables import ESCAPED, MAX_LENGTH, MAX_SYMBOL, TOTAL, CdfTables, escape_code

# Exp-Golomb: how many bits an escape code has beyond its first, P(width) = 2^-(width + 1), and 2^-16 for 16.
ESCAPE_WIDTHS = np.array([32768 >> width for width in range(16)] + [1])
MAX_UNIFORM = 65536

Group = tuple[int, int, int]  # a table and where its symbols start and stop, in coding order

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical
_ESCAPE_MODEL = Categorical(ESCAPE_WIDTHS / TOTAL, perfect=True)
_UNIFORM = constriction.stream.model.Uniform()
_FREE = Categorical(perfect=True)


class SymbolEncoder:
    """Collects the symbols of one packet in the order in which they will be decoded; `finish` codes them."""

    def __init__(self) -> None:
        self._steps: list[tuple[Any, ...]] = []  # (values, model, *its parameters), in decoding order

    def put(self, symbols: np.ndarray, table_index: np.ndarray, tables: CdfTables) -> None:
        """Add a stage: integer symbols in +-32767 and the index of each one's table, arrays of one shape.

        An index below `tables.skip` adds nothing; its symbol must be 0. uint8 indices are the fastest. Raises
        ValueError for symbols or indices out of range.
        """
        if symbols.shape != table_index.shape or symbols.dtype.kind != "i":
            raise ValueError(f"one signed integer a table index, got {symbols.dtype} {symbols.shape}")
        positions, groups = _group(table_index, tables)
        values = symbols.reshape(-1)[positions]
        if len(positions) < symbols.size and np.count_nonzero(symbols) != np.count_nonzero(values):
            raise ValueError(f"symbols of tables below {tables.skip} are not coded and must be 0")
        if len(values):
            self._put_groups(values, groups, tables)

    def put_counts(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Add values (n) in 0..k-1 under counts of sum 65536, each at least 1, (k) or a row each (n, k)."""
        values = np.array(values, np.int32)
        counts = check_counts(counts)
        if values.ndim != 1 or (len(values) and not 0 <= values.min() <= values.max() < counts.shape[-1]):
            raise ValueError(f"values are 0..{counts.shape[-1] - 1} in one dimension")
        if counts.ndim == 1:
            self._steps.append((values, Categorical(counts / TOTAL, perfect=True)))
        elif len(values) != len(counts):
            raise ValueError(f"one row of counts a value, got {len(values)} and {len(counts)}")
        elif len(values):
            self._steps.append((values, _FREE, counts / TOTAL))

    def put_uniform(self, values: np.ndarray, sizes: np.ndarray) -> None:
        """Add equally probable values, each in 0..size-1 of its own size, 2..65536; two arrays (n)."""
        values, sizes = np.array(values, np.int32), check_sizes(sizes).copy()
        if values.shape != sizes.shape or np.any((values < 0) | (values >= sizes)):
            raise ValueError(f"one value a size, from 0 to size - 1, got {values} and {sizes}")
        if len(values):
            self._steps.append((values, _UNIFORM, sizes))

    def extend(self, other: SymbolEncoder) -> None:
        """Add all that `other` holds."""
        self._steps.extend(other._steps)

    def finish(self) -> bytes:
        """The payload: the coder's words, little-endian, without the zero bytes at the end."""
        coder = AnsCoder()
        for values, model, *parameters in reversed(self._steps):
            coder.encode_reverse(values, model, *parameters)
        return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def _put_groups(self, values: np.ndarray, groups: list[Group], tables: CdfTables) -> None:
        if values.max() > MAX_SYMBOL or values.min() < -MAX_SYMBOL:
            raise ValueError(f"symbols lie in +-{MAX_SYMBOL}, got {values.min()} and {values.max()}")
        values = values.astype(np.int32, copy=False)
        bins = np.empty_like(values)
        for table, start, stop in groups:
            lookup = tables.lookup(table)
            lookup.bins.take(values[start:stop] - lookup.low, mode="clip", out=bins[start:stop])
            self._steps.append((bins[start:stop], lookup.model))
        if bins.min() == ESCAPED:
            outside = np.flatnonzero(bins == ESCAPED)
            offset, regular = _edges(outside, groups, tables)
            bins[outside] = regular
            self._put_escapes(escape_code(values[outside], offset, regular))

    def _put_escapes(self, codes: np.ndarray) -> None:
        widths = (np.frexp(codes + 1.0)[1] - 1).astype(np.int32)
        self._steps.append((widths, _ESCAPE_MODEL))
        sizes = np.left_shift(1, widths[widths > 0])
        self.put_uniform(codes[widths > 0] + 1 - sizes, sizes)


class SymbolDecoder:
    """Reads back, in the same order, what a `SymbolEncoder` was given.

    Time and memory follow from what is asked for, not from the payload. Raises CorruptStream for a payload
    that no encoder writes, at the latest in `finish`; until then its symbols may be wrong, but lie in
    +-32767.
    """

    def __init__(self, payload: bytes) -> None:
        if payload.endswith(b"\0"):
            raise CorruptStream("an entropy-coded payload ends in a zero byte, which no encoder writes")
        words = np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").astype(np.uint32)
        self._coder = AnsCoder(words)

    def get(self, table_index: np.ndarray, tables: CdfTables) -> np.ndarray:
        """The next stage: int32 symbols in the shape of `table_index`. Raises CorruptStream."""
        positions, groups = _group(table_index, tables)
        symbols = np.zeros(table_index.size, np.int32)
        if len(positions):
            symbols[positions] = self._get_groups(groups, tables)
        return symbols.reshape(table_index.shape)

    def get_counts(self, count: int, counts: np.ndarray) -> np.ndarray:
        """The next `count` values, int32, under `counts` as in `put_counts`."""
        counts = check_counts(counts)
        if counts.ndim == 1:
            return self._coder.decode(Categorical(counts / TOTAL, perfect=True), count)
        if count != len(counts):
            raise ValueError(f"one row of counts a value, got {count} and {len(counts)}")
        return self._coder.decode(_FREE, counts / TOTAL) if count else np.zeros(0, np.int32)

    def get_uniform(self, sizes: np.ndarray) -> np.ndarray:
        """The next values, int32, one for each of `sizes` as in `put_uniform`."""
        sizes = check_sizes(sizes)
        return self._coder.decode(_UNIFORM, sizes) if len(sizes) else np.zeros(0, np.int32)

    def finish(self) -> None:
        """Check that the coder is back in the state in which the encoder began. Raises CorruptStream."""
        if self._coder.num_words():
            raise CorruptStream(
                "the entropy coder does not end where the encoder began: damaged, or other tables"
            )

    def _get_groups(self, groups: list[Group], tables: CdfTables) -> np.ndarray:
        symbols = np.empty(groups[-1][2], np.int32)
        for table, start, stop in groups:
            lookup = tables.lookup(table)
            bins = self._coder.decode(lookup.model, stop - start)
            lookup.symbols.take(bins, mode="clip", out=symbols[start:stop])
        if symbols.min() == ESCAPED:
            outside = np.flatnonzero(symbols == ESCAPED)
            symbols[outside] = self._get_escapes(*_edges(outside, groups, tables))
        return symbols

    def _get_escapes(self, offset: np.ndarray, regular: np.ndarray) -> np.ndarray:
        widths = self._coder.decode(_ESCAPE_MODEL, len(offset))
        codes = np.left_shift(1, widths)
        codes[widths > 0] += self.get_uniform(codes[widths > 0])
        half, below = np.divmod(codes - 1, 2)
        symbols = np.where(below, offset - 1 - half, offset + regular + half)
        if np.abs(symbols).max() > MAX_SYMBOL:
            raise CorruptStream(f"an escaped symbol beyond +-{MAX_SYMBOL}")
        return symbols


def encode(symbols: np.ndarray, table_index: np.ndarray, tables: CdfTables) -> bytes:
    """The payload of a packet of one stage. See `SymbolEncoder.put`."""
    encoder = SymbolEncoder()
    encoder.put(symbols, table_index, tables)
    return encoder.finish()


def decode(payload: bytes, table_index: np.ndarray, tables: CdfTables) -> np.ndarray:
    """The int32 symbols of a packet of one stage, in the shape of `table_index`. Raises CorruptStream."""
    decoder = SymbolDecoder(payload)
    symbols = decoder.get(table_index, tables)
    decoder.finish()
    return symbols


def check_counts(counts: np.ndarray) -> np.ndarray:
    """`counts` as an int64 array (k) or (n, k), k from 2 to 4096, rows of sum 65536. Raises ValueError."""
    counts = np.asarray(counts, np.int64)
    if counts.ndim not in (1, 2) or not 2 <= counts.shape[-1] <= MAX_LENGTH:
        raise ValueError(f"counts have the shape (k) or (n, k) with k 2..{MAX_LENGTH}, got {counts.shape}")
    if np.any(counts < 1) or np.any(counts.sum(-1) != TOTAL):
        raise ValueError(f"counts are at least 1 each and sum to {TOTAL}")
    return counts


def check_sizes(sizes: np.ndarray) -> np.ndarray:
    """`sizes` as an int32 array (n) of values 2..65536. Raises ValueError."""
    sizes = np.ascontiguousarray(sizes, np.int32)
    if sizes.ndim != 1 or (len(sizes) and not 2 <= sizes.min() <= sizes.max() <= MAX_UNIFORM):
        raise ValueError(f"sizes are 2..{MAX_UNIFORM} in one dimension, got {sizes}")
    return sizes


def _group(table_index: np.ndarray, tables: CdfTables) -> tuple[np.ndarray, list[Group]]:
    """Flat positions of the coded symbols in coding order, and their groups, the highest table first.

    numpy sorts keys of 8 and 16 bits by radix, in linear time.
    """
    index = table_index.reshape(-1)
    if index.dtype.kind not in "iu":
        raise ValueError(f"table indices are integers, got {index.dtype}")
    if len(index) and not 0 <= index.min() <= index.max() < tables.num_tables:
        raise ValueError(f"table indices are 0..{tables.num_tables - 1}, got {index.min()}..{index.max()}")
    keys: np.ndarray = index.astype(np.uint8 if tables.num_tables <= 256 else np.uint16, copy=False)
    coded = np.flatnonzero(keys >= tables.skip) if tables.skip else None
    if coded is not None:
        keys = keys[coded]
    positions = np.argsort(~keys, kind="stable")
    counts = np.bincount(keys, minlength=tables.num_tables)[::-1]
    stops = np.cumsum(counts)
    used = np.flatnonzero(counts)
    groups = [(tables.num_tables - 1 - int(i), int(stops[i] - counts[i]), int(stops[i])) for i in used]
    return (positions if coded is None else coded[positions]), groups


def _edges(outside: np.ndarray, groups: list[Group], tables: CdfTables) -> tuple[np.ndarray, np.ndarray]:
    """Offset and number of regular bins, int32 (n) each, of the tables of some places in coding order."""
    order, _, stops = (np.array(column) for column in zip(*groups, strict=True))
    table = order[np.searchsorted(stops, outside, side="right")]
    return tables.offset[table], tables.length[table] - 1
