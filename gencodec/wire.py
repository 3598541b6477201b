"""The bytes of a .gcv file: varints, header, chunks, GOPs, INDEX. docs/bitstream.md is normative.

Nothing here touches a file or trusts a claimed size: what is parsed is already in memory, and every limit is
a named constant. `container` reads and writes files with these functions.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from gencodec.codec import CorruptStream, FrameType, Packet, UnsupportedStream, VideoInfo

MAGIC = b"GCV"
FORMAT = b"1"  # the fourth byte of a file
PRESETS = ("tiny", "paper")  # by their number on the wire

TAG_GOP = 0x01
TAG_INDEX = 0x02
TAG_META = 0x80  # reserved, as is AUDIO: no encoder of this version writes one
TAG_AUDIO = 0x81
SKIPPABLE = 0x80  # tags from here on may be skipped unread

MAX_SIDE = 16384  # pixels
MAX_PIXELS = 1 << 24  # a frame, by default
MAX_SETTINGS_BYTES = 1024
MAX_CHUNK_BYTES = 64 << 20  # of a chunk's body
MAX_PACKET_FRAMES = 128
MAX_GOP_FRAMES = 4096
MAX_FRAMES = (1 << 32) - 1
MAX_VARINT_BYTES = 9  # 63 bits
MIN_GOP_CHUNK_BYTES = 10  # head 6, first frame 1, an empty packet 3

FIXED = struct.Struct("<4sBBBBIHHIIII")  # the header up to its settings
U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Header:
    """The header's fields. `num_frames` is None where the writer could not know it."""

    codec_id: int
    version: int
    preset: str
    weights_id: int
    width: int
    height: int
    fps: Fraction
    num_frames: int | None
    seed: int
    settings: bytes

    @property
    def video(self) -> VideoInfo:
        """What the codec is told about the video."""
        return VideoInfo(self.width, self.height, self.fps, self.num_frames)


@dataclass(frozen=True, slots=True)
class Gop:
    """The packets of one GOP chunk, and where its `size` bytes begin in the file."""

    packets: tuple[Packet, ...]
    offset: int
    size: int

    @property
    def first_frame(self) -> int:
        """Number of its first frame in the file."""
        return self.packets[0].first_frame

    @property
    def stop_frame(self) -> int:
        """Number of the frame after its last."""
        return self.packets[-1].first_frame + self.packets[-1].num_frames


@dataclass(frozen=True, slots=True)
class Index:
    """First frame and offset of every GOP chunk, in order; 16 bytes of memory a GOP."""

    num_frames: int
    first_frames: Sequence[int]
    offsets: Sequence[int]

    def stop_frame(self, gop: int) -> int:
        """Number of the frame after GOP `gop`'s last."""
        return self.first_frames[gop + 1] if gop + 1 < len(self.first_frames) else self.num_frames


class Cursor:
    """A reading position in bytes that are in memory. Raises CorruptStream at the end of them."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count > self.left:
            raise CorruptStream(
                f"the stream is damaged: a field claims {count} bytes where {self.left} are left"
            )
        self.position += count
        return bytes(self.data[self.position - count : self.position])

    def varint(self) -> int:
        """Return the next varint."""
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift == 7 * MAX_VARINT_BYTES:
                raise CorruptStream("the stream is damaged: a varint has more than 9 bytes")
        if byte == 0 and shift > 7:
            raise CorruptStream("the stream is damaged: a varint is longer than its value needs")
        return value


def pack_varint(value: int) -> bytes:
    """Return `value` >= 0 in base 128, lowest digit first, the high bit set on all bytes but the last."""
    if not 0 <= value < 1 << (7 * MAX_VARINT_BYTES):
        raise ValueError(f"a varint holds 0..2^63-1, got {value}")
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


# ---- header ------------------------------------------------------------------------------------------------


def pack_header(header: Header) -> bytes:
    """Return the header's bytes. Raises ValueError for a field outside its limits."""
    if len(header.settings) > MAX_SETTINGS_BYTES:
        raise ValueError(f"settings have at most {MAX_SETTINGS_BYTES} bytes, got {len(header.settings)}")
    if not 0 <= header.seed < 1 << 32:
        raise ValueError(f"a seed is a number 0..4294967295, got {header.seed}")
    if problem := size_problem(header.width, header.height, max_pixels=MAX_SIDE**2):
        raise ValueError(problem)
    fps = storable_fps(header.fps)
    body = FIXED.pack(
        MAGIC + FORMAT,
        header.codec_id,
        header.version,
        PRESETS.index(header.preset),
        0,  # flags
        header.weights_id,
        header.width,
        header.height,
        fps.numerator,
        fps.denominator,
        header.num_frames or 0,
        header.seed,
    )
    body += pack_varint(len(header.settings)) + header.settings
    return body + U32.pack(zlib.crc32(body))


def storable_fps(fps: Fraction) -> Fraction:
    """Return the fraction nearest to `fps` whose parts fit the header."""
    if not 0 < fps < 1 << 32:
        raise ValueError(f"frames per second must be above 0 and below 2^32, got {fps}")
    limit = (1 << 32) - 1
    if fps.numerator > limit or fps.denominator > limit:
        fps = fps.limit_denominator(max(1, int(limit / max(fps, Fraction(1))) - 1))
    return fps if fps > 0 else Fraction(1, limit)


def size_problem(width: int, height: int, *, max_pixels: int) -> str:
    """Return why no frame may have this size, or an empty string."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        return f"a frame's sides are 1..{MAX_SIDE} pixels, got {width}x{height}"
    if width * height > max_pixels:
        return (
            f"{width}x{height} is over the limit of {max_pixels} pixels a frame; raise max_pixels to allow it"
        )
    return ""


def check_magic(start: bytes) -> None:
    """Raise CorruptStream for what is no .gcv file at all, UnsupportedStream for one of a newer format."""
    if len(start) < 4 or start[:3] != MAGIC:
        raise CorruptStream("not a gencodec stream: it does not begin with 'GCV1'")
    if start[3:4] != FORMAT:
        if start[3:4].isdigit() and start[3:4] > FORMAT:
            raise UnsupportedStream(f"format GCV{start[3:4].decode()} needs a newer gencodec")
        raise CorruptStream("not a gencodec stream: it does not begin with 'GCV1'")


def parse_header(data: bytes, *, max_pixels: int) -> Header:
    """Return the header whose bytes are exactly `data`; its CRC is checked before any field but the magic."""
    check_magic(data)
    cursor = Cursor(data)
    fields = FIXED.unpack(cursor.take(FIXED.size))
    settings = cursor.take(_settings_length(cursor))
    body = data[: cursor.position]
    if U32.unpack(cursor.take(4))[0] != zlib.crc32(body):
        raise CorruptStream("the header is damaged: its CRC does not match")
    _, codec_id, version, preset, flags, weights_id, width, height, fps, per, num_frames, seed = fields
    if flags:
        raise UnsupportedStream(f"header flags {flags:#04x} need a newer gencodec")
    if preset >= len(PRESETS):
        raise UnsupportedStream(f"preset number {preset} needs a newer gencodec")
    if version == 0 or codec_id == 0:
        raise CorruptStream("the header is damaged: method number and version begin at 1")
    if not fps or not per or gcd(fps, per) != 1:
        raise CorruptStream(f"the header is damaged: {fps}/{per} frames per second")
    if problem := size_problem(width, height, max_pixels=max_pixels):
        raise CorruptStream(problem)
    return Header(
        codec_id,
        version,
        PRESETS[preset],
        weights_id,
        width,
        height,
        Fraction(fps, per),
        num_frames or None,
        seed,
        settings,
    )


def _settings_length(cursor: Cursor) -> int:
    length = cursor.varint()
    if length > MAX_SETTINGS_BYTES:
        raise CorruptStream(
            f"the header is damaged: settings of {length} bytes, at most {MAX_SETTINGS_BYTES} are allowed"
        )
    return length


# ---- chunks ------------------------------------------------------------------------------------------------


def pack_chunk(tag: int, body: bytes) -> bytes:
    """Return a chunk: tag, length, CRC-32 over tag, length and body, body."""
    if len(body) > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk holds at most {MAX_CHUNK_BYTES} bytes, got {len(body)}")
    start = bytes([tag]) + pack_varint(len(body))
    return start + U32.pack(zlib.crc32(body, zlib.crc32(start))) + body


def pack_gop(packets: Sequence[Packet]) -> bytes:
    """Return the body of a GOP chunk. Raises ValueError for packets that break a rule of the format."""
    body = bytearray(pack_varint(packets[0].first_frame))
    for packet in packets:
        body += pack_packet(packet)
    check_gop(packets)
    return bytes(body)


def pack_packet(packet: Packet) -> bytes:
    """Return a packet as a GOP chunk holds it. Raises ValueError for a quality outside 0..63."""
    if not 0 <= packet.quality <= 63:
        raise ValueError(f"quality is 0..63, got {packet.quality}")
    head = bytes([int(packet.type) << 6 | packet.quality])
    return head + pack_varint(packet.num_frames) + pack_varint(len(packet.payload)) + packet.payload


def parse_gop(body: bytes) -> tuple[Packet, ...]:
    """Return the packets of a GOP chunk's body, at least one."""
    cursor = Cursor(body)
    frame = cursor.varint()
    packets: list[Packet] = []
    while cursor.left:
        packets.append(_parse_packet(cursor, frame))
        frame += packets[-1].num_frames
    try:
        check_gop(packets)
    except ValueError as error:
        raise CorruptStream(f"the stream is damaged: {error}") from None
    return tuple(packets)


def _parse_packet(cursor: Cursor, frame: int) -> Packet:
    head = cursor.take(1)[0]
    if head >> 6 > 1:
        raise CorruptStream(f"the stream is damaged: packet type {head >> 6}")
    num_frames = cursor.varint()
    if not 1 <= num_frames <= MAX_PACKET_FRAMES:
        raise CorruptStream(f"the stream is damaged: a packet of {num_frames} frames")
    return Packet(FrameType(head >> 6), head & 63, frame, num_frames, cursor.take(cursor.varint()))


def check_gop(packets: Sequence[Packet]) -> None:
    """Raise ValueError unless the packets are one GOP: INTRA first and once, no gap, within the limits."""
    if not packets:
        raise ValueError("a GOP without packets")
    intra = [packet.type is FrameType.INTRA for packet in packets]
    if not intra[0] or sum(intra) != 1:
        raise ValueError("a GOP has one INTRA packet and begins with it")
    frame = packets[0].first_frame
    for packet in packets:
        if packet.first_frame != frame or not 1 <= packet.num_frames <= MAX_PACKET_FRAMES:
            raise ValueError(
                f"a packet of {packet.num_frames} frames at {packet.first_frame} where {frame} is due"
            )
        frame += packet.num_frames
    if frame - packets[0].first_frame > MAX_GOP_FRAMES or frame > MAX_FRAMES:
        raise ValueError(f"a GOP of frames {packets[0].first_frame}..{frame - 1} is over the limits")


# ---- INDEX -------------------------------------------------------------------------------------------------


def pack_index(index: Index) -> bytes:
    """Return the whole INDEX chunk, whose last four bytes are its own length."""
    body = bytearray(pack_varint(index.num_frames) + pack_varint(len(index.offsets)))
    frame, offset = 0, 0
    for next_frame, next_offset in zip(index.first_frames, index.offsets, strict=True):
        body += pack_varint(next_frame - frame) + pack_varint(next_offset - offset)
        frame, offset = next_frame, next_offset
    size = len(body) + U32.size
    return pack_chunk(TAG_INDEX, bytes(body) + U32.pack(1 + len(pack_varint(size)) + U32.size + size))


def parse_index(body: bytes, *, offset: int, header_bytes: int) -> Index:
    """Return the index in the body of the INDEX chunk that begins at `offset` and ends the file."""
    cursor = Cursor(body)
    num_frames, num_gops = cursor.varint(), cursor.varint()
    frames, offsets = array("Q"), array("Q")
    frame, position = 0, 0
    for _ in range(num_gops):
        frame += (step := cursor.varint())
        position += (size := cursor.varint())
        first = not frames
        if (
            (first != (step == 0))
            or (size < (header_bytes if first else MIN_GOP_CHUNK_BYTES))
            or position >= offset
        ):
            raise CorruptStream("the INDEX is damaged: its entries are not in order")
        frames.append(frame)
        offsets.append(position)
    cursor.take(U32.size)  # the chunk's length: `container` found the chunk by it
    if cursor.left or not frames or not frames[-1] < num_frames <= MAX_FRAMES:
        raise CorruptStream("the INDEX is damaged: its counts do not agree")
    return Index(num_frames, frames, offsets)
