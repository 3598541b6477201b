"""`diffsit`: one frame in three coded, two moved from it, clips rendered at once. All that goes on the wire.

    INTRA ─► clip ─► PREDICTED ─► clip ─► PREDICTED ─► clip         pieces.py, the same on both sides
               │                    │                    │
               ▼                    ▼                    ▼
            generator ─────────► generator ─────────► generator     rendering.py, decoder only

A packet is a piece of a group of pictures, as long as what is rendered together; a group ends at its length
or at a scene cut. Nothing that was rendered is coded against. Settings: `settings`.

Paper: Diff-SIT (arXiv 2603.18501); from facts alone. MIT. docs/methods/diffsit.md maps its terms to the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

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
from gencodec.entropy.motion import MotionCoder
from gencodec.methods.diffsit.pieces import Piece, StemCoder, StemState, none_new
from gencodec.methods.diffsit.rendering import Renderer, Rendition, load_generator
from gencodec.methods.diffsit.settings import Options
from gencodec.methods.diffsit.share_search import ShareSearch, Told
from gencodec.methods.diffsit.stem import ALL_ANCHORS, first_quality
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.cuts import Window, windows_of
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.nn.quality import NUM_QUALITIES

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

MV_TABLES = "mv"  # of the motion of MV frames, in the weights file


@dataclass(frozen=True)
class EncodedWindow(EncodedGop):
    """A window at one quality, the state it leaves, and its rendition."""

    after: StemState
    rendition: Rendition
    told: Told


class DiffSit(Codec):
    """Sparse coding and diffusion over clips: one packet in, one clip out."""

    name: ClassVar[str] = "diffsit"
    codec_id: ClassVar[int] = 4
    version: ClassVar[int] = 8
    qualities: ClassVar[range] = range(NUM_QUALITIES)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {
        "tiny": (("diffsit-tiny-4", "s2vc-tiny-6", "intra-tiny-9"),),
        "paper": (),  # from a folder: `weights_from`
    }
    paper: ClassVar[str] = "Diff-SIT, https://arxiv.org/abs/2603.18501"

    def __init__(
        self, coder: StemCoder, renderer: Renderer, options: Options, preset: str, weights_id: int
    ) -> None:
        self.coder, self.renderer, self.options = coder, renderer, options
        self.preset, self.weights_id, self.settings = preset, weights_id, options.pack()
        repairs = preset == "tiny" and options.diffusion
        self.search = ShareSearch(renderer, coder.loop.key) if repairs else None

    @classmethod
    def pack_settings(cls, **options: object) -> bytes:
        """Fields of `settings.Options`. Raises ValueError.

        `clip_length` (9) frames that are coded in a packet and rendered together: 9, 21 or 33; `gop_length`
        (63) 1..4095; `pattern` ("triple"), or "dense": every frame a backbone; `chain` (1) 1..4 MV frames on
        each side of a backbone; `diffusion` (1), 0: frames are shown as STEM has them.
        """
        return Options.of(**options).pack()

    @classmethod
    def weights_from(cls, preset: str, path: Path | str | None) -> Weights | None:
        """See `Codec.weights_from`: the paper preset's folder is that of docs/methods/diffsit-paper.md."""
        if preset != "paper":
            return None
        from gencodec.methods.diffsit.paper.folder import read_folder

        return read_folder(path)

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """See `Codec.load`."""
        options = Options.unpack(settings)
        key = KeyFrameCoder(weights.files["intra"], weights.metadata["intra"], device)
        key.tune = "lpips"
        if weights.preset == "paper":
            from gencodec.methods.diffsit.paper.folder import load_paper  # needs diffusers and peft

            coder, renderer = load_paper(weights, key, options)
            return cls(coder, renderer, options, weights.preset, weights.id)
        loop = LoopCoder(
            weights.files["s2vc"], key, weights.metadata["s2vc"].get("fingerprint", ""), ALL_ANCHORS
        )
        tensors, metadata = weights.files["diffsit"], weights.metadata["diffsit"]
        generator = None
        if options.diffusion:
            generator = load_generator(tensors, metadata.get("generator", "{}"), key.device)
        coder = StemCoder(loop, MotionCoder.load(tensors, MV_TABLES), options.chain)
        renderer = Renderer(generator, options.clip_length, key.device)
        return cls(coder, renderer, options, weights.preset, weights.id)

    def set_tune(self, tune: Tune) -> None:
        """See `Codec.set_tune`."""
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
        """See `Codec.encode`."""
        state, carry, told = None, None, Told()
        size = self.options.clip_length * max(rate.window // self.options.clip_length, 1)  # whole pieces
        for window in windows_of(frames, self.options.gop_length, size):
            if window.is_key:
                state, carry, told = None, None, Told()
            chosen = rate.select(partial(self._encode_window, window, state, carry, told, video))
            assert isinstance(chosen, EncodedWindow), "a RateControl returns what it was given"
            for symbols in chosen.symbols:
                if on_symbols:
                    on_symbols(symbols)
            if on_recon:
                for recon in chosen.recon():
                    on_recon(recon)
            yield from chosen.packets
            state, carry, told = chosen.after, chosen.rendition.after, chosen.told

    def decode(
        self,
        packets: Iterable[Packet],
        video: VideoInfo,
        *,
        seed: int = 0,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        """See `Codec.decode`: a clip at a time."""
        state, carry, shares = None, None, None
        for packet in packets:
            if packet.type == FrameType.INTRA:
                state, carry, shares = None, None, None
            elif state is None:
                raise CorruptStream("a predicted piece comes before any key frame")
            piece = self._decode_packet(packet, state, video)
            for symbols in piece.symbols:
                if on_symbols:
                    on_symbols(symbols)
            state, shares = piece.state, shares if piece.told is None else piece.told
            shown, carry = self.renderer.render(piece, packet.quality, carry, video, shares)
            yield from shown

    def _decode_packet(self, packet: Packet, state: StemState | None, video: VideoInfo) -> Piece:
        longest = self.options.clip_length
        if not 1 <= packet.num_frames <= longest:
            raise CorruptStream(f"diffsit has packets of 1..{longest} frames here, got {packet.num_frames}")
        return self.coder.decode(packet.payload, video, packet.num_frames, state, packet.quality)

    def _encode_window(
        self,
        window: Window,
        state: StemState | None,
        carry: Any,
        told: Told,
        video: VideoInfo,
        quality: int,
    ) -> EncodedWindow:
        packets: list[Packet] = []
        pieces: list[tuple[Piece, int, np.ndarray | None]] = []
        for first in range(0, len(window.frames), self.options.clip_length):
            frames = window.frames[first : first + self.options.clip_length]
            kind = FrameType.INTRA if state is None else FrameType.PREDICTED
            own = first_quality(quality) if state is None else quality
            choose = partial(self.search.choose, frames, own, told) if self.search else none_new
            payload, piece = self.coder.encode(frames, state, own, choose)
            packets.append(Packet(kind, own, window.first_frame + first, len(frames), payload))
            state, told = piece.state, told.then(piece)
            pieces.append((piece, own, told.shares))
        assert state is not None, "windows hold frames"
        rendition = Rendition(self.renderer, pieces, carry, video)
        symbols = [array for piece, _, _ in pieces for array in piece.symbols]
        return EncodedWindow(packets, symbols, window.frames, rendition, state, rendition, told)
