"""Perceptual loss of training: LPIPS and DISTS on one pass through a frozen backbone, and what a critic sees.

Both distances and the critic share the feature maps, which are most of what a training step costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.metrics.backbone import Backbone
from gencodec.metrics.dists import IMAGENET_MEAN, IMAGENET_STD, l2_pool, similarity
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
        self.is_vgg = vgg is not None
        self.backbone = Backbone("vgg", tensors, l2_pool) if self.is_vgg else Backbone("alex", tensors)
        prefix = "lin." if "lin.lin0.model.1.weight" in tensors else ""
        for k in range(5):
            self.register_buffer(f"head{k}", tensors[f"{prefix}lin{k}.model.1.weight"].float())
        weights = load_named("dists-1")[0]
        total = weights["alpha"].float().sum() + weights["beta"].float().sum()
        self.register_buffer("alpha", weights["alpha"].float().flatten() / total)
        self.register_buffer("beta", weights["beta"].float().flatten() / total)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.eval()

    @property
    def channels(self) -> list[int]:
        """Channels of the five feature maps."""
        return [self.get_buffer(f"head{k}").shape[1] for k in range(5)]

    def forward(self, decoded: Tensor, real: Tensor) -> Distances:
        """Pictures (B,3,H,W) in [0,1], sides of at least 64; gradients flow to `decoded` only."""
        maps = self.features(decoded)
        with torch.no_grad():
            target = self.features(real)
        dists = (
            self._dists([decoded, *maps], [real, *target]) if self.is_vgg else decoded.new_zeros(len(real))
        )
        return Distances(self._lpips(maps, target), dists, maps, target)

    def features(self, x: Tensor) -> list[Tensor]:
        """Five maps (B,C,H',W') of pictures (B,3,H,W) in [0,1]."""
        return self.backbone((x - self.get_buffer("mean")) / self.get_buffer("std"))

    def _lpips(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        parts = []
        for k, (p, q) in enumerate(zip(a, b, strict=True)):
            difference = F.normalize(p.float(), dim=1, eps=1e-6) - F.normalize(q.float(), dim=1, eps=1e-6)
            parts.append((difference.square() * self.get_buffer(f"head{k}")).sum(1).mean((1, 2)))
        return torch.stack(parts).sum(0)

    def _dists(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        pairs = [similarity(p.float(), q.float()) for p, q in zip(a, b, strict=True)]
        texture, structure = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
        return 1 - texture @ self.get_buffer("alpha") - structure @ self.get_buffer("beta")
