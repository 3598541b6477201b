"""What encoders judge predicted frames by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from gencodec.metrics.lpips import Lpips
from gencodec.metrics.ms_ssim import ms_ssim

if TYPE_CHECKING:
    from gencodec.methods.extreme.search import Distance

Metric = Literal["lpips", "ms-ssim"]


def distance_by(metric: Metric, device: torch.device) -> Distance:
    """LPIPS-Alex, or 1 - MS-SSIM."""
    if metric == "lpips":
        net = Lpips.load(device)
        return lambda source, decoded: net(source, decoded)
    return lambda source, decoded: 1 - ms_ssim(source.to(device), decoded.to(device))
