"""Block motion as encoders find it: exhaustive searches of small pictures, then finer and finer steps.

One search sees detail and 40 pixels of motion, the other, of pictures half as wide, 96: a camera that follows
a car goes so far in three frames. Each block takes what fits it better in the end.

It minimises the error under the window that compensation has (`nn.motion`), and bits. What it finds is sent,
so its rounding reaches no other machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.motion import BLOCK, doubled

COARSE, FAR = 4, 8  # the exhaustive searches see every so many pixels
REACHES = {COARSE: 10, FAR: 12}  # such pixels each way: 40 and 96 pixels of motion
STEPS = (4.0, 2.0, 1.0, 0.5)  # pixels around what was found before
ROUNDS = 3  # of smoothing


@torch.no_grad()
def block_motion(before: Tensor, after: Tensor, price: Tensor, finest: float = STEPS[-1]) -> Tensor:
    """Flow (B,2,H/16,W/16), pixels x and y, that leads from `after` back to `before`.

    Pictures (B,3,H,W) in [0,1], sides multiples of 16. `price` (B,) is what a bit of motion costs, in mean
    absolute error over a block: 0.0002 is little, 0.002 much. `finest` is the smallest step:
    1 or 0.5 pixels.
    """
    old, new = (picture.mean(1, keepdim=True) for picture in (before, after))
    finer = at_steps(old, round(1 / finest)) if finest < 1 else old
    search = _Search(old, finer, new, price[:, None, None, None], finest)
    return search.better([search.found(coarse) for coarse in REACHES])


class _Search(NamedTuple):
    """Grey pictures (B,1,H,W), the old one in steps of `finest` pixels too; the price (B,1,1,1) of a bit."""

    old: Tensor
    finer: Tensor
    new: Tensor
    price: Tensor
    finest: float

    def found(self, coarse: int) -> Tensor:
        """The flow (B,2,h,w) that an exhaustive search of every `coarse` pixels leads to."""
        reach = REACHES[coarse]
        old, new = (F.avg_pool2d(picture, coarse) for picture in (self.old, self.new))
        costs = _search(old, new, reach, BLOCK // coarse)
        line = torch.arange(-reach, reach + 1, device=costs.device, dtype=costs.dtype)
        flow = _smoothed(costs, coarse * line, self.price)
        for step in (step for step in STEPS if self.finest <= step < coarse):
            flow = self.refined(flow, step)
        return flow

    def refined(self, flow: Tensor, step: float) -> Tensor:
        """The best of each block's motion, the eight around it, and the median of what is near."""
        expected = _median_of_neighbours(flow)[:, None]
        around = flow[:, None] + step * _offsets(1, flow.device)[:, :, None, None]  # (B,9,2,h,w)
        return self.cheapest(torch.cat([around, expected], 1), expected, step)

    def better(self, flows: list[Tensor]) -> Tensor:
        """For each block that of the flows (B,2,h,w) which costs less."""
        expected = torch.stack([_median_of_neighbours(flow) for flow in flows], 1)
        return self.cheapest(torch.stack(flows, 1), expected, self.finest)

    def cheapest(self, tried: Tensor, expected: Tensor, step: float) -> Tensor:
        """Of tried (B,n,2,h,w), in whole steps, what has the least error and bits: (B,2,h,w)."""
        old, steps = (self.old, 1) if step >= 1 else (self.finer, round(1 / step))
        errors = block_errors(old, self.new, steps * tried.flatten(0, 1), steps)
        costs = errors.unflatten(0, tried.shape[:2]) + self.price * _bits((tried - expected).transpose(1, 2))
        best = costs.argmin(1)[:, None, None].expand(-1, 1, 2, -1, -1)
        return tried.gather(1, best)[:, 0]


def _offsets(reach: int, device: torch.device) -> Tensor:
    line = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)


def _block_error(missed: Tensor, cells: int) -> Tensor:
    """Mean (N,1,h,w) of absolute errors (N,1,H,W) under each block's window, two blocks wide.

    A block has `cells` x `cells` of the places in `missed`.
    """
    down, right = (_weights(size, cells).to(missed.device) for size in missed.shape[2:])
    return down.t() @ (missed @ right)


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


def _search(old: Tensor, new: Tensor, reach: int, cells: int) -> Tensor:
    """Error (B,N,N,h,w) of every block of `cells` x `cells` pixels at every offset, y first; of (B,1,H,W)."""
    b, _, height, width = old.shape
    padded = F.pad(old, (reach,) * 4, mode="replicate")[:, 0]
    moved = padded.unfold(1, height, 1).unfold(2, width, 1)  # (B,2R+1,2R+1,H,W), y first
    missed = (moved - new[:, :, None]).abs_().reshape(-1, 1, height, width)
    errors = _block_error(missed, cells)
    return errors.reshape(b, *moved.shape[1:3], *errors.shape[2:])


def _bits(distance: Tensor) -> Tensor:
    """About what differences of vectors (B,2,...) to the expected ones cost; pixels in, bits (B,...) out."""
    return _bits_each(distance).sum(1)


def _bits_each(distance: Tensor) -> Tensor:
    """The same of single components."""
    return torch.log2(1 + 4 * distance.abs())


def _smoothed(costs: Tensor, line: Tensor, price: Tensor) -> Tensor:
    """The motion (B,2,h,w) of each block that is cheap and near to what its neighbours have.

    costs (B,N,N,h,w) of offsets y and x, each one of `line` (N).
    """

    def cheapest(expected: Tensor) -> Tensor:
        bits = _bits_each(expected[:, :, None] - line[:, None, None])  # (B,2,N,h,w): x by itself, y too
        together = bits[:, 1, :, None] + bits[:, 0, None]
        best = (costs + price[..., None] * together).flatten(1, 2).argmin(1)
        return torch.stack([line[best % len(line)], line[best // len(line)]], 1)

    flow = cheapest(costs.new_zeros(len(costs), 2, 1, 1))
    for _ in range(ROUNDS):
        flow = cheapest(_median_of_neighbours(flow))
    return flow


def _median_of_neighbours(flow: Tensor) -> Tensor:
    """Median over 3x3 blocks, for x and y by themselves."""
    b, _, height, width = flow.shape
    near = F.unfold(F.pad(flow, (1,) * 4, mode="replicate"), 3).view(b, 2, 9, height, width)
    return near.median(2).values
