"""What both sides know when frames are to be predicted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gencodec.methods.extreme.events import PAN_UNIT, STILL
from gencodec.methods.extreme.motion import panned

SHOWN = 2  # last frames that are remembered


class Past(NamedTuple):
    """Frames as shown, uint8 (3,H,W): the last coded one, `anchor`, and the last ones, the newest last.

    `velocity` (1,2,h,w), see `motion.velocity_of`, of the anchor's blocks; None behind a key frame, before
    which nothing counts. `since`: frames shown after the anchor. `pan`: how the camera moved in these, in
    steps as in `events.Event`; the anchor has been moved with it.
    """

    anchor: Tensor
    frames: tuple[Tensor, ...]
    velocity: Tensor | None = None
    since: int = 0
    pan: tuple[int, int] = STILL

    @classmethod
    def of_key(cls, picture: Tensor) -> Past:
        """Behind a group's first key frame."""
        return cls(picture, (picture,))

    def keyed(self, picture: Tensor) -> Past:
        """Behind another key frame: of two in a row, a pair, both count."""
        is_pair = self.velocity is None and self.since == 0
        return Past(picture, (self.anchor, picture) if is_pair else (picture,))

    def restarted(self, picture: Tensor, velocity: Tensor) -> Past:
        """Behind a frame that was coded against the anchor."""
        return Past(picture, (*self.frames, picture)[-SHOWN:], velocity, 0, self.pan)

    def then(self, generated: Tensor, pan: tuple[int, int] = STILL) -> Past:
        """Behind generated frames (n,3,H,W), which came with `pan`."""
        frames = (*self.frames, *torch.unbind(generated))[-SHOWN:]
        anchor = panned(self.anchor, pan, len(generated))
        return Past(anchor, frames, self.velocity, self.since + len(generated), pan)

    def steadied(self, pan: tuple[int, int]) -> Past:
        """As a camera sees it that moves with `pan`: what moves with it stands still."""
        if self.velocity is None or pan == STILL:
            return self
        own = torch.tensor(pan, dtype=torch.float32)[None, :, None, None] / PAN_UNIT
        return self._replace(velocity=self.velocity - own)
