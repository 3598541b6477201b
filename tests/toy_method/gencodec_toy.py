"""The smallest codec that keeps every law: quarter-size frames, differences between them, zlib.

A GOP is 8 frames. Its INTRA packet holds the first frame, each PREDICTED packet the difference from the one
before. GENCODEC_TOY_SECONDS makes every frame take that long to encode, for tests that interrupt it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice, pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gencodec import Codec, CorruptStream, FrameType, Packet, VideoInfo
from gencodec.codec import EncodedGop, RateControl, Weights

GOP = 8
FACTOR = 4


class Toy(Codec):
    """Nearest-neighbour subsampling and zlib; `depth` (1..8) is the number of bits kept of a sample."""

    name: ClassVar[str] = "toy"
    codec_id: ClassVar[int] = 200
    version: ClassVar[int] = 1
    qualities: ClassVar[range] = range(64)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {"tiny": ((),)}

    def __init__(self, weights: Weights, settings: bytes) -> None:
        self.preset, self.weights_id, self.settings = weights.preset, weights.id, settings
        self.depth = settings[0]

    @classmethod
    def pack_settings(cls, **options: object) -> bytes:
        depth = options.pop("depth", 8)
        if options:
            raise ValueError(f"toy has the option depth, got {sorted(options)}")
        if not isinstance(depth, int) or depth not in range(1, 9):
            raise ValueError(f"depth is 1..8, got {depth}")
        return bytes([depth])

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Toy:
        if len(settings) != 1 or settings[0] not in range(1, 9):
            raise CorruptStream("toy has one byte of settings, 1..8")
        return cls(weights, settings)

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
        source, first = iter(frames), 0
        while batch := list(islice(source, GOP)):
            time.sleep(float(os.environ.get("GENCODEC_TOY_SECONDS", "0")) * len(batch))
            gop = rate.select(partial(self._encode_gop, batch, first, video))
            if on_symbols:
                for symbols in gop.symbols:
                    on_symbols(symbols)
            if on_recon:
                for frame in gop.recon():
                    on_recon(frame)
            yield from gop.packets
            first += len(batch)

    def decode(
        self,
        packets: Iterable[Packet],
        video: VideoInfo,
        *,
        seed: int = 0,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        last = None
        for packet in packets:
            residual = self._read(packet, video)
            if on_symbols:
                on_symbols(residual)
            last = residual if packet.type is FrameType.INTRA or last is None else last + residual
            yield self._render(last, video, packet.quality)

    def _encode_gop(self, batch: list[Tensor], first: int, video: VideoInfo, quality: int) -> EncodedGop:
        samples = [
            frame[:, ::FACTOR, ::FACTOR].numpy().astype(np.int32) // self._step(quality) for frame in batch
        ]
        symbols = [samples[0], *(b - a for a, b in pairwise(samples))]
        packets = [
            Packet(FrameType(min(i, 1)), quality, first + i, 1, zlib.compress(s.astype("<i2").tobytes(), 9))
            for i, s in enumerate(symbols)
        ]
        return EncodedGop(packets, symbols, batch, lambda: (self._render(s, video, quality) for s in samples))

    def _read(self, packet: Packet, video: VideoInfo) -> np.ndarray:
        shape = (3, -(-video.height // FACTOR), -(-video.width // FACTOR))
        size = 2 * int(np.prod(shape))
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(packet.payload, size)
        except zlib.error as error:
            raise CorruptStream(f"toy: {error}") from error
        if len(data) != size or packet.num_frames != 1 or unpacker.unconsumed_tail or unpacker.unused_data:
            raise CorruptStream(f"toy: {len(data)} bytes of samples where {size} are due")
        return np.frombuffer(data, "<i2").reshape(shape).astype(np.int32)

    def _render(self, samples: np.ndarray, video: VideoInfo, quality: int) -> Tensor:
        step = self._step(quality)
        small = torch.from_numpy(np.clip(samples * step + step // 2, 0, 255).astype(np.uint8))
        big = small.repeat_interleave(FACTOR, 1).repeat_interleave(FACTOR, 2)
        return big[:, : video.height, : video.width].contiguous()

    def _step(self, quality: int) -> int:
        return max(1 << (8 - self.depth), 1 + (63 - quality) // 4)

    @staticmethod
    def describe(packet: Packet) -> dict[str, int]:
        return {"samples": len(packet.payload)}
