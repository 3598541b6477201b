"""A group of pictures of `extreme`: coded frames, and between them what both sides generate from these.

    key frame ─► predict 5 ─► keep 3 ─► predict 5 ─► keep 5 ─► predict 5 ─► keep none: restart ─► ...

A restart codes one frame: against the last coded one, by the coding loop of `s2vc` (INTER), or alone (KEY).
Coded frames depend on coded frames only, so they are the same everywhere, whatever was generated between.
A predictor sees frames as uint8, as every decoder shows them, and noise that depends on the seed, the group's
first frame and its own place alone. So what an encoder tried and dropped leaves no trace. One packet holds
the whole group: the first key frame, then events, each followed by what it announces; behind each coded frame
shares of its repair, where there are new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import CorruptStream, VideoInfo
from gencodec.entropy.coder import SymbolDecoder
from gencodec.entropy.shares import get_shares
from gencodec.methods.extreme.events import KEY, STILL, Event, EventReader
from gencodec.methods.extreme.motion import panned, velocity_of
from gencodec.methods.extreme.past import Past
from gencodec.methods.s2vc.generator import Memory
from gencodec.methods.s2vc.loop import Coded, LoopCoder
from gencodec.methods.s2vc.rendering import Renderer
from gencodec.sampler.noise import Noise


class Predictor(Protocol):
    """Continues a video; `predicted` frames come at once."""

    predicted: int

    def __call__(self, past: Past, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """What each candidate offers behind `past`: (len(candidates),predicted,3,H,W), uint8.

        A candidate's frames must not depend on the others beside it, but for rounding.
        """
        ...


class LastFrame:
    """In place of a predictor: whatever is asked for, the last frame comes."""

    predicted = 5

    def __call__(self, past: Past, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """See `Predictor`."""
        return past.frames[-1].expand(len(candidates), self.predicted, -1, -1, -1)


class Shown(NamedTuple):
    """What the next coded or predicted frame needs: the last coded one, the generator's memory, the past, and
    the shares of the repair that hold.
    """

    coded: Coded
    memory: Memory
    past: Past
    shares: np.ndarray | None


@dataclass(frozen=True)
class GopCoder:
    """Reads payloads, and shows what is in them. Stateless between calls; `frames` writes them."""

    loop: LoopCoder
    renderer: Renderer
    predictor: Predictor
    candidates: int = 1

    def read(
        self, payload: bytes, video: VideoInfo, quality: int, count: int
    ) -> tuple[list[np.ndarray], list[Event], list[Coded]]:
        """Symbols, events and coded frames of a payload of `count` frames. Raises CorruptStream."""
        decoder = SymbolDecoder(payload)
        reader = EventReader(decoder, self.predictor.predicted, self.candidates)
        every = [self._get(decoder, video, quality, None)]
        symbols, events, at = list(every[0].symbols), [], 1
        while at < count:
            event = reader.get()
            symbols.append(event.numbers())
            events.append(event)
            if event.kept <= 0:
                before = None if event.kept == KEY else every[-1]
                every.append(self._get(decoder, video, quality, before))
            symbols += every[-1].symbols if event.kept <= 0 else []
            at += event.frames
        decoder.finish()
        if at > count:
            raise CorruptStream(f"a packet of {count} frames keeps {at - count} more")
        return symbols, events, every

    def render(
        self, events: list[Event], coded: list[Coded], video: VideoInfo, noise: Noise
    ) -> Iterator[Tensor]:
        """The frames, uint8 (3,H,W) on the CPU."""
        waiting = iter(coded)
        shown = self.begun(next(waiting), video)
        yield shown.past.anchor
        for chunk, event in enumerate(events):
            if event.kept > 0:
                candidates = [] if event.repeats else [event.candidate]
                frames = self.predict(shown.past, noise, chunk, candidates, event.pan)[-1, : event.kept]
                shown = shown._replace(past=shown.past.then(frames, event.pan))
                yield from frames
                continue
            one = next(waiting)
            if event.kept == KEY:
                alone = self.begun(one, video)
                shown = alone._replace(past=shown.past.keyed(alone.past.anchor))
            else:
                shown = self.restarted(shown, one, video)
            yield shown.past.anchor

    def begun(self, coded: Coded, video: VideoInfo) -> Shown:
        """Behind a key frame."""
        picture, memory = self.renderer.render(coded, None, video, coded.told)
        return Shown(coded, memory, Past.of_key(picture), coded.told)

    def restarted(self, before: Shown, coded: Coded, video: VideoInfo) -> Shown:
        """Behind a frame that was coded against the last coded one."""
        shares = before.shares if coded.told is None else coded.told
        picture, memory = self.renderer.render(coded, before.memory, video, shares)
        motion = torch.from_numpy(coded.state.motion)[None]
        past = before.past.restarted(picture, velocity_of(motion, before.past.since + 1))
        return Shown(coded, memory, past, shares)

    def _get(self, decoder: SymbolDecoder, video: VideoInfo, quality: int, before: Coded | None) -> Coded:
        """The next coded frame, alone or against `before`, with its shares. Raises CorruptStream."""
        if before is None:
            coded = self.loop.get_key(decoder, video, quality)
        else:
            coded = self.loop.get(decoder, before.state, quality)
        return coded.telling(get_shares(decoder, coded.grid, is_key=before is None))

    def predict(
        self, past: Past, noise: Noise, chunk: int, candidates: list[int], pan: tuple[int, int] = STILL
    ) -> Tensor:
        """The last frame repeated, then what candidates offer: (1+len(candidates),predicted,3,H,W), uint8.

        All moved as the camera pans.
        """
        offers = past.frames[-1].expand(1, self.predictor.predicted, -1, -1, -1)
        if candidates:
            with torch.inference_mode():
                generated = self.predictor(past.steadied(pan), noise, chunk, candidates)
            offers = torch.cat([offers, generated])
        if pan == STILL:
            return offers
        moved = [[panned(f, pan, n) for n, f in enumerate(one, 1)] for one in offers]
        return torch.stack([torch.stack(one) for one in moved])
