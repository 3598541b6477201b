"""`s2vc`: frames coded against a feature buffer, rendered by one diffusion step. All that goes on the wire.

    INTRA ─► picture ─► PREDICTED ─► picture ─► PREDICTED ─► ...    loop.py, the same on both sides
                │             │             │
                ▼             ▼             ▼
             generator ─► generator ─► generator                    rendering.py, decoder only

Settings: GOP length and reset period, two u16. At each reset the feature buffer is made anew from the
coded picture, never from a generated one, so no frame is coded by what is generated.
Paper: S2VC (arXiv 2512.07480). Written from the paper; MIT. docs/methods/s2vc.md maps its terms to the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from struct import Struct
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
    UnsupportedStream,
    VideoInfo,
    Weights,
)
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.cuts import Window, windows_of
from gencodec.methods.s2vc.generator import Memory
from gencodec.methods.s2vc.lead import led_quality
from gencodec.methods.s2vc.loop import Coded, LoopCoder, LoopState
from gencodec.methods.s2vc.rendering import Renderer, Rendition
from gencodec.methods.s2vc.share_search import ShareSearch, Watch

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

GOP_LENGTH, RESET_PERIOD = 96, 32
MAX_PERIOD = 4096  # frames, of both
SETTINGS = Struct("<HH")


@dataclass(frozen=True)
class EncodedWindow(EncodedGop):
    """A window at one quality, the state it leaves, and its rendition."""

    after: LoopState
    rendition: Rendition
    watch: Watch


class S2vc(Codec):
    """Single-step diffusion coding for low delay: one packet in, one frame out."""

    name: ClassVar[str] = "s2vc"
    codec_id: ClassVar[int] = 3
    version: ClassVar[int] = 10
    qualities: ClassVar[range] = range(64)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {
        "tiny": (("s2vc-tiny-6", "intra-tiny-9"),),
        "paper": (),  # from a folder: `weights_from`
    }
    paper: ClassVar[str] = "S2VC, https://arxiv.org/abs/2512.07480"

    def __init__(
        self, loop: LoopCoder, renderer: Renderer, gop_length: int, preset: str, weights_id: int
    ) -> None:
        self.loop, self.renderer, self.gop_length = loop, renderer, gop_length
        self.preset, self.weights_id = preset, weights_id
        self.settings = self.pack_settings(gop_length=gop_length, reset_period=renderer.reset_period)
        self.search = ShareSearch(renderer, loop.key) if preset == "tiny" else None

    def set_tune(self, tune: Tune) -> None:
        """See `Codec.set_tune`."""
        self.loop.key.tune = tune

    @classmethod
    def pack_settings(cls, **options: object) -> bytes:
        """`gop_length` (96) and `reset_period` (32), frames, 1..4096. Raises ValueError."""
        values = {"gop_length": GOP_LENGTH, "reset_period": RESET_PERIOD} | options
        if unknown := sorted(values.keys() - {"gop_length", "reset_period"}):
            raise ValueError(f"method 's2vc' has options gop_length and reset_period, got {unknown}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PERIOD:
                raise ValueError(f"{name} is a whole number 1..{MAX_PERIOD}, got {value!r}")
        return SETTINGS.pack(values["gop_length"], values["reset_period"])

    @classmethod
    def weights_from(cls, preset: str, path: Path | str | None) -> Weights | None:
        """See `Codec.weights_from`: the paper preset's folder is that of docs/methods/s2vc-paper.md."""
        if preset != "paper":
            return None
        from gencodec.methods.s2vc.paper.folder import read_folder

        return read_folder(path)

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """See `Codec.load`."""
        if len(settings) > SETTINGS.size:
            raise UnsupportedStream("the stream has settings of a newer s2vc; install a newer gencodec")
        if len(settings) < SETTINGS.size:
            raise CorruptStream(
                f"s2vc has {SETTINGS.size} bytes of settings, the header holds {len(settings)}"
            )
        gop_length, reset_period = SETTINGS.unpack(settings)
        if not (1 <= gop_length <= MAX_PERIOD and 1 <= reset_period <= MAX_PERIOD):
            raise CorruptStream(
                f"GOP length {gop_length} or reset period {reset_period} is not 1..{MAX_PERIOD}"
            )
        key = KeyFrameCoder(weights.files["intra"], weights.metadata["intra"], device)
        if weights.preset == "paper":
            from gencodec.methods.s2vc.paper.folder import load_paper  # needs diffusers and peft

            return cls(*load_paper(weights, key, reset_period), gop_length, weights.preset, weights.id)
        tensors, metadata = weights.files["s2vc"], weights.metadata["s2vc"]
        key.tune = "lpips"
        loop = LoopCoder(tensors, key, metadata.get("fingerprint", ""))
        renderer = Renderer(tensors, metadata.get("generator", "{}"), key.device, reset_period)
        return cls(loop, renderer, gop_length, weights.preset, weights.id)

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
        """See `Codec.encode`. A GOP ends at its length or at a scene cut; packets hold one frame each."""
        state, rendering, watch = None, None, Watch()
        for window in windows_of(frames, self.gop_length, rate.window):
            chosen = rate.select(partial(self._encode_window, window, state, rendering, watch, video))
            assert isinstance(chosen, EncodedWindow), "a RateControl returns what it was given"
            for symbols in chosen.symbols:
                if on_symbols:
                    on_symbols(symbols)
            if on_recon:
                for recon in chosen.recon():
                    on_recon(recon)
            yield from chosen.packets
            state, rendering, watch = chosen.after, chosen.rendition.after, chosen.watch

    def decode(
        self,
        packets: Iterable[Packet],
        video: VideoInfo,
        *,
        seed: int = 0,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        """See `Codec.decode`."""
        state, rendering, shares = None, None, None
        for packet in packets:
            coded = self._decode_packet(packet, state, video)
            for symbols in coded.symbols:
                if on_symbols:
                    on_symbols(symbols)
            state = coded.state
            if coded.told is not None or packet.type == FrameType.INTRA:
                shares = coded.told
            frame, rendering = self.renderer.render(coded, rendering, video, shares)
            yield frame

    def _decode_packet(self, packet: Packet, state: LoopState | None, video: VideoInfo) -> Coded:
        if packet.num_frames != 1:
            raise CorruptStream(f"s2vc has packets of one frame, got one of {packet.num_frames}")
        if packet.type == FrameType.INTRA:
            return self.loop.decode_key(packet.payload, video, packet.quality)
        if state is None:
            raise CorruptStream("a predicted frame comes before any key frame")
        return self.loop.decode(packet.payload, state, packet.quality)

    def _encode_window(
        self,
        window: Window,
        state: LoopState | None,
        rendering: Memory | None,
        watch: Watch,
        video: VideoInfo,
        quality: int,
    ) -> EncodedWindow:
        packets, coded = [], []

        def choose(one: Coded) -> np.ndarray | None:
            nonlocal watch
            if self.search is None:
                return None
            watch, told = self.search.watched(watch, frame, one)
            return told

        for i, frame in enumerate(window.frames):
            if i == 0 and window.is_key:
                kind, own = FrameType.INTRA, led_quality(quality, 0, self.gop_length)
                payload, now = self.loop.encode_key(frame, own, choose)
            else:
                assert state is not None, "a window without a key frame follows another"
                kind, own = FrameType.PREDICTED, led_quality(quality, state.age + 1, self.gop_length)
                payload, now = self.loop.encode(frame, state, own, choose)
            packets.append(Packet(kind, own, window.first_frame + i, 1, payload))
            coded.append((now, watch.shares))
            state = now.state
        assert state is not None, "windows hold frames"
        rendition = Rendition(self.renderer, coded, rendering, video)
        symbols = [array for one, _ in coded for array in one.symbols]
        return EncodedWindow(packets, symbols, window.frames, rendition, state, rendition, watch)
