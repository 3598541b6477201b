"""The clips of a comparison: where they are, what of them is taken, and what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from gencodec.codec import UnreadableInput, VideoInfo
from gencodec.evaluation.datasets import Found
from gencodec.video import VideoReader, open_video


@dataclass(frozen=True)
class Selection:
    """What is taken of a clip: frames A..B, of those the middle `crop`, that scaled to `size`.

    (width, height) each; the fields' order is part of a point's key.
    """

    frames: tuple[int, int | None] | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None


@dataclass(frozen=True)
class Clip:
    """A source of the comparison."""

    found: Found
    info: VideoInfo
    sha256: str
    selection: Selection = Selection()

    @classmethod
    def open(cls, found: Found, selection: Selection | None = None) -> Clip:
        """Look at a clip and count its frames. Raises UnreadableInput."""
        blank = VideoInfo(1, 1, Fraction(1), None)
        clip = cls(found, blank, "", selection or Selection())
        with clip.video() as video:
            count = sum(1 for _ in video)
            info = replace(video.info, num_frames=count)
        if not count:
            raise UnreadableInput(f"{found.path} has no frames")
        return replace(clip, info=info, sha256=digest_of(found.path, found.files))

    @property
    def name(self) -> str:
        """As the results call it."""
        return self.found.name

    @property
    def path(self) -> Path:
        """Its file or folder."""
        return self.found.path

    def video(self) -> VideoReader:
        """Its frames."""
        chosen, found = self.selection, self.found
        if chosen.crop is None:
            fps = found.raw.fps if found.raw else found.fps
            return open_video(found.source(), frames=chosen.frames, size=chosen.size, fps=fps)
        whole = replace(self, selection=replace(chosen, crop=None, size=None))
        with whole.video() as video:
            fps = video.info.fps
        return open_video(Cropped(whole, chosen.crop), size=chosen.size, fps=fps)

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


def digest_of(path: Path, files: Sequence[Path] = ()) -> str:
    """SHA-256 of a file, or of `files`, or else of all files of a folder, with their names."""
    digest = hashlib.sha256()
    is_one = not files and not path.is_dir()
    for file in [path] if is_one else files or sorted(path.iterdir()):
        if not is_one:
            digest.update(file.name.encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
