"""How an encoder decides which predicted frames to keep: by a threshold, or by rate and distortion.

The paper's rule is greedy: the longest run of frames that are good enough, and a key frame where the first is
not. The other, ours, weighs every number of frames that may be kept, every candidate, and a key frame, over a
few alternatives at once (a beam). Both try what the decoder will do, on the frames that it will have.
Paper: Extreme Video Compression with Pre-trained Diffusion Models (arXiv 2402.08934).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.entropy.coder import SymbolEncoder
from gencodec.methods.extreme.events import KEY, Event
from gencodec.methods.extreme.gop import GopCoder
from gencodec.sampler.noise import Noise

Distance = Callable[[Tensor, Tensor], Tensor]
"""`distance(source, decoded)`: frames uint8 (N,3,H,W) each -> (N,), lower is more alike."""


class KeyFrame(NamedTuple):
    """A frame as a key frame: its picture, uint8 (3,H,W), bits, and distance to the source."""

    picture: Tensor
    bits: int
    distance: float


class Path(NamedTuple):
    """Events up to frame number `at`, what they cost, and the last frames that they leave."""

    cost: float
    at: int
    events: tuple[Event, ...]
    last: list[Tensor]


@dataclass
class GopSearch:
    """Decides the events of one group: `frames`, uint8 (3,H,W), with key frames at `intra`'s `quality`."""

    coder: GopCoder
    frames: list[Tensor]
    video: VideoInfo
    quality: int
    noise: Noise
    distance: Distance
    _keys: dict[int, KeyFrame] = field(default_factory=dict)

    def greedy(self, threshold: float) -> list[Event]:
        """Keep what is within `threshold`, as long a run as any candidate gives."""
        events: list[Event] = []
        last, at = [self.key(0).picture], 1
        while at < len(self.frames):
            event, kept = self._longest(last, at, len(events), threshold)
            events.append(event)
            last = [*last, *kept][-self.coder.predictor.past :] if len(kept) else [self.key(at).picture]
            at += event.kept or 1
        return events

    def best(self, price: float, beam: int) -> list[Event]:
        """Minimise the distances of all frames + `price` x bits over `beam` alternatives at each frame."""
        waiting: dict[int, list[Path]] = {1: [Path(0.0, 1, (), [self.key(0).picture])]}
        for at in range(1, len(self.frames)):
            for path in sorted(waiting.pop(at, []), key=lambda p: p.cost)[:beam]:
                for longer in self._continued(path, price):
                    waiting.setdefault(longer.at, []).append(longer)
        return list(min(waiting[len(self.frames)], key=lambda p: p.cost).events)

    def key(self, number: int) -> KeyFrame:
        """Frame `number` as a key frame; coded once."""
        if number not in self._keys:
            encoder, source = SymbolEncoder(), self.frames[number]
            coded = self.coder.key.encode(encoder, source, self.quality)
            picture = self.coder.key.render(coded.y_hat, self.video, self.quality)
            away = float(self.distance(source[None], picture[None])[0])
            self._keys[number] = KeyFrame(picture, 8 * len(encoder.finish()), away)
        return self._keys[number]

    def _longest(self, last: list[Tensor], at: int, chunk: int, threshold: float) -> tuple[Event, Tensor]:
        """The longest run within the threshold, and its frames as a decoder will have them."""
        offers, away = self._offers(last, at, chunk, list(range(self.coder.candidates)))
        runs = (away <= threshold).int().cumprod(1).sum(1)  # (K)
        means = torch.stack(
            [row[:run].mean() if run else row[0] for row, run in zip(away, runs, strict=True)]
        )
        longest = torch.nonzero(runs == runs.max())[:, 0]
        chosen = int(longest[means[longest].argmin()])
        kept = int(runs[chosen])
        if kept and self.coder.candidates > 1:  # alone, as the decoder will: rounding may differ
            offers, away = self._offers(last, at, chunk, [chosen])
            kept = min(kept, int((away[0] <= threshold).int().cumprod(0).sum()))
            offers = offers.expand(self.coder.candidates, -1, -1, -1, -1)
        return (Event(kept, chosen) if kept else Event(KEY)), offers[chosen, :kept]

    def _continued(self, path: Path, price: float) -> list[Path]:
        """All ways on from `path`."""
        key = self.key(path.at)
        events, at = path.events, path.at
        flag = math.log2(self.coder.predictor.predicted + 1)
        cost = path.cost + key.distance + price * (key.bits + flag)
        found = [Path(cost, at + 1, (*events, Event(KEY)), [key.picture])]
        for candidate in range(self.coder.candidates):
            # one at a time, as the decoder will have it
            offers, away = self._offers(path.last, at, len(events), [candidate])
            bits = flag + math.log2(self.coder.candidates)
            for kept in range(1, away.shape[1] + 1):
                cost = path.cost + float(away[0, :kept].sum()) + price * bits
                last = [*path.last, *offers[0, :kept]][-self.coder.predictor.past :]
                found.append(Path(cost, at + kept, (*events, Event(kept, candidate)), last))
        return found

    def _offers(
        self, last: list[Tensor], at: int, chunk: int, candidates: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Frames (K,n,3,H,W) that candidates offer from `at` on, and their distances (K,n)."""
        wanted = torch.stack(self.frames[at : at + self.coder.predictor.predicted])
        offers = self.coder.predict(last, self.noise, chunk, candidates)[:, : len(wanted)]
        away = self.distance(wanted.repeat(len(offers), 1, 1, 1), offers.flatten(0, 1))
        return offers, away.reshape(len(offers), -1).float().cpu()
