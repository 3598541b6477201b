"""Video files: what `video.open_video` reads through PyAV.

packets ─► Timing (rate, times, cut or whole)            once, at opening; so is the first frame decoded
container ─► seek before frame A ─► decode ─► frame_to_rgb ─► orient ─► frames A..B
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from torch import Tensor

from . import y4m
from .codec import UnreadableInput, VideoInfo
from .video_frame import check_side, display_matrix, frame_to_rgb, is_transposing, orient
from .video_timing import Timing, read_timing

_ATTACHED_PIC = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_LOCAL_ONLY = {"protocol_whitelist": "file"}  # a playlist must not make us open addresses


class FileSource:
    """The frames of a video file or of a binary file object, upright, with the pixels as they are stored.

    `info` has the size with square pixels, which `video.VideoReader` stretches frames to. A file object that
    cannot seek is copied to a temporary file first. Raises UnreadableInput.
    """

    def __init__(self, file: Path | BinaryIO) -> None:
        self._copy = None if isinstance(file, Path) or _seekable(file) else _spool(file)
        self._file: Any = self._copy or file
        self.name = file.name if isinstance(file, Path) else "the input"
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        with self._open() as (container, stream):
            check_side(stream.width, stream.height, self.name)
            self._siting = self._read_y4m_siting(container, stream)
            self.timing = read_timing(container, stream, self.name)
        with self._open() as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise UnreadableInput(f"{self.name} holds no video frames: check the file")
            self._matrix = display_matrix(first)
            self._size = (first.width, first.height)
            width, height = square_pixels(*self._size, stream.sample_aspect_ratio)
            self._to_rgb(first, stream)  # so that an unknown pixel format is told now
        if is_transposing(self._matrix):
            width, height = height, width
        check_side(width, height, self.name)
        self.info = VideoInfo(width, height, self.timing.fps, self.timing.num_frames)

    def frames(self, start: int, stop: int | None) -> Iterator[Tensor]:
        """Yield frames start..stop, or to the end."""
        timing = self.timing
        if timing.num_frames is not None:
            stop = timing.num_frames if stop is None else min(stop, timing.num_frames)
        index = start
        with self._open() as (container, stream):
            for frame in self._decode_from(start, container, stream):
                yield self._checked(frame, stream)
                index += 1
                if index == stop:  # before the next is decoded
                    return
        if timing.num_frames is not None:
            raise UnreadableInput(self._damaged())

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        if self._copy is not None:
            self._copy.close()

    def _decode_from(self, start: int, container: Any, stream: Any) -> Iterator[Any]:
        pts = self.timing.pts
        if start == 0 or pts is None:
            yield from _skip(container.decode(stream), start)
        elif start < len(pts):
            try:
                yield from _decode_after_seek(container, stream, pts[start], self.timing)
            except _BadSeekError:
                with self._open() as (container, stream):
                    yield from _skip(container.decode(stream), start)

    def _checked(self, frame: Any, stream: Any) -> Tensor:
        if frame.is_corrupt:
            raise UnreadableInput(self._damaged())
        if (frame.width, frame.height) != self._size:
            raise UnreadableInput(f"{self.name} changes its frame size midway: scale it to one size first")
        return self._to_rgb(frame, stream)

    def _to_rgb(self, frame: Any, stream: Any) -> Tensor:
        rgb = frame_to_rgb(frame, codec=stream.codec_context.name, siting=self._siting)
        return orient(rgb, self._matrix)

    def _read_y4m_siting(self, container: Any, stream: Any) -> Any:
        if container.format.name != "yuv4mpegpipe":
            return None
        header, num_bytes = self._first_bytes()
        packet = next(iter(container.demux(stream)), None)
        if packet is not None and packet.size:
            y4m.check_length(header, num_bytes, packet.size, self.name)
        return y4m.read_siting(header)

    def _first_bytes(self) -> tuple[bytes, int]:
        if isinstance(self._file, Path):
            with self._file.open("rb") as file:
                return file.read(256), os.fstat(file.fileno()).st_size
        position = self._file.tell()
        num_bytes = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        header = self._file.read(256)
        self._file.seek(position)
        return header, num_bytes

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """The container and its first moving picture; a file object is read from its beginning each time."""
        if isinstance(self._file, Path):
            file: Any = str(self._file.absolute())
        else:
            file = self._file
            file.seek(0)
        try:
            container = av.open(file, "r", options=_LOCAL_ONLY)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UnreadableInput(
                f"{self.name} is no video that FFmpeg can open, or was cut: check it"
            ) from error
        try:
            with container:
                yield container, self._video_stream(container)
        except av.error.FFmpegError as error:
            raise UnreadableInput(self._damaged()) from error

    def _video_stream(self, container: Any) -> Any:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams or streams[0].codec_context is None:
            raise UnreadableInput(f"{self.name} has no video stream that can be decoded: check the file")
        streams[0].thread_type = "AUTO"
        streams[0].codec_context.options = {"err_detect": "explode"}  # rather than pictures made up
        return streams[0]

    def _damaged(self) -> str:
        return f"{self.name} is cut or damaged: a frame cannot be decoded; copy it again or repair it"


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """The size with square pixels: the side that they are too short along grows, the other stays.

    `aspect` is a pixel's width over its height; None or 0 mean 1.
    """
    if not aspect or aspect <= 0:
        return width, height
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


class _BadSeekError(Exception):
    """Seeking went past the frame that was asked for."""


def _decode_after_seek(container: Any, stream: Any, target: int, timing: Timing) -> Iterator[Any]:
    """Frames from time `target` on, decoded from the key frame before it."""
    early = target - 0.5 / float(timing.fps * timing.time_base)  # half a frame
    first = True
    try:
        container.seek(target, stream=stream, backward=True)
        decoded = container.decode(stream)
        for frame in decoded:
            if first and (frame.pts is None or frame.pts > target):
                raise _BadSeekError
            first = False
            if frame.pts is None or frame.pts >= early:
                yield frame
                break
    except av.error.FFmpegError as error:
        raise _BadSeekError from error
    if first:
        raise _BadSeekError
    yield from decoded


def _skip(frames: Iterator[Any], count: int) -> Iterator[Any]:
    for index, frame in enumerate(frames):
        if index >= count:
            yield frame


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the cover of a song."""
    return bool(int(getattr(stream, "disposition", 0)) & _ATTACHED_PIC)


def _seekable(file: BinaryIO) -> bool:
    return bool(getattr(file, "seekable", lambda: False)())


def _spool(file: BinaryIO) -> Any:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  FileSource.close closes it
    shutil.copyfileobj(file, copy)
    return copy
