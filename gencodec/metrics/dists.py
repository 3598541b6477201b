"""DISTS: deep structure and texture similarity, lower is more alike, 0 for equal pictures.

Ding et al. 2020, https://arxiv.org/abs/2004.07728: over the picture itself and five VGG16 maps,

    d(x, y) = 1 - sum over maps and channels of  alpha l(x, y) + beta s(x, y)
    l = (2 mean_x mean_y + c) / (mean_x^2 + mean_y^2 + c)        texture: equal means
    s = (2 cov_xy + c) / (var_x + var_y + c)                     structure: correlated
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.metrics.backbone import Backbone, as_float
from gencodec.metrics.frames import check_frames, check_pictures, pad_to
from gencodec.weights import load_file, load_named

if TYPE_CHECKING:
    from typing_extensions import Self

MIN_SIZE = 64  # pixels a side; smaller pictures are padded by repeating the last row and column
STABILITY = 1e-6  # c of both terms, for features of [0, 1] pictures


class Dists(nn.Module):
    """DISTS at the pictures' own size (its authors' examples first scale the short side to 256 pixels).

    `vgg` holds torchvision's VGG16 tensors, `weights` the trained `alpha` and `beta` (1,1475,1,1). Frozen:
    gradients flow to the pictures only.
    """

    def __init__(self, vgg: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.backbone = Backbone("vgg", vgg, pool=l2_pool)
        alpha, beta = as_float(weights, "alpha").flatten(), as_float(weights, "beta").flatten()
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", alpha / total)
        self.register_buffer("beta", beta / total)
        self.eval()

    @classmethod
    def load(cls, vgg: str | Path, device: torch.device | str = "cpu") -> Self:
        """DISTS, its shipped weights on the .safetensors file `vgg`. Raises WeightsMissing, ValueError."""
        return cls(load_file(vgg)[0], load_named("dists-1")[0]).to(device)

    def forward(self, frame_a: Tensor, frame_b: Tensor) -> Tensor:
        """Distance of uint8 frames (3,H,W) or (N,3,H,W) -> float32 (N,) on the network's device, no gradient.

        Raises ValueError for another type or shape.
        """
        a, b = check_frames(frame_a, frame_b)
        with torch.no_grad():
            return self.distance(*(f.to(self.get_buffer("alpha").device).float() / 255 for f in (a, b)))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of float pictures (N,3,H,W) in [0, 1] -> (N,); differentiable. Raises ValueError."""
        check_pictures(x, y)
        return self.between(self.maps(x), self.maps(y))

    def between(self, maps_a: list[Tensor], maps_b: list[Tensor]) -> Tensor:
        """Distance (N,) of two pictures' maps; the first of each is the picture itself, in [0, 1]."""
        pairs = [similarity(a, b) for a, b in zip(maps_a, maps_b, strict=True)]
        texture, structure = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))  # (N,1475) each
        return 1 - texture @ self.get_buffer("alpha") - structure @ self.get_buffer("beta")

    def maps(self, x: Tensor) -> list[Tensor]:
        """Float pictures (N,3,H,W) in [0, 1], and their backbone's five maps."""
        x = pad_to(x, MIN_SIZE)
        return [x, *self.backbone(x)]


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Texture and structure similarity of two maps (N,C,H,W): two of (N,C), each at most 1."""
    mean_a, mean_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
    centred_a, centred_b = a - mean_a, b - mean_b
    texture = (2 * mean_a * mean_b + STABILITY) / (mean_a.square() + mean_b.square() + STABILITY)
    cov = (centred_a * centred_b).mean((2, 3))
    spread = centred_a.square().mean((2, 3)) + centred_b.square().mean((2, 3))
    return texture.flatten(1), (2 * cov + STABILITY) / (spread + STABILITY)


def l2_pool(x: Tensor, kernel: int) -> Tensor:
    """Halve (N,C,H,W) without aliasing: the root of the Hann-weighted mean of squares over 3x3 pixels."""
    taps = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    window = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=kernel, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
