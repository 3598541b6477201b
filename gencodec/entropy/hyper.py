"""Hyper-latents, which the learned codecs of the paper presets send beside y: their size and their tables.

The tiny presets have none: what is coded first says what they would (`staged`).
"""

from __future__ import annotations

import numpy as np

from gencodec.nn.quality import NUM_QUALITIES

HYPER_STRIDE = 4  # of z against y
Z_BANDS = 8  # hyper-latents have tables of their own for every eight qualities


def z_table_index(shape: tuple[int, ...], quality: int) -> np.ndarray:
    """Which table each hyper-latent of `shape` (Cz,h,w) takes: one for each band of qualities and channel."""
    band = quality * Z_BANDS // NUM_QUALITIES
    channels = np.arange(shape[0], dtype=np.uint16) + band * shape[0]
    return np.broadcast_to(channels[:, None, None], shape).copy()
