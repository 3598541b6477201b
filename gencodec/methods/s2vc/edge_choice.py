"""How strongly edges of a coded frame are smoothed: as looks best. Encoders only.

Where a clip is soft, jumps between blocks are faults, where it is sharp they are mostly its own, and no rule
tells one from the other as well as a look at the source.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.deblock import STRENGTHS, deblocked

SEEN = 0.5  # of the size at which LPIPS compares: four times as fast, and as good


@torch.no_grad()
def best_strength(picture: Tensor, x: Tensor, step: float, judge: LpipsLoss | None) -> int:
    """The strength at which picture (1,3,H,W) is most like x, in [0,1] both; `step` as in `deblocked`.

    By LPIPS-Alex, or where `judge` is None by the squared error.
    """
    shown = torch.cat([deblocked(picture, strength, step) for strength in range(len(STRENGTHS))])
    if judge is None:
        return int((shown - x).square().mean((1, 2, 3)).argmin())
    return int(judge(smaller(shown.clamp(0, 1)), smaller(x)).argmin())


def smaller(picture: Tensor) -> Tensor:
    """A picture (N,3,H,W) at SEEN of its size."""
    return F.interpolate(picture, scale_factor=SEEN, mode="bilinear", antialias=True)
