"""Rate control: sizes and LPIPS on target, on a codec whose rates are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor

import gencodec
from gencodec.codec import EncodedGop, FrameType, Packet, RateControl
from gencodec.container import Reader
from gencodec.rate import TargetBitrate, TargetBpp, TargetLpips, bits_in_file, from_arguments

PIXELS = 256 * 192


def gops(count: int, difficulty: Callable[[int], float]) -> Iterator[Callable[[int], EncodedGop]]:
    """Encoders of `count` GOPs of 4 frames: 0.02 bpp at quality 0 to 0.64 at 63, times the difficulty."""
    for number in range(count):

        def encode(quality: int, number: int = number) -> EncodedGop:
            bits = 4 * PIXELS * 0.02 * 2 ** (5 * quality / 63) * difficulty(number)
            wobble = 1 + 0.02 * math.sin(17 * quality + number)  # rates are not quite monotonic
            packet = Packet(FrameType.INTRA, quality, 4 * number, 4, bytes(int(bits * wobble / 8)))
            source = [torch.zeros(3, 192, 256, dtype=torch.uint8)] * 4
            return EncodedGop([packet], [], source, lambda: iter(source))

        yield encode


def run(rate: TargetBpp, encoders: Iterator[Callable[[int], EncodedGop]]) -> tuple[float, int]:
    """Bits per pixel of all GOPs, and encodings for each."""
    calls = bits = count = 0

    def counted(encode: Callable[[int], EncodedGop]) -> Callable[[int], EncodedGop]:
        def call(quality: int) -> EncodedGop:
            nonlocal calls
            assert 0 <= quality <= 63
            calls += 1
            return encode(quality)

        return call

    for encode in encoders:
        bits += bits_in_file(rate.select(counted(encode)))
        count += 1
    return bits / (count * 4 * PIXELS), calls // count


@pytest.mark.parametrize("target", [0.03, 0.1, 0.3])
@pytest.mark.parametrize(
    "difficulty", [lambda n: 1.0, lambda n: 1 + 0.5 * math.sin(n), lambda n: 0.6 if n < 6 else 1.3]
)
def test_ten_gops_come_within_five_percent(target: float, difficulty: Callable[[int], float]) -> None:
    rate = TargetBpp(target)
    bpp, calls = run(rate, gops(12, difficulty))
    assert bpp == pytest.approx(target, rel=0.05)
    assert calls <= 6


@pytest.mark.parametrize(("target", "word", "quality"), [(0.0001, "smallest", 0), (5.0, "largest", 63)])
def test_out_of_range_takes_the_nearest_end_and_says_so(target: float, word: str, quality: int) -> None:
    rate = TargetBpp(target)
    found = [rate.select(encode) for encode in gops(3, lambda n: 1.0)]
    assert [gop.packets[0].quality for gop in found] == [quality] * 3
    assert word in rate.note
    assert "3 of 3" in rate.note


def test_bitrate_is_bits_a_second() -> None:
    rate = TargetBitrate(0.1 * PIXELS * 25, fps=Fraction(25), pixels=PIXELS)
    assert run(rate, gops(10, lambda n: 1.0))[0] == pytest.approx(0.1, rel=0.05)


class Shift:
    """A stand-in for LPIPS: how far the first pixel is off."""

    def __call__(self, source: Tensor, recon: Tensor) -> Tensor:
        return (source.float() - recon.float()).abs().mean() / 255


@pytest.mark.parametrize("target", [0.05, 0.1, 0.2])
def test_lpips_takes_the_nearest_quality(target: float) -> None:
    rate = TargetLpips(target)
    rate._net = Shift()

    def encode(quality: int) -> EncodedGop:
        source = [torch.full((3, 8, 8), 200, dtype=torch.uint8)] * 2
        recon = [frame - torch.tensor(63 - quality, dtype=torch.uint8) for frame in source]
        return EncodedGop([Packet(FrameType.INTRA, quality, 0, 2, b"")], [], source, lambda: iter(recon))

    quality = rate.select(encode).packets[0].quality
    assert (63 - quality) / 255 == pytest.approx(target, abs=0.005)
    assert rate.note == ""


def test_lpips_beyond_the_best_takes_the_best_and_says_so() -> None:
    rate = TargetLpips(0.01)
    rate._net = Shift()
    source = [torch.full((3, 8, 8), 200, dtype=torch.uint8)]

    def encode(quality: int) -> EncodedGop:
        recon = [source[0] - torch.tensor(100 - quality, dtype=torch.uint8)]
        return EncodedGop([Packet(FrameType.INTRA, quality, 0, 1, b"")], [], source, lambda: iter(recon))

    assert rate.select(encode).packets[0].quality == 63
    assert "best is worse" in rate.note


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "x", True])
def test_targets_are_positive_numbers(bad: float) -> None:
    for arguments in ({"bpp": bad}, {"bitrate": bad}, {"lpips": bad}):
        with pytest.raises(ValueError, match="above 0"):
            from_arguments(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exactly one"):
        from_arguments(bpp=0.1, lpips=0.2)


class Alternating(RateControl):
    """A caller's own: 10, 20, 10, 20, ..."""

    def __init__(self) -> None:
        self.qualities = cycle((10, 20))

    def select(self, encode_gop: Callable[[int], EncodedGop]) -> EncodedGop:
        return encode_gop(next(self.qualities))


def test_encode_takes_a_rate_control_of_the_caller(tmp_path: Path) -> None:
    frames = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    codec = gencodec.create("intra")
    gencodec.encode(frames, tmp_path / "a.gcv", codec=codec, rate=Alternating(), fps=25)
    with open(tmp_path / "a.gcv", "rb") as file:
        gops = list(Reader(file).gops())
    assert [gop.packets[0].quality for gop in gops] == [10, 20, 10]
    for wrong in ({"rate": Alternating(), "quality": 3}, {"rate": 0.02}):
        with pytest.raises(ValueError, match=r"exactly one|TargetBpp"):
            gencodec.encode(frames, tmp_path / "b.gcv", codec=codec, fps=25, **wrong)
