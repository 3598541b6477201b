"""Public ELIC checkpoints of the reference's kind to the names of compressai's `Elic2022Chandelier`.

Files hold a flat state, with tables of frequencies already built, from compressai 1.1.5, whose factorised
prior names its parameters otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gencodec.codec import WeightsMissing
from gencodec.weights import save_whole
from gencodec.weights_foreign import read_foreign

GROUPS = 5  # of latent channels, coded one after the other
LATENT = "latent_codec.y.latent_codec"
RULES = (  # theirs, a pattern of the whole name; compressai's
    (r"(g_[as]\..+)", r"\1"),
    (r"entropy_bottleneck\._matrix(\d)", r"latent_codec.hyper.entropy_bottleneck.matrices.\1"),
    (r"entropy_bottleneck\._bias(\d)", r"latent_codec.hyper.entropy_bottleneck.biases.\1"),
    (r"entropy_bottleneck\._factor(\d)", r"latent_codec.hyper.entropy_bottleneck.factors.\1"),
    (r"((?:h_[as]|entropy_bottleneck)\..+)", r"latent_codec.hyper.\1"),
    (r"context_prediction\.(\d)\.(.+)", rf"{LATENT}.y\1.context_prediction.\2"),
    (r"ParamAggregation\.(\d)\.(.+)", rf"{LATENT}.y\1.entropy_parameters.\2"),
)
BUILT = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")  # their sizes follow from the training


def import_elic(source: Path, target: Path) -> int:
    """Write a checkpoint as .safetensors under compressai's names; returns the number of tensors.

    Raises WeightsMissing with all that is missing, superfluous or of another shape, or without compressai.
    """
    tensors = from_checkpoint(read_foreign(source))
    metadata = {"method": "extreme", "preset": "paper", "part": "key frames", "licence": "none stated"}
    save_whole(tensors, target, metadata | {"source": source.name})
    return len(tensors)


def from_checkpoint(checkpoint: object) -> dict[str, Tensor]:
    """The tensors under compressai's names. Raises WeightsMissing."""
    if not isinstance(checkpoint, Mapping):
        raise WeightsMissing("not a checkpoint of ELIC: a flat dictionary of tensors is expected")
    found: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in checkpoint.items():
        if isinstance(tensor, Tensor):
            names = new_names(str(name))
            found |= dict.fromkeys(names, tensor)
            unknown += [] if names else [f"{name} is not of this model"]
    model = _model()
    wanted = model.state_dict()
    problems = unknown + [f"no tensor {name}" for name in wanted if name not in found]
    problems += [f"{name} is not of this model" for name in found if name not in wanted]
    problems += [
        f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and not name.endswith(BUILT) and found[name].shape != tensor.shape
    ]
    if problems:
        raise WeightsMissing("this is not ELIC with 192 and 320 channels:\n  " + "\n  ".join(problems))
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def new_names(name: str) -> list[str]:
    """What compressai calls a tensor of the reference: several names where it is shared, none if unknown."""
    if name.startswith("gaussian_conditional."):
        return [f"{LATENT}.y{i}.y.{name}" for i in range(GROUPS)]
    if context := re.fullmatch(r"cc_transforms\.(\d)\.(.+)", name):
        return [f"latent_codec.y.channel_context.y{int(context[1]) + 1}.{context[2]}"]
    for pattern, new in RULES:
        if re.fullmatch(pattern, name):
            return [re.sub(f"^{pattern}$", new, name)]
    return []


def _model() -> Any:
    try:
        from compressai.models.sensetime import Elic2022Chandelier
    except ImportError as error:
        raise WeightsMissing(f"ELIC needs compressai ({error}): pip install compressai") from error
    return Elic2022Chandelier()
