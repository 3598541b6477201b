"""Clips to train on: runs of consecutive frames, decoded once and kept as uint8."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.training.data import VIDEO_SUFFIXES, read_clip

REDUCED_SHARE = 0.35  # so many crops are taken larger and reduced: sharper, and with smaller motion
SLOW_SHARE = 0.7  # so many take every frame, the others every second one
HELD_OUT = 16  # one clip in so many is kept from training, to see what is learned by heart
CUT = 0.1  # mean absolute change of the picture, in [0,1], that is taken for a scene cut


Part = Literal["all", "training", "held-out"]
PARTS: tuple[Part, ...] = get_args(Part)
T = TypeVar("T")


class ClipBank:
    """The first `most` frames of every clip below `folders` that is large and long enough.

    `part`: "all", or one clip in HELD_OUT, "held-out", or the others, "training". Clips whose short side has
    more pixels than `short_side` are reduced to it first: what is finer than films on the net are. Raises
    ValueError if nothing is left.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        crop: int,
        frames: int,
        most: int = 48,
        limit: int | None = None,
        part: Part = "all",
        short_side: int | None = None,
    ) -> None:
        if short_side is not None and short_side < crop:
            raise ValueError(f"clips of {short_side} pixels a side hold no crop of {crop}")
        self.crop, self.frames = crop, frames
        self.clips: list[Tensor] = []  # (N,3,H,W) uint8
        paths = sorted(p for f in folders for p in f.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        for path in of_part(paths, part)[:limit]:
            for scene in scenes([f.transpose(2, 0, 1) for f in islice(read_clip(path), most)]):
                if len(scene) > 2 * frames and min(scene.shape[2:]) >= crop:
                    self.clips.append(scene if short_side is None else reduced(scene, short_side))
        if not self.clips:
            raise ValueError(
                f"no clip of {2 * frames + 1} frames, {crop} pixels a side, below {[str(f) for f in folders]}"
            )

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Random runs (size,frames,3,crop,crop) in [0,1], half of them mirrored, half backwards."""
        chosen = generator.integers(0, len(self.clips), size)
        return torch.stack([self._run(self.clips[i], generator) for i in chosen])

    def _run(self, clip: Tensor, generator: np.random.Generator) -> Tensor:
        stride = 1 if generator.random() < SLOW_SHARE else 2
        first = int(generator.integers(0, len(clip) - stride * (self.frames - 1)))
        taken = clip[first : first + stride * self.frames : stride]
        side = self.crop
        if generator.random() < REDUCED_SHARE:
            side = int(min(*clip.shape[2:], self.crop * generator.uniform(1, 2)))
        top, left = (int(generator.integers(0, n - side + 1)) for n in clip.shape[2:])
        x = taken[:, :, top : top + side, left : left + side].float() / 255
        if side != self.crop:
            x = F.interpolate(x, (self.crop, self.crop), mode="bicubic", antialias=True).clamp(0, 1)
        x = x.flip(3) if generator.random() < 0.5 else x
        return x.flip(0) if generator.random() < 0.5 else x


def of_part(things: Sequence[T], part: Part) -> list[T]:
    """The things of a part; see `ClipBank`."""
    is_held_out = [i % HELD_OUT == HELD_OUT // 2 for i in range(len(things))]
    wanted = part == "held-out"
    return [one for one, held in zip(things, is_held_out, strict=True) if part == "all" or held == wanted]


def reduced(clip: Tensor, short_side: int) -> Tensor:
    """A clip (N,3,H,W) uint8 with at most `short_side` pixels on its short side."""
    scale = short_side / min(clip.shape[2:])
    if scale >= 1:
        return clip
    size = [max(short_side, round(scale * n)) for n in clip.shape[2:]]
    frames = [F.interpolate(f[None].float(), size, mode="bicubic", antialias=True) for f in clip]
    return torch.cat(frames).round().clamp(0, 255).to(torch.uint8)


def scenes(frames: Sequence[np.ndarray]) -> list[Tensor]:
    """Consecutive frames (3,H,W) uint8, split where the picture changes at once: (N,3,H,W) each."""
    found: list[list[np.ndarray]] = [[]]
    for frame in frames:
        if found[-1] and np.abs(found[-1][-1].astype(np.int16) - frame).mean() > 255 * CUT:
            found.append([])
        found[-1].append(frame)
    return [torch.from_numpy(np.stack(scene)) for scene in found if scene]
