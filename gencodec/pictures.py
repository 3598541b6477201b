"""Pictures, one a frame: folders of PNGs or JPEGs, read in the order of their numbers; PNGs are written."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from torch import Tensor

from .codec import UnreadableInput, VideoInfo
from .video_frame import check_side, frame_to_rgb

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}  # of the pictures that are read

_DECODERS = {"PNG": "png", "JPEG": "mjpeg"}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE = struct.Struct(">II")  # width, height, at byte 16: PNG specification, 11.2.1 IHDR
_PNG_SIZE_OFFSET = 16
_JPEG = b"\xff\xd8\xff"  # start of image, and the first byte of the next marker
_JPEG_SEGMENT = struct.Struct(">BBH")  # 255, marker, length without the two: ITU-T T.81, B.1.1.4
_JPEG_SIZE = struct.Struct(">xHH")  # height, width behind a start of frame: T.81, B.2.2
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of the starts of frames: T.81, table B.1
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


class Pictures(Sequence[Tensor]):
    """Picture files as frames, uint8 RGB (3,H,W), decoded as they are asked for.

    Raises UnreadableInput for several sizes, or a damaged one.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self.width, self.height = _read_size(self.paths[0])
        for path in self.paths:
            if _read_size(path) != (self.width, self.height):
                raise UnreadableInput(
                    f"{path} is not {self.width}x{self.height} as the first picture: make them one size"
                )
        check_side(self.width, self.height, self.paths[0].name)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        return decode_picture(self.paths[index])


class FolderSource:
    """The pictures of a folder. Raises UnreadableInput for none, two kinds or sizes, or a damaged one."""

    def __init__(self, folder: Path, fps: Fraction) -> None:
        self.name = folder.name
        try:
            paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=_by_number)
        except OSError as error:
            raise UnreadableInput(f"{folder} cannot be read: {error.strerror}") from error
        if not paths:
            raise UnreadableInput(
                f"{folder} holds no .png or .jpg files: name a folder of frames or a video file"
            )
        suffixes = sorted({path.suffix.lower() for path in paths})
        if len(suffixes) > 1:
            raise UnreadableInput(
                f"{folder} holds {' and '.join(suffixes)} files: keep one kind, or move the others away"
            )
        self._pictures = Pictures(paths)
        self.info = VideoInfo(self._pictures.width, self._pictures.height, fps, len(paths))

    def frames(self, start: int, stop: int | None) -> Iterator[Tensor]:
        """Yield pictures start..stop, or to the end."""
        return (self._pictures[i] for i in range(len(self._pictures))[start:stop])

    def close(self) -> None:
        """Nothing is held open."""


def decode_picture(path: Path) -> Tensor:
    """One picture as it is stored, uint8 (3, H, W), its alpha dropped. Raises UnreadableInput."""
    kind = SUFFIXES[path.suffix.lower()]
    decoder: Any = av.CodecContext.create(_DECODERS[kind], "r")
    if kind == "JPEG":
        decoder.options = {"err_detect": "explode"}  # otherwise what is missing comes out grey
    try:
        data = path.read_bytes()
        frames = decoder.decode(av.Packet(data))
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableInput(f"{path} cannot be decoded as a {kind} picture: write it again") from error
    is_cut = kind == "JPEG" and _JPEG_END not in data[data.rfind(_JPEG_SCAN) :]
    if len(frames) != 1 or frames[0].is_corrupt or is_cut:
        raise UnreadableInput(f"{path} cannot be decoded as a {kind} picture: write it again")
    return frame_to_rgb(frames[0], codec=_DECODERS[kind])


def encode_png(rgb: Tensor) -> bytes:
    """The PNG file of one picture, uint8 (3, H, W)."""
    frame = av.VideoFrame.from_ndarray(rgb.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
    encoder.time_base = Fraction(1, 25)  # asked for, not stored
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _read_size(path: Path) -> tuple[int, int]:
    kind = SUFFIXES[path.suffix.lower()]
    try:
        size = _png_size(path) if kind == "PNG" else _jpeg_size(path)
    except OSError as error:
        raise UnreadableInput(f"{path} cannot be read: {error.strerror}") from error
    if size is None:
        raise UnreadableInput(f"{path} is not a {kind} picture: remove or convert it")
    return size


def _png_size(path: Path) -> tuple[int, int] | None:
    with path.open("rb") as file:
        head = file.read(_PNG_SIZE_OFFSET + _PNG_SIZE.size)
    if not head.startswith(_PNG) or len(head) < _PNG_SIZE_OFFSET + _PNG_SIZE.size:
        return None
    return _PNG_SIZE.unpack_from(head, _PNG_SIZE_OFFSET)


def _jpeg_size(path: Path) -> tuple[int, int] | None:
    """Of the first start of frame; the segments before it are stepped over."""
    with path.open("rb") as file:
        if file.read(len(_JPEG)) != _JPEG:
            return None
        file.seek(2)
        while len(head := file.read(_JPEG_SEGMENT.size)) == _JPEG_SEGMENT.size:
            prefix, marker, length = _JPEG_SEGMENT.unpack(head)
            if prefix != 0xFF or length < 2:
                return None
            body = file.read(length - 2)
            if marker in _JPEG_FRAMES:
                if len(body) < _JPEG_SIZE.size:
                    return None
                height, width = _JPEG_SIZE.unpack_from(body)
                return width, height
    return None


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if part.isdecimal() and part.isascii() else (-1, part) for part in parts]
