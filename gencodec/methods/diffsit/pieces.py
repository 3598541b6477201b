"""Pieces of a group of pictures on the wire: what a packet of `diffsit` holds.

    group of frames, again and again: backbone, then the motion of its MV frames, nearer ones first
    behind them all: shares of the repair, where there are new ones

The first backbone behind nothing is a key frame, the others are coded against the backbone before by the
coding loop of `s2vc`, as anchors all. Encoder and decoder run the same lines after the symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.shares import get_shares, put_shares
from gencodec.methods.diffsit.stem import (
    ALL_ANCHORS,
    Field,
    Group,
    backbone_quality,
    groups_of,
    moved,
    mv_field,
    mv_frames,
    steps_expected,
    thrift_of,
    unit_of,
)
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.s2vc.loop import Coded, LoopCoder, LoopState
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.shares import grid_of

if TYPE_CHECKING:
    from typing_extensions import Self


class StemState(NamedTuple):
    """What the next piece is coded against: the last backbone, and the last motion of an MV frame."""

    loop: LoopState
    field: Field | None


class Piece(NamedTuple):
    """A piece as both sides have it.

    pictures (T,3,H,W) in [0,1], padded; motion int32 (T,2,h,w) in half pixels, to the backbone of an MV frame
    or to that before a backbone, zero for a key frame; the state that it leaves, and int32 symbols. `told`:
    new shares of the repair, int32 (rows,columns), see `nn.shares`; None: there are none.
    """

    pictures: Tensor
    is_mv: list[bool]
    motion: np.ndarray
    state: StemState
    symbols: list[np.ndarray]
    told: np.ndarray | None = None

    def telling(self, told: np.ndarray | None) -> Self:
        """The same with new shares."""
        symbols = self.symbols if told is None else [*self.symbols, told]
        return self._replace(told=told, symbols=symbols)


class Coding(NamedTuple):
    """What is known of a piece while it is coded, by frame."""

    pictures: dict[int, Tensor]
    motion: dict[int, np.ndarray]
    symbols: list[np.ndarray]


CodeFrame = Callable[[int, LoopState | None], Coded]  # (number, state) -> a backbone


def none_new(_: Piece) -> None:
    """The choice of an encoder that leaves shares as they are."""


# (number, its backbone, what to expect) -> motion in steps, int32 (2,h,w), and its symbols
Choose = Callable[[Piece], np.ndarray | None]  # which shares of the repair to tell
CodeMotion = Callable[[int, Tensor, np.ndarray | None], tuple[np.ndarray, list[np.ndarray]]]


class StemCoder:
    """Codes pieces against a state that the caller keeps; has none of its own.

    `find` is how the encoder finds the motion of an MV frame.
    """

    def __init__(
        self,
        loop: LoopCoder,
        motion: MotionCoder,
        chain: int,
        find: Callable[..., np.ndarray] = mv_field,
    ) -> None:
        if loop.cycle != ALL_ANCHORS:
            raise ValueError(f"backbones are anchors all, got a coding loop of cycle {loop.cycle}")
        self.loop, self.motion, self.chain, self.find = loop, motion, chain, find

    def encode(
        self,
        frames: Sequence[Tensor],
        state: StemState | None,
        quality: int,
        choose: Choose = none_new,
    ) -> tuple[bytes, Piece]:
        """The payload of a piece of frames, uint8 (3,H,W); `state` None at the start of a GOP."""
        encoder, own = SymbolEncoder(), backbone_quality(quality)
        key = self.loop.key

        def put_frame(number: int, before: LoopState | None) -> Coded:
            if before is None:
                return self.loop.put_key(encoder, frames[number], own)
            return self.loop.put(encoder, frames[number], before, own, thrift_of(quality))

        def put_motion(
            number: int, backbone: Tensor, expected: np.ndarray | None
        ) -> tuple[np.ndarray, list[np.ndarray]]:
            x = pad_to_multiple(frames[number].to(backbone.device)[None].float() / 255, STRIDE)
            field = self.find(x, backbone, quality, self.motion, expected, key.judge)
            return field, self.motion.encode(encoder, field, expected)

        piece = self._walk(len(frames), state, quality, put_frame, put_motion)
        piece = piece.telling(choose(piece))
        put_shares(encoder, piece.told, is_key=state is None)
        return encoder.finish(), piece

    def decode(
        self, payload: bytes, video: VideoInfo, count: int, state: StemState | None, quality: int
    ) -> Piece:
        """Read a piece of `count` frames. Raises CorruptStream."""
        decoder, own = SymbolDecoder(payload), backbone_quality(quality)

        def get_frame(number: int, before: LoopState | None) -> Coded:
            if before is None:
                return self.loop.get_key(decoder, video, own)
            return self.loop.get(decoder, before, own)

        def get_motion(
            number: int, backbone: Tensor, expected: np.ndarray | None
        ) -> tuple[np.ndarray, list[np.ndarray]]:
            height, width = (n // STRIDE for n in backbone.shape[-2:])
            return self.motion.decode(decoder, (height, width), expected)

        piece = self._walk(count, state, quality, get_frame, get_motion)
        height, width = piece.pictures.shape[-2:]
        piece = piece.telling(get_shares(decoder, grid_of(height, width), is_key=state is None))
        decoder.finish()
        return piece

    @torch.inference_mode()
    def _walk(
        self,
        count: int,
        state: StemState | None,
        quality: int,
        code_frame: CodeFrame,
        code_motion: CodeMotion,
    ) -> Piece:
        """The one order of coding, for both sides."""
        done = Coding({}, {}, [])
        loop, field = (None, None) if state is None else state
        for group in groups_of(count, self.chain):
            coded = code_frame(group.backbone, loop)
            loop = coded.state
            done.pictures[group.backbone] = loop.picture
            done.symbols.extend(coded.symbols)
            still = np.zeros((2, *loop.memory.shape[-2:]), np.int32)
            done.motion[group.backbone] = still if loop.motion is None else loop.motion
            field = _walk_group(group, field, unit_of(quality), code_motion, done)
        assert loop is not None, "pieces hold frames"
        pictures = torch.cat([done.pictures[n] for n in range(count)])
        motion = np.stack([done.motion[n] for n in range(count)])
        after = StemState(loop, field)
        return Piece(pictures, mv_frames(count, self.chain), motion, after, done.symbols)


def _walk_group(
    group: Group, field: Field | None, unit: int, code_motion: CodeMotion, done: Coding
) -> Field | None:
    """The MV frames of a group, whose backbone is done; gives the last field."""
    backbone = done.pictures[group.backbone]
    for offset in group.offsets:
        expected = steps_expected(offset, field, unit)
        steps, residuals = code_motion(group.backbone + offset, backbone, expected)
        field = Field(unit * steps, offset)
        motion = torch.from_numpy(field.motion).to(backbone.device).float()[None]
        done.pictures[group.backbone + offset] = moved(backbone, motion)
        done.motion[group.backbone + offset] = field.motion
        done.symbols.extend(residuals)
    return field
