"""What the paper preset leaves open. The defaults are this project's reading of the paper."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from gencodec.nn.state import config_from

GROUP = 4  # frames in a latent of Wan2.1, the first one apart
TILES = (64, 4096)  # smallest, whose quarter is the overlap, and largest

Place = Literal["pixel", "latent"]
Trained = Literal["trained", "published"]
Learning = Literal["lora", "full", "published"]
Precision = Literal["float32", "bfloat16"]
CHOICES = {"fte_at": Place, "encoder": Trained, "dit": Learning, "precision": Precision}


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Switches of the generator; its sizes are those of the base models.

    `encoder` and `dit` say which tensors this project's file holds: "published" ones stay in the base models.
    """

    sigma: float = 0.35  # how noisy x_s is taken for, in 0..1 of the flow; the paper's is not known
    fte: bool = True  # frame type embedding
    fte_at: Place = "pixel"
    context: int = 4  # frames of the piece before that are seen again, a multiple of 4; 0: none
    encoder: Trained = "trained"
    dit: Learning = "lora"
    lora_rank: int = 64
    lora_alpha: int = 64
    precision: Precision = "float32"  # of the transformer when it renders
    tile: int = 0  # pixels a side that the autoencoder takes at once when it renders; 0: whole frames

    def to_json(self) -> str:
        """For a weights file's metadata."""
        return json.dumps(asdict(self))


def parse_config(text: str) -> PaperConfig:
    """A configuration from JSON. Raises ValueError for an unknown field, choice or range."""
    config = config_from(PaperConfig, text)
    for name, choices in CHOICES.items():
        if getattr(config, name) not in get_args(choices):
            raise ValueError(
                f"{name} is one of {', '.join(get_args(choices))}, got {getattr(config, name)!r}"
            )
    if not 0 < config.sigma <= 1:
        raise ValueError(f"sigma is in 0..1, got {config.sigma!r}")
    if config.context not in range(0, 33, GROUP):
        raise ValueError(f"context is a multiple of {GROUP}, 0..32 frames, got {config.context!r}")
    if config.tile and config.tile not in range(TILES[0], TILES[1] + 1, TILES[0]):
        raise ValueError(
            f"tile is a multiple of {TILES[0]} up to {TILES[1]} pixels, or 0, got {config.tile!r}"
        )
    return config
