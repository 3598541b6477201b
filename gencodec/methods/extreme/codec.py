"""`extreme`: key frames, and between them what both sides generate. All that goes on the wire is here.

A packet is a group of up to 30 frames, INTRA: the first key frame, then events (`gop`). The settings in the
header say how the predictor samples, which a decoder must know, and how the encoder decided:

    steps u8 | candidates - 1 u8 | threshold u16, in 1/10000, 0: by quality | key quality u8, 255: by quality
    | beam u8, 0: the greedy rule

Paper: Extreme Video Compression with Pre-trained Diffusion Models (arXiv 2402.08934); from facts alone. MIT.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import (
    Codec,
    CorruptStream,
    EncodedGop,
    FrameType,
    Packet,
    RateControl,
    UnsupportedStream,
    VideoInfo,
    Weights,
)
from gencodec.methods.extreme.gop import MAX_FRAMES, GopCoder
from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.methods.extreme.predictor import FlowPredictor
from gencodec.methods.extreme.search import GopSearch
from gencodec.methods.intra.codec import KeyFrameCoder
from gencodec.metrics.lpips import Lpips
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import config_from, load_float
from gencodec.sampler.noise import Noise

if TYPE_CHECKING:
    from typing_extensions import Self

SETTINGS = struct.Struct("<BBHBB")
BY_QUALITY = 255
THRESHOLDS = (0.5, 0.05)  # LPIPS-Alex that a generated frame may have, at quality 0 and 63
KEY_QUALITIES = (4, 60)  # `intra`'s, at quality 0 and 63
PRICES = (2e-4, 2e-6)  # LPIPS-Alex of a frame that a bit is worth, at quality 0 and 63, for the beam


class Options(NamedTuple):
    """What the settings hold; None: as the quality says."""

    steps: int = 4
    candidates: int = 1
    threshold: float | None = None
    key_quality: int | None = None
    beam: int = 0


class Extreme(Codec):
    """Autoregressive prediction with restarts: one packet a group of pictures."""

    name: ClassVar[str] = "extreme"
    codec_id: ClassVar[int] = 2
    version: ClassVar[int] = 1
    qualities: ClassVar[range] = range(NUM_QUALITIES)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {}
    paper: ClassVar[str] = "Extreme Video Compression, https://arxiv.org/abs/2402.08934"

    def __init__(self, coder: GopCoder, options: Options, preset: str, weights_id: int) -> None:
        self.coder, self.options, self.preset, self.weights_id = coder, options, preset, weights_id
        self.settings = self.pack_settings(**options._asdict())

    @classmethod
    def pack_settings(cls, **options: object) -> bytes:
        """`steps` (4) 1..255, `candidates` (1) 1..256, `beam` (0) 0..255; `threshold` and `key_quality`, else
        by quality. Raises ValueError.
        """
        if unknown := sorted(options.keys() - set(Options._fields)):
            raise ValueError(f"method 'extreme' has options {', '.join(Options._fields)}, got {unknown}")
        given = Options(**options)  # type: ignore[arg-type]
        threshold, key = given.threshold, given.key_quality
        if threshold is not None and not 0.0001 <= threshold <= 6:
            raise ValueError(f"threshold is a distance of 0.0001 to 6, got {threshold!r}")
        whole = (("steps", 1, 255), ("candidates", 1, 256), ("beam", 0, 255), ("key_quality", 0, 63))
        for name, low, high in whole:
            value = getattr(given, name)
            if value is None and name == "key_quality":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} is a whole number {low}..{high}, got {value!r}")
        parts = (round(10000 * (threshold or 0)), BY_QUALITY if key is None else key, given.beam)
        return SETTINGS.pack(given.steps, given.candidates - 1, *parts)

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """See `Codec.load`."""
        if len(settings) > SETTINGS.size:
            raise UnsupportedStream("the stream has settings of a newer extreme; install a newer gencodec")
        if len(settings) < SETTINGS.size:
            raise CorruptStream(
                f"extreme has {SETTINGS.size} bytes of settings, the header holds {len(settings)}"
            )
        steps, candidates, threshold, key, beam = SETTINGS.unpack(settings)
        if steps == 0 or threshold > 60000 or NUM_QUALITIES <= key < BY_QUALITY:
            raise CorruptStream("the settings of extreme are none that an encoder writes")
        options = Options(
            steps,
            candidates + 1,
            threshold / 10000 if threshold else None,
            None if key == BY_QUALITY else key,
            beam,
        )
        keys = KeyFrameCoder(weights.files["intra"], weights.metadata["intra"], device)
        net = PredictorNet(config_from(PredictorConfig, weights.metadata["extreme"].get("predictor", "{}")))
        load_float(net, weights.files["extreme"], skip=())
        coder = GopCoder(keys, FlowPredictor(net.to(keys.device), steps), options.candidates)
        return cls(coder, options, weights.preset, weights.id)

    def encode(
        self,
        frames: Iterable[Tensor],
        video: VideoInfo,
        rate: RateControl,
        *,
        seed: int = 0,
        on_recon: Callable[[Tensor], None] | None = None,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Packet]:
        """See `Codec.encode`: a packet for every 30 frames."""
        source, first = iter(frames), 0
        while group := list(islice(source, MAX_FRAMES)):
            gop = rate.select(partial(self._encode_gop, group, Noise(seed, first), video))
            for symbols in gop.symbols:
                if on_symbols:
                    on_symbols(symbols)
            if on_recon:
                for recon in gop.recon():
                    on_recon(recon)
            yield from gop.packets
            first += len(group)

    def decode(
        self,
        packets: Iterable[Packet],
        video: VideoInfo,
        *,
        seed: int = 0,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        """See `Codec.decode`."""
        for packet in packets:
            if packet.type != FrameType.INTRA or not 1 <= packet.num_frames <= MAX_FRAMES:
                raise CorruptStream(
                    f"extreme has INTRA packets of up to {MAX_FRAMES} frames, got {packet.type!r}, "
                    f"{packet.num_frames}"
                )
            yield from self._decode_packet(packet, Noise(seed, packet.first_frame), video, on_symbols)

    def _decode_packet(
        self,
        packet: Packet,
        noise: Noise,
        video: VideoInfo,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        key_quality = self._key_quality(packet.quality)
        symbols, events, keys = self.coder.read(packet.payload, video, key_quality, packet.num_frames)
        for array in symbols:
            if on_symbols:
                on_symbols(array)
        yield from self.coder.render(events, keys, video, key_quality, noise)

    def _encode_gop(self, group: list[Tensor], noise: Noise, video: VideoInfo, quality: int) -> EncodedGop:
        key_quality = self._key_quality(quality)
        search = GopSearch(self.coder, group, video, key_quality, noise, self._distance)
        if self.options.beam:
            events = search.best(_between(PRICES, quality), self.options.beam)
        else:
            events = search.greedy(self.options.threshold or _between(THRESHOLDS, quality))
        payload, symbols = self.coder.write(group, events, key_quality)
        packet = Packet(FrameType.INTRA, quality, noise.first_frame, len(group), payload)
        return EncodedGop([packet], symbols, group, lambda: self._decode_packet(packet, noise, video))

    def _key_quality(self, quality: int) -> int:
        """`intra`'s, for the key frames of a packet of `quality`."""
        first, last = KEY_QUALITIES
        by_quality = round(first + (last - first) * quality / (NUM_QUALITIES - 1))
        return by_quality if self.options.key_quality is None else self.options.key_quality

    def _distance(self, source: Tensor, decoded: Tensor) -> Tensor:
        """LPIPS-Alex of frames, uint8 (N,3,H,W) each: (N,)."""
        device = self.coder.key.device
        return self._lpips(source.to(device), decoded.to(device))

    @cached_property
    def _lpips(self) -> Lpips:
        return Lpips.load(self.coder.key.device)


def _between(ends: tuple[float, float], quality: int) -> float:
    """From the first at quality 0 to the second at 63, evenly in the logarithm."""
    return float(ends[0] * (ends[1] / ends[0]) ** (quality / (NUM_QUALITIES - 1)))
