"""What metrics accept: uint8 RGB frames, one or a batch; and checks that say what is wrong with the rest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_frames(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two uint8 batches (N,3,H,W) of one shape; (3,H,W) becomes a batch of one. Raises ValueError."""
    for frames in (a, b):
        if frames.dtype != torch.uint8:
            raise ValueError(f"frames must be torch.uint8, not {frames.dtype}")
    _check_shapes(a, b, ndims=(3, 4))
    return (a[None], b[None]) if a.ndim == 3 else (a, b)


def check_pictures(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless both are floating-point batches of one shape (N,3,H,W)."""
    for picture in (x, y):
        if not picture.is_floating_point():
            raise ValueError(f"pictures must be floating point in [0, 1], not {picture.dtype}")
    _check_shapes(x, y, ndims=(4,))


def pad_to(x: Tensor, size: int) -> Tensor:
    """Repeat the last row and column of (N,C,H,W) until both sides have at least `size` pixels."""
    height, width = x.shape[-2:]
    if height >= size and width >= size:
        return x
    return F.pad(x, (0, max(size - width, 0), 0, max(size - height, 0)), mode="replicate")


def _check_shapes(a: Tensor, b: Tensor, *, ndims: tuple[int, ...]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if a.ndim not in ndims or a.shape[-3] != 3 or 0 in a.shape:
        wanted = " or ".join("(3, H, W)" if n == 3 else "(N, 3, H, W)" for n in ndims)
        raise ValueError(f"shape must be {wanted}, not {tuple(a.shape)}")
