"""When an encoder of `diffsit` chooses shares of the repair: `intra.share_choice` says how.

With the first piece of a GOP, and with the second, whose quality is that of the rest; three frames of a piece
are looked at. Pieces are rendered as if nothing came before them, so no others need be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gencodec.methods.diffsit.pieces import Piece
from gencodec.methods.diffsit.rendering import Renderer
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.intra.share_choice import Seen, choose_shares
from gencodec.nn.precision import half_precision

CHOOSING = 2  # pieces of a GOP
HELD = 40  # frames for which the last shares are thought to hold


class Told(NamedTuple):
    """The pieces of a GOP so far, and the shares of the repair that hold behind them."""

    pieces: int = 0
    shares: np.ndarray | None = None

    def then(self, piece: Piece) -> Told:
        """Behind one more."""
        return Told(self.pieces + 1, self.shares if piece.told is None else piece.told)


class ShareSearch:
    """Chooses shares for pieces that are coded one after the other. Stateless: the caller keeps a Told."""

    def __init__(self, renderer: Renderer, key: KeyFrameCoder) -> None:
        self.renderer, self.key = renderer, key

    def choose(self, frames: Sequence[Tensor], quality: int, told: Told, piece: Piece) -> np.ndarray | None:
        """New shares for a piece of frames, uint8 (3,H,W), behind `told`, and for what follows it."""
        if told.pieces >= CHOOSING:
            return None
        judged = list(dict.fromkeys([0, len(frames) // 2, len(frames) - 1]))
        with half_precision(self.key.device):  # far nearer than two shares are
            generated, _ = self.renderer.generate(piece, quality, None, judged)
        shown = zip(judged, generated.float(), strict=True)
        seen = [Seen.of(frames[n], piece.pictures[n], picture) for n, picture in shown]
        held = HELD if told.pieces else len(frames)
        return choose_shares(seen, quality, held, self.key.judge, told.shares)
