"""LPIPS as something to descend: about the value of `Lpips`, with gradients, in less than half of its time.

Products are in bfloat16 where the processor has them, from weights that are converted once; other processors
filter by Winograd, which takes two thirds of the time of plain convolutions there. The distance of
two maps is in float32, and its gradient is written out: with u = a / |a|, v the other map's unit vectors, w
the head, and all sums over channels, it is the mean over h, w of sum w (u - v)^2, and with g = w (u - v)

    d/da = 2 (g - u sum(u g)) / |a|
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.metrics.frames import pad_to
from gencodec.metrics.lpips import MIN_SIZE, Lpips
from gencodec.nn.precision import has_bfloat16
from gencodec.nn.winograd import use_winograd

LEAST = 1e-10  # of a vector's length, as `Lpips` has it
SMALL = 1e-6  # as DISTS has it
DEEP = 2  # last maps of the five, which take two fifths of the time


class LpipsLoss(nn.Module):
    """Distance of float pictures (N,3,H,W) in [0,1] to as many others, or to one -> (N,); gradients reach the
    first alone.

    On the device of `lpips`, whose weights it has. `half`: products in bfloat16; None: where that is faster.
    """

    def __init__(self, lpips: Lpips, half: bool | None = None) -> None:
        super().__init__()
        self.backbone = deepcopy(lpips.backbone)
        self.heads = [lpips.get_buffer(f"head{k}") for k in range(5)]
        device = self.heads[0].device
        if has_bfloat16(device) if half is None else half:
            self.backbone.convs.bfloat16()
        elif device.type == "cpu":
            use_winograd(self.backbone.convs)

    def forward(self, picture: Tensor, target: Tensor, deep: float = 1.0) -> Tensor:
        """Distance (N,) of `picture` to `target`; the DEEP last maps count `deep` times, at 0 for nothing."""
        count = len(self.heads) if deep else len(self.heads) - DEEP
        with torch.no_grad():
            wanted = self.backbone(pad_to(target, MIN_SIZE), count)
        maps = self.backbone(pad_to(picture, MIN_SIZE), count)
        taps = [_Tap.apply(*each) for each in zip(maps, wanted, self.heads[:count], strict=True)]
        weights = [1.0] * (len(self.heads) - DEEP) + [deep] * DEEP
        return torch.stack([w * tap for w, tap in zip(weights, taps, strict=False)]).sum(0)

    @torch.no_grad()
    def by_region(
        self, pictures: Tensor, target: Tensor, grid: tuple[int, int], texture: float = 0.0
    ) -> Tensor:
        """Where pictures (N,3,H,W) are unlike target (1,3,H,W): (N,rows,columns) of an even grid, whose mean
        is about the distance. To it comes `texture` times how unlike their statistics are there.
        """
        parts = []
        maps, wanted = (self.backbone(pad_to(p, MIN_SIZE)) for p in (pictures, target))
        for a, b, head in zip(maps, wanted, self.heads, strict=True):
            missed = (_unit(a)[0] - _unit(b)[0]).square_().mul_(head).sum(1, keepdim=True)
            parts.append(F.adaptive_avg_pool2d(missed, grid)[:, 0])
        if texture:
            pairs = zip([pictures, *maps], [target, *wanted], strict=True)
            parts += [_statistics(a.float(), b.float(), grid) * (texture / (1 + len(maps))) for a, b in pairs]
        return torch.stack(parts).sum(0)


def _statistics(a: Tensor, b: Tensor, grid: tuple[int, int]) -> Tensor:
    """How unlike means, deviations and patterns of maps (N,C,h,w) and (1,C,h,w) are in each region, 0 to 1.5:
    DISTS' two terms there, Ding et al. 2020 (arXiv 2004.07728), equations 4 and 5.
    """
    mean_a, mean_b, aa, bb, ab = (F.adaptive_avg_pool2d(m, grid) for m in (a, b, a * a, b * b, a * b))
    both = mean_a * mean_b
    like = (2 * both + SMALL) / (mean_a.square() + mean_b.square() + SMALL)
    spread = (aa - mean_a.square()).clamp(min=0) + (bb - mean_b.square()).clamp(min=0)
    return (1 - (like + (2 * (ab - both) + SMALL) / (spread + SMALL)) / 2).mean(1)


class _Tap(torch.autograd.Function):
    """One tap's distance (N,) of a map (N,C,h,w) to another, both in any precision."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, head: Tensor) -> Tensor:
        unit, length = _unit(a)
        missed = unit - _unit(b)[0]
        weighed = missed * head
        ctx.save_for_backward(unit, weighed, length)
        return missed.mul_(weighed).sum((1, 2, 3)) / length[0].numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        unit, weighed, length = ctx.saved_tensors
        along = (unit * weighed).sum(1, keepdim=True)
        scale = 2 * gradients[0][:, None, None, None] / (length * length[0].numel())
        return torch.addcmul(weighed, unit, along, value=-1).mul_(scale), None, None


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (N,C,h,w) over channels, of length 1, and how long they were, (N,1,h,w); float32."""
    x = x.float()
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(LEAST)
    return x / length, length
