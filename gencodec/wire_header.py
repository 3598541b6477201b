"""The header of a .gcv file, docs/bitstream.md. Nothing here touches a file or trusts a claimed size."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from gencodec.codec import CorruptStream, UnsupportedStream, VideoInfo
from gencodec.varint import Cursor, pack_varint

MAGIC = b"GCV"
FORMAT = b"1"  # the fourth byte of a file
PRESETS = ("tiny", "paper")  # by their number on the wire

MAX_SIDE = 16384  # pixels
MAX_PIXELS = 1 << 24  # a frame, by default
MAX_SETTINGS_BYTES = 1024

FIXED = struct.Struct("<4sBBBBIHHIIII")  # up to the settings
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
