"""The causal video autoencoder of the tiny preset: an eighth of the size, four frames in one latent.

    frames ─► 1/8 ─► features, one a frame ─► groups of 1, 4, 4, ... frames ─► latents
    latents ─► what the latent before shows ─► four frames each ─► the frame before ─► 1/4 ─► pixels

Nothing looks ahead, beyond the four frames of a group. What comes before the first frame is what the last
piece of the video left, or that frame itself. Most of the work is done at an eighth in wide convolutions,
which processors are fast at. Maps are kept as (B,T,h,w,C), which for convolutions is "channels last".
Paper: Diff-SIT (arXiv 2603.18501), whose autoencoder is Wan2.1's; the layout of groups is that one's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gencodec.methods.intra.grain import Grain
from gencodec.nn.layers import ResidualBlock, conv3x3

GROUP = 4  # frames in a latent
PAST = GROUP - 1  # frames that come before the first one, which has a latent for itself
F8, F4 = 8, 4  # pixels a place
ALL = slice(None)


class Encoder(nn.Module):
    """Frames to features, one map a frame, and these to latents."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, wide: int, latents: int) -> None:
        super().__init__()
        self.enter = conv3x3(3 * F8 * F8, width)
        self.see = ResidualBlock(width)
        self.merge = nn.Linear(GROUP * width, wide)
        self.body = nn.Sequential(ResidualBlock(wide), ResidualBlock(wide), conv3x3(wide, latents))
        self.register_buffer("mean", torch.zeros(latents))  # of clean clips, measured in training
        self.register_buffer("deviation", torch.ones(latents))

    def frames(self, clip: Tensor) -> Tensor:
        """Pictures (B,T,3,H,W) in [0,1] -> features (B,T,H/8,W/8,width)."""
        return _unflattened(each(self._frame, clip.flatten(0, 1)), len(clip))

    def _frame(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.see(self.enter(unshuffled(pictures, F8))))

    def forward(self, features: Tensor, before: Tensor | None = None) -> Tensor:
        """Features, and those of the PAST frames before -> latents (B,1+(T-1)/4,h,w,latents), near 0 ± 1."""
        groups = grouped(features, features[:, :1].expand(-1, PAST, -1, -1, -1) if before is None else before)
        latents = on_maps(self.body, self.merge(groups))
        return (latents.float() - self.mean) / self.deviation

    @torch.no_grad()
    def measure(self, latents: Tensor, share: float) -> None:
        """Move mean and deviation by `share` to those of normalised `latents` of clean clips."""
        raw = (latents.detach() * self.deviation + self.mean).flatten(0, -2)
        self.mean.lerp_(raw.mean(0), share)
        self.deviation.lerp_(raw.std(0).clamp_min(1e-3), share)


class Decoder(nn.Module):
    """Latents to features, one map a frame."""

    def __init__(self, width: int, wide: int, latents: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(conv3x3(latents, wide), ResidualBlock(wide))
        self.remember = nn.Linear(2 * wide, wide)
        self.body = ResidualBlock(wide)
        self.split = nn.Linear(wide, GROUP * width)
        self.skip = nn.Linear(width, width)
        self.join = conv3x3(2 * width, width)
        self.leave = ResidualBlock(width)

    def groups(self, latents: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents -> (B,T,h,w,width), and the last latent's map, `before` of the next piece."""
        wide = on_maps(self.enter, latents)
        joined = torch.cat([wide, shifted(wide, before)], -1)
        split = self.split(on_maps(self.body, wide + self.remember(joined)))
        return rearrange(split, "b k h w (g c) -> b (k g) h w c", g=GROUP)[:, PAST:], wide[:, -1]

    def frames(
        self, split: Tensor, seen: Tensor | None, before: Tensor | None, chosen: list[int] | slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """With features of the frames that are repaired, None where there are none -> the same shape, of the
        frames `chosen`, and the map of the last frame that the next piece needs as `before`.
        """
        split = split if seen is None else split + self.skip(seen)
        joined = torch.cat([split, shifted(split, before)], -1)[:, chosen]
        x = F.leaky_relu(on_maps(self.join, joined), 0.125)
        return on_maps(self.leave, x), split[:, -1]


class PictureHead(nn.Module):
    """Features at an eighth to what is added to pictures."""

    def __init__(self, width: int, detail: int, blocks: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * detail)
        self.see = conv3x3(3 * F4 * F4, detail)
        blocks_at_4 = [ResidualBlock(detail) for _ in range(blocks)]
        self.repair = nn.Sequential(Grain(detail), *blocks_at_4, conv3x3(detail, 3 * F4 * F4))

    @property
    def last(self) -> nn.Conv2d:
        """The layer that gives pixels."""
        return cast("nn.Conv2d", self.repair[-1])

    def forward(self, features: Tensor, picture: Tensor | None) -> Tensor:
        """Features (B,T,h,w,width), and the pictures (B,T,3,H,W) that are repaired, if any -> (B,T,3,H,W)."""
        given = [features.flatten(0, 1)] + ([] if picture is None else [picture.flatten(0, 1)])
        return each(self._frame, *given).unflatten(0, (len(features), -1))

    def _frame(self, features: Tensor, picture: Tensor | None = None) -> Tensor:
        h = rearrange(self.up(features), "n h w (y x c) -> n (h y) (w x) c", y=2, x=2).permute(0, 3, 1, 2)
        if picture is not None:
            h = h + self.see(unshuffled(picture, F4))
        return F.pixel_shuffle(self.repair(F.leaky_relu(h, 0.125)), F4).float()


def grouped(frames: Tensor, past: Tensor) -> Tensor:
    """(B,T,h,w,C) behind `past` (B,PAST,h,w,C) -> (B,K,h,w,GROUP*C).

    Raises ValueError where T is not 1 more than a multiple of GROUP.
    """
    if frames.shape[1] % GROUP != 1:
        raise ValueError(f"clips have 1 frame more than a multiple of {GROUP}, got {frames.shape[1]}")
    return rearrange(torch.cat([past, frames], 1), "b (k g) h w c -> b k h w (g c)", g=GROUP)


def shifted(maps: Tensor, before: Tensor | None) -> Tensor:
    """The map before each of (B,T,h,w,C); `before` (B,h,w,C) the first, or the first itself."""
    first = maps[:, :1] if before is None else before[:, None].to(maps.dtype)
    return torch.cat([first, maps[:, :-1]], 1)


def unshuffled(pictures: Tensor, stride: int) -> Tensor:
    """(N,3,H,W) in [0,1] -> (N,3*stride**2,H/stride,W/stride), channels last."""
    return F.pixel_unshuffle(pictures - 0.5, stride).contiguous(memory_format=torch.channels_last)


def on_maps(module: nn.Module, maps: Tensor) -> Tensor:
    """Convolutions on (B,T,h,w,C), each map by itself."""
    return _unflattened(each(module, maps.flatten(0, 1).permute(0, 3, 1, 2)), len(maps))


def each(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """`function` of N maps (N,...): all at once in training, else one after the other, in little memory."""
    if torch.is_grad_enabled():
        return function(*maps)
    return torch.cat([function(*one) for one in zip(*(m.split(1) for m in maps), strict=True)])


def _unflattened(maps: Tensor, batch: int) -> Tensor:
    return maps.permute(0, 2, 3, 1).unflatten(0, (batch, -1))
