"""Pictures to train on, decoded once and kept as uint8: crops, flips and scales are drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


def read_clip(path: Path) -> Iterator[np.ndarray]:
    """Frames of a clip as uint8 RGB (H,W,3): by PyAV, or by OpenCV on machines that have only that."""
    try:
        import av
    except ImportError:
        yield from _read_clip_opencv(path)
        return
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _read_clip_opencv(path: Path) -> Iterator[np.ndarray]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        while (read := capture.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def read_image(path: Path) -> np.ndarray:
    """A photograph as uint8 RGB (H,W,3)."""
    return next(iter(read_clip(path)))


class PictureBank:
    """Still pictures from clips (every `stride`-th frame) and photographs below `folders`; those too small are left out.

    Raises ValueError if nothing is left.
    """

    def __init__(self, folders: Sequence[Path], *, crop: int, stride: int = 8, limit: int | None = None) -> None:
        self.crop = crop
        self.pictures: list[Tensor] = []  # (3,H,W) uint8
        self.weights: list[float] = []
        for path in (p for folder in folders for p in sorted(folder.rglob("*"))):
            if limit is not None and len(self.pictures) >= limit:
                break
            if path.suffix.lower() in VIDEO_SUFFIXES:
                self._add((f for i, f in enumerate(read_clip(path)) if i % stride == 0), weight=1.0)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                self._add([read_image(path)], weight=4.0)  # photographs are sharper than H.264 frames
        if not self.pictures:
            raise ValueError(f"no clip or photograph of at least {crop} pixels a side below {[str(f) for f in folders]}")

    def _add(self, frames: Iterator[np.ndarray] | list[np.ndarray], weight: float) -> None:
        for frame in frames:
            if min(frame.shape[:2]) >= self.crop:
                self.pictures.append(torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1))))
                self.weights.append(weight)

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Random crops, half of them mirrored, a third from a reduced picture: (size,3,crop,crop) in [0,1]."""
        share = np.asarray(self.weights) / sum(self.weights)
        chosen = generator.choice(len(self.pictures), size, p=share)
        return torch.stack([self._crop(self.pictures[i], generator) for i in chosen])

    def _crop(self, picture: Tensor, generator: np.random.Generator) -> Tensor:
        side = self.crop
        if generator.random() < 0.35:
            side = int(min(*picture.shape[1:], self.crop * generator.uniform(1, 2)))
        top, left = (int(generator.integers(0, n - side + 1)) for n in picture.shape[1:])
        x = picture[:, top : top + side, left : left + side].float() / 255
        if side != self.crop:
            x = F.interpolate(x[None], (self.crop, self.crop), mode="bicubic", antialias=True)[0].clamp(0, 1)
        return x.flip(2) if generator.random() < 0.5 else x
