"""The bytes of a .gcv file behind its header: chunks, GOPs, INDEX. docs/bitstream.md is normative.

Nothing here touches a file or trusts a claimed size: what is parsed is already in memory, and every limit is
a named constant. `container` reads and writes files with these functions.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from gencodec.codec import CorruptStream, FrameType, Packet
from gencodec.varint import Cursor, pack_varint
from gencodec.wire_header import U32

TAG_GOP = 0x01
TAG_INDEX = 0x02
TAG_META = 0x80  # reserved, as is AUDIO: no encoder of this version writes one
TAG_AUDIO = 0x81
SKIPPABLE = 0x80  # tags from here on may be skipped unread

MAX_CHUNK_BYTES = 64 << 20  # of a chunk's body
MAX_PACKET_FRAMES = 128
MAX_GOP_FRAMES = 4096
MAX_FRAMES = (1 << 32) - 1
ALIKE = 2  # type of a PREDICTED packet with quality and number of frames of the GOP's first one
LONG = 63  # in place of its length: a varint says how much longer it is
MIN_GOP_CHUNK_BYTES = 10  # head 6, first frame 1, an empty packet 3


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


def pack_chunk(tag: int, body: bytes) -> bytes:
    """Return a chunk: tag, length, CRC-32 over tag, length and body, body."""
    if len(body) > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk holds at most {MAX_CHUNK_BYTES} bytes, got {len(body)}")
    start = bytes([tag]) + pack_varint(len(body))
    return start + U32.pack(zlib.crc32(body, zlib.crc32(start))) + body


def pack_gop(packets: Sequence[Packet]) -> bytes:
    """Return the body of a GOP chunk. Raises ValueError for packets that break a rule of the format."""
    check_gop(packets)
    body = bytearray(pack_varint(packets[0].first_frame))
    for i, packet in enumerate(packets):
        body += pack_packet(packet, packets[1] if i > 1 else None)
    return bytes(body)


def pack_packet(packet: Packet, first: Packet | None) -> bytes:
    """Return a packet as a GOP chunk holds it behind `first`, the GOP's first PREDICTED packet, if any.

    Raises ValueError for a quality outside 0..63.
    """
    if not 0 <= packet.quality <= 63:
        raise ValueError(f"quality is 0..63, got {packet.quality}")
    size = len(packet.payload)
    if first and _is_like(packet, first):
        head = bytes([ALIKE << 6 | min(size, LONG)])
        return head + (pack_varint(size - LONG) if size >= LONG else b"") + packet.payload
    head = bytes([int(packet.type) << 6 | packet.quality])
    return head + pack_varint(packet.num_frames) + pack_varint(size) + packet.payload


def _is_like(packet: Packet, first: Packet) -> bool:
    return (packet.quality, packet.num_frames) == (first.quality, first.num_frames)


def parse_gop(body: bytes) -> tuple[Packet, ...]:
    """Return the packets of a GOP chunk's body, at least one."""
    cursor = Cursor(body)
    frame = cursor.varint()
    packets: list[Packet] = []
    while cursor.left:
        packets.append(_parse_packet(cursor, frame, packets[1] if len(packets) > 1 else None))
        frame += packets[-1].num_frames
    try:
        check_gop(packets)
    except ValueError as error:
        raise CorruptStream(f"the stream is damaged: {error}") from None
    return tuple(packets)


def _parse_packet(cursor: Cursor, frame: int, first: Packet | None) -> Packet:
    kind, low = divmod(cursor.take(1)[0], 64)
    if kind > ALIKE or (kind == ALIKE and first is None):
        raise CorruptStream(f"the stream is damaged: packet type {kind}")
    if kind == ALIKE and first is not None:
        payload = cursor.take(low + (cursor.varint() if low == LONG else 0))
        return Packet(first.type, first.quality, frame, first.num_frames, payload)
    num_frames = cursor.varint()
    if not 1 <= num_frames <= MAX_PACKET_FRAMES:
        raise CorruptStream(f"the stream is damaged: a packet of {num_frames} frames")
    packet = Packet(FrameType(kind), low, frame, num_frames, cursor.take(cursor.varint()))
    if first and _is_like(packet, first):
        raise CorruptStream("the stream is damaged: a packet like the first one that says so at length")
    return packet


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
