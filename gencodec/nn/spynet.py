"""SPyNet: optical flow by a pyramid of six small networks, each correcting the flow of the coarser one.

Ranjan and Black 2017, https://arxiv.org/abs/1611.00850. Tensor names are those of the PyTorch port that
BasicSR and its relatives share, `basic_module.{level}.basic_module.{0,2,4,6,8}.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.nn.warp import warp
from gencodec.weights import load_file

if TYPE_CHECKING:
    from typing_extensions import Self

LEVELS = 6
MULTIPLE = 32  # of both sides, so that every level halves
WIDTHS = (8, 32, 64, 32, 16, 2)


class SpyNet(nn.Module):
    """Flow (B,2,H,W), pixels x, y, that brings `b` onto `a`: warp(b, flow) looks like a. Frozen."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(tensors, level) for level in range(LEVELS))
        self.register_buffer("mean", tensors["mean"].reshape(1, 3, 1, 1).float())
        self.register_buffer("std", tensors["std"].reshape(1, 3, 1, 1).float())
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """From a .safetensors file. Raises WeightsMissing, or ValueError for another layout."""
        tensors, _ = load_file(path)
        try:
            return cls(tensors).to(device)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} does not hold SPyNet: {error}") from error

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in [0,1], any size."""
        height, width = a.shape[-2:]
        even = [-(-side // MULTIPLE) * MULTIPLE for side in (height, width)]
        pyramid = [self._pyramid(_resize(x, even)) for x in (a, b)]
        flow = torch.zeros(len(a), 2, *(side // 2 ** (LEVELS - 1) // 2 for side in even), device=a.device)
        for level, (x, y) in zip(self.levels, zip(*pyramid, strict=True), strict=True):
            flow = 2 * F.interpolate(flow, x.shape[-2:], mode="bilinear", align_corners=True)
            flow = flow + level(torch.cat([x, warp(y, flow), flow], 1))
        scale = torch.tensor([width / even[1], height / even[0]], device=a.device).view(1, 2, 1, 1)
        return _resize(flow, [height, width]) * scale

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures, coarsest first."""
        levels = [(x - self.get_buffer("mean")) / self.get_buffer("std")]
        for _ in range(LEVELS - 1):
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels[::-1]


def _resize(x: Tensor, size: list[int]) -> Tensor:
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _level(tensors: Mapping[str, Tensor], level: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(WIDTHS)):
        conv = nn.Conv2d(before, after, 7, padding=3)
        prefix = f"basic_module.{level}.basic_module.{2 * i}."
        conv.load_state_dict({"weight": tensors[prefix + "weight"], "bias": tensors[prefix + "bias"]})
        parts += [conv, nn.ReLU()]
    return nn.Sequential(*parts[:-1])
