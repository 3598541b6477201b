"""What the encoder decided, in order: a key frame, or how many of the predicted frames are kept, and which.

The mask of coded and generated frames would not do: six generated frames may be five and one or three and
three, which see other past frames and draw other noise. Events of a group of pictures share one adaptive
model; thirty frames take about 33 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gencodec.entropy.flags import (
    AdaptiveCounts,
    Decoder,
    Encoder,
    get_adaptive,
    get_integers,
    put_adaptive,
    put_integers,
)

KEY = 0  # as a count of kept frames


class Event(NamedTuple):
    """`kept` predicted frames, 1 and more, of candidate number `candidate`; or a key frame, KEY."""

    kept: int
    candidate: int = 0


class EventWriter:
    """Puts events into a packet; `predicted` frames are on offer at once, from `candidates` samples."""

    def __init__(self, encoder: Encoder, predicted: int, candidates: int) -> None:
        self.encoder, self.candidates = encoder, candidates
        self.model = AdaptiveCounts(predicted + 1)

    def put(self, event: Event) -> None:
        """Add one. Raises ValueError for one that was not on offer."""
        put_adaptive(self.encoder, np.array([event.kept]), self.model)
        if event.kept != KEY:
            put_integers(self.encoder, np.array([event.candidate]), self.candidates)


class EventReader:
    """Reads them back."""

    def __init__(self, decoder: Decoder, predicted: int, candidates: int) -> None:
        self.decoder, self.candidates = decoder, candidates
        self.model = AdaptiveCounts(predicted + 1)

    def get(self) -> Event:
        """The next one; from a damaged packet any that was on offer."""
        kept = int(get_adaptive(self.decoder, 1, self.model)[0])
        return Event(kept, 0 if kept == KEY else int(get_integers(self.decoder, 1, self.candidates)[0]))
