"""What --data and --photos name, one bank of clips for the stages of all methods."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.colour import LUMA_WEIGHTS
from gencodec.training.clips import PARTS, ClipBank
from gencodec.training.data import Bank
from gencodec.training.moving_photos import MovingPhotos

TRIES = 64  # draws for one clip that is sharp enough


class Either:
    """Batches whose members come from several banks in turn."""

    def __init__(self, banks: Sequence[Bank]) -> None:
        self.banks = banks

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """`size` clips, as many from each bank as can be."""
        turn = int(generator.integers(len(self.banks)))
        counts = [
            len(range((i + turn) % len(self.banks), size, len(self.banks))) for i in range(len(self.banks))
        ]
        parts = [b.batch(n, generator) for b, n in zip(self.banks, counts, strict=True) if n]
        return torch.cat(parts)


class Sharp:
    """Clips of a bank whose first frame has a `sharpness` of `least` or more.

    Films on the net are mostly soft, and what a codec leaves of sharp ones looks different: a generator that
    has seen few of them repairs them badly (docs/decisions.md). Where TRIES draws find none sharp enough, the
    sharpest of them is taken.
    """

    def __init__(self, bank: Bank, least: float) -> None:
        self.bank, self.least = bank, least

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """`size` clips (size,T,3,H,W) in [0,1]."""
        return torch.cat([self._one(generator) for _ in range(size)])

    def _one(self, generator: np.random.Generator) -> Tensor:
        best, most = torch.empty(0), -1.0
        for _ in range(TRIES):
            clip = self.bank.batch(1, generator)
            if (found := sharpness(clip[0, 0])) > most:
                best, most = clip, found
            if most >= self.least:
                break
        return best


def sharpness(picture: Tensor) -> float:
    """Mean absolute Laplacian of the luma of a picture (3,H,W) in [0,1], in steps of 8 bits.

    Of soft films 2 to 10, of sharp ones 15 to 35.
    """
    of_red, of_blue = LUMA_WEIGHTS["bt601"]
    weights = picture.new_tensor([of_red, 1 - of_red - of_blue, of_blue])
    luma = 255 * torch.einsum("chw,c->hw", picture, weights)
    kernel = luma.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return F.conv2d(luma[None, None], kernel[None, None]).abs().mean().item()


def add_clips(parser: argparse.ArgumentParser, stages: str) -> None:
    """The options that `named_clips` reads."""
    add = parser.add_argument
    add("--data", type=Path, nargs="+", help=f"folders of clips ({stages})")
    add("--photos", type=Path, nargs="+", help="folders of photographs that move, instead or besides (same)")
    add("--part", choices=PARTS, default="all", help="one clip in 16 is held-out, the rest training (same)")
    add("--sharp", type=float, default=0.0, help="take only clips with such a sharpness, e.g. 15 (same)")
    add("--short-side", type=int, help="reduce clips to so many pixels on the short side first (same)")
    add("--limit", type=int, help="use only so many clips and photographs (same)")


def named_clips(options: argparse.Namespace, *, crop: int, frames: int, most: int) -> Bank:
    """Clips (T,3,crop,crop) of `frames` frames, of the first `most` of each film."""
    kept = {"crop": crop, "frames": frames, "limit": options.limit, "part": options.part}
    banks: list[Bank] = []
    if options.data:
        banks.append(ClipBank(options.data, most=most, short_side=options.short_side, **kept))
    if options.photos:
        banks.append(MovingPhotos(options.photos, **kept))
    if options.sharp:
        banks = [Sharp(bank, options.sharp) for bank in banks]
    return banks[0] if len(banks) == 1 else Either(banks)
