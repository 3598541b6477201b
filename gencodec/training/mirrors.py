"""Recorded clips as in a mirror, so that few of them show more.

What a coding loop makes of a mirrored clip is, but for what rounding and search decide, the mirror image of
what it made of the clip: cosine coefficients of an odd frequency change their sign, and so does motion. Of
key frames that is nearly so: their inverse transform was learned.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.intra.cosine import frequencies, split
from gencodec.training.s2vc_record import Record

ACROSS, DOWN = -1, -2  # dimensions that a mirror turns round


def drawn_mirror(random: np.random.Generator) -> tuple[int, ...]:
    """The dimensions to turn round, each in half of the cases."""
    return tuple(axis for axis in (ACROSS, DOWN) if random.random() < 0.5)


def mirrored(clip: Record, axes: tuple[int, ...]) -> Record:
    """Windows, stacked or not, turned round in `axes`: those of `drawn_mirror`."""
    for axis in axes:
        clip = clip._replace(
            **{name: getattr(clip, name).flip(axis) for name in ("x", "picture")},
            **{name: _latents(getattr(clip, name), axis) for name in ("scaled", "key_y_hat", "symbols")},
            motion=_motion(clip.motion, axis),
        )
    return clip


def _latents(y: Tensor, axis: int) -> Tensor:
    return y.flip(axis) * _signs(y.shape[-3], axis).to(y)[:, None, None]


def _motion(motion: Tensor, axis: int) -> Tensor:
    """Of (...,2,h,w), x and y."""
    turned = motion.flip(axis).clone()
    turned[..., 0 if axis == ACROSS else 1, :, :] *= -1
    return turned


@lru_cache
def _signs(channels: int, axis: int) -> Tensor:
    """1 or -1 for each channel of `dct_basis`, (channels,)."""
    odd = torch.tensor([f[1 if axis == ACROSS else 0] % 2 for f in frequencies()])
    return torch.cat([1 - 2 * odd[:count] for count in split(channels)])
