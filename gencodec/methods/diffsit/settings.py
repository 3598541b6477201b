"""Settings of `diffsit` in the stream's header.

    clip length u8 | GOP length u16 | chain u8, 0: every frame a backbone | flags u8: 1, diffusion

A decoder needs clip length, chain and diffusion; the GOP length says how a stream was made. Without diffusion
frames are shown as STEM has them.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple, get_args

from gencodec.codec import CorruptStream, UnsupportedStream

SETTINGS = struct.Struct("<BHBB")
CLIP_LENGTHS = (9, 21, 33)  # whole triples for the coder, one frame more than fours for the autoencoder
MAX_GOP, MAX_CHAIN = 4095, 4
Pattern = Literal["triple", "dense"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


class Options(NamedTuple):
    """What the settings hold."""

    clip_length: int = 9  # frames that are rendered together
    gop_length: int = 63
    pattern: Pattern = "triple"
    chain: int = 1  # MV frames on each side of a backbone, at most; 0 where the pattern is dense
    diffusion: int = 1

    @classmethod
    def of(cls, **options: object) -> Options:
        """Those options, the others as they are. Raises ValueError."""
        if unknown := sorted(options.keys() - set(cls._fields)):
            raise ValueError(f"method 'diffsit' has options {', '.join(cls._fields)}, got {unknown}")
        if options.get("pattern") == "dense":
            options = {"chain": 0} | options
        made = cls(**options)  # type: ignore[arg-type]
        made._check()
        return made

    def pack(self) -> bytes:
        """As they stand in the header. Raises ValueError for values out of range."""
        self._check()
        return SETTINGS.pack(self.clip_length, self.gop_length, self.chain, self.diffusion)

    @classmethod
    def unpack(cls, settings: bytes) -> Options:
        """Read them back. Raises UnsupportedStream for newer ones, CorruptStream for what nobody writes."""
        if len(settings) > SETTINGS.size:
            raise UnsupportedStream("the stream has settings of a newer diffsit; install a newer gencodec")
        if len(settings) < SETTINGS.size:
            raise CorruptStream(
                f"diffsit has {SETTINGS.size} bytes of settings, the header holds {len(settings)}"
            )
        clip_length, gop_length, chain, diffusion = SETTINGS.unpack(settings)
        options = cls(clip_length, gop_length, "triple" if chain else "dense", chain, diffusion)
        try:
            options._check()
        except ValueError as error:
            raise CorruptStream(f"no encoder writes such settings of diffsit: {error}") from error
        return options

    def _check(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern is one of {', '.join(PATTERNS)}, got {self.pattern!r}")
        chains = range(1, MAX_CHAIN + 1) if self.pattern == "triple" else range(1)
        _check_in("clip_length", self.clip_length, CLIP_LENGTHS)
        _check_in("gop_length", self.gop_length, range(1, MAX_GOP + 1))
        _check_in("chain", self.chain, chains)
        _check_in("diffusion", self.diffusion, range(2))


def _check_in(name: str, value: object, allowed: tuple[int, ...] | range) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        wanted = f"{allowed[0]}..{allowed[-1]}" if isinstance(allowed, range) else f"one of {allowed}"
        raise ValueError(f"{name} is a whole number, {wanted}, got {value!r}")
