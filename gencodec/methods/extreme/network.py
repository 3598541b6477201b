"""The predictor's network: a small U-Net that says where noisy next frames should move, given the last ones.

    noisy residuals ‖ last frames ─► unshuffled ─► levels down ─► middle ─► levels up ─► shuffled ─► velocity

What is predicted are residuals to the last frame: where nothing moves there is nothing to say. Time, and how
many last frames there are, enter every block as scale and shift behind its second norm (AdaGN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.nn.attention import Attention

GROUP = 8  # channels a group of the norms


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """Sizes of the tiny preset for natural clips."""

    channels: int = 3
    past: int = 2
    predicted: int = 5
    unshuffle: int = 4  # pixels a side that become channels
    widths: tuple[int, ...] = (56, 88, 120, 144)
    blocks: int = 2  # a level, each way
    attention: tuple[bool, ...] = (False, False, False, True)


SMMNIST = PredictorConfig(
    channels=1, unshuffle=1, widths=(32, 64, 96, 128), attention=(False, False, True, True)
)


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
    """Velocity of a rectified flow over the residuals of `predicted` frames."""

    def __init__(self, config: PredictorConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or PredictorConfig()
        time = 4 * c.widths[0]
        self.time = nn.Sequential(nn.Linear(c.widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.known = nn.Embedding(c.past, time)  # how many last frames there are
        plane = c.channels * c.unshuffle**2
        self.enter = nn.Conv2d((c.predicted + c.past) * plane, c.widths[0], 3, padding=1)
        self.down, self.halvings, kept = self._down(time)
        self.middle = Level([c.widths[-1]], c.widths[-1], time, attends=True)
        self.up, self.doublings = self._up(time, kept)
        self.norm = nn.GroupNorm(c.widths[0] // GROUP, c.widths[0])
        self.leave = nn.Conv2d(c.widths[0], c.predicted * plane, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    @property
    def multiple(self) -> int:
        """Of which both sides of a picture must be."""
        return self.config.unshuffle << (len(self.config.widths) - 1)

    def forward(self, noisy: Tensor, past: Tensor, timestep: Tensor, known: Tensor) -> Tensor:
        """noisy (B,predicted*C,H,W), past (B,past*C,H,W) in [-1,1], timestep (B,) 0..1000 -> like noisy.

        `known` (B,): how many of the last frames are real, 1..past; the others repeat the oldest real one.
        """
        time = self.time(_angles(timestep, self.config.widths[0])) + self.known(known - 1)
        x = self.enter(F.pixel_unshuffle(torch.cat([noisy, past], 1), self.config.unshuffle))
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
        return F.pixel_shuffle(self.leave(F.silu(self.norm(x))), self.config.unshuffle)

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
