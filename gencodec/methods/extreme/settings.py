"""Settings of `extreme` in the stream's header: how the predictor samples, and how the encoder decided.

    steps u8 | candidates - 1 u8 | threshold u16, in 1/10000, 0: by quality | key quality u8, 255: by quality
    | beam u8, 0: the greedy rule | restart u8 | metric u8 | GOP length u8 | flags u8

Flags: 1, whether pans are told; 2 x the sampler's number (0 to 3); 8, the reference's quirks.

A decoder needs steps, candidates, GOP length, sampler and quirks; the others say how a stream was made. At 0
steps the last frame is repeated.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, get_args

from gencodec.codec import CorruptStream, UnsupportedStream
from gencodec.methods.extreme.distances import Metric
from gencodec.methods.extreme.predictor import Sampler
from gencodec.methods.extreme.search import Restart
from gencodec.nn.quality import NUM_QUALITIES

SETTINGS = struct.Struct("<BBHBBBBBB")
CODED_BY = ("s2vc-tiny-6", "intra-tiny-9")  # the weights that code frames, whatever predicts the others
BY_QUALITY = 255
RESTARTS: tuple[Restart, ...] = get_args(Restart)
METRICS: tuple[Metric, ...] = get_args(Metric)
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
FINEST = 1e-4  # step of a threshold
WHOLE = (
    ("steps", 0, 255),
    ("candidates", 1, 256),
    ("beam", 0, 255),
    ("gop_length", 1, 255),
    ("pans", 0, 1),
    ("quirks", 0, 1),
)


REFERENCE: dict[str, Any] = {
    "steps": 100,
    "sampler": "ddpm",
    "quirks": 1,
    "restart": "two-keys",
    "pans": 0,
    "gop_length": 30,
}
"""The reference's own algorithm, but for a threshold, which it sweeps from 0.30 to 0.03."""


class Options(NamedTuple):
    """What the settings hold; None: as the quality says."""

    steps: int = 2
    candidates: int = 1
    threshold: float | None = None
    key_quality: int | None = None
    beam: int = 0
    restart: Restart = "inter"
    metric: Metric = "lpips"
    gop_length: int = 60
    pans: int = 1
    sampler: Sampler = "euler"
    quirks: int = 0

    def pack(self) -> bytes:
        """As they stand in the header. Raises ValueError for values out of range."""
        self._check()
        threshold = round((self.threshold or 0) / FINEST)
        key = BY_QUALITY if self.key_quality is None else self.key_quality
        flags = self.pans | SAMPLERS.index(self.sampler) << 1 | self.quirks << 3
        names = RESTARTS.index(self.restart), METRICS.index(self.metric)
        return SETTINGS.pack(
            self.steps, self.candidates - 1, threshold, key, self.beam, *names, self.gop_length, flags
        )

    @classmethod
    def unpack(cls, settings: bytes) -> Options:
        """Read them back. Raises UnsupportedStream for newer ones, CorruptStream for what nobody writes."""
        if len(settings) > SETTINGS.size:
            raise UnsupportedStream("the stream has settings of a newer extreme; install a newer gencodec")
        if len(settings) < SETTINGS.size:
            raise CorruptStream(
                f"extreme has {SETTINGS.size} bytes of settings, the header holds {len(settings)}"
            )
        steps, candidates, threshold, key, beam, restart, metric, length, flags = SETTINGS.unpack(settings)
        try:
            options = cls(
                steps,
                candidates + 1,
                threshold * FINEST if threshold else None,
                None if key == BY_QUALITY else key,
                beam,
                RESTARTS[restart],
                METRICS[metric],
                length,
                flags & 1,
                SAMPLERS[flags >> 1 & 3],
                flags >> 3,
            )
            options._check()
        except (ValueError, IndexError) as error:
            raise CorruptStream(f"no encoder writes such settings of extreme: {error}") from error
        return options

    def _check(self) -> None:
        if self.threshold is not None and not FINEST <= self.threshold <= 6:
            raise ValueError(f"threshold is a distance of {FINEST} to 6, got {self.threshold!r}")
        for name, low, high in (*WHOLE, ("key_quality", 0, NUM_QUALITIES - 1)):
            value = getattr(self, name)
            if value is None and name == "key_quality":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} is a whole number {low}..{high}, got {value!r}")
        for name, known in (("restart", RESTARTS), ("metric", METRICS), ("sampler", SAMPLERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
