"""The table of weights files; finding, verifying (SHA-256) and loading them. Safetensors only, nothing is unpickled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gencodec.codec import WeightsMissing

if TYPE_CHECKING:
    from torch import Tensor

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of weights: where it ships, what it must hash to, whose licence it has."""

    filename: str
    sha256: str
    licence: str
    source: str


WEIGHTS: dict[str, WeightsFile] = {
    "lpips-alex-1": WeightsFile(
        "lpips-alex-1.safetensors",
        "06ede517065c184d6abe79acbcea76dfb8ea9be30302d823d49b86eb50182d75",
        "BSD-2-Clause AND BSD-3-Clause",
        "LPIPS v0.1 heads (Zhang et al. 2018) on torchvision's AlexNet, mostly in half precision",
    ),
    "dists-1": WeightsFile(
        "dists-1.safetensors",
        "4c767752f4f6bd7d5a6d26b827c5af927f8b877f35dc42131de7645100c4ee5f",
        "MIT",
        "DISTS alpha and beta (Ding et al. 2020)",
    ),
    "normal-quantiles-1": WeightsFile(
        "normal-quantiles-1.safetensors",
        "7f2056a0f3f8e95c6ed68e32886976293dce79e9d27fb7b663bd4c6ee1f3697f",
        "MIT",
        "upper half of the 2^16 normal quantiles that all noise is drawn from, computed by this project",
    ),
}


def load_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a .safetensors file. Raises WeightsMissing where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsMissing(
            f"cannot read weights {path}: {error}; reinstall gencodec or give another file"
        ) from error


def load_named(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a file of the table. Raises WeightsMissing if it is absent or altered."""
    entry = WEIGHTS[name]
    path = ZOO / entry.filename
    if not path.exists():
        raise WeightsMissing(f"weights {name!r} are not at {path}; reinstall gencodec")
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise WeightsMissing(
            f"weights {name!r} at {path} do not have the recorded SHA-256; reinstall gencodec"
        )
    return load_file(path)
