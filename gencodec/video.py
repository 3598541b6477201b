"""Video in and out: anything that holds frames as uint8 RGB tensors (3, H, W), and such frames to files.

    path, file object ─► video_in.FileSource ──┐
    folder of pictures ► pictures.FolderSource┼─► VideoReader: frames A..B, resized ─► frames
    tensors ───────────► TensorSource ─────────┘
    frames ─► video_out.VideoWriter ─► .mp4 .mkv .y4m, folder of PNGs

How sizes, colours and frame rates are treated: docs/video.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .codec import UnreadableInput, VideoInfo
from .pictures import FolderSource
from .video_frame import MAX_SIDE, check_side
from .video_in import FileSource
from .video_out import VideoWriter, write_video

__all__ = ["MAX_SIDE", "VideoReader", "VideoWriter", "open_video", "resize", "write_video"]

DEFAULT_FPS = Fraction(25)  # of tensors and pictures, which state none

Source: TypeAlias = str | Path | BinaryIO | Tensor | Iterable[Tensor]


def open_video(
    source: Source,
    *,
    frames: tuple[int, int | None] | None = None,
    size: tuple[int, int] | None = None,
    fps: Fraction | int | None = None,
) -> VideoReader:
    """Open a path, a binary file object, a uint8 tensor (T, 3, H, W), or an iterable of such (3, H, W).

    `frames=(a, b)` reads frames a up to but not including b (None: the end), `size=(width, height)` resizes,
    `fps` is the rate of tensors and folders of pictures, PNGs or JPEGs (25 if not given). Raises
    UnreadableInput for a source that cannot be read, ValueError for a wrong argument.
    """
    if fps is not None and fps <= 0:
        raise ValueError(f"{fps=} is not positive")
    opened = _open_source(source, None if fps is None else Fraction(fps))
    try:
        return VideoReader(opened, frames, size)
    except BaseException:
        opened.close()
        raise


class VideoReader:
    """Frames of a video, uint8 RGB (3, H, W), contiguous, decoded as they are asked for; a context manager.

    `info` tells size, rate and number of frames. It can be iterated again, from the first frame on, except
    over an iterator, which is used up: then ValueError. One iteration at a time: a new one, and `close`, end
    the last.
    """

    def __init__(
        self, source: _Source, frames: tuple[int, int | None] | None, size: tuple[int, int] | None
    ) -> None:
        self._source = source
        self._start, self._stop = _check_range(frames, source.info.num_frames)
        width, height = _check_size(size) if size else (source.info.width, source.info.height)
        num_frames = source.info.num_frames
        if num_frames is not None:
            num_frames = (num_frames if self._stop is None else min(self._stop, num_frames)) - self._start
        self.info = VideoInfo(width, height, source.info.fps, num_frames)
        self._running: Any = None

    def __iter__(self) -> Iterator[Tensor]:
        self._end_running()
        self._running = self._read()
        return self._running

    def close(self) -> None:
        """End the iteration and let go of the source."""
        self._end_running()
        self._source.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Iterator[Tensor]:
        count = 0
        for frame in self._source.frames(self._start, self._stop):
            count += 1
            yield resize(frame, (self.info.width, self.info.height))
        if count == 0:
            raise ValueError(f"frames begin at {self._start}, but the video ends before that")

    def _end_running(self) -> None:
        if self._running is not None:
            self._running.close()


class TensorSource:
    """Frames that are tensors already."""

    def __init__(self, frames: Iterable[Tensor], fps: Fraction) -> None:
        self._frames = frames
        self._once = iter(frames) if iter(frames) is frames else None
        first = next(self._once if self._once is not None else iter(frames), None)
        if first is None:
            raise UnreadableInput("there are no frames: give at least one")
        self._first: Tensor | None = _check_frame(first, None)
        self._shape = first.shape
        check_side(first.shape[2], first.shape[1], "the frames")
        num_frames = len(frames) if isinstance(frames, Sized) else None
        self.info = VideoInfo(first.shape[2], first.shape[1], fps, num_frames)

    def frames(self, start: int, stop: int | None) -> Iterator[Tensor]:
        """Yield frames start..stop, or to the end."""
        frames: Iterable[Tensor] = self._frames
        if self._once is not None:
            if self._first is None:
                raise ValueError("an iterator of frames can be read once: give a list to read it again")
            frames, self._first = chain([self._first], self._once), None
        for frame in islice(frames, start, stop):
            yield _check_frame(frame, self._shape).cpu().contiguous()

    def close(self) -> None:
        """Nothing is held open."""


def resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """A frame, uint8 (3, H, W), at size (width, height): bicubic, with a low-pass filter where it shrinks."""
    width, height = size
    if tuple(frame.shape[1:]) == (height, width):
        return frame
    resized = F.interpolate(frame[None].float(), (height, width), mode="bicubic", antialias=True)[0]
    return resized.add_(0.5).clamp_(0, 255.5).to(torch.uint8).contiguous()


class _Source(Protocol):
    info: VideoInfo

    def frames(self, start: int, stop: int | None) -> Iterator[Tensor]: ...
    def close(self) -> None: ...


def _open_source(source: Source, fps: Fraction | None) -> _Source:
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), fps)
    if hasattr(source, "read"):
        return FileSource(_without_fps(source, fps))
    if isinstance(source, Tensor) and source.ndim != 4:
        raise ValueError(f"a video is a uint8 tensor (T, 3, H, W), got {tuple(source.shape)}")
    return TensorSource(source, fps or DEFAULT_FPS)


def _open_path(path: Path, fps: Fraction | None) -> _Source:
    try:
        if path.is_dir():
            return FolderSource(path, fps or DEFAULT_FPS)
        if not path.exists():
            raise UnreadableInput(f"{path} does not exist: check the name")
        with path.open("rb"):
            pass
    except OSError as error:
        raise UnreadableInput(f"{path} cannot be read: {error.strerror}") from error
    return FileSource(_without_fps(path, fps))


def _without_fps(source: Any, fps: Fraction | None) -> Any:
    if fps is not None:
        raise ValueError(f"{fps=} is for tensors and folders of pictures: a video file states its own rate")
    return source


def _check_range(frames: tuple[int, int | None] | None, num_frames: int | None) -> tuple[int, int | None]:
    start, stop = frames or (0, None)
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"{frames=} is not a range (a, b) with 0 <= a < b")
    if num_frames is not None and start >= num_frames:
        raise ValueError(f"{frames=} begins after the last of {num_frames} frames")
    return start, stop


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise ValueError(f"{size=} is not (width, height) within 1..{MAX_SIDE}")
    return size


def _check_frame(frame: Any, shape: Any) -> Tensor:
    if not isinstance(frame, Tensor) or frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[0] != 3:
        what = f"{frame.dtype} {tuple(frame.shape)}" if isinstance(frame, Tensor) else type(frame).__name__
        raise ValueError(f"frames are uint8 tensors (3, H, W), got {what}")
    if shape is not None and frame.shape != shape:
        raise ValueError(f"frames change size from {tuple(shape)} to {tuple(frame.shape)}")
    return frame
