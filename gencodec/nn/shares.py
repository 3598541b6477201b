"""How much of a generator's repair is shown, region by region; an encoder chooses, for it has the source.

    shown = coded + share x (generated - coded)

How much repair is right depends on the clip: in soft regions several times what training found best in the
mean, in fine regular texture none. Index k stands for SHARES[k]; between the centres of regions shares are
interpolated. Outside the coding loop, in any precision. `entropy.shares` has them on the wire.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REGION = 16  # pixels a side, at most: a picture is cut evenly
SHARES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
PLAIN = SHARES.index(1.0)


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of regions of a picture."""
    return -(-height // REGION), -(-width // REGION)


def share_map(index: np.ndarray, height: int, width: int) -> Tensor:
    """Shares of every pixel, float32 (1,1,height,width), from indices (rows,columns) of SHARES."""
    shares = torch.tensor(SHARES)[torch.from_numpy(index).long()]
    return F.interpolate(shares[None, None], size=(height, width), mode="bilinear")


def shown(coded: Tensor, generated: Tensor, index: np.ndarray | None) -> Tensor:
    """What is shown of pictures (...,3,H,W): `generated` itself where nothing was told (None)."""
    if index is None:
        return generated
    shares = share_map(index, coded.shape[-2], coded.shape[-1])[0].to(coded)
    return coded + shares * (generated - coded)
