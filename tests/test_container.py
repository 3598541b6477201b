"""Container: round trips, reading only what is needed, and every way in which a file can be wrong."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencodec import wire
from gencodec.codec import CorruptStream, FrameType, GencodecError, Packet, UnreadableInput, UnsupportedStream
from gencodec.container import Reader
from gencodec.container_writer import Writer
from gencodec.varint import Cursor, pack_varint
from gencodec.wire import Index
from gencodec.wire_header import MAX_PIXELS, PRESETS, U32, Header, pack_header, parse_header, storable_fps

HEADER = Header(200, 1, "tiny", 0xDEADBEEF, 48, 32, Fraction(25), None, 1, b"settings")


def gop_packets(first: int, payloads: list[bytes], quality: int = 32) -> list[Packet]:
    types = [FrameType.INTRA, *[FrameType.PREDICTED] * (len(payloads) - 1)]
    return [Packet(t, quality, first + i, 1, p) for i, (t, p) in enumerate(zip(types, payloads, strict=True))]


PACKETS = [
    packet
    for first in (0, 4, 8)
    for packet in gop_packets(first, [bytes([first + i]) * (9 + i) for i in range(4)])
]


def build(packets: list[Packet], header: Header = HEADER, file: Any = None) -> bytes:
    file = file or io.BytesIO()
    with Writer(file, header) as writer:
        for packet in packets:
            writer.write(packet)
    return bytes(file.getvalue())


@pytest.fixture(scope="module")
def stream() -> bytes:
    return build(PACKETS)


class Pipe(io.RawIOBase):
    """Bytes that can only be read forward, a few at a time, or written."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 7))

    def write(self, data: Any) -> int:
        return self._data.write(data)

    def getvalue(self) -> bytes:
        return self._data.getvalue()


def as_pipe(data: bytes) -> Any:
    return Pipe(data)


class Counting(io.BytesIO):
    """Notes which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.touched: set[int] = set()

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.touched.update(range(start, start + len(data)))
        return data


def read_all(data: bytes, *, pipe: bool = False, **arguments: Any) -> list[Packet]:
    file: Any = Pipe(data) if pipe else io.BytesIO(data)
    return [packet for gop in Reader(file, **arguments).gops() for packet in gop.packets]


# ---- round trips -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**63 - 1))
def test_varint_round_trip(value: int) -> None:
    cursor = Cursor(packed := pack_varint(value))
    assert cursor.varint() == value
    assert cursor.left == 0
    assert len(packed) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize("data", ["80 00", "ff 80 00", "80", "ff" * 9 + "01", "80" * 100])
def test_varint_is_canonical(data: str) -> None:
    with pytest.raises(CorruptStream):
        Cursor(bytes.fromhex(data)).varint()


headers = st.builds(
    Header,
    codec_id=st.integers(1, 255),
    version=st.integers(1, 255),
    preset=st.sampled_from(PRESETS),
    weights_id=st.integers(0, 2**32 - 1),
    width=st.integers(1, 4096),
    height=st.integers(1, 4096),
    fps=st.fractions(min_value=Fraction(1, 1000), max_value=1000, max_denominator=10000),
    num_frames=st.none() | st.integers(1, 2**32 - 1),
    seed=st.integers(0, 2**32 - 1),
    settings=st.binary(max_size=1024),
)


@given(headers)
def test_header_round_trip(header: Header) -> None:
    assert parse_header(pack_header(header), max_pixels=MAX_PIXELS) == header


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), min_size=1, max_size=8))
def test_file_round_trip(gops: list[list[bytes]]) -> None:
    packets, frame = [], 0
    for payloads in gops:
        packets += gop_packets(frame, payloads)
        frame += len(payloads)
    assert read_all(build(packets)) == packets


def test_pipe_round_trip(stream: bytes) -> None:
    through = build(PACKETS, file=Pipe())
    assert len(through) == len(stream)
    assert read_all(through, pipe=True) == read_all(through) == read_all(stream, pipe=True) == PACKETS
    assert Reader(as_pipe(through)).num_frames is None
    assert Reader(io.BytesIO(through)).num_frames == Reader(as_pipe(stream)).num_frames == 12
    reader = Reader(as_pipe(stream))
    list(reader.gops())
    with pytest.raises(ValueError, match="once"):
        next(reader.gops())


def test_file_may_begin_anywhere_in_a_file_object(stream: bytes) -> None:
    file = io.BytesIO(b"before" + stream)
    file.seek(6)
    assert [gop.first_frame for gop in Reader(file).gops(5, 9)] == [4, 8]
    out = io.BytesIO()
    out.write(b"before")
    build(PACKETS, file=out)
    assert out.getvalue() == b"before" + stream


@pytest.mark.parametrize(
    "fps", [Fraction(2**40, 2**35 + 1), Fraction(1, 2**40), Fraction(355, 113), Fraction(2**32 - 1)]
)
def test_fps_fits(fps: Fraction) -> None:
    stored = storable_fps(fps)
    assert stored.numerator < 2**32
    assert stored.denominator < 2**32
    assert abs(stored - fps) <= Fraction(1, 2**30)


def test_writer_refuses_what_no_reader_takes() -> None:
    writer = Writer(io.BytesIO(), HEADER)
    with pytest.raises(ValueError, match="frame 0 is due"):
        writer.write(PACKETS[1])
    with pytest.raises(ValueError, match="at least one frame"):
        writer.finish()
    with pytest.raises(ValueError, match="begins with it"):
        build([replace(PACKETS[0], type=FrameType.PREDICTED)])
    with pytest.raises(ValueError, match="quality"):
        build([replace(PACKETS[0], quality=64)])
    with pytest.raises(ValueError, match="129 frames"):
        build([replace(PACKETS[0], num_frames=129)])
    for wrong in (
        {"width": 0},
        {"height": 16385},
        {"seed": 2**32},
        {"settings": bytes(1025)},
        {"fps": Fraction(0)},
    ):
        with pytest.raises(ValueError, match=r"got|must be"):
            build(PACKETS, replace(HEADER, **wrong))


# ---- packets like the GOP's first predicted one ---------------------------------------------------------


def predicted(*each: tuple[int, int, int]) -> list[Packet]:
    """A GOP whose predicted packets have these qualities, numbers of frames and lengths."""
    packets = [Packet(FrameType.INTRA, 40, 0, 1, b"key")]
    for quality, frames, size in each:
        first = packets[-1].first_frame + packets[-1].num_frames
        packets.append(Packet(FrameType.PREDICTED, quality, first, frames, bytes(range(size))))
    return packets


def test_packets_like_the_first_one_take_a_byte_more_than_they_hold() -> None:
    packets = predicted(
        (32, 1, 5), (32, 1, 0), (38, 1, 7), (32, 2, 1), (32, 1, 62), (32, 1, 63), (32, 1, 200)
    )
    body = wire.pack_gop(packets)
    assert wire.parse_gop(body) == tuple(packets)
    heads = len(body) - 1 - sum(len(packet.payload) for packet in packets)
    assert heads == 3 + 3 + 1 + 3 + 3 + 1 + 2 + 3


@pytest.mark.parametrize(
    "body",
    [
        bytes([0, 40, 1, 0, 0x80]),  # like a packet that there is not
        bytes([0, 40, 1, 0, 1 << 6 | 32, 1, 0, 0xC0]),  # type 3
        bytes([0, 40, 1, 0, 1 << 6 | 32, 1, 0, 1 << 6 | 32, 1, 0]),  # like the first one, at length
        bytes([0, 40, 1, 0, 1 << 6 | 32, 1, 0, 0x82, 7]),  # cut
        bytes([0, 40, 1, 0, 1 << 6 | 32, 1, 0, 0xBF]),  # cut in its length
    ],
)
def test_what_no_writer_writes_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptStream):
        wire.parse_gop(body)


# ---- reading only what is needed -------------------------------------------------------------------------


def test_range_reads_header_index_and_its_gops_only(stream: bytes) -> None:
    file = Counting(stream)
    reader = Reader(file)
    assert [gop.first_frame for gop in reader.gops(5, 7)] == [4]
    assert reader.index
    first, second, third = reader.index.offsets
    needed = {*range(first), *range(second, third), *range(len(stream) - reader.index_bytes, len(stream))}
    assert file.touched == needed


def test_gops_come_before_the_rest_is_read(stream: bytes) -> None:
    file = Counting(stream)
    reader = Reader(file)
    next(reader.gops())
    assert reader.index
    assert reader.index.offsets[1] not in file.touched


@pytest.mark.parametrize(
    ("start", "stop", "firsts"), [(0, 1, [0]), (3, 5, [0, 4]), (4, 8, [4]), (11, None, [8])]
)
@pytest.mark.parametrize("pipe", [False, True])
def test_ranges(stream: bytes, start: int, stop: int | None, firsts: list[int], pipe: bool) -> None:
    file: Any = Pipe(stream) if pipe else io.BytesIO(stream)
    assert [gop.first_frame for gop in Reader(file).gops(start, stop)] == firsts


# ---- files that are wrong --------------------------------------------------------------------------------


def chunks_of(stream: bytes) -> tuple[bytes, list[bytes]]:
    """Return header and GOP chunks."""
    reader = Reader(io.BytesIO(stream))
    return stream[: reader.header_bytes], [stream[g.offset : g.offset + g.size] for g in reader.gops()]


def assemble(header: bytes, chunks: list[bytes], frames: list[int], total: int) -> bytes:
    """Join chunks and write the INDEX that goes with where they are."""
    offsets = [len(header) + sum(map(len, chunks[:i])) for i in range(len(chunks))]
    return header + b"".join(chunks) + wire.pack_index(Index(total, frames, offsets))


def rebuilt(
    stream: bytes, change: Callable[[list[bytes]], list[bytes]], frames: list[int], total: int
) -> bytes:
    header, chunks = chunks_of(stream)
    return assemble(header, change(chunks), frames, total)


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("partial", [False, True])
def test_cut_at_every_byte(stream: bytes, pipe: bool, partial: bool) -> None:
    header_bytes = Reader(io.BytesIO(stream)).header_bytes
    for size in range(len(stream)):
        if partial and size >= header_bytes:
            packets = read_all(stream[:size], pipe=pipe, partial=True)
            assert packets == PACKETS[: len(packets)]
        else:
            with pytest.raises(CorruptStream):
                read_all(stream[:size], pipe=pipe, partial=partial)


def flips(stream: bytes) -> Iterator[bytes]:
    """Every byte of the small file with one bit, and with all bits, turned."""
    for position in range(len(stream)):
        for mask in (1 << random.Random(position).randrange(8), 0xFF, 0x80):
            yield stream[:position] + bytes([stream[position] ^ mask]) + stream[position + 1 :]


@pytest.mark.parametrize("pipe", [False, True])
def test_flipped_at_every_byte(stream: bytes, pipe: bool) -> None:
    for broken in flips(stream):
        with pytest.raises((CorruptStream, UnsupportedStream)):
            read_all(broken, pipe=pipe)


def test_partial_never_gives_a_wrong_packet(stream: bytes) -> None:
    whole = 0
    for broken in flips(stream):
        try:
            packets = read_all(broken, partial=True)
        except (CorruptStream, UnsupportedStream):
            continue  # the header
        assert set(packets) <= set(PACKETS)
        assert len(packets) >= 8  # at most the GOP that was hit is lost
        whole += len(packets) == len(PACKETS)
    assert whole  # the INDEX was hit: nothing is lost


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    for prefix in (b"", b"GCV1", pack_header(HEADER)):
        with pytest.raises(GencodecError):
            read_all(prefix + data)


@pytest.mark.parametrize(
    ("change", "frames", "total"),
    [
        (lambda c: [c[1], c[0], c[2]], [0, 4, 8], 12),  # swapped
        (lambda c: [c[0], c[1], c[1], c[2]], [0, 4, 8, 12], 16),  # doubled
        (lambda c: [c[0], c[2]], [0, 4], 8),  # dropped
        (lambda c: [c[0], c[2]], [0, 8], 12),  # dropped, and the INDEX says so
        (lambda c: [c[1], c[2]], [0, 4], 8),  # the first dropped
        (lambda c: c[:2], [0, 4], 12),  # the last dropped
        (lambda c: c, [0, 4, 9], 12),
        (lambda c: c, [0, 4, 8], 13),
        (lambda c: [*c, wire.pack_index(Index(12, [0, 4, 8], [50, 60, 70]))], [0, 4, 8, 12], 13),
    ],
)
@pytest.mark.parametrize("pipe", [False, True])
def test_gops_out_of_order(stream: bytes, change: Any, frames: list[int], total: int, pipe: bool) -> None:
    with pytest.raises(CorruptStream):
        read_all(rebuilt(stream, change, frames, total), pipe=pipe)


@pytest.mark.parametrize("pipe", [False, True])
def test_dropped_consistently_is_still_refused_by_the_header(stream: bytes, pipe: bool) -> None:
    """GOP 3 removed and the INDEX rewritten to match: only num_frames in the header tells."""
    with pytest.raises(CorruptStream, match="count different frames"):
        read_all(rebuilt(stream, lambda c: c[:2], [0, 4], 8), pipe=pipe)


@pytest.mark.parametrize("extra", [b"\0", b"more", bytes(2000)])
@pytest.mark.parametrize("pipe", [False, True])
def test_extended(stream: bytes, extra: bytes, pipe: bool) -> None:
    with pytest.raises(CorruptStream):
        read_all(stream + extra, pipe=pipe)
    assert read_all(stream + extra, pipe=pipe, partial=True) == PACKETS


@pytest.mark.parametrize("pipe", [False, True])
def test_doubled_file(stream: bytes, pipe: bool) -> None:
    with pytest.raises(CorruptStream):
        read_all(stream + stream, pipe=pipe)


@pytest.mark.parametrize("pipe", [False, True])
def test_no_gops(stream: bytes, pipe: bool) -> None:
    with pytest.raises(CorruptStream):
        read_all(rebuilt(stream, lambda _: [], [], 0), pipe=pipe)


GOP_BODIES = {
    "no packets": pack_varint(0),
    "predicted first": pack_varint(0) + bytes([0x60, 1, 0]),
    "two intra": pack_varint(0) + bytes([0x20, 1, 0, 0x20, 1, 0]),
    "type 2": pack_varint(0) + bytes([0x80, 1, 0]),
    "no frames": pack_varint(0) + bytes([0x20, 0, 0]),
    "129 frames": pack_varint(0) + bytes([0x20]) + pack_varint(129) + b"\0",
    "4097 frames": pack_varint(0) + bytes([0x20, 1, 0]) + (bytes([0x60]) + pack_varint(128) + b"\0") * 32,
    "payload cut": pack_varint(0) + bytes([0x20, 1, 5, 1, 2]),
    "payload claims 2^62": pack_varint(0) + bytes([0x20, 1]) + pack_varint(2**62),
    "frame 1 first": pack_varint(1) + bytes([0x20, 1, 0]),
    "frames beyond 2^32": pack_varint(2**32 - 1) + bytes([0x20, 1, 0]),
    "empty": b"",
    "over-long varint": bytes([0x80, 0, 0x20, 1, 0]),
}


@pytest.mark.parametrize("name", GOP_BODIES)
@pytest.mark.parametrize("pipe", [False, True])
def test_malformed_gop_under_a_right_crc(name: str, pipe: bool) -> None:
    data = assemble(pack_header(HEADER), [wire.pack_chunk(wire.TAG_GOP, GOP_BODIES[name])], [0], 1)
    with pytest.raises(CorruptStream):
        read_all(data, pipe=pipe)


def signed(header: bytes) -> bytes:
    """Put the right CRC on a header."""
    return header[:-4] + U32.pack(zlib.crc32(header[:-4]))


def patched(position: int, data: bytes) -> bytes:
    header = pack_header(HEADER)
    return signed(header[:position] + data + header[position + len(data) :])


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (patched(4, b"\0"), CorruptStream),
        (patched(5, b"\0"), CorruptStream),
        (patched(6, b"\2"), UnsupportedStream),
        (patched(7, b"\1"), UnsupportedStream),
        (patched(12, b"\0\0"), CorruptStream),
        (patched(12, b"\x01\x40"), CorruptStream),  # 16385 wide
        (patched(12, b"\x00\x40\x00\x40"), CorruptStream),  # 16384x16384
        (patched(16, bytes(4)), CorruptStream),
        (patched(20, bytes(4)), CorruptStream),
        (
            patched(16, U32.pack(50) + U32.pack(2)),
            CorruptStream,
        ),  # not in lowest terms
        (patched(24, b"\xff\xff\xff\xff"), CorruptStream),  # four billion frames
        (b"GCV2" + pack_header(HEADER)[4:], UnsupportedStream),
        (b"GCV0" + pack_header(HEADER)[4:], CorruptStream),
        (b"RIFF" + pack_header(HEADER)[4:], CorruptStream),
    ],
)
@pytest.mark.parametrize("pipe", [False, True])
def test_header_fields(stream: bytes, header: bytes, error: type[Exception], pipe: bool) -> None:
    with pytest.raises(error):
        read_all(header + stream[len(header) :], pipe=pipe)


def test_max_pixels_is_raised_by_an_argument(stream: bytes) -> None:
    large = patched(12, b"\x00\x40\x00\x40")
    data = large + stream[len(large) :]
    assert Reader(io.BytesIO(data), max_pixels=1 << 28).header.width == 16384


@pytest.mark.parametrize("pipe", [False, True])
def test_claimed_sizes_are_not_believed(pipe: bool) -> None:
    header = pack_header(HEADER)
    for length in (wire.MAX_CHUNK_BYTES, wire.MAX_CHUNK_BYTES + 1, 2**62):
        with pytest.raises(CorruptStream):
            read_all(header + b"\x01" + pack_varint(length) + bytes(50), pipe=pipe)


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_chunks_that_may_be_skipped(stream: bytes, pipe: bool, place: int) -> None:
    header, chunks = chunks_of(stream)
    meta = wire.pack_chunk(wire.TAG_META, b"title")
    parts = [*chunks[:place], meta, *chunks[place:]]
    offsets = [len(header) + sum(map(len, parts[:i])) for i, part in enumerate(parts) if part is not meta]
    data = header + b"".join(parts) + wire.pack_index(Index(12, [0, 4, 8], offsets))
    assert read_all(data, pipe=pipe) == PACKETS
    assert read_all(data, pipe=pipe, partial=True) == PACKETS


@pytest.mark.parametrize("pipe", [False, True])
def test_unknown_tag_needs_a_newer_version(stream: bytes, pipe: bool) -> None:
    data = rebuilt(stream, lambda c: [wire.pack_chunk(0x03, b"new"), *c], [0, 4, 8, 12], 12)
    header, chunks = chunks_of(stream)
    new = wire.pack_chunk(0x03, b"new")
    offsets = [len(header) + len(new) + sum(map(len, chunks[:i])) for i in range(3)]
    data = header + new + b"".join(chunks) + wire.pack_index(Index(12, [0, 4, 8], offsets))
    with pytest.raises(UnsupportedStream, match="0x03"):
        read_all(data, pipe=pipe)


INDEXES = {
    "no entries": (0, [], []),
    "does not begin at 0": (12, [1, 4, 8], [46, 100, 200]),
    "offset in the header": (12, [0, 4, 8], [3, 100, 200]),
    "offset after itself": (12, [0, 4, 8], [46, 100, 2**40]),
    "same frame twice": (12, [0, 4, 4], [46, 100, 200]),
    "fewer frames than listed": (8, [0, 4, 8], [46, 100, 200]),
    "more frames than a file holds": (2**33, [0, 4, 8], [46, 100, 200]),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("pipe", [False, True])
def test_malformed_index_under_a_right_crc(stream: bytes, name: str, pipe: bool) -> None:
    header, chunks = chunks_of(stream)
    with pytest.raises(CorruptStream):
        read_all(header + b"".join(chunks) + wire.pack_index(Index(*INDEXES[name])), pipe=pipe)


def test_index_that_claims_entries_it_has_not(stream: bytes) -> None:
    header, chunks = chunks_of(stream)
    body = pack_varint(12) + pack_varint(2**60)
    chunk = wire.pack_chunk(wire.TAG_INDEX, body + U32.pack(len(body) + 10))
    with pytest.raises(CorruptStream):
        read_all(header + b"".join(chunks) + chunk)


def test_failing_disk_is_unreadable_input(stream: bytes) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 60:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(UnreadableInput, match="Input/output error"):
        Reader(Failing(stream))


def test_damaged_gop_is_stepped_over(stream: bytes) -> None:
    reader = Reader(io.BytesIO(stream))
    assert reader.index
    for offset in range(reader.index.offsets[1], reader.index.offsets[2]):
        data = bytearray(stream)
        data[offset] ^= 0x10
        partial = Reader(io.BytesIO(bytes(data)), partial=True)
        assert [gop.first_frame for gop in partial.gops()] == [0, 8]
        assert partial.lost_gops == 1
