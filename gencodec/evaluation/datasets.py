"""Data sets that the field measures on: what their clips are called, how to find and read them in a folder.

None can be shipped; a local folder is given. A clip is found by its name, as raw .yuv (8-bit 4:2:0, BT.709,
limited range), as a video, or as a folder of PNGs or JPEGs; for Cityscapes see cityscapes.py. Sources of the
facts: the UVG page (ultravideo.fi), JCTVC-L1100 for class B, the MCL-JCV page, DAVIS-2016's validation list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import UnreadableInput
from gencodec.colour import yuv_to_rgb
from gencodec.evaluation import cityscapes
from gencodec.pictures import SUFFIXES, Pictures

FIRST_FRAMES = 96  # of each clip that most papers take
VIDEOS = (".yuv", ".y4m", ".mp4", ".mkv", ".webm", ".mov", ".avi")

# of DAVIS as distributed: masks, named as the clips are, and the clips at other sizes
_NO_CLIPS = re.compile(r"/Annotations\w*/|/JPEGImages/(1080p|Full-Resolution)/")


@dataclass(frozen=True, slots=True)
class RawFormat:
    """What a .yuv file does not say: size and rate. 8-bit 4:2:0, BT.709, limited range."""

    width: int
    height: int
    fps: Fraction

    @property
    def frame_bytes(self) -> int:
        """Of one frame; chroma planes are rounded up."""
        chroma = -(-self.width // 2) * -(-self.height // 2)
        return self.width * self.height + 2 * chroma


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip of a data set: the start of its file's name, format and number of frames (0: not fixed)."""

    name: str
    raw: RawFormat
    frames: int = 0


@dataclass(frozen=True, slots=True)
class Dataset:
    """Clips."""

    entries: tuple[Entry, ...]


def _full_hd(text: str) -> tuple[Entry, ...]:
    """Entries of "NAME:FPS:FRAMES" words, 1920x1080."""
    words = (word.split(":") for word in text.split())
    return tuple(
        Entry(name, RawFormat(1920, 1080, Fraction(int(fps))), int(frames)) for name, fps, frames in words
    )


_MCL_RATES = dict.fromkeys(range(1, 31), 30) | dict.fromkeys((5, 6, 7, 8, 9, 18, 20), 25)
_MCL_RATES |= dict.fromkeys((17, 21, 22, 23, 24, 25, 29), 24)
_DAVIS = (
    "blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog drift-chicane "
    "drift-straight goat horsejump-high kite-surf libby motocross-jump paragliding-launch parkour "
    "scooter-black soapbox"
)

DATASETS: dict[str, Dataset] = {
    "uvg": Dataset(
        _full_hd(
            "Beauty:120:600 Bosphorus:120:600 HoneyBee:120:600 Jockey:120:600 ReadySteadyGo:120:600 "
            "ShakeNDry:120:300 YachtRide:120:600"
        )
    ),
    "hevc-b": Dataset(
        _full_hd("BQTerrace:60:600 BasketballDrive:50:500 Cactus:50:500 Kimono1:24:240 ParkScene:24:240")
    ),
    "mcl-jcv": Dataset(
        _full_hd(" ".join(f"videoSRC{i:02d}:{fps}:{5 * fps}" for i, fps in _MCL_RATES.items()))
    ),
    "davis": Dataset(tuple(Entry(name, RawFormat(854, 480, Fraction(24))) for name in _DAVIS.split())),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A clip on disk.

    `raw` where its file does not say what is in it, `fps` where it is pictures, `files` where those have no
    folder of their own.
    """

    name: str
    path: Path
    raw: RawFormat | None = None
    fps: Fraction | None = None
    files: tuple[Path, ...] = ()

    def source(self) -> Path | Sequence[Tensor]:
        """What `open_video` reads."""
        if self.raw:
            return RawFrames(self.path, self.raw)
        return Pictures(self.files) if self.files else self.path


def find(dataset: str | Path, root: Path | None = None) -> list[Found]:
    """The clips of a named data set below `root`, or all videos of a folder.

    Raises ValueError for an unknown name or a missing `root`, UnreadableInput that says what is not there.
    """
    names = (*DATASETS, cityscapes.CITYSCAPES)
    if str(dataset) not in names:
        folder = Path(dataset)
        if not folder.is_dir():
            raise ValueError(f"{dataset} is no folder, and no data set: those are {', '.join(names)}")
        return [Found(p.stem, p) for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEOS[1:]]
    if root is None:
        raise ValueError(f"the clips of {dataset} are not shipped: give their folder with --root")
    if str(dataset) == cityscapes.CITYSCAPES:
        snippets = cityscapes.find_snippets(root)
        return [Found(n, p[0].parent, fps=cityscapes.FPS, files=p) for n, p in snippets.items()]
    files = _files_below(root)
    found, absent = [], []
    for entry in DATASETS[str(dataset)].entries:
        path = next((p for p in files if _is_clip(p, entry.name)), None)
        if path is None:
            absent.append(entry.name)
        else:
            found.append(_found(entry, path))
    if absent:
        raise UnreadableInput(f"{root} lacks {len(absent)} clips of {dataset}: {', '.join(absent)}")
    return found


def _found(entry: Entry, path: Path) -> Found:
    if path.suffix.lower() == ".yuv":
        return Found(entry.name, path, entry.raw)
    return Found(entry.name, path, fps=entry.raw.fps if path.is_dir() else None)


def _files_below(root: Path) -> list[Path]:
    """Files and folders in a fixed order, without those that hold no clips."""
    if not root.is_dir():
        raise UnreadableInput(f"{root} is no folder")
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        found += [Path(folder) / name for name in (*sorted(files), *folders)]
    return [path for path in found if not _NO_CLIPS.search(path.absolute().as_posix())]


def _is_clip(path: Path, name: str) -> bool:
    """Whether a video or a folder of pictures has the clip's name, alone or before a "_" or a "."."""
    if not path.name.lower().startswith(name.lower()):
        return False
    rest = path.name[len(name) :]
    if rest and rest[0] not in "_.":
        return False
    if path.is_file():
        return path.suffix.lower() in VIDEOS
    return path.is_dir() and any(inner.suffix.lower() in SUFFIXES for inner in path.iterdir())


class RawFrames(Sequence[Tensor]):
    """The frames of a .yuv file, uint8 RGB (3,H,W), read as they are asked for. Raises UnreadableInput."""

    def __init__(self, path: Path, raw: RawFormat) -> None:
        self.path, self.raw = path, raw
        size = path.stat().st_size
        if not size or size % raw.frame_bytes:
            raise UnreadableInput(
                f"{path} is no whole number of {raw.width}x{raw.height} frames in 8-bit 4:2:0: "
                f"it has {size} bytes"
            )
        self._count = size // raw.frame_bytes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        """Frame `index`, 0 <= index < len."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        with open(self.path, "rb") as file:
            file.seek(index * self.raw.frame_bytes)
            return self._frame(file.read(self.raw.frame_bytes))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(self._count))

    def _frame(self, data: bytes) -> Tensor:
        width, height = self.raw.width, self.raw.height
        half = (-(-height // 2), -(-width // 2))
        samples = torch.from_numpy(np.frombuffer(data, np.uint8).astype(np.float32))
        luma, u, v = samples.split([width * height, half[0] * half[1], half[0] * half[1]])
        planes = [luma.reshape(height, width), u.reshape(half), v.reshape(half)]
        return yuv_to_rgb(planes, matrix="bt709")
