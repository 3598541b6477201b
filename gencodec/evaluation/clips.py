"""The clips of a comparison: where they are, what of them is taken, and what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from gencodec.codec import UnreadableInput, VideoInfo
from gencodec.evaluation.datasets import Found, RawFormat, RawFrames
from gencodec.video import VideoReader, open_video


@dataclass(frozen=True)
class Selection:
    """What is taken of a clip: frames A..B, scaled to `size`, or the middle `crop`; (width, height) each."""

    frames: tuple[int, int | None] | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None


@dataclass(frozen=True)
class Clip:
    """A source of the comparison."""

    name: str
    path: Path
    info: VideoInfo
    sha256: str
    selection: Selection = Selection()
    raw: RawFormat | None = None

    @classmethod
    def open(cls, found: Found, selection: Selection | None = None) -> Clip:
        """Look at a clip and count its frames. Raises UnreadableInput."""
        blank = VideoInfo(1, 1, Fraction(1), None)
        clip = cls(found.name, found.path, blank, "", selection or Selection(), found.raw)
        with clip.video() as video:
            count = sum(1 for _ in video)
            info = replace(video.info, num_frames=count)
        if not count:
            raise UnreadableInput(f"{found.path} has no frames")
        return replace(clip, info=info, sha256=digest_of(found.path))

    def video(self) -> VideoReader:
        """Its frames."""
        chosen = self.selection
        source = RawFrames(self.path, self.raw) if self.raw else self.path
        fps = self.raw.fps if self.raw else None
        video = open_video(source, frames=chosen.frames, size=chosen.size, fps=fps)
        if chosen.crop is None:
            return video
        with video:
            fps = video.info.fps
        return open_video(Cropped(replace(self, selection=replace(chosen, crop=None)), chosen.crop), fps=fps)

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.info.width * self.info.height * (self.info.num_frames or 0)


class Cropped:
    """The middle of every frame of a clip; can be iterated again. Raises ValueError where it is too small."""

    def __init__(self, clip: Clip, size: tuple[int, int]) -> None:
        self.clip, self.size = clip, size

    def __iter__(self) -> Iterator[Tensor]:
        width, height = self.size
        with self.clip.video() as video:
            left, top = (video.info.width - width) // 2, (video.info.height - height) // 2
            if left < 0 or top < 0:
                raise ValueError(f"{self.clip.path} is smaller than the crop of {width}x{height}")
            for frame in video:
                yield frame[:, top : top + height, left : left + width].contiguous()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
