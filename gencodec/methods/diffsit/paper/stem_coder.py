"""The learned STEM on the wire, in place of `pieces.StemCoder`: pieces of a GOP to payloads and back.

    group of frames, again and again: backbone, then its MV frames, nearer ones first
    key frame    as in `intra`: z, then y in four passes
    backbone     motion: z, y in two passes; then z, y in two passes
    MV frame     motion: z, y in two passes
    behind them all shares of the repair, where there are new ones

Encoder and decoder run the same lines after the symbols, whose tables come from symbols and quality alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.hyper import HYPER_STRIDE
from gencodec.entropy.latents import check_fingerprint
from gencodec.entropy.shares import get_shares, put_shares
from gencodec.methods.diffsit.paper.motion_codec import MotionCodec
from gencodec.methods.diffsit.paper.stem_config import StemConfig
from gencodec.methods.diffsit.paper.stem_model import STRIDE, LearnedState, StemModel
from gencodec.methods.diffsit.pieces import Choose, Piece, none_new
from gencodec.methods.diffsit.stem import groups_of, mv_frames
from gencodec.methods.intra.key_frames import CodedKey, KeyFrameCoder
from gencodec.methods.intra.networks import STRIDE as BLOCK
from gencodec.methods.s2vc.paper.coder import PaperCoded, PaperLatentCoder
from gencodec.methods.s2vc.paper.pcodec import key_quality
from gencodec.nn.exact import ACT_STEP, pattern
from gencodec.nn.exact_io import load_exact
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.shares import grid_of
from gencodec.nn.state import load_float
from gencodec.nn.warp import warp

EXACT = ("latents.prior.", "motion.latents.prior.", "mv.latents.prior.", "temporal.")  # kept as integers
TRAINING = ("latents.z_index.", "motion.latents.z_index.", "mv.latents.z_index.")
NOT_FLOAT = (*EXACT, *TRAINING)

# (frame's number, latents of it or None, how they are coded) -> what both sides have
PutOrGet = Callable[[PaperLatentCoder, Tensor | None, Tensor], PaperCoded]


class Side(NamedTuple):
    """One side of the wire: how key frames and latents are coded there, and what it knows of a frame."""

    key: Callable[[int], CodedKey]
    code: PutOrGet
    x: Callable[[int], Tensor | None]  # (1,3,H,W) padded; None at a decoder


class LearnedLoop:
    """Networks and coders of the learned STEM; `key` codes key frames."""

    def __init__(
        self, config: StemConfig, tensors: Mapping[str, Tensor], key: KeyFrameCoder, recorded: str | None
    ) -> None:
        self.key, self.device = key, key.device
        model = StemModel(config)
        load_exact(model.temporal, [], tensors, "temporal.")
        self.coders = {prefix: PaperLatentCoder(m, tensors, prefix) for prefix, m in model.codecs().items()}
        load_float(model, tensors, skip=NOT_FLOAT)
        self.model = model.eval().requires_grad_(False).to(self.device)
        if recorded is not None:
            check_fingerprint(self.fingerprint(), recorded, self.device)

    @torch.inference_mode()
    def fingerprint(self) -> str:
        """SHA-256 of the exact networks' integer outputs on a fixed input."""
        digest, c = hashlib.sha256(), self.model.config
        for coder in self.coders.values():
            digest.update(coder.fingerprint(self.device).encode())
        state = self.model.temporal.begin(pattern((1, c.key_channels, 3, 4), 23).to(self.device))
        state = self.model.temporal.update(state, pattern((1, c.y_channels, 3, 4), 7).to(self.device))
        digest.update((state / ACT_STEP).to(torch.int32).cpu().numpy().astype("<i4").tobytes())
        return digest.hexdigest()

    def begin(self, coded: CodedKey, own: int) -> LearnedState:
        """The state behind a key frame of `intra`'s quality `own`."""
        picture = self.key.picture(coded.y_hat, own, coded.edges)[0].clamp(0, 1)
        height, width = coded.y_hat.shape[-2:]
        # copies of the last row and column, as `pad_to_multiple`: nothing is computed that could round
        fill = (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE)
        y_hat = F.pad(coded.y_hat, fill, mode="replicate")
        return self.model.begin(pad_to_multiple(picture, STRIDE), y_hat)

    def backbone(
        self, side: Side, number: int, state: LearnedState, quality: Tensor
    ) -> tuple[LearnedState, list[np.ndarray]]:
        """A backbone against the one before."""
        model, x = self.model, side.x(number)
        flow, symbols = self.flow(side, model.motion, "motion.latents.", number, state, quality)
        contexts = model.context(state, flow)
        y = None if x is None else model.encode(x, contexts, quality)
        coded = side.code(self.coders["latents."], y, state.memory)
        features, picture = model.decode(coded.y_hat, coded.log2_step, contexts, quality)
        return model.after(state, features, picture, coded.y_hat), [*symbols, *coded.symbols]

    def mv_frame(
        self, side: Side, number: int, state: LearnedState, quality: Tensor
    ) -> tuple[Tensor, list[np.ndarray]]:
        """The picture (1,3,H,W) of an MV frame: its backbone, moved."""
        flow, symbols = self.flow(side, self.model.mv, "mv.latents.", number, state, quality)
        return warp(state.picture, flow), symbols

    def flow(
        self, side: Side, codec: MotionCodec, prefix: str, number: int, state: LearnedState, quality: Tensor
    ) -> tuple[Tensor, list[np.ndarray]]:
        """The coded flow (1,2,H,W) from a frame to the state's picture."""
        x = side.x(number)
        y = None if x is None else codec.analyse(x, state.picture, quality)
        coded = side.code(self.coders[prefix], y, codec.still(state.memory))
        return codec.synthesise(coded.y_hat, coded.log2_step, quality), coded.symbols


class LearnedStem:
    """Codes pieces against a state that the caller keeps, as `pieces.StemCoder` does."""

    def __init__(self, loop: LearnedLoop, chain: int) -> None:
        self.loop, self.chain = loop, chain

    @torch.inference_mode(mode=False)  # symbols of key frames may be chosen by gradient
    @torch.no_grad()
    def encode(
        self, frames: Sequence[Tensor], state: Any, quality: int, choose: Choose = none_new
    ) -> tuple[bytes, Piece]:
        """The payload of a piece of frames, uint8 (3,H,W); `state` None at the start of a GOP."""
        encoder, device, own = SymbolEncoder(), self.loop.device, _key_quality(quality)

        def key(number: int) -> CodedKey:
            return self.loop.key.encode(encoder, frames[number], own)

        def put(coder: PaperLatentCoder, y: Tensor | None, memory: Tensor) -> PaperCoded:
            assert y is not None, "an encoder knows the frame"
            return coder.encode(encoder, y, quality, memory)

        def x(number: int) -> Tensor:
            return pad_to_multiple(frames[number].to(device)[None].float() / 255, STRIDE)

        size = (frames[0].shape[-2], frames[0].shape[-1])
        piece = self._walk(Side(key, put, x), len(frames), state, quality, size)
        piece = piece.telling(choose(piece))
        put_shares(encoder, piece.told, is_key=state is None)
        return encoder.finish(), piece

    @torch.inference_mode()
    def decode(self, payload: bytes, video: VideoInfo, count: int, state: Any, quality: int) -> Piece:
        """Read a piece of `count` frames. Raises CorruptStream."""
        decoder, own = SymbolDecoder(payload), _key_quality(quality)

        def get(coder: PaperLatentCoder, y: Tensor | None, memory: Tensor) -> PaperCoded:
            return coder.decode(decoder, quality, memory)

        side = Side(lambda _: self.loop.key.decode(decoder, video, own), get, lambda _: None)
        piece = self._walk(side, count, state, quality, (video.height, video.width))
        height, width = piece.pictures.shape[-2:]
        piece = piece.telling(get_shares(decoder, grid_of(height, width), is_key=state is None))
        decoder.finish()
        return piece

    def _walk(
        self, side: Side, count: int, state: LearnedState | None, quality: int, size: tuple[int, int]
    ) -> Piece:
        """The one order of coding, for both sides."""
        q = torch.tensor([quality], device=self.loop.device)
        pictures, symbols = dict[int, Tensor](), list[np.ndarray]()
        for group in groups_of(count, self.chain):
            if state is None:
                coded = side.key(group.backbone)
                state, found = self.loop.begin(coded, _key_quality(quality)), coded.symbols
            else:
                state, found = self.loop.backbone(side, group.backbone, state, q)
            symbols.extend(found)
            pictures[group.backbone] = state.picture
            for number in (group.backbone + offset for offset in group.offsets):
                pictures[number], found = self.loop.mv_frame(side, number, state, q)
                symbols.extend(found)
        height, width = (-(-n // BLOCK) * BLOCK for n in size)
        clip = torch.cat([pictures[n] for n in range(count)])[..., :height, :width]
        nothing = np.zeros((count, 2, 0, 0), np.int32)  # of blocks, of which there are none
        after: Any = state
        return Piece(clip, mv_frames(count, self.chain), nothing, after, symbols)


def _key_quality(quality: int) -> int:
    return int(key_quality(torch.tensor(quality)))
