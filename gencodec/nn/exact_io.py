"""Exact networks as integers: what a weights file holds of them, and back.

Per layer: `weight` int8 (O,C,k,k), `exponent` int8 (O) and `bias` int32 in product steps, (O), or (64,O)
where a quality table is added to it. Nothing is computed in float at load that could round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gencodec.nn.exact import ExactConv2d, check_bounds
from gencodec.nn.quality import NUM_QUALITIES, QualityTable

TableOf = Sequence[tuple[QualityTable, ExactConv2d]]


@torch.no_grad()
def export_exact(net: nn.Module, tables: TableOf, prefix: str) -> dict[str, Tensor]:
    """Integer tensors of every exact layer of `net`, converted before. Raises ValueError if one was not."""
    table_of = {layer: table for table, layer in tables}
    out = {}
    for name, layer in _named_layers(net):
        if not layer.exact:
            raise ValueError(f"layer {name} is still in float: convert it first")
        step = torch.exp2(layer.exponent)
        bias = layer.bias if layer not in table_of else layer.bias + table_of[layer].table()
        out[f"{prefix}{name}.weight"] = (layer.grid_weight() / step[:, None, None, None]).to(torch.int8)
        out[f"{prefix}{name}.exponent"] = layer.exponent.to(torch.int8)
        out[f"{prefix}{name}.bias"] = torch.round(bias / layer.product_step()).to(torch.int32)
    return out


@torch.no_grad()
def load_exact(net: nn.Module, tables: TableOf, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Fill the exact layers of `net` from integers and check the bound.

    Raises ValueError for a missing tensor, another shape or type, or a layer that breaks the bound.
    """
    table_of = {layer: table for table, layer in tables}
    for name, layer in _named_layers(net):
        weight, exponent, bias = (
            tensors.get(f"{prefix}{name}.{part}") for part in ("weight", "exponent", "bias")
        )
        table = table_of.get(layer)
        bias_shape = (NUM_QUALITIES, len(layer.bias)) if table else layer.bias.shape
        _check(f"{prefix}{name}.weight", weight, torch.int8, layer.weight.shape)
        _check(f"{prefix}{name}.exponent", exponent, torch.int8, layer.exponent.shape)
        _check(f"{prefix}{name}.bias", bias, torch.int32, bias_shape)
        assert weight is not None
        assert exponent is not None
        assert bias is not None
        layer.exponent.copy_(exponent)
        layer.weight.copy_(weight.float() * torch.exp2(layer.exponent)[:, None, None, None])
        values = bias.float() * layer.product_step()
        if table:
            table.rows, table.frozen = values, True
            layer.bias.zero_()
            layer.bias_add_max = float(values.abs().max())
        else:
            layer.bias.copy_(values)
        layer.exact = True
    check_bounds([net])


def _named_layers(net: nn.Module) -> list[tuple[str, ExactConv2d]]:
    return [(name, m) for name, m in net.named_modules() if isinstance(m, ExactConv2d)]


def _check(name: str, tensor: Tensor | None, dtype: torch.dtype, shape: Sequence[int]) -> None:
    if tensor is None:
        raise ValueError(f"weights lack the tensor {name!r}")
    if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} must be {dtype} {tuple(shape)}, got {tensor.dtype} {tuple(tensor.shape)}")
