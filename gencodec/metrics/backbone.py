"""AlexNet and VGG16 up to their last convolution, as feature extractors for perceptual metrics.

Written from the papers: Krizhevsky 2014 (https://arxiv.org/abs/1404.5997) and Simonyan and Zisserman 2015
(https://arxiv.org/abs/1409.1556). Tensor names are those of torchvision's files, `features.{i}.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.nn.folded_conv import FoldedConv

Pool = Callable[[Tensor, int], Tensor]  # (map, kernel) -> map of half the size
SHARED_LIMIT = 1 << 28  # bytes that two networks may keep to share their first stage

# ImageNet's mean and deviation in units of [-1, 1]: what both networks and LPIPS' heads were trained on
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


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


class LastTwo:
    """What a function made of the last two tensors it was given, kept where no gradient is wanted."""

    def __init__(self, limit: int = SHARED_LIMIT) -> None:
        self.limit = limit
        self._kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, make: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What `make` gives or gave for `x`; larger ones than half the limit are not kept."""
        if torch.is_grad_enabled():
            return make(x)
        for before, made in self._kept:
            if torch.equal(before, x):
                return made
        made = make(x)
        size = sum(t.numel() * t.element_size() for t in (x, made))
        self._kept = [*self._kept[-1:], (x, made)] if 2 * size <= self.limit else []
        return made


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
        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        self.register_buffer("factor", 2 / scale)
        self.register_buffer("offset", -(1 + shift) / scale)
        self.last_two: LastTwo | None = None

    def share(self, other: Backbone) -> None:
        """Take the convolutions of `other`, which has the same tensors, and compute the first stage once.

        That stage comes before any pooling, so the poolings may differ. Only where no gradient is wanted.
        """
        self.convs = other.convs
        self.last_two = other.last_two = LastTwo()

    def forward(self, x: Tensor, count: int = 5) -> list[Tensor]:
        """Map a picture (N,3,H,W) in [0, 1] to five maps (N,C,H',W'), or the first `count` of them."""
        # while channels are not the innermost dimension: over three of them this would take ten times as long
        x = torch.addcmul(self.get_buffer("offset"), x.contiguous(), self.get_buffer("factor"))
        x = x.to(self.dtype, memory_format=torch.channels_last)
        first, *others = BACKBONES[self.net][:count]
        make = partial(self._run, first)
        taps = [self.last_two(make, x) if self.last_two else make(x)]
        for stage in others:
            taps.append(self._run(stage, taps[-1]))
        return taps

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in which pictures enter."""
        return next(self.convs.parameters()).dtype

    def _run(self, stage: Stage, x: Tensor) -> Tensor:
        if stage.pool:
            x = self.pool(x, stage.pool)
        for i in stage.convs:
            x = F.relu(self.convs[str(i)](x))
        return x


def _conv(tensors: Mapping[str, Tensor], i: int, stage: Stage) -> nn.Module:
    weight, bias = as_float(tensors, f"features.{i}.weight"), as_float(tensors, f"features.{i}.bias")
    out_channels, in_channels, kernel, _ = weight.shape
    conv = nn.utils.skip_init(nn.Conv2d, in_channels, out_channels, kernel, stage.stride, stage.padding)
    conv.load_state_dict({"weight": weight, "bias": bias})
    if stage.stride > 1:
        return FoldedConv.of(conv)
    return conv.requires_grad_(False).to(memory_format=torch.channels_last)
