"""Perceptual loss of training: LPIPS and DISTS on one pass through a frozen backbone, and what a critic sees.

Both distances and the critic share the feature maps, which are most of what a training step costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencodec.metrics.dists import Dists, l2_pool
from gencodec.metrics.lpips import Lpips
from gencodec.nn.winograd import use_winograd
from gencodec.weights import load_file, load_named


class Distances(NamedTuple):
    """LPIPS and DISTS (B,), DISTS zero without VGG16; feature maps of the decoded and the real picture."""

    lpips: Tensor
    dists: Tensor
    decoded: list[Tensor]
    real: list[Tensor]


class PerceptualLoss(nn.Module):
    """LPIPS on VGG16 with DISTS' smooth pooling, and DISTS itself; without VGG16 LPIPS-Alex alone.

    Max pooling aliases: a network trained against it paints grids of a few pixels, to which it is nearly
    blind. So the LPIPS here is a loss, not the published metric.
    """

    def __init__(self, vgg: str | Path | None) -> None:
        super().__init__()
        tensors = load_file(vgg)[0] if vgg else load_named("lpips-alex-1")[0]
        self.lpips = Lpips("vgg", tensors, l2_pool) if vgg else Lpips("alex", tensors)
        self.dists = Dists(tensors, load_named("dists-1")[0]) if vgg else None
        if self.dists:
            self.dists.backbone = self.lpips.backbone  # the same VGG16, pooling and normalisation

    def use_winograd(self) -> None:
        """Compute the backbone's convolutions faster, for CPUs."""
        use_winograd(self.lpips.backbone.convs)

    @property
    def channels(self) -> list[int]:
        """Channels of the five feature maps."""
        return [self.lpips.get_buffer(f"head{k}").shape[1] for k in range(5)]

    def forward(self, decoded: Tensor, real: Tensor) -> Distances:
        """Pictures (B,3,H,W) in [0,1]; gradients flow to `decoded` only."""
        maps = [m.float() for m in self.lpips.maps(decoded)]
        with torch.no_grad():
            target = [m.float() for m in self.lpips.maps(real)]
        with torch.autocast(decoded.device.type, enabled=False):  # of small differences
            lpips = self.lpips.between(maps, target)
            dists = torch.zeros_like(lpips)
            if self.dists:
                dists = self.dists.between([decoded.float(), *maps], [real, *target])
        return Distances(lpips, dists, maps, target)
