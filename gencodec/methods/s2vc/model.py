"""The networks of `s2vc` inside the coding loop, and their training graph over a clip.

Each frame sends motion and residual, both through the shared latent coder with an integer temporal prior.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencodec.entropy.model import LatentEstimate, LatentModel
from gencodec.entropy.temporal import TemporalState
from gencodec.methods.s2vc.pcodec import Buffer, Config, Extractor, KeyAdaptor, Residuals
from gencodec.nn.motion import block_motion
from gencodec.nn.quality import NUM_QUALITIES, log_spaced

STEPS_PER_PIXEL = 2  # of motion
MOTION_PRICE = (0.0025, 0.0002)  # of the motion search at quality 0 and 63
MOTION_CHANNELS, MOTION_HYPER = 2, 8
GLOBAL_BITS = 16.0  # of a frame's global motion
KEY_QUALITY = (18, 63)  # of the key frame at quality 0 and 63


def key_quality(quality: Tensor) -> Tensor:
    """The quality of a GOP's key frame: better than the others', which feed on it."""
    first, last = KEY_QUALITY
    return first + torch.div(quality * (last - first), NUM_QUALITIES - 1, rounding_mode="floor")


class PredictedFrame(NamedTuple):
    """Of one frame: the buffer that it leaves, bits (B,) of motion and of the residual, and the new state."""

    buffer: Buffer
    motion_bits: Tensor
    residual_bits: Tensor
    state: Tensor


class CodingLoop(nn.Module):
    """All that a decoder needs up to the feature buffer."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or Config()
        self.key = KeyAdaptor(c)
        self.extractor = Extractor(c)
        self.residuals = Residuals(c)
        self.temporal = TemporalState(c.key_channels, c.y_channels + MOTION_CHANNELS, c.state_channels)
        self.motion_latents = LatentModel(
            MOTION_CHANNELS, MOTION_HYPER, 32, 48, extra_channels=c.state_channels
        )
        self.latents = LatentModel(
            c.y_channels, c.z_channels, c.prior_width, c.context_width, extra_channels=c.state_channels
        )

    def motion_of(self, x: Tensor, buffer: Buffer, quality: Tensor) -> Tensor:
        """What the encoder finds: integers (B,2,H/16,W/16), x and y in half pixels."""
        price = log_spaced(quality, *MOTION_PRICE)
        return (STEPS_PER_PIXEL * block_motion(buffer.picture, x, price)).round()

    def begin(self, picture: Tensor, y_hat: Tensor, scaled: Tensor) -> tuple[Buffer, Tensor]:
        """Buffer and state after a key frame: linear picture, y_hat as coded, and without its gains."""
        return self.key(picture, scaled), self.temporal.begin(y_hat)

    def forward(self, x: Tensor, buffer: Buffer, state: Tensor, quality: Tensor) -> PredictedFrame:
        """Code x (B,3,H,W) in [0,1] against what came before; quality (B,)."""
        wanted = self.motion_of(x, buffer, quality)
        shift = global_motion(wanted)
        motion: LatentEstimate = self.motion_latents(wanted - shift, quality, state)
        flow = (motion.y_hat + shift) / STEPS_PER_PIXEL
        context = self.extractor(buffer, flow)
        y = self.residuals.encode(x, context, quality).float()
        residual: LatentEstimate = self.latents(y, quality, state)
        after = self.residuals.decode(residual.y_hat, context, quality)
        seen = torch.cat([residual.y_hat, motion.y_hat], 1)
        return PredictedFrame(
            after,
            motion.y_bits + motion.z_bits + GLOBAL_BITS,
            residual.y_bits + residual.z_bits,
            self.temporal.update(state, seen),
        )


def global_motion(motion: Tensor) -> Tensor:
    """The median over all blocks of motion (B,2,h,w): (B,2,1,1)."""
    return motion.flatten(2).median(2).values[:, :, None, None]
