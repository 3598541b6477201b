"""The coded frames of a group of pictures while an encoder searches: each is coded once, then written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from gencodec.entropy.coder import SymbolEncoder
from gencodec.entropy.shares import put_shares
from gencodec.methods.extreme.events import KEY, Event, EventWriter
from gencodec.methods.extreme.gop import GopCoder
from gencodec.methods.intra.share_choice import Seen, choose_shares
from gencodec.methods.s2vc.generator import Memory
from gencodec.methods.s2vc.loop import Coded

HELD = 4  # frames for which an encoder thinks that shares of the repair hold
STATE_BITS = 24  # of a payload of its own that a frame in a common one does not take


class Written(NamedTuple):
    """A coded frame, its stages, and what it was coded against (None: alone).

    The generator's memory behind it, and the shares of the repair that hold.
    """

    coded: Coded
    stages: SymbolEncoder
    before: Coded | None
    memory: Memory
    shares: np.ndarray | None

    @property
    def bits(self) -> int:
        """That it takes among others."""
        return max(8 * len(self.stages.finish()) - STATE_BITS, 0)


class CodedFrames:
    """Codes `frames`, uint8 (3,H,W), at `s2vc`'s `quality`, each alone or against another, and keeps them."""

    def __init__(self, coder: GopCoder, frames: list[Tensor], quality: int) -> None:
        self.coder, self.frames, self.quality = coder, frames, quality
        self._done: dict[tuple[int, int], Written] = {}
        self._by_coded: dict[int, Written] = {}

    def of(self, number: int, before: Coded | None) -> Written:
        """Frame `number` coded against `before`, or alone."""
        place = number, id(before)  # which is kept, so that no other one has its id
        if place not in self._done:
            self._done[place] = self._coded(number, self._by_coded[id(before)] if before else None)
            self._by_coded[id(self._done[place].coded)] = self._done[place]
        return self._done[place]

    def write(self, events: list[Event]) -> tuple[bytes, list[np.ndarray]]:
        """The payload of the group, and its symbols; `events` are those behind the first key frame."""
        encoder = SymbolEncoder()
        writer = EventWriter(encoder, self.coder.predictor.predicted, self.coder.candidates)
        last = self.of(0, None)
        encoder.extend(last.stages)
        symbols, at = list(last.coded.symbols), 1
        for event in events:
            writer.put(event)
            symbols.append(event.numbers())
            if event.kept <= 0:
                last = self.of(at, None if event.kept == KEY else last.coded)
                encoder.extend(last.stages)
                symbols += last.coded.symbols
            at += event.frames
        return encoder.finish(), symbols

    def _coded(self, number: int, before: Written | None) -> Written:
        encoder, source, loop = SymbolEncoder(), self.frames[number], self.coder.loop
        if before is None:
            coded = loop.put_key(encoder, source, self.quality)
        else:
            coded = loop.put(encoder, source, before.coded.state, self.quality)
        generated, memory = self.coder.renderer.generate(coded, before and before.memory)
        shares = before and before.shares
        seen = Seen.of(source, coded.frame.picture[0], generated[0])
        coded = coded.telling(choose_shares([seen], coded.clock, HELD, loop.key.judge, shares))
        put_shares(encoder, coded.told, is_key=before is None)
        shares = shares if coded.told is None else coded.told
        return Written(coded, encoder, before and before.coded, memory, shares)
