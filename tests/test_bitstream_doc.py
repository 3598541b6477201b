"""The listing in docs/bitstream.md is a real file: built byte for byte, and read back."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from pathlib import Path

import pytest

from gencodec import weights, wire, wire_header
from gencodec.codec import FrameType, Packet
from gencodec.container import Reader
from gencodec.container_writer import Writer
from gencodec.wire_header import Header

PAGE = Path(__file__).parents[1] / "docs" / "bitstream.md"
HEADER = Header(200, 1, "tiny", weights.set_id([]), 6, 4, Fraction(30000, 1001), 6, 7, b"\x08")
PACKETS = [
    Packet(FrameType.INTRA, 40, 0, 1, b"abc"),
    Packet(FrameType.PREDICTED, 39, 1, 2, b"de"),
    Packet(FrameType.PREDICTED, 39, 3, 2, b"f"),
    Packet(FrameType.INTRA, 40, 5, 1, b""),
]


@pytest.fixture(scope="module")
def listing() -> bytes:
    block = re.search(r"```gcv\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in block[1].splitlines()))


def test_listing_is_what_the_writer_writes(listing: bytes) -> None:
    file = io.BytesIO()
    with Writer(file, HEADER) as writer:
        for packet in PACKETS:
            writer.write(packet)
    assert file.getvalue() == listing


def test_listing_reads_back(listing: bytes) -> None:
    reader = Reader(io.BytesIO(listing))
    assert reader.header == HEADER
    assert [packet for gop in reader.gops() for packet in gop.packets] == PACKETS
    assert reader.index
    assert (list(reader.index.first_frames), list(reader.index.offsets)) == ([0, 5], [38, 58])


def test_page_states_the_limits() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in ("MAX_SIDE", "MAX_SETTINGS_BYTES", "MAX_PACKET_FRAMES", "MAX_GOP_FRAMES"):
        row = re.search(rf"`{name}` \| (\d+)", text)
        assert row
        assert int(row[1]) == {**vars(wire), **vars(wire_header)}[name]
    assert (wire_header.MAX_PIXELS, wire.MAX_CHUNK_BYTES, wire.MAX_FRAMES) == (2**24, 64 * 2**20, 2**32 - 1)
