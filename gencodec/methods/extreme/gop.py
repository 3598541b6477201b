"""A group of pictures of `extreme`: key frames, and between them what both sides generate from the last ones.

    key frame ─► predict 5 ─► keep 3 ─► predict 5 ─► keep 5 ─► predict 5 ─► keep none: key frame ─► ...

A predictor sees the last frames as uint8, as every decoder shows them, and noise that depends on the seed,
the group's first frame and its own place alone. So what an encoder tried and dropped leaves no trace. One
packet holds the whole group: the first key frame, then events, each followed by what it announces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import CorruptStream, VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.methods.extreme.events import KEY, Event, EventReader, EventWriter
from gencodec.methods.intra.codec import KeyFrameCoder
from gencodec.sampler.noise import Noise

MAX_FRAMES = 30  # of a group


class Predictor(Protocol):
    """Continues a video. `past` frames at most are looked at, `predicted` come at once."""

    past: int
    predicted: int

    def __call__(self, frames: Tensor, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """The last frames, uint8 (1..past,3,H,W), to (len(candidates),predicted,3,H,W), uint8.

        A candidate's frames must not depend on the others beside it, but for rounding.
        """
        ...


class LastFrame:
    """Repeats the last frame: what every other predictor has to beat."""

    past, predicted = 1, 5

    def __call__(self, frames: Tensor, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """See `Predictor`."""
        return frames[-1].expand(len(candidates), self.predicted, -1, -1, -1)


@dataclass(frozen=True)
class GopCoder:
    """Events and key frames to a payload and back. Stateless between calls."""

    key: KeyFrameCoder
    predictor: Predictor
    candidates: int = 1

    def write(
        self, frames: list[Tensor], events: list[Event], quality: int
    ) -> tuple[bytes, list[np.ndarray]]:
        """The payload of `frames`, uint8 (3,H,W), and its symbols; key frames are at `intra`'s `quality`.

        `events` are those behind the first key frame.
        """
        encoder = SymbolEncoder()
        writer = EventWriter(encoder, self.predictor.predicted, self.candidates)
        symbols = list(self.key.encode(encoder, frames[0], quality).symbols)
        at = 1
        for event in events:
            writer.put(event)
            symbols.append(np.array(event, np.int32))
            if event.kept == KEY:
                symbols += self.key.encode(encoder, frames[at], quality).symbols
            at += event.kept or 1
        return encoder.finish(), symbols

    def read(
        self, payload: bytes, video: VideoInfo, quality: int, count: int
    ) -> tuple[list[np.ndarray], list[Event], list[Tensor]]:
        """Symbols, events, and key frames as y_hat, of a payload of `count` frames. Raises CorruptStream."""
        decoder = SymbolDecoder(payload)
        reader = EventReader(decoder, self.predictor.predicted, self.candidates)
        coded = self.key.decode(decoder, video, quality)
        symbols, events, keys, at = list(coded.symbols), [], [coded.y_hat], 1
        while at < count:
            event = reader.get()
            symbols.append(np.array(event, np.int32))
            events.append(event)
            if event.kept == KEY:
                coded = self.key.decode(decoder, video, quality)
                symbols += coded.symbols
                keys.append(coded.y_hat)
            at += event.kept or 1
        decoder.finish()
        if at > count:
            raise CorruptStream(f"a packet of {count} frames keeps {at - count} more")
        return symbols, events, keys

    def render(
        self, events: list[Event], keys: list[Tensor], video: VideoInfo, quality: int, noise: Noise
    ) -> Iterator[Tensor]:
        """The frames, uint8 (3,H,W) on the CPU."""
        waiting = iter(keys)
        last = [self.key.render(next(waiting), video, quality)]
        yield last[0]
        for chunk, event in enumerate(events):
            if event.kept == KEY:
                last = [self.key.render(next(waiting), video, quality)]
                yield last[0]
                continue
            frames = self.predict(last, noise, chunk, [event.candidate])[0, : event.kept]
            last = [*last, *frames][-self.predictor.past :]
            yield from frames

    def predict(self, last: list[Tensor], noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """What each candidate offers behind the frames `last`: (len(candidates),predicted,3,H,W), uint8."""
        with torch.inference_mode():
            return self.predictor(torch.stack(last), noise, chunk, candidates)
