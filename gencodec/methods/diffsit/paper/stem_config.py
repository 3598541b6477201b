"""Sizes of the learned STEM. The defaults are DCVC-FM's where they are known; tests use smaller ones."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from gencodec.methods.s2vc.paper.config import PaperConfig as PriorConfig
from gencodec.nn.state import config_from


@dataclass(frozen=True, slots=True)
class StemConfig:
    """Widths in channels."""

    widths: tuple[int, ...] = (48, 64, 96)  # of contexts at full size, a half, a quarter
    y_channels: int = 128  # at 1/16
    z_channels: int = 64  # at 1/64
    motion_channels: int = 64  # latents of motion, at 1/16
    motion_z_channels: int = 64
    state_channels: int = 128  # of the integer temporal prior of y
    prior_width: int = 192  # of the exact networks of y
    motion_prior_width: int = 96  # of those of motion
    reset_period: int = 32  # backbones after which features are made anew from the picture
    key_channels: int = 192  # of `intra`'s y

    def to_json(self) -> str:
        """For a weights file's metadata."""
        return json.dumps(asdict(self))

    def prior(self) -> PriorConfig:
        """Of the latents of backbones."""
        return _prior(self.y_channels, self.z_channels, self.state_channels, self.prior_width)

    def motion_prior(self) -> PriorConfig:
        """Of the latents of motion, which have no temporal state."""
        return _prior(self.motion_channels, self.motion_z_channels, 1, self.motion_prior_width)


def parse_stem(text: str) -> StemConfig:
    """A configuration from JSON. Raises ValueError for an unknown field or an odd number."""
    config = config_from(StemConfig, text)
    if len(config.widths) != 3 or config.reset_period < 1:
        raise ValueError(f"three widths and a reset period of 1 or more, got {config}")
    return config


def _prior(y: int, z: int, state: int, width: int) -> PriorConfig:
    return PriorConfig(
        y_channels=y,
        z_channels=z,
        state_channels=state,
        hyper_width=width,
        reading_width=width,
        fusion_width=width,
        context_width=width,
    )
