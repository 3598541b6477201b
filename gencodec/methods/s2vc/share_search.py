"""When an encoder of `s2vc` chooses shares of the repair, and by which frames: `intra.share_choice` says how.

    key frame   FIRST                     LATER                           reset              LATER
    age 0 ───── 1: chosen ── 2 ── (3) ─── 4: chosen ── (nothing) ... ──── 32 ── 33, 34 ───── 36: chosen ...

For low delay a choice looks at no later frame, and never at the key frame: it is so much better than what
follows that its shares would be wrong for all of that. Three frames of the four behind a key frame or a reset
are as good to choose by as all (docs/decisions.md), and the generator runs for these alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.intra.share_choice import Seen, choose_shares
from gencodec.methods.s2vc.generator import Memory
from gencodec.methods.s2vc.loop import Coded
from gencodec.methods.s2vc.rendering import Renderer
from gencodec.nn.precision import half_precision

FIRST, LATER = 1, 4  # frames behind a key frame, and behind a reset too: the next anchor
PASSED = (0, 3)  # frames behind these that no choice looks at
JUDGED = 3  # frames


class Watch(NamedTuple):
    """What an encoder knows of how its frames are rendered: shares that hold, memory, frames seen last."""

    shares: np.ndarray | None = None
    memory: Memory | None = None
    seen: tuple[Seen, ...] = ()


class ShareSearch:
    """Chooses shares for frames that are coded one after the other. Stateless: the caller keeps a Watch."""

    def __init__(self, renderer: Renderer, key: KeyFrameCoder) -> None:
        self.renderer, self.key = renderer, key

    def watched(self, watch: Watch, frame: Tensor, coded: Coded) -> tuple[Watch, np.ndarray | None]:
        """Behind a frame, uint8 (3,H,W), that was coded: what is known now, and what to tell."""
        age = coded.state.age
        watch = watch if age else Watch()
        since = age % self.renderer.reset_period
        if since > LATER:
            return watch, None
        before, last = watch.memory if since else None, min(LATER, self.renderer.reset_period - 1)
        with half_precision(self.key.device):  # far nearer than two shares are
            if since in PASSED and since != last:
                return watch._replace(memory=self.renderer.remember(coded, before)), None
            generated, memory = self.renderer.generate(coded, before)
        own = (Seen.of(frame, coded.frame.picture[0], generated[0].float()),) if age else ()
        seen, told = (*watch.seen, *own)[-JUDGED:], None
        if age == FIRST or since == last:
            held = LATER - FIRST if age == FIRST else self.renderer.reset_period
            told = choose_shares(seen, coded.clock, held, self.key.judge, watch.shares) if seen else None
        return Watch(watch.shares if told is None else told, memory, seen), told
