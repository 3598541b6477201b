"""What can be compared: every registered method and every classical anchor, behind one interface."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gencodec import api, registry
from gencodec.codec import Codec
from gencodec.container import Reader
from gencodec.evaluation.anchors import ANCHORS, Anchor
from gencodec.evaluation.vvc import VvcAnchor
from gencodec.video import VideoReader


@dataclass(frozen=True, slots=True)
class Coded:
    """What one encoding took. `rate_bytes`: those that rates are counted on."""

    file_bytes: int
    payload_bytes: int
    rate_bytes: int
    seconds: float
    bits_per_frame: list[int]


class Contestant(Protocol):
    """One codec of a comparison. `settings` run from its lowest rate to its highest."""

    name: str
    suffix: str
    is_anchor: bool

    @property
    def settings(self) -> Sequence[int]:
        """Quality indices, or rate factors."""
        ...

    @property
    def identity(self) -> str:
        """What makes its files what they are: version, weights, library, options."""
        ...

    def encode(self, video: VideoReader, target: Path, setting: int) -> Coded:
        """Encode all frames of `video` to a file."""
        ...


class MethodContestant:
    """A registered method; its rate is that of the whole file."""

    suffix, is_anchor = ".gcv", False

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.codec: Codec = api.create(name, **options)

    @property
    def settings(self) -> Sequence[int]:
        """Quality indices."""
        return self.codec.qualities

    @property
    def identity(self) -> str:
        """Version, preset, weights and settings."""
        c = self.codec
        return f"{c.name} {c.version} {c.preset} {c.weights_id:08x} {c.settings.hex()}".strip()

    def encode(self, video: VideoReader, target: Path, setting: int) -> Coded:
        """See `Contestant`."""
        result = api.encode(video, target, codec=self.codec, quality=setting, fps=video.info.fps)
        bits = bits_of_packets(target)
        return Coded(result.bytes, result.payload_bytes, result.bytes, result.seconds, bits)


class AnchorContestant:
    """A classical anchor; its rate is the payload, without the container's bytes."""

    is_anchor = True

    def __init__(self, anchor: Anchor | VvcAnchor) -> None:
        self.anchor, self.name = anchor, anchor.name
        self.suffix = ".266" if isinstance(anchor, VvcAnchor) else ".mkv"

    @property
    def settings(self) -> Sequence[int]:
        """Constant rate factors."""
        return self.anchor.settings

    @property
    def identity(self) -> str:
        """Library, its FFmpeg, and options."""
        import av

        versions = ".".join(map(str, av.library_versions["libavcodec"]))
        return f"{self.anchor.library} avcodec {versions} {dict(self.anchor.options)} hold {self.anchor.hold}"

    def encode(self, video: VideoReader, target: Path, setting: int) -> Coded:
        """See `Contestant`."""
        start = time.perf_counter()
        payload = self.anchor.encode(video, video.info, target, setting)
        seconds = time.perf_counter() - start
        raw = "vvc" if isinstance(self.anchor, VvcAnchor) else None
        bits = bits_of_pictures(target, self.anchor.hold, raw)
        return Coded(target.stat().st_size, payload, payload, seconds, bits)


def bits_of_packets(path: Path) -> list[int]:
    """Payload bits of each frame of a .gcv file; those of a packet stand at its first frame."""
    bits: list[int] = []
    with open(path, "rb") as file:
        for gop in Reader(file).gops():
            for packet in gop.packets:
                bits += [8 * len(packet.payload), *[0] * (packet.num_frames - 1)]
    return bits


def bits_of_pictures(path: Path, hold: int, raw: str | None = None) -> list[int]:
    """Bits of each frame of an anchor's file, in the order in which they are shown; of a raw one as coded."""
    import av

    with av.open(str(path), format=raw) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    ordered = packets if raw else sorted(packets, key=lambda p: p.pts)
    return [part for p in ordered for part in (8 * p.size, *[0] * (hold - 1))]


def names() -> list[str]:
    """All that `contestant` knows, methods first."""
    return [*registry.method_names(), *all_anchors()]


def all_anchors() -> dict[str, Anchor | VvcAnchor]:
    """Every anchor by name, there or not."""
    return {**ANCHORS, VvcAnchor.name: VvcAnchor()}


def contestant(name: str, *, preset: api.Preset = "tiny", device: str = "auto") -> Contestant:
    """The contestant of a name. Raises ValueError for an unknown one, or an encoder that PyAV lacks."""
    if anchor := all_anchors().get(name):
        if not anchor.is_available():
            where = "on the PATH" if isinstance(anchor, VvcAnchor) else "in this PyAV"
            raise ValueError(f"{name} needs {anchor.library}, which is not {where}")
        return AnchorContestant(anchor)
    if name not in registry.method_names():
        raise ValueError(f"no codec {name!r}; there are {', '.join(names())}")
    return MethodContestant(name, preset=preset, device=device)
