"""RAFT: optical flow by repeated look-ups in the correlations of all pairs of places; torchvision's own.

Teed and Deng 2020, https://arxiv.org/abs/2003.12039. Slower than SPyNet and more exact. Its memory grows with
the square of the pixels: about 9 GB at 1920x1080.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.weights import load_file
from gencodec.weights_foreign import import_foreign

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

MULTIPLE = 8  # of both sides
MIN_SIZE = 128  # pixels a side, so that the coarsest correlations have two places


class Raft(nn.Module):
    """Flow (B,2,H,W), pixels x, y, that brings `b` onto `a`: warp(b, flow) looks like a. Frozen."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        from torchvision.models.optical_flow import raft_large

        self.net = raft_large(weights=None)
        wanted = self.net.state_dict()
        wrong = wanted.keys() ^ tensors.keys()
        wrong |= {name for name in wanted.keys() - wrong if wanted[name].shape != tensors[name].shape}
        if wrong:
            raise ValueError(f"{len(wrong)} tensors are not raft_large's, the first is {min(wrong)!r}")
        self.net.load_state_dict(tensors)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """From torchvision's .pth file, or the same as .safetensors.

        Raises WeightsMissing, or ValueError for another layout.
        """
        tensors = _read(Path(path))
        try:
            return cls(tensors).to(device)
        except ValueError as error:
            raise ValueError(
                f"{path} does not hold RAFT: {error}; give the file of torchvision's Raft_Large_Weights"
            ) from error

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in [0,1], any size."""
        height, width = a.shape[-2:]
        padding = (0, _even(width) - width, 0, _even(height) - height)
        flows = self.net(*(2 * F.pad(x, padding, mode="replicate") - 1 for x in (a, b)))
        self.net.corr_block.corr_pyramid = []  # as large as everything else together
        return flows[-1][..., :height, :width]


def _even(side: int) -> int:
    return max(MIN_SIZE, -(-side // MULTIPLE) * MULTIPLE)


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)[0]
    with TemporaryDirectory() as folder:  # by the one reader of other projects' files
        converted = Path(folder) / "raft.safetensors"
        import_foreign(path, converted)
        return load_file(converted)[0]
