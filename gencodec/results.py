"""What a call of `encode` or `decode` measures: sizes, rates, time and the hash of the symbols."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gencodec.codec import Codec, Packet
from gencodec.wire_header import Header

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CodingResult:
    """The numbers of one call; those of the file as a whole are None where only a part was decoded.

    bpp = 8 x bytes / (frames x width x height), of the file, or of the packets' payloads alone.
    """

    bytes: int
    payload_bytes: int
    bpp: float | None
    payload_bpp: float | None
    frames: int
    width: int
    height: int
    seconds: float  # without start-up: from the first frame asked for to the end
    frames_per_second: float
    method: str
    preset: str
    quality: int | None  # None: not the same for all packets
    seed: int
    latents_sha256: str | None
    note: str = ""  # what the caller should know: a target out of the method's range


class Tally:
    """Counts what passes by. One object serves one call."""

    def __init__(self) -> None:
        self.frames = 0
        self._payload_bytes = 0
        self._qualities: set[int] = set()
        self._hash = hashlib.sha256()

    def symbols(self, symbols: np.ndarray) -> None:
        """Add an array of int32 symbols to the hash, as little-endian bytes."""
        self._hash.update(symbols.astype("<i4").tobytes())

    def packet(self, packet: Packet) -> None:
        """Add a packet's bytes and quality."""
        self._payload_bytes += len(packet.payload)
        self._qualities.add(packet.quality)

    def counted(
        self, frames: Iterable[T], total: int | None, on_progress: Callable[[int, int | None], None] | None
    ) -> Iterator[T]:
        """Yield `frames`, and tell `on_progress` how many are done."""
        for frame in frames:
            self.frames += 1
            yield frame
            if on_progress:
                on_progress(self.frames, total)

    def result(
        self,
        codec: Codec,
        header: Header,
        size: int,
        seconds: float,
        *,
        is_whole: bool = True,
        note: str = "",
    ) -> CodingResult:
        """Return the numbers of the call."""
        pixels = self.frames * header.width * header.height
        return CodingResult(
            bytes=size,
            payload_bytes=self._payload_bytes,
            bpp=8 * size / pixels if is_whole else None,
            payload_bpp=8 * self._payload_bytes / pixels if is_whole else None,
            frames=self.frames,
            width=header.width,
            height=header.height,
            seconds=round(seconds, 6),
            frames_per_second=round(self.frames / max(seconds, 1e-9), 3),
            method=codec.name,
            preset=codec.preset,
            quality=next(iter(self._qualities)) if len(self._qualities) == 1 else None,
            seed=header.seed,
            latents_sha256=self._hash.hexdigest() if is_whole else None,
            note=note,
        )
