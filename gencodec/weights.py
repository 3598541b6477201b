"""The table of weights files; finding, verifying (SHA-256) and loading them. Safetensors, never a pickle.

Other projects' .pt and .pth files: `weights_foreign`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gencodec.codec import Weights, WeightsMissing

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
    "intra-tiny-9": WeightsFile(
        "intra-tiny-9.safetensors",
        "da705a9e9b08a7b568fd0df4cd80b6ad6d8e51260932b68c19a7bee7ee25c9e3",
        "MIT",
        "trained by this project: docs/training.md",
    ),
    "s2vc-tiny-6": WeightsFile(
        "s2vc-tiny-6.safetensors",
        "f4d659290df0cad23b457820f7db71d99690fcb27c2f3eae8ad12d8e53164412",
        "MIT",
        "trained by this project: docs/training.md",
    ),
    "extreme-tiny-2": WeightsFile(
        "extreme-tiny-2.safetensors",
        "3d755e79610d518a8386e84eea8d34918bc40549179edf9fa479a302f353c19a",
        "MIT",
        "trained by this project: docs/training.md",
    ),
    "diffsit-tiny-4": WeightsFile(
        "diffsit-tiny-4.safetensors",
        "451d15e2215c5a2872c6f4a1036c08e77543a9d68ce8daf9f11a00f265009d39",
        "MIT",
        "trained by this project: docs/training.md",
    ),
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
    """Return the tensors and the metadata of a .safetensors file. Raises WeightsMissing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsMissing(
            f"cannot read weights {path}: {error}; reinstall gencodec or give another file"
        ) from error


def load_named(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file of the table. Raises WeightsMissing if absent or altered."""
    if problem := problem_with(name):
        raise WeightsMissing(problem)
    return load_file(ZOO / WEIGHTS[name].filename)


def problem_with(name: str) -> str:
    """Return what is wrong with a file of the table; an empty string if it is there and unaltered."""
    path = ZOO / WEIGHTS[name].filename
    if not path.exists():
        return f"weights {name!r} are not at {path}; reinstall gencodec"
    if file_digest(path).hex() != WEIGHTS[name].sha256:
        return f"weights {name!r} at {path} do not have the recorded SHA-256; reinstall gencodec"
    return ""


def file_digest(path: str | Path) -> bytes:
    """Return the SHA-256 of a file. Raises WeightsMissing where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsMissing(
            f"cannot read weights {path}: {error.strerror}; give a file or folder that is there"
        ) from error
    return digest.digest()


# ---- sets: the files that one codec loads together ---------------------------------------------------------


def id_of(digests: Sequence[bytes]) -> int:
    """Return a set's id: first 4 bytes, little-endian, of the SHA-256 over its files' SHA-256s in order."""
    return int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:4], "little")


def set_id(names: Sequence[str]) -> int:
    """Return the id of a set of the table without reading a file. Raises WeightsMissing for other names."""
    if unknown := [name for name in names if name not in WEIGHTS]:
        raise WeightsMissing(
            f"weights {unknown[0]!r} are not in this version; install the release that has them"
        )
    return id_of([bytes.fromhex(WEIGHTS[name].sha256) for name in names])


def load_set(names: Sequence[str], preset: str, *, path: str | Path | None = None) -> Weights:
    """Load the set `names` of the table, or the files at `path` in its place.

    `path` is a .safetensors file for a set of one, else a folder with files of the table's names. A file's
    role is its name up to the first hyphen: "intra" for "intra-tiny-9". Raises WeightsMissing.
    """
    loaded = {}
    digests = []
    for name, file in zip(names, files_of(names, path), strict=True):
        digests.append(file_digest(file))
        if path is None and digests[-1].hex() != WEIGHTS[name].sha256:
            raise WeightsMissing(problem_with(name))
        loaded[name.partition("-")[0]] = load_file(file)
    tensors = {role: tensors for role, (tensors, _) in loaded.items()}
    return Weights(
        preset, tensors, {role: metadata for role, (_, metadata) in loaded.items()}, id_of(digests)
    )


def files_of(names: Sequence[str], path: str | Path | None = None) -> list[Path]:
    """Return where the files of a set are, or would be in place of the table's. Raises WeightsMissing."""
    set_id(names)
    if path is None:
        for name in names:
            if not (ZOO / WEIGHTS[name].filename).exists():
                raise WeightsMissing(problem_with(name))
        return [ZOO / WEIGHTS[name].filename for name in names]
    path = Path(path)
    if path.is_dir():
        return [path / WEIGHTS[name].filename for name in names]
    if len(names) != 1:
        files = ", ".join(WEIGHTS[name].filename for name in names) or "none"
        raise WeightsMissing(f"{path} is one file; this method wants a folder with {files}")
    return [path]


def choose_set(
    sets: Sequence[Sequence[str]], wanted: int, preset: str, *, path: str | Path | None = None
) -> Weights:
    """Load the one of `sets` that has the id `wanted`. Raises WeightsMissing with the ids that there are."""
    there = []
    for names in sets:
        if path is None:
            found = set_id(names)
        else:
            found = id_of([file_digest(file) for file in files_of(names, path)])
        if found == wanted:
            return load_set(names, preset, path=path)
        there.append(f"{found:08x} ({', '.join(names) if path is None else path})")
    raise WeightsMissing(
        f"the stream needs {preset} weights {wanted:08x}, here is {'; '.join(there) or 'none'}; "
        "install the release that made it, or give its weights with --weights"
    )


def parameter_count(name: str) -> int:
    """Return how many numbers a file of the table holds, from its head alone; 0 where it is absent."""
    try:
        with open(ZOO / WEIGHTS[name].filename, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            head = json.loads(f.read(min(size, 1 << 24)))
    except (OSError, ValueError):
        return 0
    return sum(math.prod(entry["shape"]) for key, entry in head.items() if key != "__metadata__")


def save_whole(tensors: Mapping[str, Tensor], target: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file whole or not at all."""
    from safetensors.torch import save_file

    part = Path(target).with_name(f".{Path(target).name}.{os.getpid()}.part")
    try:
        save_file(dict(tensors), part, dict(metadata))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
