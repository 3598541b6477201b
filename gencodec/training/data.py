"""Pictures to train on, decoded once and kept as uint8: crops, flips and scales are drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
REDUCED_SHARE = 0.35  # so many crops are taken larger and reduced


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

    if path.suffix.lower() in IMAGE_SUFFIXES:  # VideoCapture takes 001.jpg for the first of a sequence
        yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        return
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
    """Still pictures from clips (every `stride`-th frame) and photographs below `folders`.

    Those smaller than `crop` are left out. Raises ValueError if nothing is left.
    """

    def __init__(
        self, folders: Sequence[Path], *, crop: int, stride: int = 8, limit: int | None = None
    ) -> None:
        self.crop = crop
        self.pictures: list[Tensor] = []  # (3,H,W) uint8
        self.weights: list[float] = []
        for path in (p for folder in folders for p in sorted(folder.rglob("*"))):
            if limit is not None and len(self.pictures) >= limit:
                break
            if path.suffix.lower() in VIDEO_SUFFIXES:
                self._add(islice(read_clip(path), 0, None, stride), weight=1.0)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                self._add([read_image(path)], weight=4.0)  # photographs are sharper than H.264 frames
        if not self.pictures:
            raise ValueError(
                f"no clip or photograph of at least {crop} pixels a side below {[str(f) for f in folders]}"
            )
        self.share = np.asarray(self.weights) / sum(self.weights)

    def _add(self, frames: Iterator[np.ndarray] | list[np.ndarray], weight: float) -> None:
        for frame in frames:
            if min(frame.shape[:2]) >= self.crop:
                self.pictures.append(torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1))))
                self.weights.append(weight)

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Random crops (size,3,crop,crop) in [0,1], half of them mirrored, a third reduced."""
        chosen = generator.choice(len(self.pictures), size, p=self.share)
        return torch.stack([self._crop(self.pictures[i], generator) for i in chosen])

    def _crop(self, picture: Tensor, generator: np.random.Generator) -> Tensor:
        side = self.crop
        if generator.random() < REDUCED_SHARE:
            side = int(min(*picture.shape[1:], self.crop * generator.uniform(1, 2)))
        top, left = (int(generator.integers(0, n - side + 1)) for n in picture.shape[1:])
        x = picture[:, top : top + side, left : left + side].float() / 255
        if side != self.crop:
            x = F.interpolate(x[None], (self.crop, self.crop), mode="bicubic", antialias=True)[0].clamp(0, 1)
        return x.flip(2) if generator.random() < 0.5 else x


class DeviceBank:
    """The pictures of a `PictureBank` in one buffer on a device; batches are cut by a few large operations.

    A Python loop over pictures would starve a GPU. All reduced crops of a batch have one size.
    """

    def __init__(self, bank: PictureBank, device: torch.device) -> None:
        self.crop, self.share = bank.crop, bank.share
        self.sizes = np.array([picture.shape[1:] for picture in bank.pictures])  # (N,2): height, width
        ends = np.cumsum(3 * self.sizes.prod(1))
        self.starts = np.concatenate([[0], ends[:-1]])
        self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8, device=device)
        for picture, start in zip(bank.pictures, self.starts, strict=True):
            self.pixels[start : start + picture.numel()] = picture.flatten().to(device)

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """See `PictureBank.batch`; the reduced crops come last."""
        chosen = generator.choice(len(self.sizes), size, p=self.share)
        reduced = int(generator.binomial(size, REDUCED_SHARE))
        whole, larger = chosen[: size - reduced], chosen[size - reduced :]
        parts = [self._cut(whole, self.crop, generator)]
        if reduced:
            side = int(min(self.sizes[larger].min(), self.crop * generator.uniform(1, 2)))
            x = self._cut(larger, side, generator)
            parts.append(F.interpolate(x, (self.crop, self.crop), mode="bicubic", antialias=True).clamp(0, 1))
        return torch.cat(parts)

    def _cut(self, chosen: np.ndarray, side: int, generator: np.random.Generator) -> Tensor:
        """Windows of the chosen pictures at random places, half of them mirrored: (B,3,side,side)."""
        height, width = self.sizes[chosen].T
        top, left = (generator.integers(0, n - side + 1) for n in (height, width))
        mirrored = generator.random(len(chosen)) < 0.5
        corner = self.starts[chosen] + top * width + left + mirrored * (side - 1)
        step = np.where(mirrored, -1, 1)
        numbers = np.stack([corner, height * width, width, step]).astype(np.int64)
        start, plane, row, column = torch.from_numpy(numbers).to(self.pixels.device)[:, :, None, None, None]
        colours = torch.arange(3, device=self.pixels.device)[:, None, None]
        places = torch.arange(side, device=self.pixels.device)
        index = start + plane * colours + row * places[:, None] + column * places
        return self.pixels[index].float() / 255


class Bank(Protocol):
    """What batches are drawn from."""

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """`size` of them, in [0,1]."""
        ...


class BatchSource:
    """An endless sequence of random batches on `device`, which a checkpoint can go on with."""

    def __init__(self, bank: Bank, size: int, device: torch.device, seed: int) -> None:
        self.bank: Bank = bank
        if isinstance(bank, PictureBank) and device.type != "cpu":
            self.bank = DeviceBank(bank, device)
        self.size, self.device = size, device
        self.generator = np.random.default_rng(seed)

    def next(self) -> Tensor:
        """The next batch (size,...) in [0,1]; pictures channels last."""
        batch = self.bank.batch(self.size, self.generator)
        layout = torch.channels_last if batch.dim() == 4 else torch.contiguous_format
        return batch.to(self.device, memory_format=layout)

    def state(self) -> dict[str, Any]:
        """The generator's state, plain integers."""
        return dict(self.generator.bit_generator.state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.generator.bit_generator.state = state
