"""What single blocks miss by single vectors, under the window that overlapped compensation has.

Other than `block_search.block_errors`, where each block of a window moves by its own vector, all of a window
moves by one: an error that belongs to a block and a vector, whatever its neighbours take (the criterion of
Orchard and Sullivan 1994, see `nn.motion`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.nn.motion import BLOCK

WIDE = 2 * BLOCK  # pixels a side of a window
AT_ONCE = 2048  # windows; 8 MiB


class BlockWindows:
    """Windows of a pair of pictures: old (1,1,steps H,steps W) as `at_steps` makes it, new (1,1,H,W)."""

    def __init__(self, old: Tensor, new: Tensor, steps: int) -> None:
        self.steps, self.columns = steps, new.shape[3] // BLOCK
        self.limit = torch.tensor([new.shape[3], new.shape[2]], device=new.device)  # x, y
        self.old = _windows(F.pad(old, (WIDE * steps,) * 4, mode="replicate")[0, 0], steps)
        self.new = _windows(F.pad(new, (BLOCK // 2,) * 4, mode="replicate")[0, 0], 1)

    def errors(self, blocks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Mean absolute errors (n) of blocks, by number (n), moved by vectors (2,n) in whole steps."""
        parts = range(0, len(blocks), AT_ONCE)
        found = [self._errors(blocks[i : i + AT_ONCE], vectors[:, i : i + AT_ONCE]) for i in parts]
        return np.concatenate([np.zeros(0), *found])

    def _errors(self, blocks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        device = self.new.device
        rows, columns = (torch.from_numpy(n).to(device) for n in np.divmod(blocks, self.columns))
        x, y = torch.from_numpy(vectors).to(device).long()
        right, down = (
            (self.steps * (BLOCK * at - BLOCK // 2) + shift).clamp(-WIDE * self.steps, limit * self.steps)
            + WIDE * self.steps
            for at, shift, limit in ((columns, x, self.limit[0]), (rows, y, self.limit[1]))
        )
        missed = (self.old[down, right] - self.new[BLOCK * rows, BLOCK * columns]).abs_()
        return (missed.flatten(1) @ _window().to(device)).cpu().numpy().astype(np.float64)


def _windows(picture: Tensor, steps: int) -> Tensor:
    """The window at each place of a picture, (rows,columns,WIDE,WIDE), every `steps` pixels; no copy."""
    picture = picture.contiguous()
    rows, columns = picture.shape
    reach = (WIDE - 1) * steps
    return picture.as_strided(
        (rows - reach, columns - reach, WIDE, WIDE), (columns, 1, steps * columns, steps)
    )


@lru_cache(maxsize=1)
def _window() -> Tensor:
    """How each pixel of a window counts, (WIDE*WIDE): less and less from its centre on; 1 together."""
    line = 1 - ((torch.arange(WIDE) + 0.5) / BLOCK - 1).abs()
    window = (line[:, None] * line).flatten()
    return window / window.sum()
