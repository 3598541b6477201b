"""Multi-scale structural similarity of 8-bit RGB frames, 0..1; higher is more alike, 1 for equal frames.

Wang, Simoncelli and Bovik 2003 ("Multiscale structural similarity for image quality assessment"), with
their five weights and an 11-tap Gaussian window of deviation 1.5, no padding; channels are averaged after the
product over scales, and negative similarities count as 0. The `pytorch_msssim` package gives the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.metrics.frames import check_frames

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, DEVIATION = 11, 1.5
MIN_SIZE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1  # pixels a side, so that the window fits the last scale
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def ms_ssim(frame_a: Tensor, frame_b: Tensor) -> Tensor:
    """MS-SSIM of uint8 frames (3,H,W) or (N,3,H,W) -> float32 (N,), no gradient.

    Raises ValueError for another type or shape, and for sides below 161 pixels, where the five scales that
    published values are of do not exist.
    """
    a, b = check_frames(frame_a, frame_b)
    if min(a.shape[-2:]) < MIN_SIZE:
        raise ValueError(f"MS-SSIM needs sides of at least {MIN_SIZE} pixels, got {tuple(a.shape[-2:])}")
    x, y = a.float() / 255, b.float() / 255
    product = torch.ones(x.shape[:2], device=x.device)
    for scale, weight in enumerate(WEIGHTS):
        similarity, structure = _similarities(x, y)
        part = similarity if scale == len(WEIGHTS) - 1 else structure
        product *= part.clamp_min(0) ** weight
        x, y = (_halve(picture) for picture in (x, y))
    return product.mean(1)


def _similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its part of contrast and structure: means over places, (N,3) each."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def _blur(x: Tensor) -> Tensor:
    places = torch.arange(WINDOW, device=x.device) - WINDOW // 2
    taps = torch.exp(-(places.float() ** 2) / (2 * DEVIATION**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, WINDOW)
    x = F.conv2d(x, taps.transpose(2, 3), groups=x.shape[1])
    return F.conv2d(x, taps, groups=x.shape[1])


def _halve(x: Tensor) -> Tensor:
    """Means of 2x2 pixels; an odd side gets a line of zeros in front, as in the reference."""
    return F.avg_pool2d(x, 2, padding=(x.shape[2] % 2, x.shape[3] % 2))
