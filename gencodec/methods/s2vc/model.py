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
from gencodec.nn.quality import NUM_QUALITIES, QualityTable

MOTION_LOG2_GAINS = (-1.0, 1.0)  # steps of 2 pixels at quality 0, of half a pixel at 63
SMOOTHNESS = (0.004, 0.0006)  # of the motion search at quality 0 and 63
MOTION_CHANNELS, MOTION_HYPER = 2, 8


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
        self.motion_gain = QualityTable(MOTION_CHANNELS, *MOTION_LOG2_GAINS).requires_grad_(False)
        self.temporal = TemporalState(c.key_channels, c.y_channels + MOTION_CHANNELS, c.state_channels)
        self.motion_latents = LatentModel(
            MOTION_CHANNELS, MOTION_HYPER, 32, 48, extra_channels=c.state_channels
        )
        self.latents = LatentModel(
            c.y_channels, c.z_channels, c.prior_width, c.context_width, extra_channels=c.state_channels
        )

    def motion_of(self, x: Tensor, buffer: Buffer, quality: Tensor) -> Tensor:
        """What the encoder finds, (B,2,H/16,W/16) in pixels."""
        first, last = SMOOTHNESS
        smoothness = first * (last / first) ** (quality.float() / (NUM_QUALITIES - 1))
        return block_motion(buffer.picture, x, smoothness)

    def to_symbols(self, flow: Tensor, quality: Tensor) -> Tensor:
        """Motion in its quantisation steps."""
        return flow * self._motion_gain(quality)

    def to_flow(self, m_hat: Tensor, quality: Tensor) -> Tensor:
        """The other way, pixels."""
        return m_hat / self._motion_gain(quality)

    def begin(self, picture: Tensor, y_hat: Tensor, scaled: Tensor) -> tuple[Buffer, Tensor]:
        """Buffer and state after a key frame: linear picture, y_hat as coded, and without its gains."""
        return self.key(picture, scaled), self.temporal.begin(y_hat)

    def forward(self, x: Tensor, buffer: Buffer, state: Tensor, quality: Tensor) -> PredictedFrame:
        """Code x (B,3,H,W) in [0,1] against what came before; quality (B,)."""
        wanted = self.to_symbols(self.motion_of(x, buffer, quality), quality)
        motion: LatentEstimate = self.motion_latents(wanted, quality, state)
        context = self.extractor(buffer, self.to_flow(motion.y_hat, quality))
        y = self.residuals.encode(x, context, quality).float()
        residual: LatentEstimate = self.latents(y, quality, state)
        after = self.residuals.decode(residual.y_hat, context, quality)
        seen = torch.cat([residual.y_hat, motion.y_hat], 1)
        return PredictedFrame(
            after,
            motion.y_bits + motion.z_bits,
            residual.y_bits + residual.z_bits,
            self.temporal.update(state, seen),
        )

    def _motion_gain(self, quality: Tensor) -> Tensor:
        return torch.exp2(self.motion_gain(quality))[:, :, None, None]
