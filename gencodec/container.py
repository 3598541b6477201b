"""Files of packets, read: `Reader` gives GOPs lazily and seeks by the INDEX; `container_writer` makes them.

    file = header · chunk* · INDEX          the bytes: wire_header.py, wire.py; the rules: docs/bitstream.md

Takes any binary file object. Through one that cannot seek it goes once, in order, and compares what it saw
with the INDEX at the end.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from gencodec import varint, wire, wire_header
from gencodec.chunks import CUT, ChunkHead, ChunkSource
from gencodec.codec import CorruptStream, UnsupportedStream
from gencodec.wire import Gop, Index
from gencodec.wire_header import Header

if TYPE_CHECKING:
    pass

COUNTS = "the stream is damaged: header, GOPs and INDEX count different frames"


class Reader:
    """Reads the header at once, GOPs when asked. Every GOP's CRC is checked before its packets are given out.

    `partial` steps over damaged GOPs and a cut end instead of raising CorruptStream, and counts what it could
    see is lost in `lost_gops`.
    """

    def __init__(
        self, file: BinaryIO, *, max_pixels: int = wire_header.MAX_PIXELS, partial: bool = False
    ) -> None:
        self._source = ChunkSource(file)
        self._partial = partial
        self._started = False
        self._end = 0
        self.lost_gops = 0
        self.header = self._read_header(max_pixels)
        self.header_bytes = self._source.position
        self.index: Index | None = None
        self._index_offset: int | None = None
        if self._source.can_seek:
            self._load_index()

    @property
    def num_frames(self) -> int | None:
        """Frames in the file, if header or INDEX says so before all of it is read."""
        return self.index.num_frames if self.index else self.header.num_frames

    @property
    def file_bytes(self) -> int:
        """Size of the file; of what was read so far where it cannot seek."""
        return self._end or self._source.position

    @property
    def index_bytes(self) -> int:
        """Size of the INDEX chunk; 0 where it was not read."""
        return self._end - self._index_offset if self._index_offset else 0

    def gops(self, start: int = 0, stop: int | None = None) -> Iterator[Gop]:
        """Yield the GOPs that hold frames start..stop-1, in order. Without seeking this works once."""
        if self._started and not self._source.can_seek:
            raise ValueError("a source that cannot seek is read once only")
        self._started = True
        if self._partial:
            yield from self._whole_gops(start, stop)
        else:
            yield from self._all_gops(start, stop)

    # ---- strict reading: the chunks in order, the INDEX as a check ----

    def _all_gops(self, start: int, stop: int | None) -> Iterator[Gop]:
        number = bisect_right(self.index.first_frames, start) - 1 if self.index else 0
        frame = self.index.first_frames[number] if self.index else 0
        self._source.seek(self.index.offsets[number] if self.index and number else self.header_bytes)
        seen_frames, seen_offsets = array("Q"), array("Q")
        while stop is None or frame < stop:
            head = self._next_head()
            if head.tag == wire.TAG_INDEX:
                return self._check_end(head, Index(frame, seen_frames, seen_offsets))
            gop = self._read_gop(head)
            self._check_gop(gop, number, frame)
            if self.index is None:
                seen_frames.append(gop.first_frame)
                seen_offsets.append(gop.offset)
            number, frame = number + 1, gop.stop_frame
            if frame > start:
                yield gop

    def _check_gop(self, gop: Gop, number: int, frame: int) -> None:
        if gop.first_frame != frame:
            raise CorruptStream(
                f"the stream is damaged: frame {frame} is due, a GOP begins at {gop.first_frame}"
            )
        if not self.index:
            return
        listed = number < len(self.index.offsets) and self.index.offsets[number] == gop.offset
        if not listed or self.index.stop_frame(number) != gop.stop_frame:
            raise CorruptStream(f"the stream is damaged: the INDEX does not list the GOP at frame {frame}")

    def _check_end(self, head: ChunkHead, seen: Index) -> None:
        """The INDEX was reached: it must list what was seen, and nothing may follow it."""
        if self.index:
            if head.offset != self._index_offset or seen.num_frames != self.index.num_frames:
                raise CorruptStream("the stream is damaged: the INDEX lists GOPs that are not there")
            return
        index = self._parse_index(head, self._source.read_body(head))
        if list(index.offsets) != list(seen.offsets) or list(index.first_frames) != list(seen.first_frames):
            raise CorruptStream("the stream is damaged: the INDEX does not list the GOPs before it")
        if index.num_frames != seen.num_frames or self.header.num_frames not in (None, index.num_frames):
            raise CorruptStream(COUNTS)
        if self._source.read_some(1):
            raise CorruptStream("the stream is damaged: there is more after its end")

    def _next_head(self) -> ChunkHead:
        """Return the head of the next chunk that may not be skipped."""
        while True:
            head = self._source.read_head()
            if head.tag < wire.SKIPPABLE:
                return head
            self._source.skip(head.length)

    # ---- partial reading: what is whole ----

    def _whole_gops(self, start: int, stop: int | None) -> Iterator[Gop]:
        gops = self._indexed_gops(start, stop) if self.index else self._found_gops()
        frame = 0
        for gop in gops:
            if stop is not None and gop.first_frame >= stop:
                return
            if gop.first_frame >= frame and gop.stop_frame > start:
                frame = gop.stop_frame
                yield gop

    def _indexed_gops(self, start: int, stop: int | None) -> Iterator[Gop]:
        assert self.index
        for number in range(
            max(0, bisect_right(self.index.first_frames, start) - 1), len(self.index.offsets)
        ):
            if stop is not None and self.index.first_frames[number] >= stop:
                return
            self._source.seek(self.index.offsets[number])
            try:
                gop = self._read_gop(self._source.read_head())
                self._check_gop(gop, number, self.index.first_frames[number])
            except (CorruptStream, UnsupportedStream):
                self.lost_gops += 1
            else:
                yield gop

    def _found_gops(self) -> Iterator[Gop]:
        """Without an INDEX: go from chunk to chunk until a head makes no sense."""
        self._source.seek(self.header_bytes)
        while True:
            try:
                head = self._next_head()
            except (CorruptStream, UnsupportedStream):
                return
            end = head.offset + head.size
            try:
                gop = self._read_gop(head)
            except (CorruptStream, UnsupportedStream):
                self.lost_gops += head.tag == wire.TAG_GOP
                if self._source.position != end:
                    return
            else:
                yield gop

    # ---- pieces ----

    def _read_header(self, max_pixels: int) -> Header:
        data = self._source.read_some(wire_header.FIXED.size)
        wire_header.check_magic(data)
        data += self._source.read_varint_bytes(2)
        cursor = varint.Cursor(data[wire_header.FIXED.size :])
        length = cursor.varint()
        if length > wire_header.MAX_SETTINGS_BYTES:
            raise CorruptStream(f"the header is damaged: settings of {length} bytes")
        data += self._source.read_some(length + wire_header.U32.size)
        return wire_header.parse_header(data, max_pixels=max_pixels)

    def _load_index(self) -> None:
        try:
            self.index = self._find_index()
            if self.header.num_frames not in (None, self.index.num_frames):
                self.index = None
                raise CorruptStream(COUNTS)
        except CorruptStream:
            if not self._partial:
                raise

    def _find_index(self) -> Index:
        end = self._end = self._source.size()
        if end < self.header_bytes + wire_header.U32.size:
            raise CorruptStream(CUT)
        self._source.seek(end - wire_header.U32.size)
        size = wire_header.U32.unpack(self._source.read_exactly(wire_header.U32.size))[0]
        if size > end - self.header_bytes:
            raise CorruptStream(CUT)
        self._source.seek(end - size)
        try:
            head = self._source.read_head()
        except (CorruptStream, UnsupportedStream):
            raise CorruptStream(CUT) from None
        if head.tag != wire.TAG_INDEX or head.size != size:
            raise CorruptStream(CUT)
        self._index_offset = head.offset
        return self._parse_index(head, self._source.read_body(head))

    def _parse_index(self, head: ChunkHead, body: bytes) -> Index:
        if (
            wire_header.U32.unpack(body[-wire_header.U32.size :].rjust(wire_header.U32.size, b"\0"))[0]
            != head.size
        ):
            raise CorruptStream("the INDEX is damaged: it does not end with its own length")
        return wire.parse_index(body, offset=head.offset, header_bytes=self.header_bytes)

    def _read_gop(self, head: ChunkHead) -> Gop:
        body = self._source.read_body(head)
        if head.tag != wire.TAG_GOP:
            if head.tag == wire.TAG_INDEX:
                raise CorruptStream("the stream is damaged: an INDEX where a GOP is due")
            raise UnsupportedStream(f"chunk tag {head.tag:#04x} needs a newer gencodec")
        return Gop(wire.parse_gop(body), head.offset, head.size)
