"""AlexNet and VGG16 up to their last convolution, as feature extractors for perceptual metrics.

Written from the papers: Krizhevsky 2014 (https://arxiv.org/abs/1404.5997) and Simonyan and Zisserman 2015
(https://arxiv.org/abs/1409.1556). Tensor names are those of torchvision's files, `features.{i}.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

Pool = Callable[[Tensor, int], Tensor]  # (map, kernel) -> map of half the size


@dataclass(frozen=True, slots=True)
class Stage:
    """Convolutions, a ReLU after each, and a tap at the last ReLU. `pool`: kernel of the pooling before."""

    convs: tuple[int, ...]  # i of features.{i}
    pool: int = 0  # pixels; the stride is 2; 0: none
    stride: int = 1
    padding: int = 1


BACKBONES: dict[str, tuple[Stage, ...]] = {
    "alex": (
        Stage((0,), stride=4, padding=2),
        Stage((3,), pool=3, padding=2),
        Stage((6,), pool=3),
        Stage((8,)),
        Stage((10,)),
    ),
    "vgg": (  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
        Stage((0, 2)),
        Stage((5, 7), pool=2),
        Stage((10, 12, 14), pool=2),
        Stage((17, 19, 21), pool=2),
        Stage((24, 26, 28), pool=2),
    ),
}


def max_pool(x: Tensor, kernel: int) -> Tensor:
    """Max pooling with stride 2 and without padding."""
    return F.max_pool2d(x, kernel, stride=2)


def as_float(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Return `tensors[name]` in float32. Raises ValueError for a file of another layout."""
    if name not in tensors:
        raise ValueError(f"no tensor {name!r} in these weights; they have {sorted(tensors)[:8]} ...")
    return tensors[name].float()


class Backbone(nn.Module):
    """The taps of "alex" or "vgg": five feature maps. Frozen; gradients flow to the input only."""

    def __init__(self, net: str, tensors: Mapping[str, Tensor], pool: Pool = max_pool) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise ValueError(f"{net = } is none of {sorted(BACKBONES)}")
        self.net, self.pool = net, pool
        self.convs = nn.ModuleDict()
        for stage in BACKBONES[net]:
            for i in stage.convs:
                self.convs[str(i)] = _conv(tensors, i, stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalised picture (N,3,H,W) to five maps (N,C,H',W')."""
        taps = []
        for stage in BACKBONES[self.net]:
            if stage.pool:
                x = self.pool(x, stage.pool)
            for i in stage.convs:
                x = F.relu(self.convs[str(i)](x))
            taps.append(x)
        return taps


def _conv(tensors: Mapping[str, Tensor], i: int, stage: Stage) -> nn.Conv2d:
    weight, bias = as_float(tensors, f"features.{i}.weight"), as_float(tensors, f"features.{i}.bias")
    out_channels, in_channels, kernel, _ = weight.shape
    conv = nn.utils.skip_init(nn.Conv2d, in_channels, out_channels, kernel, stage.stride, stage.padding)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv.requires_grad_(False)
