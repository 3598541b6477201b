"""The diffusion network of the tiny preset: a transformer on latents that says how noise became of them.

    latents ─► patches of 2x2 ─► 8 x (attention, feed-forward), modulated by time and quality ─► velocity

Attention reaches all places of the latent at hand and of the one before, never ahead: through eight blocks
that is eight latents, or 32 frames. Places are told apart by rotary embeddings of (t, y, x), so that any size
will do. No cross-attention: there is no text.
Paper: Diff-SIT (arXiv 2603.18501); modulation, a table a block and one projection for all, as in Wan2.1
(arXiv 2503.20314, section 4.2); rotary embeddings: Su et al. 2021 (arXiv 2104.09864).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gencodec.nn.quality import QualityTable

PATCH = 2
AXES = (0.25, 0.375, 0.375)  # share of a head's channels that tell t, y, x
LONGEST = 100.0  # of the wave lengths of positions, over 2 pi

Keys = tuple[Tensor, Tensor]  # not rotated, and values: (B,heads,N,d) of one block, one latent


class Block(nn.Module):
    """Attention and a feed-forward network, each modulated and gated."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.enter = nn.Linear(channels, hidden)
        self.leave = nn.Linear(hidden, channels)
        self.table = nn.Parameter(torch.zeros(6, channels))
        with torch.no_grad():
            self.table[2::3] = 1 / math.sqrt(channels) + 0.1  # gates begin small, but open

    def forward(
        self, x: Tensor, condition: Tensor, turns: Tensor, before: Keys | None
    ) -> tuple[Tensor, Keys]:
        """x (B,K,N,C), condition (B,6,C), turns (K+1,N,d/2,2) -> the same shape as x, and the last's keys.

        turns[0] is for the latent before the first, whose keys are `before`.
        """
        shift, scale, gate, shift2, scale2, gate2 = (condition + self.table)[:, None, None].unbind(3)
        h = modulated(x, scale, shift)
        q, k, v = rearrange(self.qkv(h), "b k n (three h d) -> three b k h n d", three=3, h=self.heads)
        last = (k[:, -1], v[:, -1])
        first = (k[:, 0], v[:, 0]) if before is None else before
        start = turns[1] if before is None else turns[0]
        k = rotated(k, turns[1:, None])
        keys = torch.cat([_shifted(k, rotated(first[0], start)), k], 3).flatten(0, 1)
        values = torch.cat([_shifted(v, first[1]), v], 3).flatten(0, 1)
        seen = attention(rotated(q, turns[1:, None]).flatten(0, 1), keys, values)
        x = x + gate * self.out(rearrange(seen, "(b k) h n d -> b k n (h d)", b=len(x)))
        h = F.gelu(self.enter(modulated(x, scale2, shift2)), approximate="tanh")
        return x + gate2 * self.leave(h), last


class ClipTransformer(nn.Module):
    """Velocity (noise less latents) from latents, time and quality."""

    def __init__(self, latents: int, channels: int, blocks: int, heads: int, hidden: int) -> None:
        super().__init__()
        if channels % (16 * heads):
            raise ValueError(f"{channels} channels are not a multiple of 16 in each of {heads} heads")
        self.head = channels // heads
        self.enter = nn.Linear(latents * PATCH**2, channels)
        self.clock = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.quality = QualityTable(channels)
        self.condition = nn.Linear(channels, 6 * channels)
        self.blocks = nn.ModuleList(Block(channels, heads, hidden) for _ in range(blocks))
        self.leave = nn.Linear(channels, latents * PATCH**2)
        for layer in (self.condition, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, latents: Tensor, time: Tensor, quality: Tensor | None, before: list[Keys] | None = None
    ) -> tuple[Tensor, list[Keys]]:
        """Latents (B,K,h,w,C), h and w even; time (B,) in 0..1000; quality (B,) or None: clean clips.

        Gives the velocity in the same shape, and the keys of the last latent for the next piece.
        """
        height, width = (n // PATCH for n in latents.shape[2:4])
        x = self.enter(
            rearrange(latents, "b k (h y) (w x) c -> b k (h w) (y x c)", y=PATCH, x=PATCH).contiguous()
        )
        condition = self._condition(time, quality)
        turns = rotations(self.head, latents.shape[1] + 1, height, width, x.device)
        kept = []
        for i, block in enumerate(self.blocks):
            x, keys = block(x, condition, turns, before[i] if before else None)
            kept.append(keys)
        out = self.leave(F.layer_norm(x, x.shape[-1:]))
        out = rearrange(out, "b k (h w) (y x c) -> b k (h y) (w x) c", h=height, y=PATCH, x=PATCH)
        return out.float(), kept

    def _condition(self, time: Tensor, quality: Tensor | None) -> Tensor:
        told = self.clock(waves(time, self.condition.in_features))
        if quality is not None:
            told = told + self.quality(quality)
        return self.condition(F.silu(told)).unflatten(-1, (6, -1))


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalised over channels, then scaled and shifted."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B,heads,N,d), twice (B,heads,M,d) -> (B,heads,N,d).

    Written out in training: on processors the gradient of the fused form takes eight times as long for the
    few hundred places of a crop. The fused form needs no memory for N x M weights.
    """
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v)
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return weights.softmax(-1).to(v.dtype) @ v


def waves(time: Tensor, channels: int) -> Tensor:
    """Sines and cosines of times (B,) in 0..1000 -> (B,channels)."""
    half = channels // 2
    speeds = torch.exp(torch.arange(half, device=time.device) * (-math.log(10000) / half))
    angles = time[:, None] * speeds
    return torch.cat([angles.cos(), angles.sin()], 1)


def rotations(head: int, count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Cosine and sine of the turn of each pair of channels at each place: (count,height*width,head/2,2)."""
    sizes, turns = (count, height, width), []
    for axis, share in enumerate(AXES):
        pairs = round(head * share) // 2
        speeds = LONGEST ** -(torch.arange(pairs, device=device) / pairs)
        angles = torch.arange(sizes[axis], device=device)[:, None] * speeds
        shape = [1, 1, 1, pairs]
        shape[axis] = sizes[axis]
        turns.append(angles.view(shape).expand(*sizes, pairs))
    whole = torch.cat(turns, -1).flatten(1, 2)
    return torch.stack([whole.cos(), whole.sin()], -1)


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of channels of x (...,N,d); turns (...,N,d/2,2)."""
    cos, sin = turns.to(x.dtype).unbind(-1)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _shifted(x: Tensor, first: Tensor) -> Tensor:
    """What came before each of (B,K,...): `first` (B,...), then all but the last."""
    return torch.cat([first[:, None].to(x.dtype), x[:, :-1]], 1)
