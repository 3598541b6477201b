"""Folders of PNG pictures, one a frame: read in the order of their numbers, written as 000000.png, ..."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from torch import Tensor

from .codec import UnreadableInput, VideoInfo
from .video_frame import check_side, frame_to_rgb

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIZE = struct.Struct(">II")  # width, height, at byte 16: PNG specification, 11.2.1 IHDR
_SIZE_OFFSET = 16


class PngSource:
    """The pictures of a folder. Raises UnreadableInput for none, several sizes, or a damaged one."""

    def __init__(self, folder: Path, fps: Fraction) -> None:
        self.name = folder.name
        try:
            self._paths = sorted((p for p in folder.iterdir() if p.suffix.lower() == ".png"), key=_by_number)
        except OSError as error:
            raise UnreadableInput(f"{folder} cannot be read: {error.strerror}") from error
        if not self._paths:
            raise UnreadableInput(f"{folder} holds no .png files: name a folder of frames or a video file")
        width, height = _read_size(self._paths[0])
        for path in self._paths:
            if _read_size(path) != (width, height):
                raise UnreadableInput(
                    f"{path} is not {width}x{height} as the first picture: make them one size"
                )
        check_side(width, height, self._paths[0].name)
        self.info = VideoInfo(width, height, fps, len(self._paths))

    def frames(self, start: int, stop: int | None) -> Iterator[Tensor]:
        """Yield pictures start..stop, or to the end."""
        return (decode_png(path) for path in self._paths[start:stop])

    def close(self) -> None:
        """Nothing is held open."""


def decode_png(path: Path) -> Tensor:
    """One picture, uint8 (3, H, W), its alpha dropped. Raises UnreadableInput."""
    decoder = av.CodecContext.create("png", "r")
    try:
        frames = decoder.decode(av.Packet(path.read_bytes()))
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableInput(f"{path} cannot be decoded as a PNG picture: write it again") from error
    if len(frames) != 1 or frames[0].is_corrupt:
        raise UnreadableInput(f"{path} cannot be decoded as a PNG picture: write it again")
    return frame_to_rgb(frames[0], codec="png")


def encode_png(rgb: Tensor) -> bytes:
    """The PNG file of one picture, uint8 (3, H, W)."""
    frame = av.VideoFrame.from_ndarray(rgb.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
    encoder.time_base = Fraction(1, 25)  # asked for, not stored
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _read_size(path: Path) -> tuple[int, int]:
    try:
        with path.open("rb") as file:
            head = file.read(_SIZE_OFFSET + _SIZE.size)
    except OSError as error:
        raise UnreadableInput(f"{path} cannot be read: {error.strerror}") from error
    if not head.startswith(_SIGNATURE) or len(head) < _SIZE_OFFSET + _SIZE.size:
        raise UnreadableInput(f"{path} is not a PNG picture: remove or convert it")
    return _SIZE.unpack_from(head, _SIZE_OFFSET)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if part.isdecimal() and part.isascii() else (-1, part) for part in parts]
