"""How an encoder decides which predicted frames to keep: by a threshold, or by rate and distortion.

The paper's rule is greedy: the longest run of frames that are good enough, and a restart where the first is
not. The other, ours, weighs every number of frames that may be kept, every candidate, and both kinds of
restart, over a few alternatives at once (a beam). Both try what the decoder will do, on the frames that it
will have.
Paper: Extreme Video Compression with Pre-trained Diffusion Models (arXiv 2402.08934).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Literal, NamedTuple

from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.methods.extreme.events import INTER, KEY, STILL, Event
from gencodec.methods.extreme.frames import CodedFrames
from gencodec.methods.extreme.gop import GopCoder, Shown
from gencodec.methods.extreme.motion import pan_between
from gencodec.sampler.noise import Noise

Distance = Callable[[Tensor, Tensor], Tensor]
"""`distance(source, decoded)`: frames uint8 (N,3,H,W) each -> (N,), lower is more alike."""
Restart = Literal["inter", "key", "pair", "two-keys"]
"""Against the last coded frame; alone; alone, and the next frame against that one; both alone."""

MAX_GENERATED = 30  # frames in a row
FARTHEST = 3  # frames ahead that a pan is searched in
CLEARLY = 0.99  # of another one's mean distance that a dearer pan must stay below
PAN_BITS = 17  # that a new one takes


class Step(NamedTuple):
    """A coded frame: what is known behind it, its bits, its distance to the source."""

    shown: Shown
    bits: int
    distance: float


class Run(NamedTuple):
    """Frames (kept,3,H,W) within the threshold, their mean distance, their pan, and which offer it was.

    Number 0 is the last frame repeated, those behind it are the candidates.
    """

    kept: int
    mean: float
    pan: tuple[int, int]
    number: int
    frames: Tensor | None


class Path(NamedTuple):
    """Events up to frame number `at`, what they cost, and what is known behind them."""

    cost: float
    at: int
    events: tuple[Event, ...]
    shown: Shown


@dataclass
class GopSearch:
    """Decides the events of one group: `frames`, uint8 (3,H,W), coded ones at `s2vc`'s `quality`."""

    coder: GopCoder
    frames: list[Tensor]
    video: VideoInfo
    quality: int
    noise: Noise
    distance: Distance
    restart: Restart = "inter"
    pans: bool = True
    generates: bool = True
    _alone: dict[int, Step] = field(default_factory=dict)

    @cached_property
    def coded_frames(self) -> CodedFrames:
        """What was tried, for writing."""
        return CodedFrames(self.coder, self.frames, self.quality)

    @property
    def candidates(self) -> int:
        """Samples of the predictor that are tried."""
        return self.coder.candidates if self.generates else 0

    def greedy(self, threshold: float) -> list[Event]:
        """Keep what is within `threshold`, as long a run as any candidate gives."""
        events: list[Event] = []
        first = self.coded(0, None)
        pairs = self.restart in ("pair", "two-keys")
        shown, at, due = first.shown, 1, pairs
        while at < len(self.frames):
            event, kept = (None, None) if due else self._longest(shown, at, len(events), threshold)
            if event is None or kept is None:
                event, shown = self._restarted(shown, at, first.bits, due)
                due = pairs and not due
            else:
                shown = shown._replace(past=shown.past.then(kept, event.pan))
            events.append(event)
            at += event.frames
        return events

    def best(self, price: float, beam: int) -> list[Event]:
        """Minimise the distances of all frames + `price` x bits over `beam` alternatives at each frame."""
        waiting: dict[int, list[Path]] = {1: [Path(0.0, 1, (), self.coded(0, None).shown)]}
        for at in range(1, len(self.frames)):
            for path in sorted(waiting.pop(at, []), key=lambda p: p.cost)[:beam]:
                for longer in self._continued(path, price):
                    waiting.setdefault(longer.at, []).append(longer)
        return list(min(waiting[len(self.frames)], key=lambda p: p.cost).events)

    def coded(self, number: int, before: Shown | None) -> Step:
        """Frame `number` coded against `before`, or alone; alone, once."""
        if before is None and number in self._alone:
            return self._alone[number]
        source, written = self.frames[number], self.coded_frames.of(number, before and before.coded)
        if before is None:
            shown = self.coder.begun(written.coded, self.video)
        else:
            shown = self.coder.restarted(before, written.coded, self.video)
        away = float(self.distance(source[None], shown.past.anchor[None])[0])
        step = Step(shown, written.bits, away)
        if before is None:
            self._alone[number] = step
        return step

    def _restarted(self, shown: Shown, at: int, key_bits: int, is_second: bool) -> tuple[Event, Shown]:
        """By the rule of `restart`; a frame that is no cheaper against the last one is coded alone."""
        inters = self.restart == "inter" or (self.restart == "pair" and is_second)
        inter = self.coded(at, shown) if inters else None
        if inter and (is_second or inter.bits < key_bits):
            return Event(INTER), inter.shown
        alone = self.coded(at, None).shown
        return Event(KEY), alone._replace(past=shown.past.keyed(alone.past.anchor))

    def _longest(
        self, shown: Shown, at: int, chunk: int, threshold: float
    ) -> tuple[Event | None, Tensor | None]:
        """The longest run within the threshold, and its frames as a decoder will have them, or None."""
        most = self._most(shown, at)
        wanted = self.frames[at : at + most]
        best = Run(0, math.inf, STILL, 0, None)
        for pan in self._pans(shown, at) if most else []:  # by the last frame, which costs no network
            repeated = self.coder.predict(shown.past, self.noise, chunk, [], pan)
            best = self._longer(best, repeated, wanted, threshold, pan, 0)
        if most and self.candidates:
            every = list(range(self.candidates))
            offers = self.coder.predict(shown.past, self.noise, chunk, every, best.pan)
            best = self._longer(best, offers[1:], wanted, threshold, best.pan, 1)
            if len(every) > 1 and best.number:  # as the decoder will: rounding may differ
                alone = self.coder.predict(shown.past, self.noise, chunk, [best.number - 1], best.pan)
                nothing = Run(0, math.inf, best.pan, 0, None)
                best = self._longer(nothing, alone[1:], wanted, threshold, best.pan, best.number)
        if not best.kept:
            return None, None
        event = Event(best.kept, max(best.number - 1, 0), best.pan, repeats=best.number == 0)
        return event, best.frames

    def _longer(
        self,
        best: Run,
        offers: Tensor,
        wanted: list[Tensor],
        threshold: float,
        pan: tuple[int, int],
        first: int,
    ) -> Run:
        """`best`, or what is better among `offers` (K,n,3,H,W), which have numbers from `first` on."""
        for number, offered in enumerate(offers, first):
            total, kept = 0.0, 0
            for source, frame in zip(wanted, offered, strict=False):  # one by one: most runs end soon
                away = float(self.distance(source[None], frame[None])[0])
                if away > threshold:
                    break
                total, kept = total + away, kept + 1
            mean = total / kept if kept else math.inf
            if kept > best.kept or (kept == best.kept and mean < CLEARLY * best.mean):
                best = Run(kept, mean, pan, number, offered[:kept])
        return best

    def _most(self, shown: Shown, at: int) -> int:
        """Frames that may be predicted now."""
        allowed = min(self.coder.predictor.predicted, MAX_GENERATED - shown.past.since)
        return max(0, min(allowed, len(self.frames) - at))

    def _continued(self, path: Path, price: float) -> list[Path]:
        """All ways on from `path`."""
        flag = math.log2(self.coder.predictor.predicted + 2)
        found = []
        for kind, before in ((KEY, None), (INTER, path.shown)):
            step = self.coded(path.at, before)
            cost = path.cost + step.distance + price * (step.bits + flag)
            past = path.shown.past.keyed(step.shown.past.anchor) if before is None else step.shown.past
            shown = step.shown._replace(past=past)
            found.append(Path(cost, path.at + 1, (*path.events, Event(kind)), shown))
        for pan, candidate in product(self._pans(path.shown, path.at), range(-1, self.candidates)):
            found += self._generated(path, pan, candidate, price)
        return found

    def _generated(self, path: Path, pan: tuple[int, int], candidate: int, price: float) -> list[Path]:
        """With 1, 2, ... frames of a candidate; -1: of the last frame repeated."""
        own = [candidate] if candidate >= 0 else []  # one at a time, as the decoder will have it
        offers = self.coder.predict(path.shown.past, self.noise, len(path.events), own, pan)[-1]
        sources = self.frames[path.at : path.at + self._most(path.shown, path.at)]
        bits = math.log2(self.coder.predictor.predicted + 2) + (pan != path.shown.past.pan) * PAN_BITS
        bits += 1 + (math.log2(self.coder.candidates) if own else 0)
        cost, found = path.cost + price * bits, []
        for kept, (source, frame) in enumerate(zip(sources, offers, strict=False), 1):
            cost += float(self.distance(source[None], frame[None])[0])
            shown = path.shown._replace(past=path.shown.past.then(offers[:kept], pan))
            events = (*path.events, Event(kept, max(candidate, 0), pan, repeats=not own))
            found.append(Path(cost, path.at + kept, events, shown))
        return found

    def _pans(self, shown: Shown, at: int) -> list[tuple[int, int]]:
        """What is worth trying: the pan so far, none, and the one of the source."""
        if not self.pans:
            return [STILL]
        ahead = min(FARTHEST, len(self.frames) - at)
        found = pan_between(shown.past.frames[-1], self.frames[at + ahead - 1], ahead)
        return list(dict.fromkeys([shown.past.pan, STILL, found]))
