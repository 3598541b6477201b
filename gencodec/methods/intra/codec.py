"""`intra`: every frame a key frame, by the shared image codec. What goes on the wire is put together here.

    frame ─► KeyFrameCoder ─► y_hat ─► pictures, linear and repaired ─► shares of the repair ─┐
               └─► payload ◄──────────────────────────────────────────────────────────────────┘
    payload ─► KeyFrameCoder ─► y_hat ─► pictures ─► mixed by shares ─► x_hat (cropped)

A packet holds one frame; its payload is the entropy coder's bytes: y in the stages of `stages`, behind it how
strongly edges are smoothed and how much of the repair is shown, region by region, see `entropy.edges` and
`entropy.shares`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
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
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.shares import get_shares, put_shares
from gencodec.methods.intra.key_frames import KEY_PRICE, KeyFrameCoder, finished
from gencodec.methods.intra.share_choice import Seen, choose_shares
from gencodec.nn.shares import grid_of, shown

if TYPE_CHECKING:
    from typing_extensions import Self

TEXTURE = 6.0  # of `choose_shares`: above the default, for the choice is shown in the frame that it looks at


class Intra(Codec):
    """The key-frame codec as a method: the baseline that every other one must beat."""

    name: ClassVar[str] = "intra"
    codec_id: ClassVar[int] = 1
    version: ClassVar[int] = 7
    qualities: ClassVar[range] = range(64)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {"tiny": (("intra-tiny-9",),)}
    paper: ClassVar[str] = "Grouped context model, He et al. 2022 (ELIC), https://arxiv.org/abs/2203.10886"

    def __init__(self, coder: KeyFrameCoder, preset: str, weights_id: int) -> None:
        self.coder, self.preset, self.weights_id, self.settings = coder, preset, weights_id, b""

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """See `Codec.load`; `intra` has no settings."""
        if settings:
            raise CorruptStream(f"intra has no settings, the header holds {len(settings)} bytes of them")
        role = "intra"
        coder = KeyFrameCoder(weights.files[role], weights.metadata[role], device)
        coder.tune = "lpips"
        return cls(coder, weights.preset, weights.id)

    def set_tune(self, tune: Tune) -> None:
        """See `Codec.set_tune`: what shares of the repair are chosen by."""
        self.coder.tune = tune

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
        """See `Codec.encode`: one INTRA packet a frame."""
        for number, frame in enumerate(frames):
            gop = rate.select(partial(self._encode_frame, frame, number, video))
            for symbols in gop.symbols:
                if on_symbols:
                    on_symbols(symbols)
            if on_recon:
                for recon in gop.recon():
                    on_recon(recon)
            yield from gop.packets

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
            if packet.type != FrameType.INTRA or packet.num_frames != 1:
                raise CorruptStream(
                    f"intra has packets of one INTRA frame, got {packet.type!r}, {packet.num_frames}"
                )
            decoder = SymbolDecoder(packet.payload)
            coded = self.coder.decode(decoder, video, packet.quality)
            shares = get_shares(decoder, grid_of(video.height, video.width), is_key=True)
            decoder.finish()
            for symbols in coded.symbols:
                if on_symbols:
                    on_symbols(symbols)
            yield self.coder.render(coded, video, packet.quality, shares)

    def _encode_frame(self, frame: Tensor, number: int, video: VideoInfo, quality: int) -> EncodedGop:
        encoder = SymbolEncoder()
        coded = self.coder.encode(encoder, frame, quality, is_rounded=True)
        linear, repaired = self.coder.pictures(coded, quality)
        seen = Seen.of(frame, linear[0], repaired[0])
        shares = choose_shares([seen], quality, 1, self.coder.judge, price=KEY_PRICE, texture=TEXTURE)
        put_shares(encoder, shares, is_key=True)
        packet = Packet(FrameType.INTRA, quality, number, 1, encoder.finish())
        recon = partial(finished, shown(linear, repaired, shares), video)
        return EncodedGop([packet], coded.symbols, [frame], lambda: iter([recon()]))
