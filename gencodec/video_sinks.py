"""What frames go into: H.264 by PyAV, y4m, or PNG pictures; a class for each, in SINKS by format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import av
import torch
from torch import Tensor

from . import y4m
from .codec import VideoInfo
from .colour import default_matrix, rgb_to_yuv
from .pictures import encode_png

_X264 = {"crf": "12", "preset": "medium"}  # no difference to be seen; about a tenth of the lossless size
COLOUR_CODES = {"bt601": (6, 6, 6), "bt709": (1, 1, 1)}  # ITU-T H.273: primaries, transfer, matrix
LIMITED_RANGE = 1  # AVColorRange


class Sink(Protocol):
    """Takes frames, uint8 (3,H,W), in order; then `close`, or `abort` where something went wrong."""

    def write(self, frame: Tensor) -> None:
        """Add a frame."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...

    def abort(self) -> None:
        """Let go of the file, finished or not."""
        ...


class _H264Sink:
    def __init__(self, part: Path | BinaryIO, info: VideoInfo, format: str) -> None:
        self._matrix = default_matrix(info.height)
        even = info.width % 2 == 0 and info.height % 2 == 0
        self._subsampling: Literal["420", "444"] = "420" if even else "444"
        name: Any = str(part.absolute()) if isinstance(part, Path) else part
        self._container = av.open(name, "w", format="matroska" if format == "mkv" else format)
        self._stream = _add_stream(self._container, info, f"yuv{self._subsampling}p", self._matrix)
        self._time_base = 1 / info.fps
        self._index = 0

    def write(self, frame: Tensor) -> None:
        planes = rgb_to_yuv(frame, matrix=self._matrix, subsampling=self._subsampling)
        picture = planes_to_frame(planes, f"yuv{self._subsampling}p")
        picture.pts, picture.time_base = self._index, self._time_base
        picture.colorspace, picture.color_range = COLOUR_CODES[self._matrix][2], LIMITED_RANGE
        self._container.mux(self._stream.encode(picture))
        self._index += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        self._container.close()


class _Y4mSink:
    def __init__(self, part: Path | BinaryIO, info: VideoInfo, format: str) -> None:
        self._is_own = isinstance(part, Path)
        self._file: Any = part.open("xb") if isinstance(part, Path) else part
        y4m.write_header(self._file, info)

    def write(self, frame: Tensor) -> None:
        y4m.write_frame(self._file, frame)

    def close(self) -> None:
        if self._is_own:
            self._file.close()

    abort = close


class _PngSink:
    def __init__(self, part: Path, info: VideoInfo, format: str) -> None:
        part.mkdir()
        self._folder = part
        self._index = 0

    def write(self, frame: Tensor) -> None:
        (self._folder / f"{self._index:06d}.png").write_bytes(encode_png(frame))
        self._index += 1

    def close(self) -> None:
        pass

    abort = close


SINKS: dict[str, Any] = {"mp4": _H264Sink, "mkv": _H264Sink, "y4m": _Y4mSink, "png": _PngSink}


def _add_stream(container: Any, info: VideoInfo, pixel_format: str, matrix: str) -> Any:
    stream = container.add_stream("libx264", rate=info.fps, options=_X264)
    stream.width, stream.height, stream.pix_fmt = info.width, info.height, pixel_format
    context = stream.codec_context
    context.time_base = 1 / info.fps
    context.color_primaries, context.color_trc, context.colorspace = COLOUR_CODES[matrix]
    context.color_range = LIMITED_RANGE
    return stream


def planes_to_frame(planes: Iterable[Tensor], pixel_format: str) -> av.VideoFrame:
    """An 8-bit planar frame of `pixel_format` from its planes, uint8 (H, W) each."""
    planes = list(planes)
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, pixel_format)
    for plane, samples in zip(picture.planes, planes, strict=True):
        rows = torch.zeros(plane.height, plane.line_size, dtype=torch.uint8)  # rows of a plane are padded
        rows[:, : plane.width] = samples
        plane.update(rows.numpy().tobytes())
    return picture
