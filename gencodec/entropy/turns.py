"""In which order latents are coded: turns, in each of which some channels are coded at some places.

Networks of a turn see what the turns before have coded. Both sides of a packet take the same turns, and
within one symbols follow channel by channel, row by row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Turn(NamedTuple):
    """Channels (a slice, or their numbers (n,)) of every `step`-th row and column, where `mask` is set.

    The mask is (n,h,w), on those rows and columns.
    """

    channels: slice | Tensor
    step: int
    mask: Tensor

    def of(self, y: Tensor) -> Tensor:
        """What this turn looks at of y (B,C,H,W): (B,n,h,w)."""
        return y[:, self.channels, :: self.step, :: self.step]

    def put(self, into: Tensor, values: Tensor) -> None:
        """Write values (B,n,h,w) into (B,C,H,W) where the mask is set."""
        here = torch.where(self.mask, values, self.of(into))
        into[:, self.channels, :: self.step, :: self.step] = here


def places(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Number of each place in its 2x2, (H,W): 0, 2 above and 3, 1 below, so that 0 and 1 are a diagonal."""
    rows, columns = torch.arange(height, device=device) % 2, torch.arange(width, device=device) % 2
    return 2 * (rows[:, None] ^ columns) + rows[:, None]
