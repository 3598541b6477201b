"""How the quality of each GOP is chosen. This version has constant quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gencodec.codec import EncodedGop, RateControl

QUALITIES = range(64)


@dataclass(frozen=True, slots=True)
class ConstantQuality(RateControl):
    """Every GOP at the same quality, 0 (smallest) to 63 (best)."""

    quality: int

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


def from_arguments(
    *,
    quality: int | None = None,
    bpp: float | None = None,
    bitrate: float | None = None,
    lpips: float | None = None,
) -> RateControl:
    """Return the rate control that exactly one argument asks for."""
    given = {"quality": quality, "bpp": bpp, "bitrate": bitrate, "lpips": lpips}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(
            f"give exactly one of quality, bpp, bitrate and lpips, got {', '.join(names) or 'none'}"
        )
    if quality is None:
        raise ValueError(f"{names[0]} is not in this version, which has quality only: give quality=0..63")
    return ConstantQuality(quality)
