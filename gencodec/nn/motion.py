"""Block motion for encoders: where each block of a frame is found in the frame before.

Exhaustive search at half the resolution, made smooth by what the neighbours found, then refined to half a
pixel. Only encoders run it, and what it finds is sent, so its rounding reaches no other machine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.warp import warp

BLOCK = 16  # pixels a side
REACH = 10  # half-resolution pixels, each way: 20 pixels of motion
REFINED = (-1.0, -0.5, 0.0, 0.5, 1.0)  # pixels around what the search found
ROUNDS = 3  # of smoothing


@torch.no_grad()
def block_motion(before: Tensor, after: Tensor, smoothness: Tensor) -> Tensor:
    """Flow (B,2,H/16,W/16), pixels x and y, that leads from `after` back to `before`.

    Pictures (B,3,H,W) in [0,1], sides multiples of 16. `smoothness` (B,) is what a pixel of difference to a
    neighbour's motion costs, in mean absolute error: 0.001 is little, 0.01 much.
    """
    old, new = (picture.mean(1, keepdim=True) for picture in (before, after))
    offsets = _offsets(REACH, old.device)  # (N,2)
    costs = _search(F.avg_pool2d(old, 2), F.avg_pool2d(new, 2), offsets)  # (B,N,h,w)
    chosen = _smoothed(costs, 2 * offsets, smoothness)
    return _refined(old, new, chosen, smoothness)


def upsampled(flow: Tensor, factor: int) -> Tensor:
    """Flow of blocks (B,2,h,w) for every one of `factor` x `factor` places in them; values stay pixels."""
    return F.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False)


def _offsets(reach: int, device: torch.device) -> Tensor:
    line = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)


def _search(old: Tensor, new: Tensor, offsets: Tensor) -> Tensor:
    """Mean absolute error of every block at every offset (x, y): (B,N,h,w)."""
    height, width = old.shape[-2:]
    padded = F.pad(old, (REACH,) * 4, mode="replicate")
    costs = []
    for x, y in offsets.int().tolist():
        moved = padded[..., REACH + y : REACH + y + height, REACH + x : REACH + x + width]
        costs.append(F.avg_pool2d((moved - new).abs(), BLOCK // 2))
    return torch.cat(costs, 1)


def _smoothed(costs: Tensor, offsets: Tensor, smoothness: Tensor) -> Tensor:
    """The offset (B,2,h,w) of each block that is cheap and near to what its neighbours have."""
    price = smoothness[:, None, None, None]
    flow = offsets[(costs + price * offsets.abs().sum(1)[:, None, None] / 4).argmin(1)].permute(0, 3, 1, 2)
    for _ in range(ROUNDS):
        expected = _median_of_neighbours(flow)
        distance = (expected[:, None] - offsets[None, :, :, None, None]).abs().sum(2)  # (B,N,h,w)
        flow = offsets[(costs + price * distance).argmin(1)].permute(0, 3, 1, 2)
    return flow


def _median_of_neighbours(flow: Tensor) -> Tensor:
    """Median over 3x3 blocks, for x and y by themselves."""
    b, _, height, width = flow.shape
    near = F.unfold(F.pad(flow, (1,) * 4, mode="replicate"), 3).view(b, 2, 9, height, width)
    return near.median(2).values


def _refined(old: Tensor, new: Tensor, flow: Tensor, smoothness: Tensor) -> Tensor:
    expected = _median_of_neighbours(flow)
    best, least = flow, torch.full_like(flow[:, :1], float("inf"))
    for x in REFINED:
        for y in REFINED:
            tried = flow + torch.tensor([x, y], device=flow.device)[None, :, None, None]
            error = F.avg_pool2d((warp(old, upsampled(tried, BLOCK)) - new).abs(), BLOCK)
            distance = (tried - expected).abs().sum(1, keepdim=True)
            cost = error + smoothness[:, None, None, None] * distance
            best = torch.where(cost < least, tried, best)
            least = torch.minimum(cost, least)
    return best
