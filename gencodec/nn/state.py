"""Float networks from weights files: strict names and shapes; half or int8 there, float32 in use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gencodec.nn.quality import QualityTable, anchor_weights

C = TypeVar("C")
SCALE = ".scale"  # what is behind the name of an int8 tensor's scales
LARGE = 4096  # values from which on a tensor may be int8


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
def export_float(model: nn.Module, skip: Sequence[str], *, int8: bool = False) -> dict[str, Tensor]:
    """The float tensors of `model` in half precision; quality tables as their 64 rows in float32.

    `int8`: those of LARGE and more values as int8 with a scale for each of the first axis, "NAME.scale". The
    error is about 1 % of a channel's values: for what is shown, not for what symbols depend on.
    """
    for module in model.modules():
        if isinstance(module, QualityTable) and not module.frozen:
            module.rows.copy_(module.table())
    state, tensors = model.state_dict(), dict[str, Tensor]()
    for name in float_names(model, skip):
        value = state[name]
        if name.endswith(".rows"):
            tensors[name] = value.clone()
        elif int8 and value.ndim > 1 and value.numel() >= LARGE:
            tensors[name], tensors[name + SCALE] = to_int8(value)
        else:
            tensors[name] = value.half()
    return tensors


def to_int8(value: Tensor) -> tuple[Tensor, Tensor]:
    """Values (C,...) as int8, and the scales (C,) that give them back."""
    scale = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
    return (value / _along_first(scale, value)).round().to(torch.int8), scale


def from_int8(value: Tensor, scale: Tensor) -> Tensor:
    """The other way, float32."""
    return value.float() * _along_first(scale, value)


def _along_first(scale: Tensor, value: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (value.ndim - 1))


@torch.no_grad()
def load_float(model: nn.Module, tensors: Mapping[str, Tensor], skip: Sequence[str]) -> None:
    """Fill `model` from `tensors`. Raises ValueError for a missing tensor or another shape."""
    state = model.state_dict()
    for name in float_names(model, skip):
        state[name].copy_(_read(tensors, name, state[name].shape))
    freeze_tables(model)


def _read(tensors: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    """A tensor of a file in float32."""
    if name not in tensors:
        raise ValueError(f"weights lack the tensor {name!r}")
    value, scale = tensors[name], tensors.get(name + SCALE)
    if value.dtype == torch.int8 and scale is not None and value.shape == shape and scale.shape == shape[:1]:
        return from_int8(value, scale)
    if value.shape != shape or not value.is_floating_point():
        raise ValueError(
            f"{name} must be floating point {tuple(shape)}, or int8 with a scale; got {value.dtype} "
            f"{tuple(value.shape)}"
        )
    return value.float()
