"""FID and KID of 256-pixel patches: how far the decoded patches, as a set, are from the source's.

Patches are cut on a grid, and on the grid shifted by half a patch (HiFiC, Mentzer et al. 2020, arXiv
2006.09965), pooled over all frames of a data set. Features are the 2048 of Inception-v3 as `pytorch-fid`
loads it. FID: Heusel et al. 2017 (arXiv 1706.08500). KID: Binkowski et al. 2018 (arXiv 1801.01401), the
unbiased estimate, times 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from gencodec.codec import WeightsMissing
from gencodec.weights import load_file

PATCH = 256  # pixels a side
FEATURES = 2048
MIN_PATCHES = 2  # fewer have no covariance
SHIPPED_NAME = "pt_inception-2015-12-05-6726825d.pth"  # what pytorch-fid downloads


def patches_of(frames: Tensor) -> Tensor:
    """uint8 (N,3,H,W) -> (M,3,256,256) on both grids; none where a side is below 256."""
    parts = [frames.new_empty(0, 3, PATCH, PATCH)]
    for start in (0, PATCH // 2):
        inside = frames[..., start:, start:]
        if min(inside.shape[-2:]) >= PATCH:
            grid = inside.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (N,3,rows,columns,256,256)
            parts.append(rearrange(grid, "n c rows columns h w -> (n rows columns) c h w"))
    return torch.cat(parts)


class PatchFeatures:
    """Collects the features of patches; `network` maps float pictures (M,3,256,256) in [0,1] to (M,D)."""

    def __init__(self, network: Callable[[Tensor], Tensor], batch: int = 16) -> None:
        self.network, self.batch = network, batch
        self._parts: list[np.ndarray] = []

    @torch.no_grad()
    def add(self, frames: Tensor) -> None:
        """Take all patches of uint8 frames (N,3,H,W); frames with a side below 256 have none."""
        patches = patches_of(frames)
        for chunk in patches.split(self.batch) if len(patches) else ():
            self._parts.append(self.network(chunk.float() / 255).cpu().double().numpy())

    def features(self) -> np.ndarray:
        """All so far, float64 (M,D)."""
        return np.concatenate(self._parts) if self._parts else np.empty((0, FEATURES))


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of the normals fitted to two sets of features (M,D); 0 for equal sets.

    Biased upwards for small sets: compare only sets of one size. Raises ValueError for fewer than two.
    """
    from pytorch_fid.fid_score import calculate_frechet_distance

    _check(a, b)
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    return float(max(0.0, calculate_frechet_distance(mean_a, cov_a, mean_b, cov_b)))


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """1000 times the squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased; may be below 0.

    Raises ValueError for fewer than two.
    """
    _check(a, b)
    within_a, within_b, between = (_kernel(x, y) for x, y in ((a, a), (b, b), (a, b)))
    terms = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (within_a, within_b)]
    return float(1000 * (sum(terms) - 2 * between.mean()))


def load_inception(path: str | Path | None = None, device: torch.device | str = "cpu") -> Inception:
    """`pytorch-fid`'s Inception-v3 from a .safetensors file, else from torch's cache.

    The file is what `gencodec weights import pt_inception-2015-12-05-6726825d.pth` makes. Without a path the
    network is downloaded only where torch already has it in its cache. Raises WeightsMissing.
    """
    if path is None and not (Path(torch.hub.get_dir()) / "checkpoints" / SHIPPED_NAME).exists():
        raise WeightsMissing(
            f"FID needs Inception's weights: put pytorch-fid's {SHIPPED_NAME} into torch's cache, or give it "
            "as .safetensors (gencodec weights import)"
        )
    return Inception(path).to(device).eval()


class Inception(nn.Module):
    """Pictures (M,3,H,W) in [0,1] -> pooled features (M,2048)."""

    def __init__(self, path: str | Path | None) -> None:
        super().__init__()
        import pytorch_fid.inception as module  # needs torchvision

        with _weights_from(module, path):
            self.net = module.InceptionV3([module.InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.net(x)[0].flatten(1)


@contextmanager
def _weights_from(module: Any, path: str | Path | None) -> Iterator[None]:
    """Let `pytorch-fid` take its tensors from a file instead of its download."""
    if path is None:
        yield
        return
    tensors, _ = load_file(path)
    before = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *_, **__: tensors
    try:
        yield
    except RuntimeError as error:
        raise WeightsMissing(f"{path} is no Inception-v3 of pytorch-fid: {error}") from error
    finally:
        module.load_state_dict_from_url = before


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if min(len(a), len(b)) < MIN_PATCHES:
        raise ValueError(f"FID and KID need at least {MIN_PATCHES} patches of 256 pixels on each side")
