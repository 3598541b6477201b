"""Contextual Semantic Guidance: tokens that say what is in the picture, from coded features alone.

    f_t, f_(t-1) ─► three halvings ─► attention, twice ─► tokens, one a 64x64 square ─► cross-attentions

In training a small predictor maps the tokens to a frozen teacher's features (distillation); it does not ship.
Paper: S2VC (arXiv 2512.07480), contextual semantic guidance; the released code feeds f_t only, which is
`semantics="single"` here.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from gencodec.methods.s2vc.blocks import DepthBlock
from gencodec.nn.attention import Attention, FeedForward
from gencodec.nn.layers import ResidualBlock, conv3x3, pad_to_multiple

Semantics = Literal["paired", "single", "fixed", "none"]
STRIDE = 8  # of a token against the features, which are at an eighth of the picture


class SemanticHead(nn.Module):
    """Features of this frame and the one before to tokens.

    `semantics`: "paired" sees both, "single" f_t only, "fixed" gives one learned token whatever the picture
    shows (as an empty text prompt does), "none" one token of zeros.
    """

    def __init__(self, features: int, tokens: int, semantics: Semantics = "paired") -> None:
        super().__init__()
        self.semantics: Semantics = semantics
        self.tokens = tokens
        if semantics == "fixed":
            self.token = nn.Parameter(0.02 * torch.ones(1, 1, tokens))
        if semantics in ("fixed", "none"):
            return
        count = 2 if semantics == "paired" else 1
        self.halve = nn.Sequential(
            conv3x3(count * features, features, stride=2),
            DepthBlock(features),
            conv3x3(features, features, stride=2),
            ResidualBlock(features),
            nn.Conv2d(features, tokens, 2, stride=2),
        )
        self.attention = nn.ModuleList(Attention(tokens, tokens) for _ in range(2))
        self.mixing = nn.ModuleList(FeedForward(tokens) for _ in range(2))

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        """f_t and f_(t-1), (B,features,H/8,W/8) each -> tokens (B,N,tokens), N the 64x64 squares."""
        if self.semantics == "fixed":
            return self.token.expand(len(features), 1, -1)
        if self.semantics == "none":
            return features.new_zeros(len(features), 1, self.tokens)
        seen = torch.cat([features, before], 1) if self.semantics == "paired" else features
        x = rearrange(self.halve(pad_to_multiple(seen, STRIDE)), "b c h w -> b (h w) c")
        for attention, mixing in zip(self.attention, self.mixing, strict=True):
            x = mixing(attention(x, x))
        return x
