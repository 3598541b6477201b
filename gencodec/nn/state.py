"""Float networks from weights files: strict names and shapes, half precision in the file, float32 in use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gencodec.nn.quality import QualityTable, anchor_weights

C = TypeVar("C")


def config_from(cls: type[C], text: str) -> C:
    """A configuration, a dataclass, from the JSON of a weights file; lists become tuples.

    Raises ValueError for an unknown field.
    """
    fields: dict[str, Any] = json.loads(text)
    try:
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the weights describe a network of another layout: {error}") from error


@torch.no_grad()
def freeze_tables(model: nn.Module) -> None:
    """Let every quality table use its stored rows from now on."""
    for module in model.modules():
        if isinstance(module, QualityTable):
            module.frozen = True


@torch.no_grad()
def thaw_tables(model: nn.Module) -> None:
    """Let frozen quality tables be trained again, from the anchors that once made their rows."""
    for module in model.modules():
        if isinstance(module, QualityTable) and module.frozen:
            fit = torch.linalg.lstsq(anchor_weights().double(), module.rows.cpu().double()).solution
            module.anchors.copy_(fit)
            module.frozen = False


def float_names(model: nn.Module, skip: Sequence[str]) -> list[str]:
    """Names of the tensors that a file must hold for `model`: all but anchors and what begins with `skip`."""
    names = model.state_dict().keys()
    return [n for n in names if not n.startswith(tuple(skip)) and not n.endswith(".anchors")]


@torch.no_grad()
def export_float(model: nn.Module, skip: Sequence[str]) -> dict[str, Tensor]:
    """The float tensors of `model` in half precision; quality tables as their 64 rows in float32."""
    for module in model.modules():
        if isinstance(module, QualityTable) and not module.frozen:
            module.rows.copy_(module.table())
    state = model.state_dict()
    return {n: state[n].clone() if n.endswith(".rows") else state[n].half() for n in float_names(model, skip)}


@torch.no_grad()
def load_float(model: nn.Module, tensors: Mapping[str, Tensor], skip: Sequence[str]) -> None:
    """Fill `model` from `tensors`. Raises ValueError for a missing tensor or another shape."""
    state = model.state_dict()
    for name in float_names(model, skip):
        if name not in tensors:
            raise ValueError(f"weights lack the tensor {name!r}")
        if tensors[name].shape != state[name].shape or not tensors[name].is_floating_point():
            raise ValueError(
                f"{name} must be floating point {tuple(state[name].shape)}, got {tuple(tensors[name].shape)}"
            )
        state[name].copy_(tensors[name].float())
    freeze_tables(model)
