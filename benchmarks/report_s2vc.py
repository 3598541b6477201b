"""The report's part on `s2vc` alone: what its parts are worth, and whether it drifts."""

from __future__ import annotations

from typing import Any

import numpy as np
from report_words import Result, percent, provenance, table

THIRD = 32  # frames, of a group of 96


def ablation_detail(result: Result) -> str:
    """What each variant takes more than the full one: priors, then generators."""
    priors, generators = result["priors"], result["generators"]
    bits = [[name, percent(value)] for name, value in priors["percent"].items()]
    rates = [
        [name, percent(value), *(f"{distance:.3f}" for _, distance in generators["curves"][name])]
        for name, value in generators["percent"].items()
    ]
    start = "begins from nothing" if priors["from_nothing"] else "begins from the same weights"
    at = (f"at {rate:.4f} bpp" for rate, _ in generators["curves"]["full"])
    return "\n\n".join(
        [
            "## What the parts of `s2vc` are worth",
            f"Each prior {start}, without the part, and is trained for {priors['steps']} steps, the full one "
            f"too; measured on {priors['frames']} frames of {len(priors['clips'])} held-out clips.",
            table(["prior", "bits of the residual"], bits),
            provenance(priors),
            f"Each generator begins from the same weights without the part, and is trained for "
            f"{generators['steps']} steps, the full one too; measured on {generators['frames']} frames of "
            f"{len(generators['clips'])} held-out clips.",
            table(["generator", "BD-rate, LPIPS-Alex", *at], rates),
            provenance(generators),
        ]
    )


def zeroed_detail(result: Result) -> str:
    """What the generator's parts are used for."""
    rows = [
        [name, *(percent(row[judge]) for judge in ("lpips_alex", "dists", "flicker"))]
        for name, row in result["variants"].items()
    ]
    return "\n\n".join(
        [
            "## What the generator of `s2vc` uses its parts for",
            "The shipped generator with a part set to nothing, not trained anew, and with its repair taken "
            "from the frame before along the motion, in half or whole; on the same streams: "
            f"{result['frames']} frames of {len(result['clip_hashes'])} held-out clips; distances see "
            "every fourth.",
            table(["generator", "BD-rate, LPIPS-Alex", "DISTS", "flicker"], rows),
            provenance(result),
        ]
    )


def drift_detail(result: Result) -> str:
    """The last third of long groups of pictures over the first."""
    over = result["last_over_first_third"]
    ratios = {
        quality: (bits, whole_bits(result["clips"], int(quality)), over["lpips_alex"][quality])
        for quality, bits in over["bits"].items()
    }
    rows = [[quality, *(percent(100 * (ratio - 1)) for ratio in each)] for quality, each in ratios.items()]
    clips = len({row["clip"] for row in result["clips"]})
    return "\n\n".join(
        [
            "## Drift of `s2vc`",
            f"The last third of a group of 96 pictures over its first third, which shows the same frames: "
            f"bits of predicted frames, bits of all, of which the first third has the key frame's, and "
            f"LPIPS-Alex of all; means over {clips} held-out clips.",
            table(["quality", "bits, predicted", "bits, all", "LPIPS-Alex"], rows),
            provenance(result),
        ]
    )


def whole_bits(rows: list[dict[str, Any]], quality: int) -> float:
    """All bits of the last third over all of the first, whose first frame is the key frame."""
    thirds = np.sum([_thirds(row) for row in rows if row["quality"] == quality], axis=0)
    return float(thirds[1] / thirds[0])


def _thirds(row: dict[str, Any]) -> tuple[float, float]:
    """Bits of the first and the last third of a clip; a row has means over predicted frames."""
    first, _, last = row["bits"]
    return row["key_bits"] + (THIRD - 1) * first, THIRD * last
