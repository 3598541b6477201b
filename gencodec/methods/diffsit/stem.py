"""STEM of `diffsit`: which frames are coded in full, which by motion alone, and how that motion is found.

    x1    x2    x3    x4    x5    x6         groups of 2 chain + 1 frames, the middle one a backbone
    MV ─► B  ◄─ MV    MV ─► B  ◄─ MV         an MV frame is its backbone, moved: no residual
          └──────── P ──────►                the next backbone is coded against the last

All that decides a table is integers. Motion is in half pixels and leads from a frame to its reference, as in
`s2vc.model`. Paper: Diff-SIT (arXiv 2603.18501), sparse temporal encoding module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.motion_order import LIMIT
from gencodec.methods.diffsit.mv_choice import best_seen, fields_from
from gencodec.methods.s2vc.field_choice import Pair, cheapest_field
from gencodec.methods.s2vc.merging import merged
from gencodec.methods.s2vc.model import LOW, STEPS_PER_PIXEL, motion_unit
from gencodec.nn.block_search import block_motion
from gencodec.nn.motion import compensate
from gencodec.nn.quality import led, log_spaced

if TYPE_CHECKING:
    from gencodec.entropy.motion import MotionCoder  # training does without the entropy coder
    from gencodec.metrics.lpips_loss import LpipsLoss

ALL_ANCHORS = 1  # cycle of the coding loop: each backbone is what two other frames are made of
MV_PRICE = (0.05, 6e-5)  # of a bit of an MV frame's motion at quality 0 and 63, as in `nn.block_search`
FIRST_LEAD = 5  # qualities by which the first piece of a GOP is better: all of the GOP is made of it
SHARE = 0.5  # of what a bit of motion costs in `s2vc`, for a backbone: two other frames are made of it
THRIFT = 0.35  # octaves by which a bit of a backbone's motion costs more, for each quality below LOW


class Group(NamedTuple):
    """A backbone's number in its piece, and where its MV frames are from there, in coding order."""

    backbone: int
    offsets: tuple[int, ...]


def groups_of(count: int, chain: int) -> list[Group]:
    """How a piece of `count` frames is coded, `chain` MV frames at most on each side of a backbone.

    Nearer ones first, the earlier of two before the later. What is left at the end has its backbone in the
    middle or behind it: one frame is a backbone, of two it is the second.
    """
    size = 2 * chain + 1
    groups = []
    for first in range(0, count, size):
        frames = min(size, count - first)
        middle = frames // 2
        offsets = sorted((n - middle for n in range(frames) if n != middle), key=lambda o: (abs(o), o))
        groups.append(Group(first + middle, tuple(offsets)))
    return groups


def mv_frames(count: int, chain: int) -> list[bool]:
    """Which frames of a piece are MV frames, (count)."""
    backbones = {group.backbone for group in groups_of(count, chain)}
    return [n not in backbones for n in range(count)]


def first_quality(quality: int) -> int:
    """At which an encoder that is asked for `quality` codes the first piece of a GOP."""
    return led(quality, FIRST_LEAD)


def backbone_quality(quality: int) -> int:
    """`s2vc`'s, for the backbones of a packet of `quality`."""
    return quality


def thrift_of(quality: int) -> float:
    """What a bit of a backbone's motion must gain, in what it must in `s2vc`."""
    return float(SHARE * 2 ** (THRIFT * max(LOW - quality, 0)))


@torch.no_grad()
def mv_field(
    x: Tensor,
    backbone: Tensor,
    quality: int,
    coder: MotionCoder | None = None,
    expected: np.ndarray | None = None,
    lpips: LpipsLoss | None = None,
) -> np.ndarray:
    """What the encoder finds for an MV frame x (1,3,H,W) and is worth its bits: int32 (2,h,w), in steps.

    `backbone` (1,3,H,W) is as decoded; pictures in [0,1], sides multiples of 16. A step is `unit_of` half
    pixels. `expected` is what `coder` codes it against; without one, bits go by a formula. With `lpips` it is
    the best by that, of fields that take fewer and fewer bits.
    """
    steps = STEPS_PER_PIXEL // unit_of(quality)
    price = log_spaced(torch.tensor([quality], device=x.device), *MV_PRICE)
    found = (steps * block_motion(backbone, x, price, finest=1 / steps)).round()
    if coder is None:
        found = merged(backbone, x, found, price, steps)
    field = found[0].clamp(-LIMIT, LIMIT).to(torch.int32).cpu().numpy()
    if coder is None:
        return field
    pair = Pair.of(backbone, x, steps)
    field = cheapest_field(coder, pair, field, expected, float(price))
    fields = [field] if lpips is None else fields_from(field, coder, pair, expected, float(price))
    if lpips is None or len(fields) == 1:
        return field
    shown = torch.cat([moved(backbone, _half_pixels(one, quality, x)) for one in fields])
    bits = [coder.bits(one, expected) for one in fields]
    return fields[best_seen(shown, x, bits, quality, lpips)]


def _half_pixels(field: np.ndarray, quality: int, like: Tensor) -> Tensor:
    """A field (2,h,w) in steps as motion (1,2,h,w) for `moved`."""
    return unit_of(quality) * torch.from_numpy(field).to(like)[None]


def unit_of(quality: int) -> int:
    """Half pixels that a step of an MV frame's motion stands for."""
    return motion_unit(backbone_quality(quality))


def moved(backbone: Tensor, motion: Tensor) -> Tensor:
    """The MV frame (1,3,H,W) that `motion`, in half pixels, makes of its backbone."""
    return compensate(backbone, motion / STEPS_PER_PIXEL).clamp(0, 1)


class Field(NamedTuple):
    """The motion of an MV frame, int32 (2,h,w) in half pixels, and where it is from its backbone."""

    motion: np.ndarray
    offset: int


def expected_motion(offset: int, last: Field | None) -> np.ndarray | None:
    """What an MV frame at `offset` moves by if all moves on evenly, int32 (2,h,w) in half pixels.

    `last` is the field that was coded before, None where there is none since the key frame: nothing is known.
    """
    if last is None:
        return None
    over, of = offset * last.offset, last.offset * last.offset
    return np.asarray((2 * over * last.motion + of) // (2 * of), np.int32)


def steps_expected(offset: int, last: Field | None, unit: int) -> np.ndarray | None:
    """The same in steps of `unit` half pixels, rounded down, within what motion can be."""
    expected = expected_motion(offset, last)
    return None if expected is None else np.clip(expected // unit, -LIMIT, LIMIT)
