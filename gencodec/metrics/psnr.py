"""Peak signal-to-noise ratio of 8-bit RGB frames, in decibels; higher is more alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gencodec.metrics.frames import check_frames

if TYPE_CHECKING:
    from torch import Tensor


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """PSNR per frame over all three channels: uint8 (3,H,W) or (N,3,H,W) -> float64 (N,), decibels.

    10 log10(255^2 / mean squared error); inf for equal frames, so clip before averaging where frames may be
    equal. Summed in integers: the same on every device. Raises ValueError.
    """
    x, y = check_frames(x, y)
    squared = (x.int() - y.int()).square().sum((1, 2, 3), dtype=torch.int64)  # (N,)
    return 10 * torch.log10(255**2 * x[0].numel() / squared.double())
