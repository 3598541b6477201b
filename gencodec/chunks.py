"""A position in a .gcv file and the chunks at it. Works on files that cannot seek, too: then only forward."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import BinaryIO

from gencodec import varint, wire, wire_header
from gencodec.codec import CorruptStream, UnreadableInput

READ_BYTES = 1 << 20  # memory grows by this with the bytes that are there, never with those that are claimed
CUT = "the file is cut, or was added to: its INDEX is not at the end; `decode --partial` takes what is whole"


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """What stands before a chunk's body."""

    tag: int
    length: int  # of the body
    crc: int
    crc_so_far: int  # over tag and length
    offset: int
    size: int  # of the whole chunk


class ChunkSource:
    """Reads bytes and chunks from `position` on, counted from where the file object stood at first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._base = file.tell() if is_seekable(file) else None
        self.position = 0

    @property
    def can_seek(self) -> bool:
        """Whether `seek` and `size` work."""
        return self._base is not None

    def size(self) -> int:
        """Return the number of bytes to the end of the file; moves the position there."""
        assert self._base is not None
        self.position = self._file.seek(0, 2) - self._base
        return self.position

    def read_head(self) -> ChunkHead:
        """Return the head of the chunk that begins here. Raises CorruptStream."""
        offset = self.position
        start = self.read_some(1)
        if not start:
            raise CorruptStream(CUT)
        start += self.read_varint_bytes(varint.MAX_VARINT_BYTES)
        length = varint.Cursor(start[1:]).varint()
        if length > wire.MAX_CHUNK_BYTES:
            raise CorruptStream(f"the stream is damaged: a chunk claims {length} bytes")
        crc = wire_header.U32.unpack(self.read_exactly(wire_header.U32.size))[0]
        return ChunkHead(
            start[0], length, crc, zlib.crc32(start), offset, len(start) + wire_header.U32.size + length
        )

    def read_body(self, head: ChunkHead) -> bytes:
        """Return the body that follows `head`. Raises CorruptStream if it is cut or its CRC is another."""
        body = self.read_exactly(head.length)
        if zlib.crc32(body, head.crc_so_far) != head.crc:
            raise CorruptStream(
                f"the stream is damaged: CRC of the chunk at byte {head.offset} does not match"
            )
        return body

    def read_varint_bytes(self, limit: int) -> bytes:
        """Return the bytes of the varint that begins here, at most `limit`."""
        data = b""
        while len(data) < limit:
            data += self.read_exactly(1)
            if data[-1] < 0x80:
                break
        return data

    def read_exactly(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises CorruptStream at the end of the file."""
        data = self.read_some(count)
        if len(data) < count:
            raise CorruptStream(CUT)
        return data

    def read_some(self, count: int) -> bytes:
        """Return up to `count` bytes, fewer only at the end of the file."""
        pieces: list[bytes] = []
        while count and (piece := self._read(min(count, READ_BYTES))):
            pieces.append(piece)
            count -= len(piece)
            self.position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise UnreadableInput(
                f"reading failed at byte {self.position}: {error.strerror or error}"
            ) from error

    def skip(self, count: int) -> None:
        """Go forward."""
        if self._base is not None:
            self.seek(self.position + count)
            return
        while count and (piece := self.read_some(min(count, READ_BYTES))):
            count -= len(piece)
        if count:
            raise CorruptStream(CUT)

    def seek(self, position: int) -> None:
        """Go to a position; without seeking the position is where it has to be anyway."""
        if self._base is not None:
            self._file.seek(self._base + position)
            self.position = position


def is_seekable(file: BinaryIO) -> bool:
    """Return whether a file object can move back and forth."""
    return bool(getattr(file, "seekable", lambda: False)())
