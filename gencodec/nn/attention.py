"""Attention of a picture's places to tokens, and of tokens to one another."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Attention(nn.Module):
    """x + attention of x (B,N,channels) to tokens (B,M,token_channels); begins as the identity."""

    def __init__(self, channels: int, token_channels: int, heads: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(token_channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B,N,channels), (B,M,token_channels) -> (B,N,channels)."""
        q = rearrange(self.to_q(self.norm(x)), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.to_kv(tokens), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        return x + self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class FeedForward(nn.Module):
    """x + two linear maps around a GELU, on (...,channels)."""

    def __init__(self, channels: int, factor: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.enter = nn.Linear(channels, factor * channels)
        self.leave = nn.Linear(factor * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.leave(F.gelu(self.enter(self.norm(x))))


class CrossAttention(nn.Module):
    """A picture x (B,channels,H,W) that looks at tokens (B,M,token_channels) from every place."""

    def __init__(self, channels: int, token_channels: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = Attention(channels, token_channels, heads)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The same shape as x."""
        height = x.shape[2]
        places = self.attention(rearrange(x, "b c h w -> b (h w) c"), tokens)
        return rearrange(places, "b (h w) c -> b c h w", h=height)
