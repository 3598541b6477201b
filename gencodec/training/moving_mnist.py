"""Stochastic Moving MNIST: two digits that bounce off the walls in directions nobody can foresee.

64x64 pixels; each digit, 32 pixels a side, moves by whole pixels. Where it leaves the picture it is put back
to the wall, gets a new speed away from it, 1 to 4, and a new one along it, -4 to 4: first for up and down,
then for left and right. Rules: Denton and Fergus 2018 (SVG, arXiv 1802.07687), as MCVD uses them.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE, DIGIT, FASTEST = 64, 32, 4
IMAGES = 2051  # what an idx file of images begins with


class MovingMnist:
    """Draws clips from the images of an idx file (.gz or not). Raises ValueError for another file."""

    def __init__(self, path: Path, *, frames: int, digits: int = 2) -> None:
        self.frames, self.digits = frames, digits
        self.images = read_images(path)

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Clips (size,frames,1,64,64) in [0,1]."""
        clips = torch.zeros(size, self.frames, 1, SIDE, SIDE)
        for _ in range(self.digits):
            shapes = self.images[generator.integers(0, len(self.images), size)]  # (size,32,32)
            for t, places in enumerate(walk(size, self.frames, generator)[0]):
                _add(clips[:, t, 0], shapes, torch.from_numpy(places))
        return clips.clamp_(max=1)


def walk(size: int, frames: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corners of `size` digits, rows before columns: int64 (frames,size,2), all in 0..31.

    And how many walls each has just hit, (frames,size).
    """
    last = SIDE - DIGIT - 1
    place = generator.integers(0, last + 1, (size, 2))
    speed = generator.integers(-FASTEST, FASTEST + 1, (size, 2))
    found, hits = [], np.zeros((frames, size), np.int64)
    for t in range(frames):
        for axis in range(2):
            away = generator.integers(1, FASTEST + 1, size)
            along = generator.integers(-FASTEST, FASTEST + 1, size)
            low, high = place[:, axis] < 0, place[:, axis] > last
            speed[:, axis] = np.where(low, away, np.where(high, -away, speed[:, axis]))
            speed[:, 1 - axis] = np.where(low | high, along, speed[:, 1 - axis])
            place[:, axis] = place[:, axis].clip(0, last)
            hits[t] += low | high
        found.append(place.copy())
        place = place + speed
    return np.stack(found), hits


def read_images(path: Path) -> Tensor:
    """The images of an idx file, brought to 32x32: (N,32,32) in [0,1]. Raises ValueError for another file."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        data = file.read()
    head = np.frombuffer(data[:16], ">i4")
    if len(data) < 16 or head[0] != IMAGES or len(data) != 16 + head[1:].prod(dtype=np.int64):
        raise ValueError(f"{path} is no idx file of images")
    pixels = torch.from_numpy(np.frombuffer(data, np.uint8, offset=16).reshape(head[1:]).copy())
    x = pixels[:, None].float() / 255
    return F.interpolate(x, (DIGIT, DIGIT), mode="bilinear", antialias=True, align_corners=False)[:, 0]


def _add(pictures: Tensor, shapes: Tensor, places: Tensor) -> None:
    """Add shapes (N,32,32) to pictures (N,64,64) at places (N,2)."""
    line = torch.arange(DIGIT)
    rows, columns = (places[:, axis, None] + line for axis in range(2))  # (N,32)
    index = (rows[:, :, None] * SIDE + columns[:, None]).flatten(1)
    pictures.flatten(1).scatter_add_(1, index, shapes.flatten(1))
