"""FVD: the Fréchet distance of I3D's logits between two sets of clips.

Unterthiner et al. 2018, https://arxiv.org/abs/1812.01717. It is a distance of distributions: a few clips, or
one clip twice, give a number that means nothing. With fewer than `MIN_CLIPS` clips it is not called FVD; see
`i3d_distance`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gencodec.metrics.fid import fid

MIN_CLIPS = 64  # windows of clips on each side; a covariance of 400 features needs several times as many
WINDOW = 16  # frames of a window, as in the paper's evaluation


class ClipFeatures:
    """Collects the logits of a clip's windows of 16 frames; what is left over at its end is not used.

    `network` maps clips (1,3,16,H,W) in [0,1] to (1,D). Frames are kept until their window is full.
    """

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self._frames: list[Tensor] = []
        self._parts: list[np.ndarray] = []

    @torch.no_grad()
    def add(self, frames: Tensor) -> None:
        """Take the next frames, uint8 (N,3,H,W)."""
        for frame in frames:
            self._frames.append(frame)
            if len(self._frames) == WINDOW:
                window = torch.stack(self._frames, 1)[None].float() / 255
                self._parts.append(self.network(window).cpu().double().numpy())
                self._frames = []

    def features(self) -> np.ndarray:
        """All so far, float64 (M,D)."""
        return np.concatenate(self._parts) if self._parts else np.empty((0, 400))


def fvd(a: np.ndarray, b: np.ndarray) -> float:
    """FVD of two sets of features (M,D). Raises ValueError for fewer than `MIN_CLIPS` windows."""
    if min(len(a), len(b)) < MIN_CLIPS:
        raise ValueError(
            f"FVD needs at least {MIN_CLIPS} windows of {WINDOW} frames, got {min(len(a), len(b))}"
        )
    return fid(a, b)


def i3d_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance of paired features (M,D): what is left to say of a few clips.

    Raises ValueError where there is no window.
    """
    if not len(a):
        raise ValueError(f"no clip has {WINDOW} frames")
    return float(np.square(a - b).sum(1).mean())
