"""Frames to a file: H.264 in .mp4 or .mkv, lossless .y4m, or a folder of PNG pictures.

Everything goes to a hidden name beside the target, which takes its place once the last frame is written.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, get_args

import av
import torch
from torch import Tensor

from . import y4m
from .codec import VideoInfo
from .colour import default_matrix, rgb_to_yuv
from .pictures import encode_png

Format = Literal["mp4", "mkv", "y4m", "png"]
Target: TypeAlias = str | Path | BinaryIO

_X264 = {"crf": "12", "preset": "medium"}  # no difference to be seen; about a tenth of the lossless size
COLOUR_CODES = {"bt601": (6, 6, 6), "bt709": (1, 1, 1)}  # ITU-T H.273: primaries, transfer, matrix
LIMITED_RANGE = 1  # AVColorRange


class VideoWriter:
    """Writes frames, uint8 RGB (3, H, W), one at a time; a context manager.

    The format is that of the suffix (.mp4, .mkv, .y4m; none: a folder of PNGs) or `format`, which a
    file object without such a name needs. mp4 and mkv: H.264, visually lossless, 4:2:0, or 4:4:4 where a side
    is odd. y4m and png: lossless. An exception inside the `with` block leaves nothing at a path that was not
    there before; a file object gets mp4 and mkv at the end in one piece, y4m as it comes. A folder may exist
    if it holds no .png file.

    Raises ValueError for an unknown format, a frame that does not fit `info`, no frames at all, or a folder
    with pictures in it; FileNotFoundError where the target's parent folder is missing.
    """

    def __init__(self, target: Target, info: VideoInfo, *, format: Format | None = None) -> None:
        self.info = info
        self.num_frames = 0
        self._target = Path(target) if isinstance(target, (str, os.PathLike)) else target
        self._format = _choose_format(target, format)
        if isinstance(self._target, Path):
            self._part: Any = _part_of(self._target, self._format)
        else:
            # closed by _deliver and abort
            self._part = self._target if self._format == "y4m" else tempfile.TemporaryFile()  # noqa: SIM115
        self._sink: _Sink | None = None
        try:
            self._sink = _SINKS[self._format](self._part, info, self._format)
        except BaseException:
            self.abort()
            raise

    def write(self, frame: Tensor) -> None:
        """Write the next frame."""
        if self._sink is None:
            raise ValueError("the writer is closed")
        expected = (3, self.info.height, self.info.width)
        if frame.dtype != torch.uint8 or tuple(frame.shape) != expected:
            raise ValueError(f"frames are uint8 {expected}, got {frame.dtype} {tuple(frame.shape)}")
        self._sink.write(frame.cpu())
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._sink is None:
            return
        try:
            if self.num_frames == 0:
                raise ValueError("no frames were written")
            self._sink.close()
            self._sink = None
            self._deliver()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up, and remove what was written."""
        sink, self._sink = self._sink, None
        try:
            if sink is not None:
                sink.abort()
        finally:
            if isinstance(self._part, Path):
                _remove(self._part)
            elif self._part is not self._target:
                self._part.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _deliver(self) -> None:
        if isinstance(self._target, Path):
            _rename(self._part, self._target)
        elif self._part is not self._target:
            self._part.seek(0)
            shutil.copyfileobj(self._part, self._target)
            self._part.close()


def write_video(
    target: Target, frames: Iterable[Tensor], info: VideoInfo, *, format: Format | None = None
) -> None:
    """Write all frames, as `VideoWriter` does."""
    with VideoWriter(target, info, format=format) as writer:
        for frame in frames:
            writer.write(frame)


class _Sink(Protocol):
    def write(self, frame: Tensor) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


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


_SINKS: dict[str, Any] = {"mp4": _H264Sink, "mkv": _H264Sink, "y4m": _Y4mSink, "png": _PngSink}


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


def _choose_format(target: Target, format: str | None) -> Format:
    choices = get_args(Format)
    if format is not None:
        if format not in choices:
            raise ValueError(f"{format=} is not one of {', '.join(choices)}")
        if format == "png" and not isinstance(target, (str, os.PathLike)):
            raise ValueError("PNG pictures go to a folder, not into a file object")
        return format  # type: ignore[return-value]
    if not isinstance(target, (str, os.PathLike)):
        suffix = Path(str(getattr(target, "name", ""))).suffix.lower()
        if suffix[1:] not in choices[:3]:
            raise ValueError(f"a file object needs format=: one of {', '.join(choices[:3])}")
        return suffix[1:]  # type: ignore[return-value]
    suffix = Path(target).suffix.lower()
    if suffix == "" or str(target).endswith("/") or Path(target).is_dir():
        return "png"
    if suffix[1:] not in choices[:3]:
        raise ValueError(f"{target} ends in none of .mp4, .mkv, .y4m (or nothing: a folder of PNG pictures)")
    return suffix[1:]  # type: ignore[return-value]


def _part_of(target: Path, format: str) -> Path:
    """The hidden name beside the target. Raises as VideoWriter says."""
    target = target.absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder: create it first")
    if format != "png" and target.is_dir():
        raise ValueError(f"{target} is a folder: name a file")
    if format == "png" and target.exists():
        if not target.is_dir():
            raise ValueError(f"{target} is a file: name a folder for the PNG pictures")
        if any(path.suffix.lower() == ".png" for path in target.iterdir()):
            raise ValueError(f"{target} holds .png files already: name a new folder or empty it")
    return target.parent / f".{target.name}.{secrets.token_hex(4)}.part"


def _rename(part: Path, target: Path) -> None:
    if part.is_dir() and target.is_dir():  # other files stay in it
        for path in sorted(part.iterdir()):
            path.replace(target / path.name)
        part.rmdir()
    else:
        part.replace(target)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)
