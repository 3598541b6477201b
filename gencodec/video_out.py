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
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from .codec import VideoInfo
from .video_sinks import SINKS, Sink

Format = Literal["mp4", "mkv", "y4m", "png"]
Target: TypeAlias = str | Path | BinaryIO


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
        self._sink: Sink | None = None
        try:
            self._sink = SINKS[self._format](self._part, info, self._format)
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
