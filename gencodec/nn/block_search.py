"""Block motion as encoders find it: an exhaustive search of small pictures, then finer and finer steps.

It minimises the error under the window that compensation has (`nn.motion`), and bits. What it finds is sent,
so its rounding reaches no other machine.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.motion import BLOCK, doubled

COARSE = 4  # the exhaustive search sees every so many pixels
REACH = 10  # coarse pixels each way: 40 pixels of motion
STEPS = (2.0, 1.0, 0.5)  # pixels around what was found before
ROUNDS = 3  # of smoothing


@torch.no_grad()
def block_motion(before: Tensor, after: Tensor, price: Tensor, finest: float = STEPS[-1]) -> Tensor:
    """Flow (B,2,H/16,W/16), pixels x and y, that leads from `after` back to `before`.

    Pictures (B,3,H,W) in [0,1], sides multiples of 16. `price` (B,) is what a bit of motion costs, in mean
    absolute error over a block: 0.0002 is little, 0.002 much. `finest` is the smallest step:
    1 or 0.5 pixels.
    """
    old, new = (picture.mean(1, keepdim=True) for picture in (before, after))
    price = price[:, None, None, None]
    offsets = COARSE * _offsets(REACH, old.device)  # (N,2)
    costs = _search(F.avg_pool2d(old, COARSE), F.avg_pool2d(new, COARSE))  # (B,N,h,w)
    flow = _smoothed(costs, offsets, price)
    for step in [step for step in STEPS if step >= finest]:
        flow = _refined(old, new, flow, step, price)
    return flow


def _offsets(reach: int, device: torch.device) -> Tensor:
    line = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)


def _block_error(difference: Tensor, cells: int) -> Tensor:
    """Mean absolute value (N,1,h,w) of (N,1,H,W) under each block's window, two blocks wide.

    A block has `cells` x `cells` of the places in `difference`.
    """
    down, right = (_weights(size, cells).to(difference.device) for size in difference.shape[2:])
    return down.t() @ (difference.abs() @ right)


@lru_cache(maxsize=32)
def _weights(size: int, cells: int) -> Tensor:
    """How each of `size` places in a line counts for each block: (size,size/cells). Edges are repeated."""
    window = 1 - ((torch.arange(2 * cells) + 0.5) / cells - 1).abs()
    places = F.pad(torch.eye(size)[None], (cells // 2,) * 2, mode="replicate")[0]
    return places.unfold(1, 2 * cells, cells) @ (window / window.sum())


def at_steps(picture: Tensor, steps: int) -> Tensor:
    """The picture where motion has `steps` a pixel, 1 or 2: (B,C,H,W) -> (B,C,steps H,steps W)."""
    return picture if steps == 1 else doubled(picture)


def block_errors(old: Tensor, new: Tensor, motion: Tensor, steps: int = 1) -> Tensor:
    """Mean absolute error (B,h,w) of each block under its window, moved by motion (B,2,h,w).

    Motion is x and y in whole numbers, `steps` a pixel; old (N,1,steps H,steps W) is as `at_steps` makes it,
    new (N,1,H,W), and as many motions in a row belong to each of the N pairs.
    """
    count, height, width = len(motion) // len(old), *motion.shape[-2:]
    blocks = new.reshape(len(new), 1, height, BLOCK, width, BLOCK).transpose(3, 4)  # (N,1,h,w,16,16)
    moved = _blocks_at(old, motion, steps).unflatten(0, (len(old), count))
    missed = (moved - blocks).abs_().reshape(-1, 1, BLOCK, BLOCK)
    cells = F.avg_pool2d(missed, COARSE).view(len(motion), height, width, *(BLOCK // COARSE,) * 2)
    whole = cells.transpose(2, 3).reshape(len(motion), 1, *(BLOCK // COARSE * n for n in (height, width)))
    return _block_error(whole, BLOCK // COARSE)[:, 0]


def _blocks_at(old: Tensor, motion: Tensor, steps: int) -> Tensor:
    """What motion (B,2,h,w) of whole blocks points to in old (N,1,steps H,steps W): (B,h,w,16,16)."""
    margin, reach = BLOCK * steps, (BLOCK - 1) * steps
    padded = F.pad(old, (margin,) * 4, mode="replicate")[:, 0].contiguous()
    count, rows, columns = padded.shape
    every = padded.as_strided(  # a block at each place; no copy
        (count, rows - reach, columns - reach, BLOCK, BLOCK),
        (rows * columns, columns, 1, steps * columns, steps),
    )
    height, width = motion.shape[-2:]
    down = margin * torch.arange(1, height + 1, device=old.device)[:, None] + motion[:, 1].long()
    right = margin * torch.arange(1, width + 1, device=old.device) + motion[:, 0].long()
    picture = torch.arange(count, device=old.device).repeat_interleave(len(motion) // count)[:, None, None]
    return every[picture, down.clamp_(0, rows - margin), right.clamp_(0, columns - margin)]


def _search(old: Tensor, new: Tensor) -> Tensor:
    """Error of every block at every offset (x, y) of coarse pictures (B,1,H,W): (B,N,h,w)."""
    b, _, height, width = old.shape
    padded = F.pad(old, (REACH,) * 4, mode="replicate")[:, 0]
    moved = padded.unfold(1, height, 1).unfold(2, width, 1)  # (B,2R+1,2R+1,H,W), y first
    errors = _block_error((moved - new[:, :, None]).reshape(-1, 1, height, width), BLOCK // COARSE)
    return errors.reshape(b, -1, *errors.shape[2:])


def _bits(distance: Tensor) -> Tensor:
    """About what differences of vectors (B,2,...) to the expected ones cost; pixels in, bits (B,...) out."""
    return torch.log2(1 + 4 * distance.abs()).sum(1)


def _smoothed(costs: Tensor, offsets: Tensor, price: Tensor) -> Tensor:
    """The offset (B,2,h,w) of each block that is cheap and near to what its neighbours have."""
    table = offsets.t()[None, :, :, None, None]  # (1,2,N,1,1)
    flow = offsets[(costs + price * _bits(table)).argmin(1)].permute(0, 3, 1, 2)
    for _ in range(ROUNDS):
        expected = _median_of_neighbours(flow)
        flow = offsets[(costs + price * _bits(expected[:, :, None] - table)).argmin(1)].permute(0, 3, 1, 2)
    return flow


def _median_of_neighbours(flow: Tensor) -> Tensor:
    """Median over 3x3 blocks, for x and y by themselves."""
    b, _, height, width = flow.shape
    near = F.unfold(F.pad(flow, (1,) * 4, mode="replicate"), 3).view(b, 2, 9, height, width)
    return near.median(2).values


def _refined(old: Tensor, new: Tensor, flow: Tensor, step: float, price: Tensor) -> Tensor:
    """The best of each block's motion, the eight around it, and what its neighbours have in the median."""
    expected, steps = _median_of_neighbours(flow), max(round(1 / step), 1)
    around = flow[:, None] + step * _offsets(1, flow.device)[:, :, None, None]  # (B,9,2,h,w)
    tried = torch.cat([around, expected[:, None]], 1)
    errors = block_errors(at_steps(old, steps), new, steps * tried.flatten(0, 1), steps)
    errors = errors.unflatten(0, tried.shape[:2])
    costs = errors + price * _bits(tried.transpose(1, 2) - expected[:, :, None])
    best = costs.argmin(1)[:, None, None].expand(-1, 1, 2, -1, -1)
    return tried.gather(1, best)[:, 0]
