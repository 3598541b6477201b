"""Other projects' weights: .pt and .pth files, by torch's restricted reader, which runs nothing in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gencodec.codec import WeightsMissing
from gencodec.weights import load_file, save_whole

if TYPE_CHECKING:
    from torch import Tensor


def import_foreign(source: str | Path, target: str | Path) -> int:
    """Write the tensors of a .pt, .pth or .safetensors file as .safetensors and return their number.

    Only tensors and plain containers are read: a file that would run code is refused with WeightsMissing.
    """
    loaded = load_file(source)[0] if Path(source).suffix == ".safetensors" else read_foreign(source)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in _flatten(loaded)}
    if not tensors:
        raise WeightsMissing(f"{source} holds no tensors")
    save_whole(tensors, target, {"source": Path(source).name})
    return len(tensors)


def read_foreign(source: str | Path) -> object:
    """What a .pt or .pth file holds; nothing in it is run. Raises WeightsMissing."""
    import torch

    try:
        return torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251
    except FileNotFoundError:
        raise WeightsMissing(f"no weights at {source}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsMissing(f"{source} holds more than tensors, or is damaged: {reason[:200]}") from error


def _flatten(value: object, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Return the tensors in nested mappings by their joined names; other values are left out."""
    import torch

    if isinstance(value, torch.Tensor):
        return [(prefix or "tensor", value)]
    if not isinstance(value, Mapping):
        return []
    pairs = ((f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
    return [found for name, item in pairs for found in _flatten(item, name)]
