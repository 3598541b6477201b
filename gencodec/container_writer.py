"""Files of packets, written: `Writer` appends GOP by GOP, and the INDEX at the end; `container` reads them.

Takes any binary file object. On one that cannot seek num_frames stays 0 in the header.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from gencodec import wire, wire_header
from gencodec.chunks import is_seekable
from gencodec.codec import FrameType, Packet
from gencodec.wire import Index
from gencodec.wire_header import Header

if TYPE_CHECKING:
    from typing_extensions import Self


class Writer:
    """Writes packets to a binary file object as they come; `finish` writes the last GOP and the INDEX.

    As a context manager it finishes unless an exception passes. At most one GOP is in memory.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        self._base = file.tell() if is_seekable(file) else None
        self._header = replace(header, num_frames=None)
        self._gop: list[Packet] = []
        self._first_frames, self._offsets = array("Q"), array("Q")
        self._position = 0
        self.payload_bytes = 0
        self.num_frames = 0
        self._put(wire_header.pack_header(self._header))

    @property
    def bytes_written(self) -> int:
        """Size of the file so far."""
        return self._position

    def write(self, packet: Packet) -> None:
        """Append a packet; an INTRA packet closes the GOP before it."""
        if packet.type is FrameType.INTRA:
            self._flush()
        if packet.first_frame != self.num_frames:
            raise ValueError(
                f"frame {self.num_frames} is due, got a packet that begins at {packet.first_frame}"
            )
        self._gop.append(packet)
        self.num_frames += packet.num_frames
        self.payload_bytes += len(packet.payload)

    def finish(self) -> None:
        """Write what is left, the INDEX and, where the file can seek, the number of frames."""
        self._flush()
        if not self.num_frames:
            raise ValueError("a file needs at least one frame")
        self._put(wire.pack_index(Index(self.num_frames, self._first_frames, self._offsets)))
        if self._base is not None:
            self._file.seek(self._base)
            self._file.write(wire_header.pack_header(replace(self._header, num_frames=self.num_frames)))
            self._file.seek(self._base + self._position)

    def _flush(self) -> None:
        if not self._gop:
            return
        chunk = wire.pack_chunk(wire.TAG_GOP, wire.pack_gop(self._gop))
        self._first_frames.append(self._gop[0].first_frame)
        self._offsets.append(self._position)
        self._gop = []
        self._put(chunk)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._position += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
