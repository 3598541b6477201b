"""Which motion an MV frame takes: of a few fields, each cheaper than the last, what looks best for its bits.

A search weighs absolute differences, and those of waves or leaves are as large as those of a face, which the
eye would rather have in its place. Nothing depends on an MV frame, so whole fields are compared by what they
show, where encoders are tuned for LPIPS. Encoders only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.s2vc.field_choice import WALKS, Pair, cheapest_field
from gencodec.nn.layers import halved
from gencodec.nn.quality import log_spaced

if TYPE_CHECKING:
    from gencodec.entropy.motion import MotionCoder  # training does without the entropy coder

DEARER = (4, 16)  # times the price that the first field was found at
BIT_PRICE = (4.5, 0.27)  # LPIPS that a bit a pixel is worth at quality 0 and 63, as for an anchor of `s2vc`


def fields_from(
    field: np.ndarray, coder: MotionCoder, pair: Pair, expected: np.ndarray | None, price: float
) -> list[np.ndarray]:
    """`field`, int32 (2,h,w), found at `price`, and what is left of it at prices DEARER times as high.

    These take one walk each: from a field that has settled, more find the same.
    """
    fields = [field]
    for factor in DEARER:
        dearer = cheapest_field(coder, pair, fields[-1], expected, factor * price, WALKS[-1:])
        if (dearer != fields[-1]).any():
            fields.append(dearer)
    return fields


def best_seen(
    shown: Tensor, x: Tensor, bits: Sequence[float], quality: int, distance: torch.nn.Module
) -> int:
    """Which of the pictures shown (N,3,H,W) is x (1,3,H,W) at the least LPIPS and bits, N of them.

    `distance` is a `LpipsLoss`.
    """
    price = float(log_spaced(torch.tensor([quality]), *BIT_PRICE)) / x[0, 0].numel()
    missed = distance(halved(shown), halved(x)).cpu().numpy()
    return int((missed + price * np.asarray(bits)).argmin())
