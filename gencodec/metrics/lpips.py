"""LPIPS v0.1 in plain torch: learned distance of deep features, lower is more alike, 0 for equal pictures.

Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1:

    d(x, y) = sum over taps l of  mean over h, w of  sum over channels of  w_l (x_l / |x_l| - y_l / |y_l|)^2
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.metrics.backbone import BACKBONES, Backbone, Pool, as_float, max_pool
from gencodec.metrics.frames import check_frames, check_pictures, pad_to
from gencodec.weights import load_file, load_named

if TYPE_CHECKING:
    from typing_extensions import Self

MIN_SIZE = 64  # pixels a side; smaller pictures are padded by repeating the last row and column


class Lpips(nn.Module):
    """LPIPS on AlexNet or VGG16; state which one beside every number, for they rank codecs differently.

    `tensors` holds torchvision's `features.{i}.weight`, `.bias`, and the heads `lin{k}.model.1.weight`, with
    or without a leading `lin.`, in any floating-point type. Frozen: gradients flow to the pictures only.
    """

    def __init__(
        self, net: Literal["alex", "vgg"], tensors: Mapping[str, Tensor], pool: Pool = max_pool
    ) -> None:
        super().__init__()
        self.backbone = Backbone(net, tensors, pool)
        prefix = "lin." if "lin.lin0.model.1.weight" in tensors else ""
        for k in range(len(BACKBONES[net])):
            head = as_float(tensors, f"{prefix}lin{k}.model.1.weight")  # (1,C,1,1)
            self.register_buffer(f"head{k}", head)
        self.eval()

    @classmethod
    def load(cls, device: torch.device | str = "cpu") -> Self:
        """LPIPS-Alex with the shipped weights. Raises WeightsMissing if they are absent or altered."""
        return cls("alex", load_named("lpips-alex-1")[0]).to(device)

    @classmethod
    def from_file(
        cls, path: str | Path, device: torch.device | str = "cpu", *, pool: Pool = max_pool
    ) -> Self:
        """LPIPS from a .safetensors file whose names tell the backbone. Raises WeightsMissing, ValueError.

        Another `pool` makes another metric: for losses only.
        """
        tensors, _ = load_file(path)
        return cls("vgg" if "features.28.weight" in tensors else "alex", tensors, pool).to(device)

    def forward(self, frame_a: Tensor, frame_b: Tensor) -> Tensor:
        """Distance of uint8 frames (3,H,W) or (N,3,H,W) -> float32 (N,) on the network's device, no gradient.

        Raises ValueError for another type or shape.
        """
        a, b = check_frames(frame_a, frame_b)
        with torch.no_grad():
            return self.distance(*(f.to(self.get_buffer("head0").device).float() / 255 for f in (a, b)))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of float pictures (N,3,H,W) in [0, 1] -> (N,); differentiable. Raises ValueError."""
        check_pictures(x, y)
        return self.between(self.maps(x), self.maps(y))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The backbone's five maps of float pictures (N,3,H,W) in [0, 1]."""
        return self.backbone(pad_to(x, MIN_SIZE))

    def between(self, maps_a: list[Tensor], maps_b: list[Tensor]) -> Tensor:
        """Distance (N,) of two pictures' maps."""
        parts = []
        for k, (a, b) in enumerate(zip(maps_a, maps_b, strict=True)):
            a, b = (F.normalize(m.float(), dim=1, eps=1e-10) for m in (a, b))  # unit vectors
            parts.append(((a - b).square() * self.get_buffer(f"head{k}")).sum(1).mean((1, 2)))  # (N,)
        return torch.stack(parts).sum(0)
