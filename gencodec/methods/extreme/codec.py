"""`extreme`: coded frames, and between them what both sides generate. All that goes on the wire is here.

A packet is a group of pictures, INTRA: the first key frame, then events (`gop`). A group ends at its length
or at a scene cut. Settings: `settings`.

Paper: Extreme Video Compression with Pre-trained Diffusion Models (arXiv 2402.08934); from facts alone. MIT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

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
    Tune,
    VideoInfo,
    Weights,
)
from gencodec.methods.extreme.distances import distance_by
from gencodec.methods.extreme.events import Event
from gencodec.methods.extreme.gop import GopCoder, LastFrame, Predictor
from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.methods.extreme.predictor import FlowPredictor
from gencodec.methods.extreme.search import Distance, GopSearch
from gencodec.methods.extreme.settings import CODED_BY, Options
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.cuts import scenes_of
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.methods.s2vc.rendering import Renderer
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import config_from, load_float
from gencodec.sampler.noise import Noise

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

THRESHOLDS = (0.5, 0.12)  # LPIPS-Alex that a generated frame may have, at quality 0 and 63
WORST_KEY = 6  # `s2vc`'s quality of coded frames at quality 0
PRICES = (2e-4, 2e-6)  # LPIPS-Alex of a frame that a bit is worth, at quality 0 and 63, for the beam
RESET_PERIOD = 32  # coded frames after which the generator forgets
ALL_ANCHORS = 1  # cycle of the coding loop: coded frames are rare, and all that others are made of


class Extreme(Codec):
    """Autoregressive prediction with restarts: one packet a group of pictures."""

    name: ClassVar[str] = "extreme"
    codec_id: ClassVar[int] = 2
    version: ClassVar[int] = 8
    qualities: ClassVar[range] = range(NUM_QUALITIES)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {
        "tiny": (("extreme-tiny-2", *CODED_BY),),
        "paper": (),  # from a folder: `weights_from`
    }
    paper: ClassVar[str] = "Extreme Video Compression, https://arxiv.org/abs/2402.08934"

    def __init__(self, coder: GopCoder, options: Options, preset: str, weights_id: int) -> None:
        self.coder, self.options, self.preset, self.weights_id = coder, options, preset, weights_id
        self.settings = options.pack()

    @classmethod
    def pack_settings(cls, **options: object) -> bytes:
        """Fields of `settings.Options`. Raises ValueError.

        `steps` (2) 0..255 of the sampler, 0: the last frame is repeated; `candidates` (1) 1..256; `threshold`
        (by quality) of the distance to the source, above which frames are not kept; `key_quality` (by
        quality) 0..63 of coded frames; `beam` (0) 0..255, 0: the greedy rule; `restart` ("inter"), "key" or
        "pair" or "two-keys"; `metric` ("lpips") or "ms-ssim"; `gop_length` (60) 1..255; `pans` (1), 0: none
        are told; `sampler` and `quirks` are for the paper preset: "ddpm", "ddim", "dpmpp-2m"; 1 for the
        reference's last step. `settings.REFERENCE` holds the reference's own.
        """
        if unknown := sorted(options.keys() - set(Options._fields)):
            raise ValueError(f"method 'extreme' has options {', '.join(Options._fields)}, got {unknown}")
        return Options(**options).pack()  # type: ignore[arg-type]

    @classmethod
    def weights_from(cls, preset: str, path: Path | str | None) -> Weights | None:
        """See `Codec.weights_from`: the paper preset's folder is that of `paper.folder`."""
        if preset != "paper":
            return None
        from gencodec.methods.extreme.paper.folder import read_folder

        return read_folder(path)

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """See `Codec.load`."""
        options = Options.unpack(settings)
        key = KeyFrameCoder(weights.files["intra"], weights.metadata["intra"], device)
        key.tune = "lpips"
        tensors, metadata = weights.files["s2vc"], weights.metadata["s2vc"]
        loop = LoopCoder(tensors, key, metadata.get("fingerprint", ""), ALL_ANCHORS)
        renderer = Renderer(tensors, metadata.get("generator", "{}"), key.device, RESET_PERIOD)
        predictor: Predictor = LastFrame()
        if weights.preset == "paper":
            from gencodec.methods.extreme.paper.folder import load_predictor

            predictor = load_predictor(weights, options).to(key.device)
        elif options.steps:
            if options.sampler != "euler" or options.quirks:
                raise ValueError(f"sampler {options.sampler!r} and quirks are for the paper preset")
            config = config_from(PredictorConfig, weights.metadata["extreme"].get("predictor", "{}"))
            net = PredictorNet(config)
            load_float(net, weights.files["extreme"], skip=())
            predictor = FlowPredictor(net.to(key.device), options.steps)
        coder = GopCoder(loop, renderer, predictor, options.candidates)
        return cls(coder, options, weights.preset, weights.id)

    def set_tune(self, tune: Tune) -> None:
        """See `Codec.set_tune`: of coded frames."""
        self.coder.loop.key.tune = tune

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
        """See `Codec.encode`: a packet for every group of pictures."""
        first = 0
        for group in scenes_of(frames, self.options.gop_length):
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
            if packet.type != FrameType.INTRA or not 1 <= packet.num_frames <= self.options.gop_length:
                raise CorruptStream(
                    f"extreme has INTRA packets of up to {self.options.gop_length} frames here, got "
                    f"{packet.type!r}, {packet.num_frames}"
                )
            yield from self._decode_packet(packet, Noise(seed, packet.first_frame), video, on_symbols)

    def events_of(self, packet: Packet, video: VideoInfo) -> list[Event]:
        """What the encoder decided behind the first key frame of `packet`. Raises CorruptStream."""
        quality = self._key_quality(packet.quality)
        return self.coder.read(packet.payload, video, quality, packet.num_frames)[1]

    @cached_property
    def distance(self) -> Distance:
        """What encoders judge predicted frames by; any other may be set in its place before `encode`."""
        return distance_by(self.options.metric, self.coder.loop.device)

    def _decode_packet(
        self,
        packet: Packet,
        noise: Noise,
        video: VideoInfo,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        quality = self._key_quality(packet.quality)
        symbols, events, coded = self.coder.read(packet.payload, video, quality, packet.num_frames)
        for array in symbols:
            if on_symbols:
                on_symbols(array)
        yield from self.coder.render(events, coded, video, noise)

    def _encode_gop(self, group: list[Tensor], noise: Noise, video: VideoInfo, quality: int) -> EncodedGop:
        own = self._key_quality(quality)
        search = GopSearch(
            self.coder,
            group,
            video,
            own,
            noise,
            self.distance,
            restart=self.options.restart,
            pans=bool(self.options.pans),
            generates=self.options.steps > 0,
        )
        if self.options.beam:
            events = search.best(_between(PRICES, quality), self.options.beam)
        else:
            events = search.greedy(self.options.threshold or _between(THRESHOLDS, quality))
        payload, symbols = search.coded_frames.write(events)
        packet = Packet(FrameType.INTRA, quality, noise.first_frame, len(group), payload)
        return EncodedGop([packet], symbols, group, lambda: self._decode_packet(packet, noise, video))

    def _key_quality(self, quality: int) -> int:
        """`s2vc`'s, for the coded frames of a packet of `quality`."""
        by_quality = WORST_KEY + 6 * quality // 7
        return by_quality if self.options.key_quality is None else self.options.key_quality


def _between(ends: tuple[float, float], quality: int) -> float:
    """From the first at quality 0 to the second at 63, evenly in the logarithm."""
    return float(ends[0] * (ends[1] / ends[0]) ** (quality / (NUM_QUALITIES - 1)))
