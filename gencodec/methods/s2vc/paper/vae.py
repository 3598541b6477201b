"""The autoencoder's decoder with attention in windows.

Its one attention layer, in the middle of the decoder, looks from every place at every other: at 1080p that is
32,640 places. The paper's decoder looks within windows of 16x16 places. Sizes that do not divide get a
narrower last window by masking, so that nothing depends on what pads it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

WINDOW = 16  # places a side


class WindowedAttention:
    """An attention processor of `diffusers`: the weights of its layer, attention within windows.

    A picture of one window gives what the library's own processor does (tests/test_s2vc_paper.py).
    """

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B,C,H,W) -> the same shape; the rest, which the library asks for, is None here."""
        _, _, height, width = hidden_states.shape
        x = attn.group_norm(hidden_states)  # over the whole picture: windows share its statistics
        x = F.pad(x, (0, -width % self.window, 0, -height % self.window))
        rows, columns = x.shape[2] // self.window, x.shape[3] // self.window
        places = self._to_windows(x)  # (B*windows,N,C)
        q, k, v = (
            rearrange(layer(places), "b n (h d) -> b h n d", h=attn.heads)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        mask = self._mask(height, width, x) if places.shape[1] * rows * columns != height * width else None
        mask = None if mask is None else mask.repeat(len(hidden_states), 1, 1, 1)
        seen = rearrange(F.scaled_dot_product_attention(q, k, v, mask), "b h n d -> b n (h d)")
        out = rearrange(
            attn.to_out[0](seen),
            "(b r c) (i j) d -> b d (r i) (c j)",
            r=rows,
            c=columns,
            i=self.window,
        )[..., :height, :width]
        return (out + hidden_states if attn.residual_connection else out) / attn.rescale_output_factor

    def _to_windows(self, x: Tensor) -> Tensor:
        return rearrange(x, "b d (r i) (c j) -> (b r c) (i j) d", i=self.window, j=self.window)

    def _mask(self, height: int, width: int, padded: Tensor) -> Tensor:
        """Which places of each window are of the picture, (windows,1,1,N)."""
        inside = torch.zeros(1, 1, *padded.shape[2:], device=padded.device)
        inside[..., :height, :width] = 1
        return self._to_windows(inside)[:, None, None, :, 0] > 0


def use_windows(vae: Any) -> None:
    """Let the decoder's middle attend within windows."""
    for attention in vae.decoder.mid_block.attentions:
        attention.set_processor(WindowedAttention())
