"""The integer recurrent temporal prior: what the symbols of a GOP's earlier frames say about the next one's.

    y_hat of the INTRA packet ─► begin ─► state ─► features of the next frame's LatentPrior (`extra`)
    y_hat of each frame after it ─► update ─► state

State and inputs are integers on the activation grid, so that the tables which follow from them are the same
on every device. A GOP begins with a new state: what is lost with one never touches the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencodec.entropy.prior import LatentPrior
from gencodec.nn.exact import ACT_MAX, ExactConv2d, headroom, to_activation
from gencodec.nn.layers import compand

LEAK = 0.5  # of the state that a frame leaves; a power of two, so that it cannot round twice


class TemporalState(nn.Module):
    """A leaky memory of `channels` planes at the size of y."""

    def __init__(self, key_channels: int, y_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.from_key = ExactConv2d(key_channels, channels)
        self.from_frame = ExactConv2d(y_channels + channels, channels)

    def begin(self, key_y_hat: Tensor) -> Tensor:
        """State (B,channels,H,W) after a key frame with y_hat (B,key_channels,H,W)."""
        return self.from_key(to_activation(compand(key_y_hat)))

    def update(self, state: Tensor, y_hat: Tensor) -> Tensor:
        """State after a predicted frame with y_hat (B,y_channels,H,W)."""
        seen = torch.cat([to_activation(compand(y_hat)), state], 1)
        total = LEAK * state + self.from_frame(seen)
        return to_activation(total) if self.from_frame.exact else total.clamp(-ACT_MAX, ACT_MAX)

    @torch.no_grad()
    def equalise(self, states: Tensor, priors: Sequence[LatentPrior]) -> None:
        """Scale the planes by powers of two so that `states` (B,channels,H,W) fill the range; before conversion.

        `priors` read the state. What they compute stays the same, as leaky ReLU is positively homogeneous.
        """
        factor = headroom(states)
        for producer in (self.from_key, self.from_frame):
            producer.weight.mul_(factor[:, None, None, None])
            producer.bias.mul_(factor)
        self.from_frame.weight[:, -self.channels :].div_(factor[:, None, None])
        for prior in priors:
            prior.rescale_extra(factor)
