"""Around the features of a frame: tokens (CSG) and r, which grow from them; the way in from key frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gencodec.methods.s2vc.paper.blocks import Block5, Down, FeedForward, ResidualBlock
from gencodec.methods.s2vc.paper.config import PaperConfig

F8 = 8  # pixels a place of the features
LATENT = 4  # planes of r and of the autoencoder


class TokenAttention(nn.Module):
    """x + attention of tokens (B,N,C) to one another."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return x + self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class SemanticHead(nn.Module):
    """Features (B,features,H/8,W/8) of this frame, if paired also of the one before, to tokens.

    One token a square of 64x64 pixels.
    """

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        self.is_paired = c.semantics == "paired"
        self.halve = nn.Sequential(
            Down((1 + self.is_paired) * c.features, c.wide),
            Down(c.wide, c.wide),
            ResidualBlock(c.wide, c.wide),
            nn.Conv2d(c.wide, c.tokens, 2, stride=2),
        )
        self.attention = nn.ModuleList(TokenAttention(c.tokens) for _ in range(2))
        self.mixing = nn.ModuleList(FeedForward(c.tokens) for _ in range(2))

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        """-> (B,N,tokens)."""
        x = self.halve(torch.cat([features, before], 1) if self.is_paired else features)
        height = x.shape[2]
        for attention, mixing in zip(self.attention, self.mixing, strict=True):
            x = attention(rearrange(x, "b c h w -> b (h w) c"))
            x = mixing(rearrange(x, "b (h w) c -> b c h w", h=height))
        return rearrange(x, "b c h w -> b (h w) c")


class Reduction(nn.Module):
    """f_pix (B,content,H,W) to r (B,4,H,W): what stands for the noisy latent."""

    def __init__(self, content: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(32, content, eps=1e-6),
            nn.SiLU(),
            nn.Conv2d(content, LATENT, 3, padding=1),
            nn.GroupNorm(LATENT, LATENT, eps=1e-6),
            nn.SiLU(),
            nn.Conv2d(LATENT, LATENT, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(content, LATENT, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.body(x) + self.shortcut(x)


class KeyAdaptor(nn.Module):
    """The coded picture of a key frame, (B,3,H,W) around [0,1], to the features of the buffer.

    In the place of the paper's own image codec, whose decoder gives f_pix itself: key frames here are
    `intra`'s.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, features, F8, stride=F8)
        self.body = nn.Sequential(*(Block5(features, features) for _ in range(3)))

    def forward(self, picture: Tensor) -> Tensor:
        """-> (B,features,H/8,W/8)."""
        return self.body(self.enter(2 * picture - 1))
