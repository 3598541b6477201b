"""The packet coder: round trips, its twin, literal bytes, and what damage does to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gencodec.codec import CorruptStream
from gencodec.entropy import flags
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder, decode, encode
from gencodec.entropy.coder_ref import SymbolDecoderRef, SymbolEncoderRef
from gencodec.entropy.scales import SKIPPED_SCALES
from gencodec.entropy.tables import (
    MAX_SYMBOL,
    TOTAL,
    CdfTables,
    factorized_tables,
    gaussian_scales,
    gaussian_tables,
    quantise,
)

GAUSSIAN = gaussian_tables()
ALL_CODED = gaussian_tables(skip=0)
LAPLACE = [np.exp(-np.abs(np.arange(-9, 10) - shift) / (1 + c)) for c, shift in enumerate((0, 3, -2, 0.5))]
FACTORIZED = factorized_tables([pmf / (pmf.sum() * 1.001) for pmf in LAPLACE], [-9, -9, 20, -40])
ONE_SYMBOL = CdfTables.from_counts([np.array([65535, 1]), np.array([1, 65535])], [7, -3])
KINDS = {"gaussian": GAUSSIAN, "all_coded": ALL_CODED, "factorized": FACTORIZED, "one_symbol": ONE_SYMBOL}


def draw(rng, size, *, tables=GAUSSIAN, spread=1.0):
    """Gaussian symbols, index and symbols of `size`; a spread above 1 brings escapes."""
    index = rng.integers(0, tables.num_tables, size).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(size) * gaussian_scales()[index] * spread).astype(np.int32)
    return np.where(index < tables.skip, 0, symbols).astype(np.int32), index


@st.composite
def stages(draw_value):
    """A few stages (symbols, table_index, tables), most symbols near their table, some anywhere."""
    result = []
    for _ in range(draw_value(st.integers(0, 3))):
        tables = KINDS[draw_value(st.sampled_from(sorted(KINDS)))]
        size = draw_value(st.integers(0, 40))
        near = st.integers(-12, 24)
        symbols = draw_value(
            st.lists(near | st.integers(-MAX_SYMBOL, MAX_SYMBOL), min_size=size, max_size=size)
        )
        index = draw_value(st.lists(st.integers(0, tables.num_tables - 1), min_size=size, max_size=size))
        index = np.array(index, np.int64)
        result.append(
            (np.where(index < tables.skip, 0, np.array(symbols, np.int64)).astype(np.int32), index, tables)
        )
    return result


def decode_or_none(payload, make, index, tables):
    try:
        decoder = make(payload)
        symbols = decoder.get(index, tables).tolist()
        decoder.finish()
    except CorruptStream:
        return None
    return symbols


def encode_stages(result, encoder):
    for stage in result:
        encoder.put(*stage)
    return encoder.finish()


@given(stages())
def test_stages_come_back_and_the_twin_agrees(result):
    payload = encode_stages(result, SymbolEncoder())
    assert payload == encode_stages(result, SymbolEncoderRef())
    for decoder in (SymbolDecoder(payload), SymbolDecoderRef(payload)):
        for symbols, index, tables in result:
            decoded = decoder.get(index, tables)
            assert decoded.dtype == np.int32
            np.testing.assert_array_equal(decoded, symbols)
        decoder.finish()


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_a_large_stage_has_its_ideal_size(spread):
    symbols, index = draw(np.random.default_rng(1), (4, 64, 64), spread=spread)
    payload = encode(symbols, index, GAUSSIAN)
    np.testing.assert_array_equal(decode(payload, index, GAUSSIAN), symbols)
    ideal = GAUSSIAN.bits(symbols, index).sum() / 8
    assert ideal - 16 < len(payload) < ideal * 1.0001 + 4  # modes in a row are free at the start


def test_large_packets_equal_the_twin():
    symbols, index = draw(np.random.default_rng(2), 3000, spread=2.0)
    payload = encode(symbols, index, GAUSSIAN)
    assert payload == encode_stages([(symbols, index, GAUSSIAN)], SymbolEncoderRef())
    np.testing.assert_array_equal(SymbolDecoderRef(payload).get(index, GAUSSIAN), symbols)


def test_golden_bytes():
    """A change here is a change of the format. The first is the example of docs/entropy.md."""
    counts = [[1, 65535], [60000, 5535, 1], [16384, 32768, 16380, 4]]
    tables = CdfTables.from_counts([np.array(row) for row in counts], [0, 0, -1], skip=1)
    symbols, index = np.array([0, 1, 0, -1, -4, 0]), np.array([0, 1, 1, 2, 2, 2])
    assert encode(symbols, index, tables).hex() == "00f9ff9f6f7b"
    np.testing.assert_array_equal(decode(bytes.fromhex("00f9ff9f6f7b"), index, tables), symbols)
    assert encode(np.array([1]), np.array([40]), GAUSSIAN).hex() == "004119"
    symbols = np.array([0, -1, 2, 0, 5, 32767, -32767, -4])
    index = np.array([63, 40, 40, 0, 4, 20, 5, 20])
    assert (
        encode(symbols, index, gaussian_tables(skip=4)).hex()
        == "00eedfe7fffefffebfffffffff723915db5a0242c201"
    )
    assert encode(np.array([-9, 9, 25, -60]), np.arange(4), FACTORIZED).hex() == "00f8ff81391ef939"


def test_any_shape_and_integer_type_gives_the_same_bytes():
    symbols, index = draw(np.random.default_rng(3), (6, 5, 4))
    expected = encode(symbols, index, GAUSSIAN)
    for kind in (np.int16, np.int64):
        assert encode(symbols.astype(kind), index.astype(kind), GAUSSIAN) == expected
    turned, turned_index = symbols.transpose(1, 0, 2), index.transpose(1, 0, 2)
    assert encode(turned, turned_index, GAUSSIAN) == encode(turned.copy(), turned_index.copy(), GAUSSIAN)
    np.testing.assert_array_equal(decode(expected, index.astype(np.int64), GAUSSIAN), symbols)


def test_a_channel_each_is_coded_from_broadcast_indices():
    symbols = np.random.default_rng(4).integers(-2, 3, (4, 3, 5)) + FACTORIZED.mode[:, None, None]
    index = np.broadcast_to(np.arange(4)[:, None, None], symbols.shape)
    np.testing.assert_array_equal(decode(encode(symbols, index, FACTORIZED), index, FACTORIZED), symbols)


def test_more_than_256_tables():
    tables = CdfTables.from_counts([np.array([30000 + t, 35535 - t, 1]) for t in range(300)], [0] * 300)
    index = np.random.default_rng(5).permutation(300)
    symbols = index % 2
    payload = encode(symbols, index, tables)
    assert payload == encode_stages([(symbols, index, tables)], SymbolEncoderRef())
    np.testing.assert_array_equal(decode(payload, index, tables), symbols)


class TestSize:
    def test_modes_cost_nothing(self):
        index = np.full((64, 30, 40), 8, np.uint8)
        assert encode(np.zeros(index.shape, int), index, GAUSSIAN) == b""
        assert not decode(b"", index, GAUSSIAN).any()

    def test_nothing_costs_nothing(self):
        assert SymbolEncoder().finish() == b""
        SymbolDecoder(b"").finish()
        nothing = np.zeros((0, 3), int)
        assert encode(nothing, nothing, GAUSSIAN) == b""
        assert decode(b"", nothing, GAUSSIAN).shape == (0, 3)

    @pytest.mark.parametrize("table", range(SKIPPED_SCALES, 64))
    def test_one_symbol_costs_at_most_four_bytes(self, table):
        for symbol in range(int(GAUSSIAN.offset[table]), -int(GAUSSIAN.offset[table]) + 1):
            payload = encode(np.array([symbol]), np.array([table]), GAUSSIAN)
            assert len(payload) <= 3
            assert decode(payload, np.array([table]), GAUSSIAN) == symbol

    @pytest.mark.parametrize("symbol", [4, -4, 1000, MAX_SYMBOL, -MAX_SYMBOL])
    def test_one_escape_costs_at_most_eight_bytes(self, symbol):
        payload = encode(np.array([symbol]), np.array([SKIPPED_SCALES]), GAUSSIAN)
        assert len(payload) <= 8
        assert decode(payload, np.array([SKIPPED_SCALES]), GAUSSIAN) == symbol

    def test_skipped_symbols_cost_nothing(self):
        symbols, index = draw(np.random.default_rng(6), 500)
        among = np.insert(index, np.arange(0, 500, 5), 0)
        assert encode(np.insert(symbols, np.arange(0, 500, 5), 0), among, GAUSSIAN) == encode(
            symbols, index, GAUSSIAN
        )
        assert not decode(encode(np.zeros(9, int), np.full(9, 3), GAUSSIAN), np.full(9, 3), GAUSSIAN).any()


class TestArguments:
    @pytest.mark.parametrize(
        ("symbols", "index"),
        [
            ([1], [3]),  # skipped, but not 0
            ([0], [64]),
            ([0], [-1]),
            ([MAX_SYMBOL + 1], [9]),
            ([-MAX_SYMBOL - 1], [9]),
            ([2**32], [9]),
            ([0, 0], [9]),
            ([0.0], [9]),
            ([0], [9.0]),
        ],
    )
    def test_what_cannot_be_coded_is_refused(self, symbols, index):
        with pytest.raises(ValueError, match=r"."):
            encode(np.array(symbols), np.array(index), GAUSSIAN)

    @pytest.mark.parametrize("index", [[64], [-1], [9.0]])
    def test_a_decoder_refuses_other_tables(self, index):
        with pytest.raises(ValueError, match="indices"):
            decode(b"", np.array(index), GAUSSIAN)

    def test_counts_and_sizes_are_checked(self):
        for counts in ([65536], [65535, 2], [65536, 0], [[[32768, 32768]]]):
            with pytest.raises(ValueError, match="counts"):
                SymbolEncoder().put_counts(np.zeros(1, int), np.array(counts))
            with pytest.raises(ValueError, match="counts"):
                SymbolDecoder(b"").get_counts(1, np.array(counts))
        for sizes in ([1], [65537], [[2]]):
            with pytest.raises(ValueError, match="sizes"):
                SymbolDecoder(b"").get_uniform(np.array(sizes))
        with pytest.raises(ValueError, match="values"):
            SymbolEncoder().put_counts(np.array([2]), np.array([32768, 32768]))
        with pytest.raises(ValueError, match="value"):
            SymbolEncoder().put_uniform(np.array([3]), np.array([3]))


class TestDamage:
    symbols, index = draw(np.random.default_rng(7), 60, spread=1.5)
    payload = encode(symbols, index, GAUSSIAN)

    def is_refused(self, payload):
        try:
            decoded = decode(payload, self.index, GAUSSIAN)
        except CorruptStream:
            return True
        assert (
            encode(decoded, self.index, GAUSSIAN) == payload
        )  # another packet, then: the container's CRC finds that
        return False

    def test_flipped_bits_are_found(self):
        flips = [(byte, bit) for byte in range(len(self.payload)) for bit in range(8)]
        found = 0
        for byte, bit in flips:
            damaged = bytearray(self.payload)
            damaged[byte] ^= 1 << bit
            found += self.is_refused(bytes(damaged))
        assert found > 0.98 * len(flips)

    def test_cut_payloads_are_found(self):
        found = [self.is_refused(self.payload[:length]) for length in range(1, len(self.payload))]
        assert np.mean(found) > 0.98

    @pytest.mark.parametrize("more", [b"\0", b"\0\0\0\0", b"\1", b"\0\0\0\1", bytes(range(1, 99))])
    def test_extended_payloads_are_found(self, more):
        assert self.is_refused(self.payload + more)
        with pytest.raises(CorruptStream):
            decode(more, np.zeros(0, int), GAUSSIAN)

    def test_other_tables_are_found(self):
        other = self.index.copy()
        other[30] += 1 if other[30] < 63 else -1
        with pytest.raises(CorruptStream):
            decode(self.payload, other, GAUSSIAN)

    @given(st.binary(max_size=60), st.integers(0, 80), st.sampled_from(sorted(KINDS)))
    def test_any_bytes_are_refused_or_the_canonical_form_of_what_they_say(self, payload, count, kind):
        tables = KINDS[kind]
        index = np.arange(count) % tables.num_tables
        decoded, by_the_twin = (
            decode_or_none(payload, make, index, tables) for make in (SymbolDecoder, SymbolDecoderRef)
        )
        assert decoded == by_the_twin
        if decoded is not None:
            assert encode(np.array(decoded, np.int64), index, tables) == payload

    def test_a_refused_escape(self):
        """The code 2^17 - 2 escapes to beyond 65536."""
        encoder = SymbolEncoder()
        encoder.put_counts(np.array([3]), ALL_CODED.counts(4))
        encoder.put_counts(np.array([16]), np.array([32768 >> w for w in range(16)] + [1]))
        encoder.put_uniform(np.array([65535]), np.array([65536]))
        payload = encoder.finish()
        for make in (SymbolDecoder, SymbolDecoderRef):
            with pytest.raises(CorruptStream, match="escape"):
                make(payload).get(np.array([4]), ALL_CODED)


class TestFlags:
    @staticmethod
    def put_all(encoder, seed):
        rng = np.random.default_rng(seed)
        sent = [
            rng.integers(0, 2, 40),
            rng.integers(0, 7, 25),
            rng.random(90) < 0.1,
            rng.integers(0, 3, 30) ** 2,
        ]
        flags.put_bits(encoder, sent[0], ones=3000)
        flags.put_integers(encoder, sent[1], 7)
        flags.put_integers(encoder, np.zeros(4, int), 1)
        flags.put_adaptive(encoder, sent[2], flags.AdaptiveCounts(2))
        flags.put_adaptive(encoder, sent[3], flags.AdaptiveCounts(5))
        return sent

    @pytest.mark.parametrize("seed", range(5))
    def test_all_kinds_in_one_packet_and_the_twin(self, seed):
        encoder, twin = SymbolEncoder(), SymbolEncoderRef()
        sent = self.put_all(encoder, seed)
        self.put_all(twin, seed)
        payload = encoder.finish()
        assert payload == twin.finish()
        for decoder in (SymbolDecoder(payload), SymbolDecoderRef(payload)):
            np.testing.assert_array_equal(flags.get_bits(decoder, 40, ones=3000), sent[0])
            np.testing.assert_array_equal(flags.get_integers(decoder, 25, 7), sent[1])
            np.testing.assert_array_equal(flags.get_integers(decoder, 4, 1), np.zeros(4))
            np.testing.assert_array_equal(flags.get_adaptive(decoder, 90, flags.AdaptiveCounts(2)), sent[2])
            np.testing.assert_array_equal(flags.get_adaptive(decoder, 30, flags.AdaptiveCounts(5)), sent[3])
            decoder.finish()

    def test_nothing_to_tell(self):
        encoder, none = SymbolEncoder(), np.zeros(0, int)
        flags.put_bits(encoder, none)
        flags.put_integers(encoder, none, 9)
        flags.put_adaptive(encoder, none, flags.AdaptiveCounts(3))
        decoder = SymbolDecoder(encoder.finish())
        assert len(flags.get_bits(decoder, 0)) == len(flags.get_integers(decoder, 0, 9)) == 0
        assert len(flags.get_adaptive(decoder, 0, flags.AdaptiveCounts(3))) == 0

    def test_rare_events_are_cheap(self):
        events = np.arange(2000) % 100 == 99
        encoder = SymbolEncoder()
        flags.put_adaptive(encoder, events, flags.AdaptiveCounts(2))
        assert len(encoder.finish()) < 30  # 20 at the least; 250 as bits

    def test_adaptive_counts_stay_counts(self):
        model = flags.AdaptiveCounts(256)
        for value in np.random.default_rng(8).zipf(1.5, 3000) % 256:
            model.update(int(value))
            counts = model.counts()
            assert counts.min() >= 1
            assert counts.sum() == TOTAL

    @pytest.mark.parametrize("size", [0, 65536, 65537])
    def test_sizes_out_of_range(self, size):
        with pytest.raises(ValueError, match="size"):
            flags.AdaptiveCounts(size)
        with pytest.raises(ValueError, match=r"size|values"):
            flags.put_integers(SymbolEncoder(), np.array([70000]), size)
        with pytest.raises(ValueError, match="values"):
            flags.put_adaptive(SymbolEncoder(), np.array([2]), flags.AdaptiveCounts(2))


class TestTables:
    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_the_coder_uses_256_times_the_stored_counts(self, kind):
        for table in range(KINDS[kind].num_tables):
            assert_exact(KINDS[kind].counts(table))

    @given(st.integers(0, 2**32), st.integers(2, 400), st.sampled_from([0.01, 1.0, 100.0]))
    @settings(max_examples=50)
    def test_and_for_any_counts(self, seed, length, concentration):
        pmf = np.random.default_rng(seed).gamma(concentration, size=length) + 1e-300
        assert_exact(quantise(pmf))

    def test_gaussian_tables_are_close_to_gaussians(self):
        for table, scale in enumerate(gaussian_scales()):
            symbols = np.arange(-3, 4)
            density = np.exp(-(symbols**2) / (2 * scale**2))
            cost = ALL_CODED.bits(symbols, np.full(7, table))
            if scale > 2:
                np.testing.assert_allclose(2.0**-cost, density / (scale * np.sqrt(2 * np.pi)), rtol=0.02)
            assert np.all(np.diff(ALL_CODED.bits(np.arange(40), np.full(40, table))) >= 0)
        assert GAUSSIAN.length.max() == 278
        assert GAUSSIAN.skip == SKIPPED_SCALES == 8

    def test_bits_of_every_kind_of_symbol(self):
        tables = CdfTables.from_counts(
            [np.array([1, 65535]), np.array([16384, 32768, 16384])], [0, 5], skip=1
        )
        symbols, index = np.array([0, 6, 5, 7, 4, 9]), np.array([0, 1, 1, 1, 1, 1])
        expected = [0, 1, 2, 2 + 1, 2 + 2 + 1, 2 + 3 + 2]
        np.testing.assert_allclose(tables.bits(symbols, index), expected)

    def test_quantise_is_near_the_best(self):
        pmf = np.random.default_rng(9).dirichlet(np.ones(300))
        counts = quantise(pmf)
        assert np.abs(counts - np.maximum(1, pmf * TOTAL)).max() <= 1.5
        for bad in ([1.0], [-0.1, 1.1], [np.nan, 1.0], np.ones((2, 2)), np.ones(5000)):
            with pytest.raises(ValueError, match="pmf"):
                quantise(np.array(bad))

    def test_factorized_tables_cut_what_is_rare(self):
        tables = factorized_tables([np.array([1e-9, 0.25, 0.5, 0.25, 0.0])], [-1])
        assert (tables.offset[0], tables.mode[0], tables.length[0]) == (0, 1, 4)
        np.testing.assert_array_equal(tables.counts(0), [32768, 16384, 16383, 1])
        with pytest.raises(ValueError, match="without a symbol"):
            factorized_tables([np.zeros(3)], [0])

    def test_tensors_and_back(self):
        tensors = GAUSSIAN.to_tensors("y")
        assert all(tensor.dtype == torch.int32 for tensor in tensors.values())
        again = CdfTables.from_tensors(tensors, "y")
        for name in ("cdf", "offset", "mode", "length", "skip"):
            np.testing.assert_array_equal(getattr(again, name), getattr(GAUSSIAN, name))
        del tensors["y.mode"]
        with pytest.raises(ValueError, match="lack"):
            CdfTables.from_tensors(tensors, "y")

    def test_tables_cannot_be_changed(self):
        with pytest.raises(ValueError, match="read-only"):
            GAUSSIAN.cdf[0, 1] = 3

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t["x.cdf"].__setitem__((0, 0), 1),
            lambda t: t["x.cdf"].__setitem__((0, 4), 65535),
            lambda t: t["x.cdf"].__setitem__((0, 1), 0),  # a count of 0
            lambda t: t["x.cdf"].__setitem__((0, 1), 70000),
            lambda t: t["x.cdf"].__setitem__((0, 1), -(2**31)),
            lambda t: t["x.length"].__setitem__(0, 3),
            lambda t: t["x.length"].__setitem__(0, 1),
            lambda t: t["x.length"].__setitem__(1, 2**31 - 1),
            lambda t: t["x.offset"].__setitem__(0, -40000),
            lambda t: t["x.offset"].__setitem__(0, 2**31 - 1),
            lambda t: t["x.mode"].__setitem__(0, 9),
            lambda t: t["x.mode"].__setitem__(0, -9),
            lambda t: t["x.skip"].__setitem__(0, 3),
            lambda t: t["x.skip"].__setitem__(0, -1),
            lambda t: t.update({"x.cdf": t["x.cdf"].float()}),
            lambda t: t.update({"x.cdf": t["x.cdf"][0]}),
            lambda t: t.update({"x.cdf": t["x.cdf"][:0]}),
            lambda t: t.update({"x.offset": t["x.offset"][:1]}),
            lambda t: t.update({"x.skip": t["x.skip"][0]}),
        ],
    )
    def test_malformed_tables_are_refused(self, change):
        counts = [np.array([16384, 16384, 16384, 16384]), np.array([60000, 5536])]
        tensors = CdfTables.from_counts(counts, [-1, 0]).to_tensors("x")
        CdfTables.from_tensors(tensors, "x")
        change(tensors)
        with pytest.raises(ValueError, match=r"."):
            CdfTables.from_tensors(tensors, "x")


def assert_exact(counts):
    """The bytes of every value, twice, are those of the twin, whose intervals are 256 x the counts."""
    encoder, twin = SymbolEncoder(), SymbolEncoderRef()
    for one in (encoder, twin):
        one.put_counts(np.repeat(np.arange(len(counts)), 2), counts)
    assert encoder.finish() == twin.finish()
