"""How the quality of each GOP is chosen: constant, or searched for a target in bits or in LPIPS.

    TargetBpp     one pass; each GOP gets what keeps the file on target, its quality found by a few encodings
    TargetBitrate the same in bits a second
    TargetLpips   the mean LPIPS-Alex of each GOP's frames

A search looks at one GOP at a time, so that memory stays bounded on a stream of any length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from typing import Any, ClassVar

from gencodec import wire
from gencodec.codec import EncodedGop, FrameType, RateControl

QUALITIES = range(64)
GOP_OVERHEAD = 6  # bytes of INDEX for a GOP, about
RECOVERY = 2  # GOPs over which a surplus or a debt is paid back
RATE_SLOPE = 1 / 13  # octaves of rate a step of quality, a first guess
LPIPS_TOLERANCE = 0.003
STRAIGHT_TRIES = 3  # before halving: a straight line between both sides is usually right


@dataclass(frozen=True, slots=True)
class ConstantQuality(RateControl):
    """Every GOP at the same quality, 0 (smallest) to 63 (best)."""

    quality: int
    window: ClassVar[int] = 1  # nothing is weighed: frames leave as they come

    def __post_init__(self) -> None:
        if (
            isinstance(self.quality, bool)
            or not isinstance(self.quality, int)
            or self.quality not in QUALITIES
        ):
            raise ValueError(f"quality is a whole number 0..63, got {self.quality!r}")

    def select(self, encode_gop: Callable[[int], EncodedGop]) -> EncodedGop:
        """Encode once, at the quality."""
        return encode_gop(self.quality)


@dataclass(slots=True)
class TargetBpp(RateControl):
    """Bits per pixel of the whole file, more than 0. `note` says so where the method cannot reach it.

    The file comes within a few percent of the target over ten GOPs or more, as far as the method's range
    goes; what one GOP takes too much or too little, the next few give back.
    """

    bpp: float
    note: str = ""
    _debt: float = field(default=0.0, init=False)  # bits spent beyond the target so far
    _quality: int = field(default=32, init=False)
    _at_end: int = field(default=0, init=False)  # GOPs that needed an end of the range
    _gops: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not _is_positive(self.bpp):
            raise ValueError(f"bpp is a number above 0, got {self.bpp!r}")

    def select(self, encode_gop: Callable[[int], EncodedGop]) -> EncodedGop:
        """Search the quality whose size is nearest to what this GOP may take."""
        first = encode_gop(self._quality)
        share = self.bpp * sum(frame.shape[1] * frame.shape[2] for frame in first.source)
        target = min(max(share - self._debt / RECOVERY, share / 4), 4 * share)
        search = _Search(encode_gop, lambda gop: math.log2(bits_in_file(gop)), RATE_SLOPE)
        found = search.nearest(math.log2(target), self._quality, first)
        self._quality, self._gops = found.quality, self._gops + 1
        self._debt += bits_in_file(found.gop) - share
        self._debt = min(max(self._debt, -RECOVERY * share), 8 * RECOVERY * share)
        self._remember(found, target)
        return found.gop

    def _remember(self, found: _Found, target: float) -> None:
        ratio = bits_in_file(found.gop) / target
        if (found.quality == 0 and ratio > 1.05) or (found.quality == 63 and ratio < 0.95):
            self._at_end += 1
            end = "smallest" if found.quality == 0 else "largest"
            self.note = (
                f"{self._at_end} of {self._gops} groups of pictures took the {end} size that the method "
                f"offers; the target of {self.bpp:g} bpp is out of its range there"
            )


class TargetBitrate(TargetBpp):
    """Bits a second, more than 0, of a video of `fps` frames a second and `pixels` pixels a frame."""

    def __init__(self, bits_per_second: float, fps: Fraction | float, pixels: int) -> None:
        if not _is_positive(bits_per_second):
            raise ValueError(f"bitrate is a number of bits a second above 0, got {bits_per_second!r}")
        super().__init__(float(bits_per_second) / (float(fps) * pixels))


@dataclass(slots=True)
class TargetLpips(RateControl):
    """Mean LPIPS-Alex of each GOP's frames against the source, above 0; the smallest size that reaches it.

    Where the method's best does not, the best is taken and `note` says so.
    """

    lpips: float
    device: str = "cpu"
    note: str = ""
    _quality: int = field(default=32, init=False)
    _net: Any = field(default=None, init=False)
    _worse: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not _is_positive(self.lpips):
            raise ValueError(f"lpips is a number above 0, got {self.lpips!r}")

    def select(self, encode_gop: Callable[[int], EncodedGop]) -> EncodedGop:
        """Search the lowest quality whose mean LPIPS is near the target, or below."""
        search = _Search(encode_gop, lambda gop: -self._distance(gop), 1 / 200, LPIPS_TOLERANCE)
        found = search.nearest(-self.lpips, self._quality, encode_gop(self._quality))
        self._quality = found.quality
        if found.quality == QUALITIES[-1] and -found.value > self.lpips + 0.01:
            self._worse += 1
            self.note = (
                f"in {self._worse} groups of pictures the method's best is worse than LPIPS {self.lpips:g}"
            )
        return found.gop

    def _distance(self, gop: EncodedGop) -> float:
        if self._net is None:
            from gencodec.metrics.lpips import Lpips

            self._net = Lpips.load(self.device)
        distances = [
            float(self._net(source, recon)) for source, recon in zip(gop.source, gop.recon(), strict=True)
        ]
        return sum(distances) / len(distances)


def bits_in_file(gop: EncodedGop) -> int:
    """What a GOP, or a window of one, takes in a file, with the heads around its payloads."""
    if gop.packets[0].type == FrameType.INTRA:
        return 8 * (len(wire.pack_chunk(wire.TAG_GOP, wire.pack_gop(gop.packets))) + GOP_OVERHEAD)
    first, *others = gop.packets
    sizes = [len(wire.pack_packet(first, None)), *(len(wire.pack_packet(p, first)) for p in others)]
    return 8 * sum(sizes)


@dataclass(frozen=True, slots=True)
class _Found:
    quality: int
    value: float
    gop: EncodedGop


@dataclass(slots=True)
class _Search:
    """Finds the quality whose value is nearest to a goal; values rise with the quality, but for noise.

    Steps by the slope between the two sides of the goal (regula falsi), and halves where that stands still.
    Keeps two encodings at a time.
    """

    encode_gop: Callable[[int], EncodedGop]
    value_of: Callable[[EncodedGop], float]
    slope: float  # of value against quality, a first guess
    tolerance: float = 0.0

    def nearest(self, goal: float, quality: int, gop: EncodedGop) -> _Found:
        """`gop` is what `quality` gave; usually two to four more encodings."""
        below, above = None, None
        best = found = _Found(quality, self.value_of(gop), gop)
        for tries in count():
            if abs(found.value - goal) < abs(best.value - goal):
                best = found
            below, above = (found, above) if found.value < goal else (below, found)
            low, high = (below.quality if below else -1), (above.quality if above else 64)
            if high - low <= 1 or abs(found.value - goal) <= self.tolerance:
                break
            quality = self._step(goal, below, above, halve=tries >= STRAIGHT_TRIES)
            gop = self.encode_gop(quality)
            found = _Found(quality, self.value_of(gop), gop)
        return best

    def _step(self, goal: float, below: _Found | None, above: _Found | None, *, halve: bool) -> int:
        """The next quality strictly between the two sides; one side may be open."""
        if below and above:
            share = 0.5 if halve else (goal - below.value) / max(above.value - below.value, 1e-9)
            guess = below.quality + share * (above.quality - below.quality)
            return min(max(round(guess), below.quality + 1), above.quality - 1)
        known = below or above
        assert known is not None
        guess = known.quality + (goal - known.value) / self.slope
        if below:
            return min(max(math.ceil(guess), below.quality + 1), QUALITIES[-1])
        return max(min(math.floor(guess), known.quality - 1), 0)


def from_arguments(
    *,
    quality: int | None = None,
    bpp: float | None = None,
    bitrate: float | None = None,
    lpips: float | None = None,
    rate: RateControl | None = None,
    fps: Fraction | float = 25,
    pixels: int = 1,
) -> RateControl:
    """Return the rate control that exactly one of the first five asks for; `bitrate` needs the others."""
    given = {"quality": quality, "bpp": bpp, "bitrate": bitrate, "lpips": lpips, "rate": rate}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(
            f"give exactly one of quality, bpp, bitrate, lpips and rate, got {', '.join(names) or 'none'}"
        )
    if rate is not None:
        if not isinstance(rate, RateControl):
            raise ValueError(f"rate is an object such as gencodec.TargetBpp(0.02), got {rate!r}")
        return rate
    if bpp is not None:
        return TargetBpp(bpp)
    if bitrate is not None:
        return TargetBitrate(bitrate, fps, pixels)
    if lpips is not None:
        return TargetLpips(lpips)
    assert quality is not None
    return ConstantQuality(quality)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
