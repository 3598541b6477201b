"""Sizes of the paper preset. The defaults are the paper's; tests use smaller ones of the same layout."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Form = Literal["epsilon", "residual"]
Semantics = Literal["single", "paired"]
SEMANTICS = ("single", "paired")


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Widths in channels; of the U-Net only what the parts beside it have to fit.

    `form`: "epsilon" takes the U-Net's output for noise at t = 999, as pre-trained predictors give it;
    "residual" adds it to r. `semantics`: "single" sees f_t, as the released model does and the parameter
    counts assume; "paired" sees f_t and f_(t-1), as the paper says, with a wider first layer.
    """

    features: int = 384  # of the buffer, at 1/8
    wide: int = 576  # inner width of encoder and decoder, and of the semantic head
    y_channels: int = 128  # at 1/16
    z_channels: int = 64  # at 1/64
    hyper_width: int = 216  # exact hyper-decoder
    state_channels: int = 256  # of the integer temporal prior
    reading_width: int = 304  # exact: state to what the fusion sees of it
    fusion_width: int = 448  # exact: hyper-latents and state to step, scale and mean
    context_width: int = 408  # exact: what the first pass says about the second
    content: int = 320  # f_pix, and width of the U-Net's first level
    tokens: int = 768
    levels: tuple[int, ...] = (320, 640, 1280)  # widths of the U-Net behind its first down blocks
    motion_channels: int = 160  # zeros in TCG: what is left of a branch for motion
    lora_rank: int = 64
    lora_alpha: int = 8
    form: Form = "epsilon"
    semantics: Semantics = "single"
    key_channels: int = 192  # of `intra`'s y

    def to_json(self) -> str:
        """For a weights file's metadata."""
        return json.dumps(asdict(self))


def parse_config(text: str) -> PaperConfig:
    """A configuration from JSON. Raises ValueError for an unknown field or choice."""
    fields: dict[str, Any] = json.loads(text)
    try:
        config = PaperConfig(**fields)
        config = PaperConfig(**(fields | {"levels": tuple(config.levels)}))
    except TypeError as error:
        raise ValueError(f"the weights describe a model of another layout: {error}") from error
    if config.form not in ("epsilon", "residual") or config.semantics not in SEMANTICS:
        raise ValueError(f"form {config.form!r} or semantics {config.semantics!r} is of another version")
    return config
