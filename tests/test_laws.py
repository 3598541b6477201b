"""The laws that every codec keeps. A new method is tested by standing in the registry."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import pytest
import torch
from conftest import make_clip

import gencodec
from gencodec import api, registry
from gencodec.codec import Codec, FrameType, Packet, Tune, VideoInfo
from gencodec.rate import ConstantQuality

METHODS = [*registry.BUILT_IN, "toy"]
WIDTH, HEIGHT = 40, 24
FRAMES = 13  # more than from one frame that leads in quality to the next, and a piece of diffsit
LONG = 72  # frames; more than any method reads ahead
ENCODER_READS_AT_MOST = 64  # frames before its first packet


@pytest.fixture(params=METHODS)
def codec(request: pytest.FixtureRequest, toy: str) -> Codec:
    return _create(request.param)


@pytest.fixture(params=METHODS)
def quick(request: pytest.FixtureRequest, toy: str) -> Codec:
    """Tuned for PSNR, where it does not matter how symbols are chosen: half of the time."""
    return _create(request.param, "psnr")


@functools.cache
def _create(method: str, tune: Tune = "lpips") -> Codec:
    return api.create(method, device="cpu", tune=tune)


def _info(frames: torch.Tensor) -> VideoInfo:
    return VideoInfo(frames.shape[3], frames.shape[2], Fraction(25), len(frames))


def _encode(codec: Codec, frames: torch.Tensor, quality: int = 32, **hooks: Any) -> list[Packet]:
    return list(codec.encode(frames, _info(frames), ConstantQuality(quality), **hooks))


def _decode(
    codec: Codec, packets: Iterable[Packet], frames: torch.Tensor, **hooks: Any
) -> list[torch.Tensor]:
    return list(codec.decode(packets, _info(frames), **hooks))


def _are_equal(a: Iterable[torch.Tensor], b: Iterable[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("count", [1, 2, 7, FRAMES])
def test_count(codec: Codec, count: int) -> None:
    frames = make_clip(count, WIDTH, HEIGHT)
    packets = _encode(codec, frames)
    assert packets[0].type is FrameType.INTRA
    assert sum(packet.num_frames for packet in packets) == count
    starts = [packet.first_frame for packet in packets]
    assert starts == [sum(p.num_frames for p in packets[:i]) for i in range(len(packets))]
    decoded = _decode(codec, packets, frames)
    assert len(decoded) == count
    assert {(f.dtype, f.device.type, tuple(f.shape)) for f in decoded} == {
        (torch.uint8, "cpu", (3, HEIGHT, WIDTH))
    }


def test_same_again(codec: Codec) -> None:
    frames = make_clip(FRAMES, WIDTH, HEIGHT)
    assert _encode(codec, frames, seed=7) == _encode(codec, frames, seed=7)


@pytest.mark.parametrize("quality", [0, 32, 63])
def test_closed_loop(codec: Codec, quality: int) -> None:
    frames, seen = make_clip(FRAMES, WIDTH, HEIGHT), []
    packets = _encode(codec, frames, quality, on_recon=lambda frame: seen.append(frame.clone()))
    assert _are_equal(seen, _decode(codec, packets, frames))


def test_symbols_are_the_same_in_both_directions(codec: Codec) -> None:
    frames = make_clip(FRAMES, WIDTH, HEIGHT)
    hashes = hashlib.sha256(), hashlib.sha256()
    seen: list[str] = []

    def add(index: int, symbols: Any) -> None:
        seen.append(str(symbols.dtype))
        hashes[index].update(symbols.tobytes())

    packets = _encode(codec, frames, on_symbols=lambda s: add(0, s))
    _decode(codec, packets, frames, on_symbols=lambda s: add(1, s))
    assert hashes[0].digest() == hashes[1].digest()
    assert set(seen) == {"int32"}


def test_encoder_is_lazy(quick: Codec) -> None:
    pulled = 0

    def endless() -> Iterator[torch.Tensor]:
        nonlocal pulled
        frames = make_clip(8, WIDTH, HEIGHT)
        while True:
            pulled += 1
            yield frames[pulled % 8]

    packets = quick.encode(endless(), VideoInfo(WIDTH, HEIGHT, Fraction(25)), ConstantQuality(32))
    next(packets)
    assert pulled <= ENCODER_READS_AT_MOST


def test_decoder_is_lazy(quick: Codec) -> None:
    frames = make_clip(LONG, 16, 16)
    packets = _encode(quick, frames)
    pulled = 0

    def counted() -> Iterator[Packet]:
        nonlocal pulled
        for packet in packets:
            pulled += 1
            yield packet

    next(quick.decode(counted(), _info(frames)))
    assert pulled <= len(packets) // 2


def test_seek(quick: Codec) -> None:
    frames = make_clip(FRAMES, WIDTH, HEIGHT)
    packets = _encode(quick, frames)
    whole = _decode(quick, packets, frames)
    starts = [i for i, packet in enumerate(packets) if packet.type is FrameType.INTRA]
    for i in (*starts[:2], *starts[-2:]):
        assert _are_equal(whole[packets[i].first_frame :], _decode(quick, packets[i:], frames))


def test_honest_size(quick: Codec) -> None:
    file = io.BytesIO()
    result = api.encode(make_clip(FRAMES, WIDTH, HEIGHT), file, codec=quick, quality=32)
    size = len(file.getvalue())
    assert result.bytes == size
    assert result.bpp == 8 * size / (FRAMES * WIDTH * HEIGHT)
    file.seek(0)
    video = api.decode(file, device="cpu")
    assert sum(1 for _ in video) == FRAMES
    assert video.result
    assert (video.result.bytes, video.result.bpp) == (size, result.bpp)
    assert video.latents_sha256 == result.latents_sha256


def test_quality_moves_the_size(codec: Codec) -> None:
    frames = make_clip(4, 64, 64)
    low, high = (sum(len(p.payload) for p in _encode(codec, frames, quality)) for quality in (0, 63))
    assert low < high


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (1, 40), (33, 2)])
def test_odd_sizes(codec: Codec, size: tuple[int, int]) -> None:
    frames = make_clip(3, *size)
    assert _decode(codec, _encode(codec, frames), frames)[2].shape == frames[2].shape


def test_broken_payload_gives_frames_or_corrupt_stream(quick: Codec) -> None:
    """The CRC is the container's; what a codec is handed all the same may be anything."""
    frames = make_clip(3, 24, 16)
    packets = _encode(quick, frames)
    payload = packets[0].payload
    broken = [payload[:cut] for cut in range(0, len(payload), max(1, len(payload) // 20))]
    broken += [payload[:i] + bytes([payload[i] ^ 0x55]) + payload[i + 1 :] for i in range(0, len(payload), 7)]
    for data in [*broken, payload + b"\1", b"\xff" * 300]:
        packet = dataclasses.replace(packets[0], payload=data)
        try:
            decoded = next(quick.decode([packet], _info(frames)))
        except gencodec.CorruptStream:
            continue
        assert decoded.shape == (3, 16, 24)


def test_codec_keeps_no_state(codec: Codec) -> None:
    """Two encodings that take turns do not touch each other."""
    frames = [make_clip(FRAMES, WIDTH, HEIGHT), make_clip(FRAMES, WIDTH, HEIGHT).flip(3)]
    runs = [codec.encode(f, _info(f), ConstantQuality(32)) for f in frames]
    mixed = [list(pair) for pair in zip(*(_encode(codec, f) for f in frames), strict=True)]
    assert [[next(run) for run in runs] for _ in mixed] == mixed
