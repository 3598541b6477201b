"""What STEM of `diffsit` makes of clips, kept in files: the data of the stages behind it.

STEM has nothing to learn but the tables of its motion. So clips are coded once, and the generator learns
from pictures as a decoder has them; `diffsit_sent` makes them as encoders do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gencodec.methods.diffsit.stem import ALL_ANCHORS, groups_of, moved, mv_field, mv_frames, unit_of
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.model import CodingLoop
from gencodec.nn.motion import BLOCK
from gencodec.training.data import Bank
from gencodec.training.qualities import draw_quality
from gencodec.training.s2vc_record import record_clip

CHAIN = 1  # triples
FRAMES = 21  # of a record: three clips, or windows of nine frames at five places


class Record(NamedTuple):
    """One GOP of T frames at the packets' `quality` (1,), whole triples.

    x (T,3,H,W) and picture, what STEM makes of it, uint8; is_mv (T,) bool; motion (T,2,h,w) int16, in half
    pixels: of an MV frame to its backbone, of a backbone to the last one, zero for the key frame.
    """

    x: Tensor
    picture: Tensor
    is_mv: Tensor
    quality: Tensor
    motion: Tensor


class Window(NamedTuple):
    """B windows of T frames: x and picture (B,T,3,H,W) float in [0,1], is_mv (T,) bool, quality (B,) int64,
    first (B,) int64, the number in its GOP of each window's first frame.
    """

    x: Tensor
    picture: Tensor
    is_mv: Tensor
    quality: Tensor
    first: Tensor


@torch.no_grad()
def record_plain(loop: CodingLoop, intra: IntraModel, x: Tensor, quality: int) -> Record:
    """Code a clip x (T,3,H,W) in [0,1], whole triples, sides multiples of 16, without the entropy coder.

    Motion by a formula of its bits and symbols by rounding, in place of what an encoder really sends.
    """
    groups = groups_of(len(x), CHAIN)
    backbones = record_clip(loop, intra, x[[g.backbone for g in groups]], quality, ALL_ANCHORS)
    pictures, motion = torch.zeros_like(x), backbones.motion.new_zeros(len(x), *backbones.motion.shape[1:])
    for number, group in enumerate(groups):
        backbone = backbones.picture[number : number + 1].to(x) / 255
        pictures[group.backbone] = backbone
        motion[group.backbone] = backbones.motion[number - 1] if number else 0
        for n in (group.backbone + offset for offset in group.offsets):
            steps = torch.from_numpy(mv_field(x[n : n + 1], backbone, quality))
            motion[n] = unit_of(quality) * steps
            pictures[n] = moved(backbone, motion[n : n + 1].to(x))
    is_mv = torch.tensor(mv_frames(len(x), CHAIN))
    return Record(_bytes(x), _bytes(pictures), is_mv, torch.tensor([quality]), motion)


def record(
    code: Callable[[Tensor, int], Record],
    bank: Bank,
    folder: Path,
    device: torch.device | str,
    *,
    first: int,
    count: int,
    seed: int = 0,
) -> None:
    """Write records number `first` to `first + count - 1` into `folder`; what is there already is left.

    `bank` gives clips of FRAMES frames; `code` makes one of a clip (T,3,H,W) in [0,1] on `device` and a
    quality: `record_plain`, `diffsit_sent.record_sent`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        path = folder / f"{number:05d}.safetensors"
        if path.exists():
            continue
        generator = np.random.default_rng([seed, number])
        x, quality = bank.batch(1, generator)[0].to(device), int(draw_quality(1, generator))
        one = code(x, quality)
        part = path.with_suffix(".part")
        save_file({k: v.cpu().contiguous() for k, v in one._asdict().items()}, part)
        part.replace(path)


def read_records(folder: Path) -> Iterator[Record]:
    """All records of a folder, one after the other."""
    for path in sorted(folder.glob("*.safetensors")):
        yield Record(**load_file(path))


class DiffsitBank:
    """All records of a folder; draws windows of `frames` frames, whole triples, of `crop` pixels a side.

    They stay in their files, as in `s2vc_record.RecordBank`. `frames` is a multiple of 3, `crop` of 16; None:
    whole pictures. Raises ValueError where no record is long and large enough.
    """

    def __init__(self, folder: Path, *, frames: int = 9, crop: int | None = None) -> None:
        if frames % (2 * CHAIN + 1) or (crop or BLOCK) % BLOCK:
            raise ValueError(f"frames is a multiple of 3 and crop of {BLOCK}, got {frames} and {crop}")
        self.frames, self.crop = frames, crop
        found = [(path, _shape_in(path)) for path in sorted(folder.glob("*.safetensors"))]
        fitting = [(p, s) for p, s in found if s[0] >= frames and min(s[2:]) >= (crop or 0)]
        if not fitting:
            raise ValueError(f"no record of {frames} frames, {crop or 'any'} pixels a side, in {folder}")
        self.paths, self.shapes = [p for p, _ in fitting], [s for _, s in fitting]

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Draws (size,4), int64: record, first frame, row and column in blocks of 16 pixels; see `cut`."""
        return torch.tensor([self._draw(generator) for _ in range(size)])

    def cut(self, draws: Tensor, device: torch.device | str = "cpu") -> Window:
        """What `batch` drew."""
        parts = [self._cut(*draw) for draw in draws.tolist()]
        x, picture, quality = (torch.stack(column).to(device) for column in zip(*parts, strict=True))
        is_mv = torch.tensor(mv_frames(self.frames, CHAIN), device=device)
        return Window(x.float() / 255, picture.float() / 255, is_mv, quality[:, 0], draws[:, 1].to(device))

    def _draw(self, generator: np.random.Generator) -> tuple[int, ...]:
        index = int(generator.integers(len(self)))
        shape, size = self.shapes[index], 2 * CHAIN + 1
        first = size * int(generator.integers((shape[0] - self.frames) // size + 1))
        spare = [(n - (self.crop or n)) // BLOCK for n in shape[2:]]
        return index, first, *(int(generator.integers(n + 1)) for n in spare)

    def _cut(self, index: int, first: int, row: int, column: int) -> tuple[Tensor, Tensor, Tensor]:
        height, width = (self.crop or n for n in self.shapes[index][2:])
        places = (
            slice(first, first + self.frames),
            slice(None),
            slice(BLOCK * row, BLOCK * row + height),
            slice(BLOCK * column, BLOCK * column + width),
        )
        with safe_open(self.paths[index], "pt") as file:
            x, picture = (file.get_slice(name)[places] for name in ("x", "picture"))
            return x, picture, file.get_tensor("quality")


def _shape_in(path: Path) -> tuple[int, ...]:
    """Of x, (T,3,H,W), in a record's file."""
    with safe_open(path, "pt") as file:
        return tuple(file.get_slice("x").get_shape())


def _bytes(x: Tensor) -> Tensor:
    return (255 * x.clamp(0, 1)).round().to(torch.uint8)
