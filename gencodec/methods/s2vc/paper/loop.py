"""The paper preset's loop on the wire: frames to payloads and back, up to the features.

    INTRA      as in `intra`: z, then y in four passes
    PREDICTED  z, then y in two passes

The interface is that of the tiny preset's `LoopCoder`. Tables and means come from symbols and the packet's
quality alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.hyper import HYPER_STRIDE
from gencodec.entropy.latents import check_fingerprint
from gencodec.methods.intra.key_frames import CodedKey, KeyFrameCoder
from gencodec.methods.s2vc.paper.coder import PaperCoded, PaperLatentCoder
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.pcodec import STRIDE, PCodec, key_quality
from gencodec.nn.exact import ACT_STEP, pattern
from gencodec.nn.exact_io import load_exact
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.state import load_float

EXACT = ("latents.prior.", "temporal.")  # kept as integers
NOT_FLOAT = (*EXACT, "latents.z_index.")  # or of use in training only


class PaperState(NamedTuple):
    """What the next frame is coded against: features (1,C,H/8,W/8), temporal state, frames since INTRA."""

    features: Tensor
    memory: Tensor
    age: int


class PaperFrame(NamedTuple):
    """One frame as both sides have it; `before` are the features it was coded against, None after INTRA."""

    state: PaperState
    quality: int
    symbols: list[np.ndarray]
    before: Tensor | None = None
    told: None = None  # shares of a repair, of which this preset has none


class PaperLoopCoder:
    """Codes frames against a state that the caller keeps; has none of its own.

    `recorded` is the fingerprint that the exact networks must have on this device; InexactDevice otherwise.
    """

    def __init__(
        self,
        config: PaperConfig,
        tensors: Mapping[str, Tensor],
        key: KeyFrameCoder,
        reset_period: int,
        recorded: str | None = None,
    ) -> None:
        self.key, self.device, self.reset_period = key, key.device, reset_period
        model = PCodec(config)
        load_exact(model.temporal, [], tensors, "temporal.")
        self.latents = PaperLatentCoder(model.latents, tensors)
        load_float(model, tensors, skip=NOT_FLOAT)
        self.model = model.eval().requires_grad_(False).to(self.device)
        if recorded is not None:
            check_fingerprint(self.fingerprint(), recorded, self.device)

    @torch.inference_mode()
    def encode_key(self, frame: Tensor, quality: int, choose: object = None) -> tuple[bytes, PaperFrame]:
        """The payload of an INTRA packet for a frame, uint8 (3,H,W), in a GOP of `quality`.

        Shares of a repair are not chosen: the generator of this preset repairs no coded picture.
        """
        encoder, own = SymbolEncoder(), self._key_quality(quality)
        coded = self.key.encode(encoder, frame, own, is_rounded=True)
        return encoder.finish(), self._after_key(coded, quality, own)

    @torch.inference_mode()
    def decode_key(self, payload: bytes, video: VideoInfo, quality: int) -> PaperFrame:
        """Read an INTRA packet. Raises CorruptStream."""
        decoder, own = SymbolDecoder(payload), self._key_quality(quality)
        coded = self.key.decode(decoder, video, own)
        decoder.finish()
        return self._after_key(coded, quality, own)

    @torch.inference_mode()
    def encode(
        self, frame: Tensor, state: PaperState, quality: int, choose: object = None
    ) -> tuple[bytes, PaperFrame]:
        """The payload of a PREDICTED packet for a frame, uint8 (3,H,W); `choose` as in `encode_key`."""
        encoder, q = SymbolEncoder(), self._quality(quality)
        context = self._context(state)
        x = pad_to_multiple(frame.to(self.device)[None].float() / 255, STRIDE)
        y = self.model.encode(x, context, q)
        coded = self.latents.encode(encoder, y, quality, state.memory)
        return encoder.finish(), self._after(state, context, coded, quality)

    @torch.inference_mode()
    def decode(self, payload: bytes, state: PaperState, quality: int) -> PaperFrame:
        """Read a PREDICTED packet. Raises CorruptStream."""
        decoder = SymbolDecoder(payload)
        context = self._context(state)
        coded = self.latents.decode(decoder, quality, state.memory)
        decoder.finish()
        return self._after(state, context, coded, quality)

    @torch.inference_mode()
    def fingerprint(self) -> str:
        """SHA-256 of the exact networks' integer outputs on a fixed input."""
        digest = hashlib.sha256(self.latents.fingerprint(self.device).encode())
        temporal, c = self.model.temporal, self.model.config
        state = temporal.begin(pattern((1, c.key_channels, 3, 4), 23).to(self.device))
        for modulus in (7, 31):
            state = temporal.update(state, pattern((1, c.y_channels, 3, 4), modulus).to(self.device))
        digest.update((state / ACT_STEP).to(torch.int32).cpu().numpy().astype("<i4").tobytes())
        return digest.hexdigest()

    def _after_key(self, coded: CodedKey, quality: int, own: int) -> PaperFrame:
        picture, _ = self.key.picture(coded.y_hat, own, coded.edges)
        height, width = coded.y_hat.shape[-2:]
        # copies of the last row and column, as `pad_to_multiple`: nothing is computed that could round
        fill = (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE)
        y_hat = F.pad(coded.y_hat, fill, mode="replicate")
        features, memory = self.model.begin(pad_to_multiple(picture, STRIDE), y_hat)
        return PaperFrame(PaperState(features, memory, 0), quality, coded.symbols)

    def _after(self, state: PaperState, context: Tensor, coded: PaperCoded, quality: int) -> PaperFrame:
        features = self.model.decode(coded.y_hat, coded.log2_step, context, self._quality(quality))
        memory = self.model.temporal.update(state.memory, coded.y_hat)
        after = PaperState(features, memory, state.age + 1)
        return PaperFrame(after, quality, coded.symbols, state.features)

    def _context(self, state: PaperState) -> Tensor:
        return self.model.context(state.features, reset=(state.age + 1) % self.reset_period == 0)

    def _quality(self, quality: int) -> Tensor:
        return torch.tensor([quality], device=self.device)

    def _key_quality(self, quality: int) -> int:
        return int(key_quality(self._quality(quality)))
