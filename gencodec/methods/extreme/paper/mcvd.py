"""The video predictor of the paper preset: MCVD's U-Net for frames, at its published sizes.

    noisy frames ‖ past frames ─► conv ─► blocks, attention ─► down ... middle ... up ─► conv ─► noise

Frames are stacked in channels, frame by frame, each in [-1,1]. Every block reads the time twice, as scale and
shift behind a group norm (AdaGN); residual sums and attention are divided by sqrt(2); halving and doubling
filter with (1, 3, 3, 1). Written from facts about the model (Voleti et al. 2022, MCVD, arXiv 2205.09853; its
U-Net is NCSN++, Song et al. 2021, arXiv 2011.13456): no code of theirs is here. Their checkpoints come in by
`mcvd_import`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT_HALF = math.sqrt(0.5)
FILTER = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True, slots=True)
class McvdConfig:
    """Sizes; the defaults are those for Cityscapes, 2 past frames to 5 new ones at 128x128."""

    size: int = 128  # pixels a side in training; decides at which levels there is attention
    channels: int = 3
    past: int = 2
    predicted: int = 5
    width: int = 192
    multipliers: tuple[int, ...] = (1, 1, 2, 3, 4)
    blocks: int = 2  # a level
    attention_at: tuple[int, ...] = (32, 16, 8)  # pixels a side
    head_width: int = 192


CITYSCAPES = McvdConfig()
SMMNIST = McvdConfig(64, 1, 5, 5, 64, (1, 2, 3, 4), head_width=64)


def norm_groups(channels: int) -> int:
    """The largest number up to 32 and to a quarter of the channels that divides them."""
    return next(n for n in range(min(channels // 4, 32), 0, -1) if channels % n == 0)


def halved(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,H/2,W/2), filtered; zeros around."""
    return F.conv2d(x, _filter(x), stride=2, padding=1, groups=x.shape[1])


def doubled(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,2H,2W), filtered; zeros around."""
    return F.conv_transpose2d(x, 4 * _filter(x), stride=2, padding=1, groups=x.shape[1])


def _filter(x: Tensor) -> Tensor:
    line = x.new_tensor(FILTER) / sum(FILTER)
    return (line[:, None] * line).expand(x.shape[1], 1, -1, -1)


class AdaptiveNorm(nn.Module):
    """Group norm without weights of its own, then scale and shift from the time."""

    def __init__(self, channels: int, time: int) -> None:
        super().__init__()
        self.groups = norm_groups(channels)
        self.dense = nn.Linear(time, 2 * channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B,C,H,W), time (B,T) -> (B,C,H,W)."""
        scale, shift = self.dense(F.silu(time))[:, :, None, None].chunk(2, 1)
        return F.group_norm(x, self.groups, eps=1e-5) * (1 + scale) + shift


class Block(nn.Module):
    """Two convolutions and a shortcut; `resample`, "down" or "up", halves or doubles in between."""

    def __init__(self, channels: int, out: int, time: int, resample: str = "") -> None:
        super().__init__()
        self.norm0, self.norm1 = AdaptiveNorm(channels, time), AdaptiveNorm(out, time)
        self.conv0, self.conv1 = (nn.Conv2d(n, out, 3, padding=1) for n in (channels, out))
        self.shortcut = nn.Conv2d(channels, out, 1) if resample or channels != out else nn.Identity()
        self.resample = resample

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B,channels,H,W), time (B,T) -> (B,out,H',W')."""
        h = F.silu(self.norm0(x, time))
        if self.resample:
            change = halved if self.resample == "down" else doubled
            h, x = change(h), change(x)
        h = self.conv1(F.silu(self.norm1(self.conv0(h), time)))
        return (self.shortcut(x) + h) * ROOT_HALF


class SelfAttention(nn.Module):
    """Every place looks at every other one, in heads of `head_width` channels."""

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.heads = channels // head_width
        self.norm = nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B,C,H,W) -> the same shape; the time is not looked at."""
        h = self.norm(x)
        parts = (f(h).unflatten(1, (self.heads, -1)).flatten(3) for f in (self.query, self.key, self.value))
        q, k, v = (part.transpose(2, 3) for part in parts)  # (B,heads,HW,width)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        return (x + self.out(seen)) * ROOT_HALF


class McvdUNet(nn.Module):
    """Predicts the noise in `predicted` frames from those and `past` clean ones."""

    def __init__(self, config: McvdConfig) -> None:
        super().__init__()
        self.config = c = config
        self.time = nn.ModuleList([nn.Linear(c.width, 4 * c.width), nn.Linear(4 * c.width, 4 * c.width)])
        self.enter = nn.Conv2d(c.channels * (c.past + c.predicted), c.width, 3, padding=1)
        widths = [c.width * m for m in c.multipliers]
        self.down, skips = self._down(widths)
        top = widths[-1]
        self.middle = nn.ModuleList([self._block(top, top), self._attention(top), self._block(top, top)])
        self.up = self._up(widths, skips)
        self.norm = nn.GroupNorm(norm_groups(widths[0]), widths[0], eps=1e-5)
        self.leave = nn.Conv2d(widths[0], c.channels * c.predicted, 3, padding=1)

    def forward(self, noisy: Tensor, past: Tensor, label: Tensor) -> Tensor:
        """noisy (B,5C,H,W), past (B,2C,H,W) in [-1,1], label (B,): 0 the noisiest, 999 the cleanest."""
        half = self.config.width // 2
        rates = torch.exp(torch.arange(half, device=noisy.device) * (-math.log(10000) / (half - 1)))
        angles = label.float()[:, None] * rates
        time = self.time[1](F.silu(self.time[0](torch.cat([angles.sin(), angles.cos()], 1))))
        x = self.enter(torch.cat([noisy, past], 1))
        kept = [x]
        for level in _lists(self.down):
            for stage in _lists(level):
                x = _through(stage, x, time)
                kept.append(x)
        x = _through(self.middle, x, time)
        for level in _lists(self.up):
            blocks, rest = _lists(level)
            for block in blocks:
                x = block(torch.cat([x, kept.pop()], 1), time)
            x = _through(rest, x, time)
        return self.leave(F.silu(self.norm(x)))

    def _block(self, channels: int, out: int, resample: str = "") -> Block:
        return Block(channels, out, 4 * self.config.width, resample)

    def _attention(self, channels: int) -> SelfAttention:
        return SelfAttention(channels, self.config.head_width)

    def _attends(self, level: int) -> bool:
        return self.config.size >> level in self.config.attention_at

    def _down(self, widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
        """Per level its stages, each a list of modules, and the width behind each, the entrance first."""
        levels, skips = nn.ModuleList(), [self.config.width]
        for level, width in enumerate(widths):
            stages = nn.ModuleList()
            for _ in range(self.config.blocks):
                parts: list[nn.Module] = [self._block(skips[-1], width)]
                parts += [self._attention(width)] if self._attends(level) else []
                stages.append(nn.ModuleList(parts))
                skips.append(width)
            if level < len(widths) - 1:
                stages.append(nn.ModuleList([self._block(width, width, "down")]))
                skips.append(width)
            levels.append(stages)
        return levels, skips

    def _up(self, widths: list[int], skips: list[int]) -> nn.ModuleList:
        """Per level, the lowest first: blocks that read what was kept, then attention and doubling."""
        levels, width, skips = nn.ModuleList(), widths[-1], list(skips)
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            for _ in range(self.config.blocks + 1):
                blocks.append(self._block(width + skips.pop(), widths[level]))
                width = widths[level]
            rest: list[nn.Module] = [self._attention(width)] if self._attends(level) else []
            rest += [self._block(width, width, "up")] if level else []
            levels.append(nn.ModuleList([blocks, nn.ModuleList(rest)]))
        return levels

    def in_order(self) -> Iterator[nn.Module]:
        """Modules that hold numbers, in the order of the published checkpoints' list."""
        yield from (*self.time, self.enter)
        yield from (module for level in _lists(self.down) for stage in _lists(level) for module in stage)
        yield from self.middle
        yield from (module for level in _lists(self.up) for part in _lists(level) for module in part)
        yield from (self.norm, self.leave)


def _lists(modules: nn.ModuleList) -> Iterator[nn.ModuleList]:
    return (cast("nn.ModuleList", module) for module in modules)


def _through(modules: nn.ModuleList, x: Tensor, time: Tensor) -> Tensor:
    for module in modules:
        x = module(x, time)
    return x
