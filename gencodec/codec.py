"""What every codec is: packets, frame types, the `Codec` interface and the exceptions. Read this file first.

A codec turns frames into packets and packets into frames, lazily; `container` stores packets in a file, `api`
and `cli` join the two. Frames at this boundary are uint8 RGB tensors of shape (3, H, W) on the CPU.

    frames ─► Codec.encode ─► packets ─► container.Writer ─► .gcv
    .gcv ─► container.Reader ─► packets ─► Codec.decode ─► frames
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from torch import Tensor
    from typing_extensions import Self


class GencodecError(Exception):
    """The base of every error that gencodec raises on purpose; its message says what to do."""


class CorruptStream(GencodecError):
    """Not a gencodec stream, or one that is cut, damaged, or out of step."""


class UnsupportedStream(GencodecError):
    """A sound stream of a newer version, or of a method that is not installed."""


class WeightsMissing(GencodecError):
    """Weights that are not here; the message names the command or release that has them."""


class UnreadableInput(GencodecError):
    """A source that is no video, holds no frames, or cannot be opened."""


class InexactDevice(GencodecError):
    """A device whose exact networks do not give the recorded bits; it would decode garbage."""


class FrameType(IntEnum):
    """How a packet's frames are coded; the values are on the wire."""

    INTRA = 0  # alone: decoding can start here
    PREDICTED = 1  # against what was decoded before, back to the last INTRA packet


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Size and timing of a video, before any padding."""

    width: int
    height: int
    fps: Fraction
    num_frames: int | None = None  # None: not known in advance


@dataclass(frozen=True, slots=True)
class Packet:
    """The coded form of `num_frames` frames from `first_frame` on."""

    type: FrameType
    quality: int  # 0..63, higher is better
    first_frame: int
    num_frames: int
    payload: bytes


@dataclass(frozen=True)
class Weights:
    """What `Codec.load` builds its networks from.

    `files` maps each weights file's role (for example "intra") to its tensors by name; `id` is the first four
    bytes of a SHA-256 over all of these files, as an integer, and stands in the header of every stream.
    """

    preset: str
    files: Mapping[str, Mapping[str, Tensor]]
    metadata: Mapping[str, Mapping[str, str]]
    id: int


@dataclass(frozen=True)
class EncodedGop:
    """One group of pictures, or a window of a long one, as coded at one quality: what a `RateControl` weighs.

    `symbols` are the int32 arrays in coding order; `recon` renders the frames that a decoder would give.
    """

    packets: Sequence[Packet]
    symbols: Sequence[np.ndarray]
    source: Sequence[Tensor]
    recon: Callable[[], Iterator[Tensor]]


Tune = Literal["lpips", "psnr"]  # what encoders choose symbols for


class RateControl(ABC):
    """Decides at which quality each GOP is coded, or each window of a long one. One object serves one call of
    `encode`. `window` is how many frames at most it wants to weigh at once.
    """

    window: ClassVar[int] = 32

    @abstractmethod
    def select(self, encode_gop: Callable[[int], EncodedGop]) -> EncodedGop:
        """Call `encode_gop(quality)`, quality 0..63, as often as needed and return the chosen result."""


class Codec(ABC):
    """A method that turns frames into packets and back; without state between calls.

    The laws that every codec is tested for: tests/test_laws.py. `codec_id` is the method's number on the wire
    (1..127 for those of this package, 128..255 for others), `version` the version of its payload syntax.
    `weight_sets` maps a preset ("tiny", "paper") to the sets of weights files that it can decode with, newest
    first; to none for a preset that `weights_from` loads from a folder of the user's.
    """

    name: ClassVar[str]
    codec_id: ClassVar[int]
    version: ClassVar[int]
    qualities: ClassVar[range]
    weight_sets: ClassVar[Mapping[str, Sequence[Sequence[str]]]]
    paper: ClassVar[str] = ""  # title and address of the publication it follows

    preset: str
    weights_id: int
    settings: bytes  # the header's record, canonical, at most 1024 bytes

    @classmethod
    def pack_settings(cls, **options: object) -> bytes:
        """Canonical bytes of the options that a decoder must know. Raises ValueError for an unknown one."""
        if options:
            raise ValueError(f"method {cls.name!r} has no options, got {sorted(options)}")
        return b""

    @classmethod
    def weights_from(cls, preset: str, path: Path | str | None) -> Weights | None:
        """Weights of a preset whose files have a layout of their own, from `path`.

        None, the default, for presets of the table of weights. Raises WeightsMissing.
        """
        return None

    def set_tune(self, tune: Tune) -> None:  # noqa: B027 - most need not do anything
        """Say what symbols are chosen for at equal rate: "lpips", where `s2vc` begins, or "psnr".

        The first takes an encoder much longer (docs/choosing.md); streams are of one form. Methods without a
        choice take either and do the same.
        """

    @classmethod
    @abstractmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """Build the codec's networks from `weights`.

        Raises CorruptStream for settings that no encoder writes, UnsupportedStream for newer ones,
        InexactDevice for a device that fails the self-test, ValueError for weights of the wrong layout.
        """

    @abstractmethod
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
        """Yield packets as frames come in, each GOP beginning with an INTRA packet.

        `on_recon` receives every frame as a decoder on this machine will give it, in order; `on_symbols`
        every int32 array of symbols in coding order.
        """

    @abstractmethod
    def decode(
        self,
        packets: Iterable[Packet],
        video: VideoInfo,
        *,
        seed: int = 0,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        """Yield the frames of `packets`, the first of which is INTRA. Raises CorruptStream."""
