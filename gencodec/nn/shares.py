"""How much of a generator's repair is shown, region by region; an encoder chooses, for it has the source.

    shown = coded + min(share, 1) x repair + max(share - 1, 0) x luma of repair, repair = generated - coded

How much repair is right depends on the clip: in soft regions several times what training found best in the
mean, in fine regular texture none. Beyond the whole repair it is its luma alone, for more of its colours
looks like coloured noise. Index k stands for SHARES[k]; between the centres of regions shares are
interpolated. Outside the coding loop, in any precision. `entropy.shares` has them on the wire.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REGION = 32  # pixels a side, at most: a picture is cut evenly
SHARES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
PLAIN = SHARES.index(1.0)
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: BT.601


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
    return mixed(coded, generated - coded, share_map(index, coded.shape[-2], coded.shape[-1])[0].to(coded))


def mixed(coded: Tensor, repair: Tensor, shares: Tensor) -> Tensor:
    """Pictures (...,3,H,W) with shares of their repair; see above."""
    luma = torch.einsum("...chw,c->...hw", repair, repair.new_tensor(LUMA)).unsqueeze(-3)
    return coded + shares.clamp(max=1) * repair + (shares - 1).clamp(min=0) * luma
