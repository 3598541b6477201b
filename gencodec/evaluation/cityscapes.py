"""Cityscapes' validation split of leftImg8bit_sequence: 500 snippets of 30 frames, many to a folder.

    leftImg8bit_sequence/val/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png     sequence, frame

The frames of a snippet are consecutive within a sequence. How many a city has is from the data set's page.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from gencodec.codec import UnreadableInput

CITYSCAPES = "cityscapes"  # among the data sets
SNIPPETS = {"frankfurt": 267, "lindau": 59, "munster": 174}
FRAMES = 30
FPS = Fraction(17)

_FILE = re.compile(r"([0-9]+)_([0-9]+)_leftImg8bit\.png")


def find_snippets(root: Path) -> dict[str, tuple[Path, ...]]:
    """{"frankfurt_000000_000275": its 30 files, ...} below the data set's folder, the sequences', or val.

    Raises UnreadableInput that says how many of its snippets a city has, unless all cities are whole.
    """
    inner = (root / "leftImg8bit_sequence" / "val", root / "val")
    folder = next((path for path in inner if path.is_dir()), root)
    found = {city: _snippets_of(folder / city) for city in SNIPPETS}
    if any(len(found[city]) != count for city, count in SNIPPETS.items()):
        counts = ", ".join(f"{city} {len(found[city])} of {count}" for city, count in SNIPPETS.items())
        raise UnreadableInput(f"{folder} has not all snippets of {FRAMES} frames of Cityscapes: {counts}")
    return {
        paths[0].name.removesuffix("_leftImg8bit.png"): paths for city in found.values() for paths in city
    }


def _snippets_of(folder: Path) -> list[tuple[Path, ...]]:
    """The whole snippets of a city; a run of frames that is no multiple of 30 lacks some and holds none."""
    runs: list[list[Path]] = []
    last = None
    for sequence, frame, path in _numbered(folder):
        if last != (sequence, frame - 1):
            runs.append([])
        runs[-1].append(path)
        last = (sequence, frame)
    whole = [run for run in runs if len(run) % FRAMES == 0]
    return [tuple(run[i : i + FRAMES]) for run in whole for i in range(0, len(run), FRAMES)]


def _numbered(folder: Path) -> list[tuple[int, int, Path]]:
    """Sequence, frame and path of a city's pictures, in order."""
    paths = folder.iterdir() if folder.is_dir() else ()
    matches = ((_FILE.fullmatch(path.name.removeprefix(f"{folder.name}_")), path) for path in paths)
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)
