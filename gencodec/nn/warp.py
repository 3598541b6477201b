"""Warping: looking up a picture where a flow points to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, flow: Tensor, scale: int = 1) -> Tensor:
    """x (B,C,H,W) at each pixel's place plus flow (B,2,H,W), in pixels x, y; bilinear, edges repeated.

    With a `scale`, x (B,C,scale H,scale W) shows the picture that much finer.
    """
    height, width = flow.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=flow.dtype)
    columns = torch.arange(width, device=x.device, dtype=flow.dtype)
    places_x = (columns + flow[:, 0]) * (2 * scale / max(scale * width - 1, 1)) - 1  # (B,H,W) in -1..1
    places_y = (rows[:, None] + flow[:, 1]) * (2 * scale / max(scale * height - 1, 1)) - 1
    grid = torch.stack([places_x, places_y], -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)
