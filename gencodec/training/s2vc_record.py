"""What the coding loop makes of clips, kept in files: the data of the stages behind it.

The loop has nothing to learn but its prior, which changes no picture. So the prior is trained on whole groups
of pictures as they were coded, and the generator on pictures as a decoder has them, at a fraction of what
running the loop again would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.model import (
    CYCLE,
    STEPS_PER_PIXEL,
    CodedFrame,
    CodingLoop,
    key_quality,
    level_of,
)
from gencodec.nn.motion import BLOCK
from gencodec.training.data import Bank
from gencodec.training.qualities import draw_quality

KEY_SHARE = 0.25  # of windows that begin with the key frame, whatever falls there by chance


class Record(NamedTuple):
    """One clip of T frames as coded at `quality` (1,); the first frame is the key frame.

    clock (T,1), see `Coded`; x (T,3,H,W) and picture, as coded, uint8; scaled (T,192,h,w), y_hat without its
    gains; key_y_hat (1,192,h,w) with them; for the frames behind the first motion (T-1,2,h,w) in half pixels
    and symbols (T-1,192,h,w), int16; cycle (1,), the frames from anchor to anchor.
    """

    quality: Tensor
    clock: Tensor
    x: Tensor
    picture: Tensor
    scaled: Tensor
    key_y_hat: Tensor
    motion: Tensor
    symbols: Tensor
    cycle: Tensor = torch.tensor([CYCLE])


class Draws(NamedTuple):
    """Columns of what `RecordBank.batch` gives."""

    record: int
    first: int
    row: int
    column: int


class KeyFrame(NamedTuple):
    """A key frame as a decoder has it: coded picture (B,3,H,W), y_hat, and y_hat without its gains."""

    picture: Tensor
    y_hat: Tensor
    scaled: Tensor


@torch.no_grad()
def key_of(intra: IntraModel, x: Tensor, quality: int) -> KeyFrame:
    """What `intra` makes of x (B,3,H,W) in [0,1] as the key frame of a GOP of `quality`."""
    own = torch.full((len(x),), key_quality(quality), device=x.device)
    y_hat = intra.latents(intra.transforms.to_latents(x, own).float(), own).y_hat
    picture, scaled = intra.transforms.to_linear_picture(y_hat, own)
    return KeyFrame(picture.clamp(0, 1), y_hat, scaled)


@torch.no_grad()
def record_clip(loop: CodingLoop, intra: IntraModel, x: Tensor, quality: int, cycle: int = CYCLE) -> Record:
    """Code a clip x (T,3,H,W) in [0,1], sides multiples of 16; `cycle` frames from anchor to anchor."""
    key = key_of(intra, x[:1], quality)
    pictures, scaled = [key.picture], [key.scaled]
    symbols: list[Tensor] = []
    motions: list[Tensor] = []
    for t in range(1, len(x)):
        level = torch.tensor([level_of(quality, t, cycle)], device=x.device)
        inherited = motions[-1].to(x) if motions else None
        each = torch.tensor([quality], device=x.device)
        frame, y_hat, motion = loop(x[t : t + 1], pictures[-1], each, level, inherited)
        pictures.append(frame.picture)
        scaled.append(frame.scaled)
        symbols.append(y_hat.to(torch.int16))
        motions.append(motion.to(torch.int16))
    return Record(
        torch.tensor([quality]),
        torch.tensor([[key_quality(quality)]] + [[quality]] * (len(x) - 1)),
        (255 * x).round().to(torch.uint8),
        (255 * torch.cat(pictures)).round().to(torch.uint8),
        torch.cat(scaled).half(),
        key.y_hat,
        torch.cat(motions),
        torch.cat(symbols),
        torch.tensor([cycle]),
    )


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

    `code` makes one of a clip (T,3,H,W) on `device` and a quality: `record_clip`, `s2vc_sent.record_sent`.
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


class RecordBank:
    """All records of a folder; draws which frames of which one, and where.

    They stay in their files: what a batch needs is read from there, so that thousands of records take no
    memory. Few of them are learned by heart (docs/decisions.md). Without a `window` whole records are drawn,
    a batch of equally long ones. Raises ValueError where none is long and large enough.
    """

    def __init__(self, folder: Path, *, window: int | None = None, crop: int | None = None) -> None:
        self.window, self.crop = window, crop
        found = [(path, _shape_in(path)) for path in sorted(folder.glob("*.safetensors"))]
        fitting = [(path, shape) for path, shape in found if self._fits(shape)]
        if not fitting:
            raise ValueError(
                f"no record of {window or 'any'} frames, {crop or 'any'} pixels a side, in {folder}"
            )
        self._records: list[Path | Record] = [path for path, _ in fitting]
        self.shapes = [shape for _, shape in fitting]  # of x, (T,3,H,W)

    @classmethod
    def of(cls, records: Sequence[Record], *, window: int | None = None) -> RecordBank:
        """A bank of records that are in memory already."""
        bank = cls.__new__(cls)
        bank.window, bank.crop, bank._records = window, None, list(records)
        bank.shapes = [tuple(record.x.shape) for record in records]
        return bank

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            yield Record(**load_file(record)) if isinstance(record, Path) else record

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Draws (size,4), int64: see `Draws`; row and column are in blocks of 16 pixels."""
        among = list(range(len(self)))
        if self.window is None:
            length = self.shapes[int(generator.integers(len(self)))][0]
            among = [i for i, shape in enumerate(self.shapes) if shape[0] == length]
        return torch.tensor([self._draw(among, generator) for _ in range(size)])

    def cut(self, draws: Tensor, device: torch.device, *, with_pictures: bool = True) -> list[Record]:
        """The drawn windows, float on `device`: `window` frames each, of `crop` pixels a side.

        Without pictures `x`, `picture` and `scaled`, most of a file, are left out: (T,0).
        """
        return [self._cut(Draws(*draw), device, with_pictures) for draw in draws.tolist()]

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return shape[0] >= (self.window or 0) and min(shape[-2:]) >= (self.crop or 0)

    def _draw(self, among: Sequence[int], generator: np.random.Generator) -> Draws:
        index = among[int(generator.integers(len(among)))]
        shape = self.shapes[index]
        first = int(generator.integers(shape[0] - (self.window or shape[0]) + 1))
        if generator.random() < KEY_SHARE:
            first = 0
        spare = [(n - (self.crop or n)) // BLOCK for n in shape[-2:]]
        return Draws(index, first, *(int(generator.integers(n + 1)) for n in spare))

    def _cut(self, draw: Draws, device: torch.device, with_pictures: bool) -> Record:
        count = self.window or self.shapes[draw.record][0]
        frames = slice(draw.first, draw.first + count)
        behind = slice(draw.first, draw.first + count - 1)  # motion[t - 1] belongs to frame t
        height, width = (n if self.crop is None else self.crop for n in self.shapes[draw.record][-2:])

        with _fields(self._records[draw.record]) as (field, cycle):

            def cut(name: str, times: slice, stride: int = BLOCK) -> Tensor:
                top, left = draw.row * BLOCK // stride, draw.column * BLOCK // stride
                rows, columns = slice(top, top + height // stride), slice(left, left + width // stride)
                return field(name)[times, :, rows, columns].to(device).float()

            def shown(name: str, stride: int = BLOCK) -> Tensor:
                return cut(name, frames, stride) if with_pictures else torch.empty(count, 0, device=device)

            return Record(
                field("quality")[:].to(device),
                field("clock")[frames].to(device),
                shown("x", 1) / 255,
                shown("picture", 1) / 255,
                shown("scaled"),
                cut("key_y_hat", slice(0, 1)),
                cut("motion", behind),
                cut("symbols", behind),
                cycle.to(device),
            )


def _shape_in(path: Path) -> tuple[int, ...]:
    """Of x, (T,3,H,W), in a record's file."""
    with safe_open(path, "pt") as file:
        return tuple(file.get_slice("x").get_shape())


@contextmanager
def _fields(record: Path | Record) -> Iterator[tuple[Callable[[str], Any], Tensor]]:
    """What gives a field of a record to cut from, and its cycle; from a file only what is cut is read."""
    if isinstance(record, Record):
        yield partial(getattr, record), record.cycle
        return
    with safe_open(record, "pt") as file:
        has_cycle = "cycle" in file.keys()  # noqa: SIM118, it is no dict
        yield file.get_slice, file.get_tensor("cycle") if has_cycle else Record._field_defaults["cycle"]


def stacked(records: Sequence[Record]) -> Record:
    """The same windows as one batch: (B,...) each, quality and cycle (B,)."""
    columns = Record(*(torch.stack(column) for column in zip(*records, strict=True)))
    return columns._replace(quality=columns.quality[:, 0], cycle=columns.cycle[:, 0])


def coded_frame(clip: Record, t: int) -> CodedFrame:
    """Frame `t` of a stacked window, as the generator sees it."""
    motion = clip.motion[:, t - 1] if t else torch.zeros_like(clip.motion[:, 0])
    return CodedFrame(clip.picture[:, t], clip.scaled[:, t], motion / STEPS_PER_PIXEL)
