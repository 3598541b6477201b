"""Which shares of a repair an encoder tells: for each region what looks best for its bits. Encoders only.

What a generator makes of a clip, only the encoder can compare with the source. It runs the generator on a few
frames, looks at each share of the repair over the whole picture, and takes for every region the share with
the least distance there and the fewest bits. By LPIPS-Alex and by statistics of its maps, for LPIPS alone
takes what DISTS likes less, or by squared error where encoders are tuned for PSNR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.entropy.shares import BITS
from gencodec.methods.intra.cheapest import cheapest
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.intra.perceptual import FIDELITY
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import log_spaced
from gencodec.nn.shares import PLAIN, SHARES, grid_of, mixed

if TYPE_CHECKING:
    from typing_extensions import Self

BIT_PRICE = (30.0, 0.5)  # LPIPS of all frames that a bit a pixel is worth, at quality 0 and 63
TEXTURE = 2.0  # LPIPS that wholly other statistics are worth: DISTS becomes better, LPIPS worse


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame to judge by: as coded, as generated, and its source, (3,H,W) in [0,1] each.

    It keeps the distances that it was asked for: a frame may be judged by more than once.
    """

    coded: Tensor
    generated: Tensor
    x: Tensor
    _known: dict[tuple[object, ...], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, frame: Tensor, coded: Tensor, generated: Tensor) -> Self:
        """With its source as uint8 (3,H,W), not padded as the others are."""
        x = pad_to_multiple(frame.to(coded.device)[None].float() / 255, STRIDE)
        return cls(coded, generated, x[0])

    def missed(self, grid: tuple[int, int], lpips: LpipsLoss | None, texture: float) -> Tensor:
        """Distances of each share in each region, (shares,rows,columns); see `choose_shares`."""
        asked = (grid, lpips, texture)
        if asked not in self._known:
            self._known[asked] = self._missed(*asked)
        return self._known[asked]

    def _missed(self, grid: tuple[int, int], lpips: LpipsLoss | None, texture: float) -> Tensor:
        repair = self.generated - self.coded
        pictures = mixed(self.coded, repair, repair.new_tensor(SHARES)[:, None, None, None]).clamp(0, 1)
        if lpips is not None:
            return lpips.by_region(pictures, self.x[None], grid, texture)
        error = (pictures - self.x).square().mean(1, keepdim=True)
        return FIDELITY * F.adaptive_avg_pool2d(error, grid)[:, 0]


@torch.inference_mode()
def choose_shares(
    frames: Sequence[Seen],
    quality: int,
    held: int,
    lpips: LpipsLoss | None,
    before: np.ndarray | None = None,
    price: tuple[float, float] = BIT_PRICE,
    texture: float = TEXTURE,
) -> np.ndarray | None:
    """Indices (rows,columns) of SHARES for pictures that look like `frames`, and hold for about `held`.

    None: no others than hold already, `before` (None: PLAIN). `lpips` None: by squared error. `price`: LPIPS
    of all frames that a bit a pixel is worth, at quality 0 and 63. `texture`: what wholly other statistics
    are worth.
    """
    height, width = frames[0].x.shape[-2:]
    grid = grid_of(height, width)
    distances = [frame.missed(grid, lpips, texture) for frame in frames]
    missed = torch.stack(distances).mean(0)  # (shares,rows,columns)
    bit = float(log_spaced(torch.tensor([quality]), *price)) / (height * width * held)
    index = cheapest(missed.cpu().numpy() / (grid[0] * grid[1]), bit, BITS, PLAIN)
    return None if (index == (PLAIN if before is None else before)).all() else index
