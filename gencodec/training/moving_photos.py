"""Clips from photographs: a camera that pans, turns and zooms, and a shape of another photograph in front.

Films to train on are few and mostly soft, photographs are sharp and of more kinds. What moves is simple but
exact, and the shape covers and uncovers what is behind it, as things do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.training.clips import Part, of_part
from gencodec.training.data import PictureBank

PAN = 6.0  # pixels a frame, at most
TURN = 0.01  # radians a frame
ZOOM = 0.01  # octaves a frame
LARGEST = 2.0  # photographs are reduced by up to so much: sharper
FRONT = 0.6  # share of clips with a shape in front
SHAKE = 0.4  # pixels of a camera held by hand


class MovingPhotos:
    """Draws clips from the photographs below `folders`, or a part of them, as `clips.ClipBank` does.

    Raises ValueError where none is large enough.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        crop: int,
        frames: int,
        limit: int | None = None,
        part: Part = "all",
    ) -> None:
        self.crop, self.frames = crop, frames
        found = PictureBank(folders, crop=crop, limit=limit).pictures
        self.photos = of_part(found, part)  # (3,H,W) uint8
        if not self.photos:
            raise ValueError(f"of {len(found)} photographs none is {part}")

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Clips (size,frames,3,crop,crop) in [0,1]."""
        return torch.stack([self._clip(generator) for _ in range(size)])

    def _clip(self, generator: np.random.Generator) -> Tensor:
        clip = self._filmed(self._photo(generator), generator)
        if generator.random() < FRONT:
            other = self._filmed(self._photo(generator), generator)
            mask = self._shape(generator)
            clip = clip + mask * (other - clip)
        return clip.clamp_(0, 1)

    def _photo(self, generator: np.random.Generator) -> Tensor:
        """A photograph, reduced by a random factor but not below the crop: (1,3,H,W) in [0,1]."""
        photo = self.photos[int(generator.integers(len(self.photos)))][None].float() / 255
        most = min(LARGEST, min(photo.shape[2:]) / self.crop)
        factor = 1 / generator.uniform(1, max(most, 1))
        size = [max(self.crop, round(n * factor)) for n in photo.shape[2:]]
        return F.interpolate(photo, size, mode="bicubic", antialias=True).clamp(0, 1)

    def _filmed(self, photo: Tensor, generator: np.random.Generator) -> Tensor:
        """Frames (T,3,crop,crop) of a camera over a photograph; beyond its edge it is mirrored."""
        height, width = photo.shape[2:]
        half = [(n - self.crop) / 2 for n in (width, height)]
        start = np.array([generator.uniform(-h, h) for h in half]) + np.array([width, height]) / 2
        pan = PAN * generator.random() ** 2 * _unit(generator)
        turn, zoom = TURN * generator.normal() * 0.5, ZOOM * generator.normal()
        time = torch.arange(self.frames) - self.frames / 2
        shake = torch.from_numpy(SHAKE * generator.random() * generator.normal(size=(self.frames, 2))).float()
        centre = torch.tensor(start).float() + time[:, None] * torch.tensor(pan).float() + shake
        grid = _grids(self.crop, centre, turn * time, torch.exp2(zoom * time), (width, height))
        frames = photo.expand(self.frames, -1, -1, -1)
        return F.grid_sample(frames, grid, mode="bicubic", padding_mode="reflection", align_corners=False)

    def _shape(self, generator: np.random.Generator) -> Tensor:
        """A moving ellipse with a sharp edge, 1 inside: (T,1,crop,crop)."""
        line = torch.arange(self.crop) + 0.5
        start = torch.from_numpy(generator.uniform(0, self.crop, 2)).float()
        speed = torch.from_numpy(PAN * generator.random() * _unit(generator)).float()
        time = torch.arange(self.frames) - self.frames / 2
        x, y = (start + time[:, None] * speed).t()[:, :, None, None]
        a, b = self.crop * generator.uniform(0.1, 0.4, 2)
        angle = generator.uniform(0, math.pi)
        dx, dy = line - x, line[:, None] - y  # (T,1,crop), (T,crop,1)
        u = (dx * math.cos(angle) + dy * math.sin(angle)) / a
        v = (dy * math.cos(angle) - dx * math.sin(angle)) / b
        inside = (1 - (u.square() + v.square()).sqrt()) * min(a, b)  # pixels to the edge, about
        return (inside + 0.5).clamp(0, 1)[:, None]


def _unit(generator: np.random.Generator) -> np.ndarray:
    angle = generator.uniform(0, 2 * math.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def _grids(side: int, centre: Tensor, turn: Tensor, zoom: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each of side x side pixels looks, for `grid_sample`: (T,side,side,2).

    centre (T,2) in pixels x, y; turn (T,) in radians; zoom (T,) pixels a pixel.
    """
    line = torch.arange(side) + 0.5 - side / 2
    x, y = line[None, None] * zoom[:, None, None], line[None, :, None] * zoom[:, None, None]
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    at = torch.stack(torch.broadcast_tensors(x * cos - y * sin, x * sin + y * cos), -1)
    at = at + centre[:, None, None]
    return 2 * at / torch.tensor(size) - 1
