"""How strongly edges are smoothed in training: about as encoders choose, without the entropy coder."""

from __future__ import annotations

import torch
from torch import Tensor

from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.deblock import SIZE, STRENGTHS, smoothed
from gencodec.nn.layers import halved

TEXTURE = 2.0  # as `intra.edge_choice` has it


@torch.no_grad()
def best_blocks(pictures: Tensor, x: Tensor, step: Tensor, judge: LpipsLoss) -> Tensor:
    """Strengths of blocks, int64 (N,H/16,W/16), whatever they cost: for training on pictures (N,3,H,W).

    `step` (N,) of each; H and W multiples of two blocks, which have one strength. Judged at half of the size,
    four times as fast.
    """
    count, _, *size = pictures.shape
    height, width = (n // SIZE for n in size)
    every = torch.arange(len(STRENGTHS), device=pictures.device).repeat_interleave(count)
    blocks = every[:, None, None].expand(-1, height, width)
    many = step.repeat(len(STRENGTHS))
    shown = smoothed(pictures.repeat(len(STRENGTHS), 1, 1, 1), blocks, many).clamp(0, 1)
    target = halved(x).repeat(len(STRENGTHS), 1, 1, 1)
    missed = judge.by_region(halved(shown), target, (height // 2, width // 2), TEXTURE)
    best = missed.unflatten(0, (len(STRENGTHS), count)).argmin(0)
    return best.repeat_interleave(2, 1).repeat_interleave(2, 2)
