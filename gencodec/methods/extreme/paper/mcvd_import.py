"""MCVD's public checkpoints to ours: its list of modules to our names, strictly, the averaged weights only.

A checkpoint is a list, [model, Adam, epoch, step, averaged weights]; the last is a plain dictionary with keys
`unet.all_modules.NUMBER.…` in the order of `McvdUNet.in_order`. The configuration is not inside: it lies
beside it, as config.yml.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencodec.codec import WeightsMissing
from gencodec.methods.extreme.paper.mcvd import Block, McvdConfig, McvdUNet, SelfAttention
from gencodec.weights import save_whole
from gencodec.weights_foreign import read_foreign

PREFIX = "unet.all_modules"
BLOCK = {"actnorm0.Dense_0": "norm0.dense", "actnorm1.Dense_0": "norm1.dense"}
BLOCK |= {"Conv_0": "conv0", "Conv_1": "conv1", "Conv_2": "shortcut"}
ATTENTION = ("query", "key", "value", "out")


def import_mcvd(source: Path, config_path: Path | None, target: Path) -> int:
    """Write a checkpoint as .safetensors; returns the number of tensors.

    Raises WeightsMissing with all that is missing, superfluous or of another shape.
    """
    config = read_config(config_path or source.with_name("config.yml"))
    tensors = from_checkpoint(read_foreign(source), config)
    metadata = {"method": "extreme", "preset": "paper", "part": "predictor", "licence": "MIT (MCVD)"}
    save_whole(tensors, target, metadata | {"config": json.dumps(asdict(config)), "source": source.name})
    return len(tensors)


def from_checkpoint(checkpoint: object, config: McvdConfig) -> dict[str, Tensor]:
    """The averaged weights under our names. Raises WeightsMissing."""
    if not isinstance(checkpoint, (list, tuple)) or len(checkpoint) != 5:
        raise WeightsMissing(
            "not a checkpoint of MCVD with averaged weights: a list of five items is expected"
        )
    given = {name: tensor for name, tensor in checkpoint[-1].items() if isinstance(tensor, Tensor)}
    with torch.device("meta"):
        model = McvdUNet(config)
    wanted = dict(names_of(model))
    # old files have the last norm without its wrapper
    last = f"{PREFIX}.{len(list(model.in_order())) - 2}"
    given = {_renamed(name, last): tensor for name, tensor in given.items()}
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    problems = [f"no tensor {name}" for name in wanted if name not in given]
    problems += [f"{name} is not of this model" for name in given if name not in wanted]
    found = {own: _as_ours(given[name], own) for name, own in wanted.items() if name in given}
    problems += [
        f"{name} is {tuple(found[own].shape)}, not {shapes[own]}"
        for name, own in wanted.items()
        if own in found and tuple(found[own].shape) != shapes[own]
    ]
    if problems:
        raise WeightsMissing("the checkpoint does not fit its configuration:\n  " + "\n  ".join(problems))
    return found


def names_of(model: McvdUNet) -> Iterator[tuple[str, str]]:
    """Their name and ours of every tensor."""
    ours = {id(module): name for name, module in model.named_modules()}
    for number, module in enumerate(model.in_order()):
        for theirs, own in _parts(module):
            for kind in ("weight", "bias"):
                last = {"weight": "W", "bias": "b"}[kind] if theirs.startswith("NIN") else kind
                name = ".".join(part for part in (PREFIX, str(number), theirs, last) if part)
                yield name, ".".join(part for part in (ours[id(module)], own, kind) if part)


def _parts(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Parts of one of their modules with numbers of their own: their name, and ours."""
    if isinstance(module, Block):
        has_shortcut = isinstance(module.shortcut, nn.Conv2d)
        yield from (pair for pair in BLOCK.items() if has_shortcut or pair[1] != "shortcut")
    elif isinstance(module, SelfAttention):
        yield "GroupNorm_0", "norm"
        yield from ((f"NIN_{i}", name) for i, name in enumerate(ATTENTION))
    else:
        yield ("Norm_0" if isinstance(module, nn.GroupNorm) else ""), ""


def _renamed(name: str, last: str) -> str:
    return name.replace(last, f"{last}.Norm_0") if name in (f"{last}.weight", f"{last}.bias") else name


def _as_ours(tensor: Tensor, own: str) -> Tensor:
    """Their linear maps at a place, (in,out), are 1x1 convolutions here."""
    is_map = own.rpartition(".")[0].endswith(ATTENTION) and tensor.ndim == 2
    return (tensor.t()[:, :, None, None] if is_map else tensor).float().contiguous()


# ---- config.yml --------------------------------------------------------------------------------------------


def read_config(path: Path) -> McvdConfig:
    """The sizes in a config.yml of MCVD. Raises WeightsMissing for a file that is not one."""
    try:
        import yaml
    except ImportError as error:
        raise WeightsMissing('config.yml needs PyYAML: pip install "gencodec[paper]"') from error

    class Loader(yaml.SafeLoader):
        """Builds plain values only: of the Python classes that such files name, dictionaries and lists."""

    def plain(loader: Any, _: str, node: Any) -> Any:
        is_list = isinstance(node, yaml.SequenceNode)
        return loader.construct_sequence(node) if is_list else loader.construct_mapping(node, deep=True)

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", plain)
    try:
        with path.open(encoding="utf-8") as file:
            return _config_from(yaml.load(file, Loader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise WeightsMissing(
            f"{path} is no configuration of MCVD ({type(error).__name__}: {error}); give it with --config"
        ) from error


def _config_from(values: Mapping[str, Any]) -> McvdConfig:
    data, model = values["data"], values["model"]
    arch = str(model.get("arch", "unetmore")).lower()
    if arch != "unetmore" or model.get("spade") or data.get("num_frames_future"):
        raise WeightsMissing(
            "only MCVD's unetmore with concatenated past frames is known, not SPADE or future"
        )
    width = int(model["ngf"])
    heads = int(model.get("n_head_channels", -1))
    return McvdConfig(
        size=int(data["image_size"]),
        channels=int(data["channels"]),
        past=int(data["num_frames_cond"]),
        predicted=int(data["num_frames"]),
        width=width,
        multipliers=tuple(model["ch_mult"]),
        blocks=int(model["num_res_blocks"]),
        attention_at=tuple(model["attn_resolutions"]),
        head_width=heads if heads > 0 else width,
    )
