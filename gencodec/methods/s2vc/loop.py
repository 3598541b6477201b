"""The coding loop on the wire: frames to payloads and back, up to the coded picture.

    INTRA      as in `intra`: y in stages, how strongly edges are smoothed
    PREDICTED  motion from coarse to fine, edges anew where an anchor wants it, then the residual in stages
    both       behind that shares of the repair, where there are new ones

Encoder and decoder run the same lines after the symbols. Tables come from symbols and the packet's quality
alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.edges import get_edges, put_edges
from gencodec.entropy.latents import CodedLatents, LatentCoder, check_fingerprint
from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.shares import get_shares, put_shares
from gencodec.methods.intra.edge_choice import choose_edges
from gencodec.methods.intra.key_frames import CodedKey, KeyFrameCoder
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.intra.perceptual import PerceptualQuantiser, Wish
from gencodec.methods.s2vc.model import (
    BETWEEN,
    CYCLE,
    DEAD_ZONE,
    STEPS_PER_PIXEL,
    CodedFrame,
    CodingLoop,
    key_quality,
    level_of,
    motion_unit,
    quantised,
)
from gencodec.nn.deblock import deblocked, no_edges
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import log_spaced
from gencodec.nn.shares import grid_of

if TYPE_CHECKING:
    from typing_extensions import Self

ANCHOR_PRICE = (4.5, 0.27)  # LPIPS that a bit a pixel of an anchor is worth, at quality 0 and 63
LOOKS = 2  # anchors to one whose edges an encoder looks at
EDGE_PRICE = (72.0, 0.54)  # the same for strengths of edges: those of the key frame mostly do


class LoopState(NamedTuple):
    """What the next frame is coded against.

    Coded picture, temporal prior's state, frames since INTRA, how strongly edges were smoothed, see
    `nn.deblock`, and the last frame's motion in half pixels, int32 (2,h,w), or None behind INTRA.
    """

    picture: Tensor
    memory: Tensor
    age: int
    edges: np.ndarray
    motion: np.ndarray | None = None


class Coded(NamedTuple):
    """One frame as both sides have it: the state that it leaves, what the generator sees, int32 symbols.

    `clock` is the quality that the generator renders at: `intra`'s own for a key frame, else the packet's, at
    which anchors have about `intra`'s steps. `told`: new shares of the repair, int32 (rows,columns), see
    `nn.shares`; None: there are none.
    """

    state: LoopState
    frame: CodedFrame
    clock: int
    symbols: list[np.ndarray]
    told: np.ndarray | None = None

    def telling(self, told: np.ndarray | None) -> Self:
        """The same with new shares."""
        symbols = self.symbols if told is None else [*self.symbols, told]
        return self._replace(told=told, symbols=symbols)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of regions that have shares."""
        height, width = self.frame.picture.shape[-2:]
        return grid_of(height, width)


Choose = Callable[[Coded], np.ndarray | None]  # which shares of the repair to tell


def none_new(_: Coded) -> None:
    """The choice of an encoder that leaves all as it is."""


class LoopCoder:
    """Codes frames against a state that the caller keeps; has none of its own.

    `recorded` is the fingerprint that the exact networks must have on this device; InexactDevice otherwise.
    `cycle`: frames from anchor to anchor.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        key: KeyFrameCoder,
        recorded: str | None = None,
        cycle: int = CYCLE,
    ) -> None:
        self.key, self.device, self.cycle = key, key.device, cycle
        loop = CodingLoop()
        loop.load_weights(tensors)
        self.latents = LatentCoder.load(loop.latents, tensors)
        self.motion = loop.motion_coder = MotionCoder.load(tensors)
        self.loop = loop.eval().requires_grad_(False).to(self.device)
        if recorded is not None:
            check_fingerprint(self.fingerprint(), recorded, self.device)

    def encode_key(self, frame: Tensor, quality: int, choose: Choose = none_new) -> tuple[bytes, Coded]:
        """The payload of an INTRA packet for a frame, uint8 (3,H,W)."""
        encoder = SymbolEncoder()
        coded = self.put_key(encoder, frame, quality)
        coded = coded.telling(choose(coded))
        put_shares(encoder, coded.told, is_key=True)
        return encoder.finish(), coded

    def decode_key(self, payload: bytes, video: VideoInfo, quality: int) -> Coded:
        """Read an INTRA packet. Raises CorruptStream."""
        decoder = SymbolDecoder(payload)
        coded = self.get_key(decoder, video, quality)
        coded = coded.telling(get_shares(decoder, coded.grid, is_key=True))
        decoder.finish()
        return coded

    def encode(
        self, frame: Tensor, state: LoopState, quality: int, choose: Choose = none_new
    ) -> tuple[bytes, Coded]:
        """The payload of a PREDICTED packet for a frame, uint8 (3,H,W)."""
        encoder = SymbolEncoder()
        coded = self.put(encoder, frame, state, quality)
        coded = coded.telling(choose(coded))
        put_shares(encoder, coded.told, is_key=False)
        return encoder.finish(), coded

    def decode(self, payload: bytes, state: LoopState, quality: int) -> Coded:
        """Read a PREDICTED packet. Raises CorruptStream."""
        decoder = SymbolDecoder(payload)
        coded = self.get(decoder, state, quality)
        coded = coded.telling(get_shares(decoder, coded.grid, is_key=False))
        decoder.finish()
        return coded

    @torch.inference_mode(mode=False)  # symbols may be chosen by gradient
    @torch.no_grad()
    def put_key(self, encoder: SymbolEncoder, frame: Tensor, quality: int) -> Coded:
        """Put a key frame, uint8 (3,H,W), into `encoder`."""
        own = key_quality(quality)
        return self._after_key(self.key.encode(encoder, frame, own), own)

    @torch.inference_mode()
    def get_key(self, decoder: SymbolDecoder, video: VideoInfo, quality: int) -> Coded:
        """Read it back. Raises CorruptStream."""
        own = key_quality(quality)
        return self._after_key(self.key.decode(decoder, video, own), own)

    @torch.inference_mode(mode=False)  # symbols may be chosen by gradient
    @torch.no_grad()
    def put(
        self, encoder: SymbolEncoder, frame: Tensor, state: LoopState, quality: int, thrift: float = 1.0
    ) -> Coded:
        """Put a frame, uint8 (3,H,W), into `encoder`, against `state`; `thrift` as in `CodingLoop`."""
        level = self._level(quality, state)
        x = pad_to_multiple(frame.to(self.device)[None].float() / 255, STRIDE)
        unit = motion_unit(quality)
        inherited = None if state.motion is None else self._motion(state.motion, 1)
        motion = self.loop.motion_of(x, state.picture, self._scalar(quality), inherited, thrift)
        field = motion[0].to(torch.int32).cpu().numpy() // unit
        symbols = self.motion.encode(encoder, field, _in_units(state.motion, unit))
        prediction = self.loop.predict(state.picture, motion)
        moved = self.loop.moved(state.memory, motion)
        edges = state.edges
        if level >= BETWEEN:
            edges = self._edges(x, prediction, quality, level, state)
            put_edges(encoder, edges, state.edges)
            symbols = [*symbols, edges]
        y_hat = self._chosen(x, prediction, quality, level, moved, edges)
        coded = self.latents.encode(encoder, y_hat, level, moved)
        return self._after(state, quality, motion, prediction, moved, coded, symbols, edges)

    @torch.inference_mode()
    def get(self, decoder: SymbolDecoder, state: LoopState, quality: int) -> Coded:
        """Read it back. Raises CorruptStream."""
        level = self._level(quality, state)
        height, width = state.memory.shape[-2:]
        unit = motion_unit(quality)
        field, symbols = self.motion.decode(decoder, (height, width), _in_units(state.motion, unit))
        motion = self._motion(field, unit)
        moved = self.loop.moved(state.memory, motion)
        edges = state.edges
        if level >= BETWEEN:
            edges = get_edges(decoder, grid_of(*state.picture.shape[-2:]), edges)
            symbols = [*symbols, edges]
        coded = self.latents.decode(decoder, (height, width), level, self.device, moved)
        prediction = self.loop.predict(state.picture, motion)
        return self._after(state, quality, motion, prediction, moved, coded, symbols, edges)

    @torch.inference_mode()
    def fingerprint(self) -> str:
        """SHA-256 of the exact networks' integer outputs on a fixed input."""
        parts = self.latents.fingerprint(self.device) + self.loop.temporal.fingerprint(self.device)
        return hashlib.sha256(parts.encode()).hexdigest()

    def _edges(self, x: Tensor, prediction: Tensor, quality: int, level: int, state: LoopState) -> np.ndarray:
        """How strongly an anchor's edges are best smoothed: as it is with symbols by rounding."""
        if not self.key.smooths:
            return no_edges(*x.shape[-2:])
        if (state.age + 1) // self.cycle % LOOKS == 0:
            return state.edges
        own = self._scalar(level)
        y_hat = quantised(self.loop.to_latents(x, prediction, own))
        picture, _ = self.loop.to_picture(y_hat, prediction, own)
        price = float(log_spaced(self._scalar(quality), *EDGE_PRICE))
        step = self.loop.mean_step(quality)
        return choose_edges(picture, x, step, self.key.judge, price, state.edges)

    def _chosen(
        self, x: Tensor, prediction: Tensor, quality: int, level: int, moved: Tensor, edges: np.ndarray
    ) -> Tensor:
        """The residual's symbols; those of anchors are chosen as `tune` says."""
        y = self.loop.to_latents(x, prediction, self._scalar(level))
        if level < BETWEEN or self.key.tune != "lpips":
            return quantised(y)
        price = float(log_spaced(self._scalar(quality), *ANCHOR_PRICE))
        show = partial(self._picture, prediction=prediction, quality=quality, level=level, edges=edges)
        return self.quantiser(Wish(y, x, lambda y_hat: show(y_hat)[0], price, DEAD_ZONE), level, moved)

    def _picture(
        self, y_hat: Tensor, prediction: Tensor, quality: int, level: int, edges: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """The coded picture, within [0,1], and y_hat without its gains."""
        picture, scaled = self.loop.to_picture(y_hat, prediction, self._scalar(level))
        return deblocked(picture, edges, self.loop.mean_step(quality)).clamp(0, 1), scaled

    @cached_property
    def quantiser(self) -> PerceptualQuantiser:
        """For encoders that are tuned for LPIPS."""
        return PerceptualQuantiser(self.latents, self.key.quantiser.lpips)

    def _motion(self, field: np.ndarray, unit: int) -> Tensor:
        """A field in steps of `unit` as half pixels, (1,2,h,w)."""
        return torch.from_numpy(unit * field).to(self.device).float()[None]

    def _after_key(self, coded: CodedKey, own: int) -> Coded:
        picture, scaled = self.key.picture(coded.y_hat, own, coded.edges)
        picture = picture.clamp(0, 1)
        still = torch.zeros_like(scaled[:, :2])
        state = LoopState(picture, self.loop.temporal.begin(coded.y_hat), 0, coded.edges)
        return Coded(state, CodedFrame(picture, scaled, still), own, coded.symbols)

    def _after(
        self,
        state: LoopState,
        quality: int,
        motion: Tensor,
        prediction: Tensor,
        moved: Tensor,
        coded: CodedLatents,
        symbols: list[np.ndarray],
        edges: np.ndarray,
    ) -> Coded:
        level = self._level(quality, state)
        picture, scaled = self._picture(coded.y_hat, prediction, quality, level, edges)
        memory = self.loop.temporal.update(moved, coded.y_hat)
        field = motion[0].to(torch.int32).cpu().numpy()
        after = LoopState(picture, memory, state.age + 1, edges, field)
        frame = CodedFrame(picture, scaled, motion / STEPS_PER_PIXEL)
        return Coded(after, frame, quality, [*symbols, *coded.symbols])

    def _level(self, quality: int, state: LoopState) -> int:
        return level_of(quality, state.age + 1, self.cycle)

    def _scalar(self, value: int) -> Tensor:
        return torch.tensor([value], device=self.device)


def _in_units(motion: np.ndarray | None, unit: int) -> np.ndarray | None:
    """A field of half pixels in steps of `unit`, rounded down."""
    return None if motion is None else motion // unit
