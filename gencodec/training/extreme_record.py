"""What `extreme`'s predictor learns from: coded frames as both sides show them, and the frames behind them.

    key frame ─► restart a few frames later ─► rendered ─► anchor, velocity │ source of the next frames

Made once and kept in files: coding and rendering take longer than a step of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gencodec.methods.extreme.motion import velocity_of
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.generator import Generator
from gencodec.methods.s2vc.model import CodedFrame, CodingLoop, key_quality, level_of
from gencodec.training.data import Bank
from gencodec.training.qualities import draw_quality
from gencodec.training.s2vc_record import key_of

AHEAD = 10  # frames of the source behind the anchor: two chunks
FARTHEST = 4  # frames from the key frame to the restart, at most
KEY_SHARE = 0.2  # of records whose anchor is a key frame: no velocity is known
BATCH = 4  # clips a file


class AnchorRecords(NamedTuple):
    """N clips: anchor (N,3,H,W) uint8 as shown; velocity (N,2,H/16,W/16), pixels a frame; known (N,), 1 for a
    key frame, 2 where the velocity is known; ahead (N,AHEAD,3,H,W) uint8, the source; quality (N,).
    """

    anchor: Tensor
    velocity: Tensor
    known: Tensor
    ahead: Tensor
    quality: Tensor


class Models(NamedTuple):
    """What codes and renders, all frozen."""

    intra: IntraModel
    loop: CodingLoop
    generator: Generator


@torch.no_grad()
def record_anchors(models: Models, x: Tensor, quality: Tensor, distance: int) -> AnchorRecords:
    """Code x (N,distance+1+AHEAD,3,H,W) in [0,1] at `quality` (N,); at distance 0 the key frame is it."""
    keys = [key_of(models.intra, one[None, 0], int(q)) for one, q in zip(x, quality, strict=True)]
    picture, scaled = (torch.cat([getattr(k, name) for k in keys]) for name in ("picture", "scaled"))
    frame = CodedFrame(picture, scaled, torch.zeros_like(scaled[:, :2]))
    out = models.generator(frame, torch.tensor([key_quality(int(q)) for q in quality]), None)
    velocity = torch.zeros_like(frame.flow)
    if distance:
        level = torch.tensor([level_of(int(q), 0) for q in quality])
        frame, _, motion = models.loop(x[:, distance], picture, quality, level)
        out = models.generator(frame, quality, out.memory)
        velocity = velocity_of(motion, distance)
    known = torch.full((len(x),), 2 if distance else 1)
    ahead = x[:, distance + 1 : distance + 1 + AHEAD]
    return AnchorRecords(_bytes(out.picture), velocity, known, _bytes(ahead), quality)


def record(models: Models, bank: Bank, folder: Path, *, first: int, count: int, seed: int = 0) -> None:
    """Write files number `first` to `first + count - 1` of BATCH clips each; what is there already is left.

    `bank` gives clips of FARTHEST + 1 + AHEAD frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        path = folder / f"{number:05d}.safetensors"
        if path.exists():
            continue
        generator = np.random.default_rng([seed, number])
        distance = 0 if generator.random() < KEY_SHARE else int(generator.integers(1, FARTHEST + 1))
        x, quality = bank.batch(BATCH, generator), draw_quality(BATCH, generator)
        made = record_anchors(models, x, quality, distance)
        part = path.with_suffix(".part")
        save_file({name: t.contiguous() for name, t in made._asdict().items()}, part)
        part.replace(path)


class AnchorBank:
    """All records of a folder, in memory; draws which, and where: crops of `crop` pixels, a multiple of 16.

    Raises ValueError where there are none, or they are too small.
    """

    def __init__(self, folder: Path, *, crop: int) -> None:
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        if not files:
            raise ValueError(f"no records in {folder}; make some with --stage record")
        self.records = AnchorRecords(*(torch.cat([f[n] for f in files]) for n in AnchorRecords._fields))
        self.crop = crop
        if min(self.records.anchor.shape[2:]) < crop:
            raise ValueError(f"records in {folder} are smaller than the crop of {crop} pixels")

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Rows (size,3): a record, and the place of the crop in it, in blocks; see `read`."""
        cells = [(n - self.crop) // 16 + 1 for n in self.records.anchor.shape[2:]]
        columns = [generator.integers(0, n, size) for n in (len(self.records.anchor), *cells)]
        return torch.from_numpy(np.stack(columns, 1))

    def read(self, rows: Tensor) -> AnchorRecords:
        """What the rows that `batch` drew stand for."""
        parts = [self._one(*(int(n) for n in row)) for row in rows]
        return AnchorRecords(*(torch.stack(column) for column in zip(*parts, strict=True)))

    def _one(self, number: int, row: int, column: int) -> AnchorRecords:
        r, side, cells = self.records, self.crop, self.crop // 16
        places = (..., slice(16 * row, 16 * row + side), slice(16 * column, 16 * column + side))
        blocks = (..., slice(row, row + cells), slice(column, column + cells))
        return AnchorRecords(
            r.anchor[number][places],
            r.velocity[number][blocks],
            r.known[number],
            r.ahead[number][places],
            r.quality[number],
        )


def _bytes(x: Tensor) -> Tensor:
    return (255 * x.clamp(0, 1)).round().to(torch.uint8)
