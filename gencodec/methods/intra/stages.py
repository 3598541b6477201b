"""In which order the coefficients of a key frame, or of a residual, are coded; see `entropy.staged`.

A block's mean says most about its neighbours' and little is known before the first, so that means of a key
frame fill the picture from every fourth block on; of higher frequencies more are coded at once. Of a residual
earlier frames say something from the start.
"""

from __future__ import annotations

from collections.abc import Sequence

from gencodec.entropy.staged import Stage
from gencodec.methods.intra.cosine import split

LUMA, CHROMA = (1, 6, 21, 57), (1, 1, 6, 16)  # where a colour's groups end; the last one has the rest
COARSE = ((2, (0,)), (2, (1,)), (2, (2,)), (2, (3,)))  # step and places: every second row and column
LEFT = ((1, (1,)), (1, (2,)), (1, (3,)))  # what these leave
SINGLE = ((1, (0,)), *LEFT)  # one place of four after the other
PAIRS = ((1, (0, 1)), (1, (2, 3)))  # a checkerboard
PLACES = (COARSE + LEFT, SINGLE, PAIRS, PAIRS, PAIRS)
RESIDUAL = (SINGLE, PAIRS, PAIRS, PAIRS, PAIRS)

Places = Sequence[Sequence[tuple[int, tuple[int, ...]]]]  # of each group its turns, by step and places


def groups_of(channels: int) -> list[list[int]]:
    """Channels of each group, of a cosine analysis with so many.

    Raises ValueError for fewer than the groups need.
    """
    counts = split(channels)
    groups: list[list[int]] = [[] for _ in PLACES]
    first = 0
    for count, ends in zip(counts, (LUMA, CHROMA, CHROMA), strict=True):
        if count <= ends[-1]:
            raise ValueError(f"{channels} channels are too few for {len(PLACES)} groups")
        for group, start, stop in zip(groups, (0, *ends), (*ends, count), strict=True):
            group.extend(range(first + start, first + stop))
        first += count
    return groups


def stages(places: Places = PLACES) -> list[Stage]:
    """All of them, in the order of coding."""
    return [Stage(group, step, at) for group, turns in enumerate(places) for step, at in turns]
