"""The predictor's network: a small U-Net that says what the next frames add to the last one.

    noisy residuals ‖ anchor ‖ last frame ‖ anchor moved on ─► unshuffled ─► levels down ─► middle
      ─► levels up ─► shuffled ─► residual + mask x (moved on - last frame)

It predicts the clean residuals themselves, not noise or velocity: what comes in is wider than the network,
so noise cannot be carried through it (Li and He 2025, arXiv 2511.13720), and where nothing moves the answer
is zero. Time, how much of the past is known, and how far back the anchor is, enter every block as scale and
shift behind its second norm (AdaGN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.nn.attention import Attention

GROUP = 8  # channels a group of the norms
RESIDUAL = 0.25  # deviation of what is predicted, pictures in [-1,1]; noise has 1
LONG_AGO = 5  # frames since the anchor; the same from there on
STILL = -3.0  # the mask's bias before training: next to nothing moves


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """Sizes of the tiny preset for natural clips. `moved`: the anchor moved on is seen too."""

    channels: int = 3
    past: int = 2
    predicted: int = 5
    unshuffle: int = 4  # pixels a side that become channels
    widths: tuple[int, ...] = (56, 88, 120, 144)
    blocks: int = 2  # a level, each way
    attention: tuple[bool, ...] = (False, False, False, True)
    moved: bool = True


SMMNIST = PredictorConfig(
    channels=1, unshuffle=2, widths=(48, 64, 96, 128), attention=(False, False, True, True), moved=False
)


class Seen(NamedTuple):
    """What is known of the past: pictures in [-1,1].

    past (B,past*C,H,W), the oldest first, the last frame last; moved (B,predicted*C,H,W), or nothing; known
    (B,), how much of it is real: 1, the last frame alone, to `past`; since (B,), frames since the anchor.
    """

    past: Tensor
    moved: Tensor | None
    known: Tensor
    since: Tensor


class TimedBlock(nn.Module):
    """A residual block that is told the time."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(channels // GROUP, channels), nn.GroupNorm(out // GROUP, out)
        self.conv1, self.conv2 = (nn.Conv2d(n, out, 3, padding=1) for n in (channels, out))
        self.time = nn.Linear(time, 2 * out)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B,channels,H,W), time (B,T) -> (B,out,H,W)."""
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, 1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return self.shortcut(x) + self.conv2(F.silu(h * (1 + scale) + shift))


class Level(nn.Module):
    """Blocks of one size, each followed by attention where the level has it."""

    def __init__(self, ins: list[int], out: int, time: int, attends: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TimedBlock(n, out, time) for n in ins])
        self.attention = nn.ModuleList([Attention(out, out) for _ in ins] if attends else [])

    def step(self, number: int, x: Tensor, time: Tensor) -> Tensor:
        """x (B,C,H,W) behind block `number` and its attention."""
        x = self.blocks[number](x, time)
        if not self.attention:
            return x
        places = x.flatten(2).transpose(1, 2)
        return self.attention[number](places, places).transpose(1, 2).reshape(x.shape)


class PredictorNet(nn.Module):
    """The clean residuals of `predicted` frames to the last one, in units of RESIDUAL."""

    def __init__(self, config: PredictorConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or PredictorConfig()
        time = 4 * c.widths[0]
        self.time = nn.Sequential(nn.Linear(c.widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.known = nn.Embedding(c.past, time)
        self.since = nn.Embedding(LONG_AGO + 1, time)
        plane, pictures = c.channels * c.unshuffle**2, c.predicted * (2 if c.moved else 1) + c.past
        self.enter = nn.Conv2d(pictures * plane, c.widths[0], 3, padding=1)
        self.down, self.halvings, kept = self._down(time)
        self.middle = Level([c.widths[-1]], c.widths[-1], time, attends=True)
        self.up, self.doublings = self._up(time, kept)
        self.norm = nn.GroupNorm(c.widths[0] // GROUP, c.widths[0])
        masks = c.predicted * c.unshuffle**2 if c.moved else 0
        self.leave = nn.Conv2d(c.widths[0], c.predicted * plane + masks, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast("Tensor", self.leave.bias))

    @property
    def multiple(self) -> int:
        """Of which both sides of a picture must be."""
        return self.config.unshuffle << (len(self.config.widths) - 1)

    def forward(self, noisy: Tensor, seen: Seen, timestep: Tensor) -> Tensor:
        """noisy (B,predicted*C,H,W), timestep (B,) 0..1000 -> like noisy."""
        angles = _angles(timestep, self.config.widths[0])
        time = self.time(angles) + self.known(seen.known - 1) + self.since(seen.since.clamp(max=LONG_AGO))
        parts = [noisy, seen.past] if seen.moved is None else [noisy, seen.past, seen.moved]
        x = self.enter(F.pixel_unshuffle(torch.cat(parts, 1), self.config.unshuffle))
        kept = [x]
        for number, level in enumerate(self.down):
            for i in range(self.config.blocks):
                x = cast("Level", level).step(i, x, time)
                kept.append(x)
            if number < len(self.halvings):
                x = self.halvings[number](x)
                kept.append(x)
        x = self.middle.step(0, x, time)
        for number, level in enumerate(self.up):
            for i in range(self.config.blocks + 1):
                x = cast("Level", level).step(i, torch.cat([x, kept.pop()], 1), time)
            if number < len(self.doublings):
                x = self.doublings[number](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self._residuals(F.pixel_shuffle(self.leave(F.silu(self.norm(x))), self.config.unshuffle), seen)

    def _residuals(self, x: Tensor, seen: Seen) -> Tensor:
        """What the last layer says, with the mask between the last frame and the anchor moved on applied."""
        c = self.config
        if seen.moved is None:
            return x
        own, mask = x.split([c.predicted * c.channels, c.predicted], 1)
        change = seen.moved - seen.past[:, -c.channels :].repeat(1, c.predicted, 1, 1)
        weight = (mask + STILL).sigmoid().repeat_interleave(c.channels, 1)
        return own + weight * change / RESIDUAL

    def _down(self, time: int) -> tuple[nn.ModuleList, nn.ModuleList, list[int]]:
        """Levels, what halves between them, and the widths that are kept for the way up."""
        c, kept, levels, halve = self.config, [self.config.widths[0]], nn.ModuleList(), nn.ModuleList()
        for number, width in enumerate(c.widths):
            ins = [kept[-1]] + [width] * (c.blocks - 1)
            levels.append(Level(ins, width, time, c.attention[number]))
            kept += [width] * c.blocks
            if number < len(c.widths) - 1:
                halve.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                kept.append(width)
        return levels, halve, kept

    def _up(self, time: int, kept: list[int]) -> tuple[nn.ModuleList, nn.ModuleList]:
        c, kept, levels, double = self.config, list(kept), nn.ModuleList(), nn.ModuleList()
        width = c.widths[-1]
        for number in reversed(range(len(c.widths))):
            own = c.widths[number]
            ins = [(width if i == 0 else own) + kept.pop() for i in range(c.blocks + 1)]
            levels.append(Level(ins, own, time, c.attention[number]))
            width = own
            if number:
                double.append(nn.Conv2d(own, own, 3, padding=1))
        return levels, double


def _angles(timestep: Tensor, width: int) -> Tensor:
    """Sines and cosines (B,width) of a timestep (B,) in 0..1000."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(10000) / half))
    angles = timestep.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
