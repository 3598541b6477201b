"""What both sides know when frames are to be predicted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SHOWN = 2  # last frames that are remembered


class Past(NamedTuple):
    """Frames as shown, uint8 (3,H,W): the last coded one, `anchor`, and the last ones, the newest last.

    `velocity` (1,2,h,w), see `motion.velocity_of`, of the anchor's blocks; None behind a key frame, before
    which nothing counts. `since`: frames shown after the anchor.
    """

    anchor: Tensor
    frames: tuple[Tensor, ...]
    velocity: Tensor | None = None
    since: int = 0

    @classmethod
    def of_key(cls, picture: Tensor) -> Past:
        """Behind a key frame."""
        return cls(picture, (picture,))

    def restarted(self, picture: Tensor, velocity: Tensor) -> Past:
        """Behind a frame that was coded against the anchor."""
        return Past(picture, (*self.frames, picture)[-SHOWN:], velocity, 0)

    def then(self, generated: Tensor) -> Past:
        """Behind generated frames (n,3,H,W)."""
        frames = (*self.frames, *torch.unbind(generated))[-SHOWN:]
        return self._replace(frames=frames, since=self.since + len(generated))
