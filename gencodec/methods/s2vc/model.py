"""The coding loop of `s2vc`: everything that encoder and decoder share, up to the coded picture.

    picture before ─► compensated by the frame's motion ─► prediction
    x - prediction ─► cosine transform ─► x gain[level] ─► y ─► symbols
    symbols ─► x 1/gain[level] ─► inverse transform ─► + prediction ─► picture

One frame in CYCLE, an anchor, is coded finely and the others coarsely: what an anchor shows stays on the
screen, moved, until the next. Transform and prediction are not learned at this size: networks beside them,
trained for twenty minutes on two cores, gave neither rate nor LPIPS (docs/decisions.md). What is
learned is which table a symbol takes, here, and what the picture becomes, in the generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.entropy.model import LatentModel
from gencodec.entropy.motion_order import LIMIT
from gencodec.entropy.staged import StagedPrior
from gencodec.entropy.temporal import TemporalState, moved_along
from gencodec.methods.intra.cosine import SIZE, dct_basis, from_blocks, log2_weights
from gencodec.methods.intra.networks import Config as IntraConfig
from gencodec.methods.intra.stages import RESIDUAL, groups_of, stages
from gencodec.methods.s2vc.field_choice import Pair, cheapest_field
from gencodec.methods.s2vc.merging import merged
from gencodec.nn.block_search import block_motion
from gencodec.nn.exact_io import load_exact
from gencodec.nn.layers import rounded
from gencodec.nn.motion import BLOCK, compensate
from gencodec.nn.quality import NUM_QUALITIES, log_spaced

if TYPE_CHECKING:
    from gencodec.entropy.motion import MotionCoder  # training does without the entropy coder

STEPS_PER_PIXEL = 2  # of motion
WHOLE = 36  # below this quality motion is in whole pixels: nothing is blurred between them
CYCLE = 4  # frames from anchor to anchor
LOG2_GAINS = (-3.6, 0.45)  # of an anchor at quality 0 and 63, before LOW and the weights of `cosine`
LOW, LOWER = 10, 0.15  # below quality 10 steps grow by so many octaves more for each
COARSER = 2.0  # octaves, of the frames between anchors
BETWEEN = 28  # levels of frames between anchors; those of anchors follow
KEY_QUALITY = 18  # of a key frame, at quality 0 but for LOW
MOTION_PRICE = (0.0066, 0.00033)  # of the motion search at quality 0 and 63
SEVERE = 0.03  # a block's error that counts as it is: smaller ones count less, larger ones more
EVENLY = 1 / 3.3  # of that price, where errors all count as they are: without tables, for records
DEAD_ZONE = 0.6  # of the residual's quantisation


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the tiny preset."""

    y_channels: int = 192
    state_channels: int = 32  # of the integer temporal prior
    prior_widths: tuple[int, ...] = (64, 64, 64, 64, 64)  # of the networks of each group, see `intra.stages`


class CodedFrame(NamedTuple):
    """What the generator sees of a frame.

    picture (B,3,H,W) in [0,1]; scaled (B,Cy,H/16,W/16), y_hat without its gains; flow (B,2,H/16,W/16) in
    pixels.
    """

    picture: Tensor
    scaled: Tensor
    flow: Tensor


def key_quality(quality: int) -> int:
    """`intra`'s quality for an INTRA packet of `quality`: better than what follows, which feeds on it."""
    return min(KEY_QUALITY + 21 * quality // 20, NUM_QUALITIES - 1) - 3 * max(LOW - quality, 0) // 2


def level_of(quality: int, age: int, cycle: int = CYCLE) -> int:
    """Steps and prior of a frame, `age` frames behind the key frame, in a packet of `quality`.

    0..27 for frames between anchors, 28..63 for anchors: the prior knows what it has before it.
    """
    last = NUM_QUALITIES - 1
    if age % cycle:
        return quality * (BETWEEN - 1) // last
    return BETWEEN + quality * (last - BETWEEN) // last


def motion_unit(quality: int) -> int:
    """Half pixels that a step of motion in the stream stands for, in a packet of `quality`."""
    return 2 if quality < WHOLE else 1


def motion_price(quality: Tensor) -> Tensor:
    """What a bit of motion costs at `quality` (B,), in errors of a block about SEVERE, (B,)."""
    return log_spaced(quality, *MOTION_PRICE) * torch.exp2(LOWER * (LOW - quality).clamp_min(0))


def log2_gains() -> Tensor:
    """Of every level, (64,)."""
    between, anchors = (_log2_gains(count) for count in (BETWEEN, NUM_QUALITIES - BETWEEN))
    return torch.cat([between - COARSER, anchors])


def _log2_gains(count: int) -> Tensor:
    """From quality 0 to 63 in `count` steps."""
    quality = torch.linspace(0, NUM_QUALITIES - 1, count)
    first, last = LOG2_GAINS
    return first + (last - first) / (NUM_QUALITIES - 1) * quality - LOWER * (LOW - quality).clamp_min(0)


def quantised(y: Tensor) -> Tensor:
    """Integers next to y, rounded up from DEAD_ZONE on: what a decoder gets."""
    return rounded(y, DEAD_ZONE)


class CodingLoop(nn.Module):
    """Transform, motion and prior."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or Config()
        groups, order, extra = groups_of(c.y_channels), stages(RESIDUAL), c.state_channels
        prior = StagedPrior(groups, c.prior_widths, order, centred=True, extra_channels=extra)
        self.latents = LatentModel(prior)
        self.temporal = TemporalState(IntraConfig().y_channels, c.y_channels, c.state_channels)
        self.register_buffer("basis", dct_basis(c.y_channels), persistent=False)
        gains = torch.exp2(log2_gains()[:, None] + log2_weights(c.y_channels))
        self.register_buffer("gains", gains[..., None, None], persistent=False)  # (64,Cy,1,1)

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the exact networks from a weights file. Raises ValueError for tensors of another layout."""
        self.latents.prior.load(tensors, "latents.prior.")
        load_exact(self.temporal, [], tensors, "temporal.")

    basis: Tensor
    gains: Tensor
    motion_coder: MotionCoder | None = None

    def motion_of(
        self,
        x: Tensor,
        picture: Tensor,
        quality: Tensor,
        inherited: Tensor | None = None,
        thrift: float = 1.0,
    ) -> Tensor:
        """What the encoder finds for x (B,3,H,W): integers (B,2,H/16,W/16), x and y in half pixels.

        They are multiples of `motion_unit`, and worth their bits: `motion_coder` says how many, where there
        is one. `inherited` is the motion of the frame before, which is not known behind a key frame. With
        more `thrift` than 1 they take fewer bits.
        """
        if len(x) > 1:
            before = [None] * len(x) if inherited is None else inherited.split(1)
            batch = zip(x.split(1), picture.split(1), quality.split(1), before, strict=True)
            return torch.cat([self.motion_of(*one, thrift) for one in batch])
        unit = motion_unit(int(quality))
        steps, share = STEPS_PER_PIXEL // unit, EVENLY if self.motion_coder is None else 1.0
        price = share * thrift * motion_price(quality)
        motion = (steps * block_motion(picture, x, price, finest=1 / steps)).round()
        if self.motion_coder is None:
            return unit * merged(picture, x, motion, price, steps)
        field = motion[0].clamp(-LIMIT, LIMIT).to(torch.int32).cpu().numpy()
        before = None if inherited is None else inherited[0].to(torch.int32).cpu().numpy() // unit
        pair = Pair.of(picture, x, steps)
        chosen = cheapest_field(self.motion_coder, pair, field, before, float(price), severe=SEVERE)
        return unit * torch.from_numpy(chosen).to(motion)[None]

    def predict(self, picture: Tensor, motion: Tensor) -> Tensor:
        """The frame that `motion`, in half pixels, makes of the picture before, (B,3,H,W)."""
        return compensate(picture, motion / STEPS_PER_PIXEL)

    def to_latents(self, x: Tensor, prediction: Tensor, level: Tensor) -> Tensor:
        """What the prediction misses, y (B,Cy,H/16,W/16) in quantisation steps of `level` (B,)."""
        return F.conv2d(4 * (x - prediction), self.basis, stride=SIZE) * self.gains[level]

    def to_picture(self, y_hat: Tensor, prediction: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """The coded picture, within [0,1], and y_hat without its gains."""
        scaled = y_hat / self.gains[level]
        residual = from_blocks(scaled, self.basis) / 4
        return (prediction + residual).clamp(0, 1), scaled

    def mean_step(self, quality: int) -> float:
        """What a step of the mean of an anchor's block is in its pixels, in a packet of `quality`."""
        return 1 / (4 * SIZE * float(self.gains[level_of(quality, 0), 0]))

    def moved(self, state: Tensor, motion: Tensor) -> Tensor:
        """The temporal prior's state as this frame's blocks find it."""
        return moved_along(state, motion, BLOCK * STEPS_PER_PIXEL)

    def forward(
        self,
        x: Tensor,
        picture: Tensor,
        quality: Tensor,
        level: Tensor,
        inherited: Tensor | None = None,
    ) -> tuple[CodedFrame, Tensor, Tensor]:
        """Code x without its bits: the frame, its symbols y_hat and its motion; for records."""
        motion = self.motion_of(x, picture, quality, inherited)
        prediction = self.predict(picture, motion)
        y_hat = quantised(self.to_latents(x, prediction, level))
        after, scaled = self.to_picture(y_hat, prediction, level)
        return CodedFrame(after, scaled, motion / STEPS_PER_PIXEL), y_hat, motion
