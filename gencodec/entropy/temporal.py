"""The integer recurrent temporal prior: what the symbols of a GOP's earlier frames say about the next one's.

    y_hat of the INTRA packet ─► begin ─► state
    state, moved along the frame's motion ─► features of its StagedPrior (`extra`)
    y_hat of the frame, moved state ─► update ─► state

It sees magnitudes: how much was coded where. State and inputs are integers on the activation grid, and motion
moves the state by whole blocks, so that the tables which follow from them are the same on every device. A GOP
begins with a new state: what is lost with one never touches the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencodec.entropy.staged import StagedPrior
from gencodec.nn.equalise import headroom
from gencodec.nn.exact import ACT_MAX, ACT_STEP, ExactConv2d, pattern, to_activation
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
        return self.from_key(to_activation(compand(key_y_hat)).abs())

    def update(self, moved: Tensor, y_hat: Tensor) -> Tensor:
        """State after a frame with y_hat (B,y_channels,H,W), from the state as moved to it."""
        seen = torch.cat([to_activation(compand(y_hat)).abs(), moved], 1)
        total = LEAK * moved + self.from_frame(seen)
        return to_activation(total) if self.from_frame.exact else total.clamp(-ACT_MAX, ACT_MAX)

    @torch.inference_mode()
    def fingerprint(self, device: torch.device) -> str:
        """SHA-256 of the state after two frames of fixed symbols, for a device's self-test."""
        key = pattern((1, self.from_key.weight.shape[1], 3, 4), 23).to(device)
        state = self.begin(key)
        for modulus in (7, 31):
            y_hat = pattern((1, self.from_frame.weight.shape[1] - self.channels, 3, 4), modulus).to(device)
            motion = pattern((1, 2, 3, 4), 5 * modulus).to(device)
            state = self.update(moved_along(state, motion, 16), y_hat)
        return hashlib.sha256((state / ACT_STEP).to(torch.int32).cpu().numpy().tobytes()).hexdigest()

    @torch.no_grad()
    def equalise(self, states: Tensor, priors: Sequence[StagedPrior]) -> None:
        """Scale the planes by powers of two so that `states` (B,channels,H,W) fill the range.

        Before conversion. `priors` read the state; what they compute stays the same.
        """
        factor = headroom(states)
        for producer in (self.from_key, self.from_frame):
            producer.weight.mul_(factor[:, None, None, None])
            producer.bias.mul_(factor)
        self.from_frame.weight[:, -self.channels :].div_(factor[:, None, None])
        for prior in priors:
            prior.rescale_extra(factor)


def moved_along(state: Tensor, motion: Tensor, block: int) -> Tensor:
    """state (B,C,H,W) looked up where motion (B,2,H,W), integers x and y, points to, in whole places.

    `block` is a place in the motion's steps; half a place and more counts as one. Edges are repeated.
    """
    height, width = state.shape[-2:]
    offset = torch.div(motion + block // 2, block, rounding_mode="floor").long()
    rows = (torch.arange(height, device=state.device)[:, None] + offset[:, 1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=state.device) + offset[:, 0]).clamp(0, width - 1)
    index = (rows * width + columns).flatten(1)[:, None].expand(-1, state.shape[1], -1)
    return state.flatten(2).gather(2, index).view_as(state)
