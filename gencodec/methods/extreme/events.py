"""What the encoder decided, in order: a coded frame, or how many of the predicted ones are kept, and which.

The mask of coded and generated frames would not do: six generated frames may be five and one or three and
three, which see other past frames and draw other noise. Events of a group of pictures share one adaptive
model; thirty frames take about 33 bits. Where the camera moves, predicted frames come with a pan, how fast
and where to; most often it is the one before, which is next to free. And where the predictor knows no better
than the last frame, that is repeated.
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

KEY, INTER = 0, -1  # as a count of kept frames: one coded alone, one coded against the last coded one
PAN_UNIT = 4  # steps of a pan for a pixel a frame
PAN_LIMIT = 127  # steps each way
STILL = (0, 0)


class Event(NamedTuple):
    """`kept` predicted frames, 1 and more, of candidate `candidate`; or a coded frame, KEY or INTER.

    `pan`: x and y, in steps a frame, that lead back in time. `repeats`: the last frame is what is kept, moved
    by the pan, in place of the predictor's.
    """

    kept: int
    candidate: int = 0
    pan: tuple[int, int] = STILL
    repeats: bool = False

    @property
    def frames(self) -> int:
        """How many frames it stands for."""
        return max(self.kept, 1)

    def numbers(self) -> np.ndarray:
        """As int32 (5,): kept, candidate, pan, repeats."""
        return np.array([self.kept, self.candidate, *self.pan, self.repeats], np.int32)


class EventWriter:
    """Puts events into a packet; `predicted` frames are on offer at once, from `candidates` samples."""

    def __init__(self, encoder: Encoder, predicted: int, candidates: int) -> None:
        self.encoder, self.predicted, self.candidates = encoder, predicted, candidates
        self.model, self.pan = AdaptiveCounts(predicted + 2), STILL
        self.repeats, self.pans = AdaptiveCounts(2), AdaptiveCounts(2)

    def put(self, event: Event) -> None:
        """Add one. Raises ValueError for one that was not on offer."""
        value = event.kept % (self.predicted + 2)  # INTER comes last
        put_adaptive(self.encoder, np.array([value]), self.model)
        if event.kept > 0:
            put_adaptive(self.encoder, np.array([int(event.repeats)]), self.repeats)
            if not event.repeats:
                put_integers(self.encoder, np.array([event.candidate]), self.candidates)
            put_adaptive(self.encoder, np.array([int(event.pan != self.pan)]), self.pans)
            if event.pan != self.pan:
                put_integers(self.encoder, np.array(event.pan) + PAN_LIMIT, 2 * PAN_LIMIT + 1)
            self.pan = event.pan


class EventReader:
    """Reads them back."""

    def __init__(self, decoder: Decoder, predicted: int, candidates: int) -> None:
        self.decoder, self.predicted, self.candidates = decoder, predicted, candidates
        self.model, self.pan = AdaptiveCounts(predicted + 2), STILL
        self.repeats, self.pans = AdaptiveCounts(2), AdaptiveCounts(2)

    def get(self) -> Event:
        """The next one; from a damaged packet any that was on offer."""
        value = int(get_adaptive(self.decoder, 1, self.model)[0])
        if value == KEY or value > self.predicted:
            return Event(KEY if value == KEY else INTER)
        repeats = bool(get_adaptive(self.decoder, 1, self.repeats)[0])
        candidate = 0 if repeats else int(get_integers(self.decoder, 1, self.candidates)[0])
        if get_adaptive(self.decoder, 1, self.pans)[0]:
            x, y = get_integers(self.decoder, 2, 2 * PAN_LIMIT + 1) - PAN_LIMIT
            self.pan = int(x), int(y)
        return Event(value, candidate, self.pan, repeats)
