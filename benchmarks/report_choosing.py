"""The tables of docs/choosing.md: what each codec takes for the same look, and how fast the methods are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from report_words import Result, table

LOOKS = (0.4, 0.3, 0.2, 0.15)  # LPIPS-Alex
AT = 0.2  # where the rest is compared
BESIDE = {"dists": "DISTS", "psnr": "PSNR, dB", "flicker": "flicker, levels"}
METHODS = ("diffsit", "s2vc", "extreme")


def choosing(results: Mapping[str, Result]) -> str:
    """Both tables, as far as their results are there."""
    parts = []
    if "rd-video" in results:
        clips = len(results["rd-video"]["clips"])
        parts += [
            f"Bits per pixel at equal LPIPS-Alex, between the measured settings; means over {clips} held-out "
            f"clips. The last columns are at LPIPS-Alex {AT}.",
            rate_table(results["rd-video"]),
        ]
    if rows := [speeds(name, results) for name in METHODS if f"speed-{name}" in results]:
        parts += [
            "Frames a second of 448x256 on two cores, loading left out; in brackets with `--tune psnr`.",
            table(["method", "encode", "decode"], rows),
        ]
    return "\n\n".join(parts) or "Nothing has been measured yet."


def rate_table(result: Result) -> str:
    """A row for each codec."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for mean in result["means"]:
        curves.setdefault(mean["codec"], []).append(mean)
    rows = []
    for codec, curve in curves.items():
        rates = (between(curve, "bpp", look) for look in LOOKS)
        beside = (between(curve, name, AT) for name in BESIDE)
        cells = [*(shown(rate, 4) for rate in rates)]
        cells += [shown(value, digits) for value, digits in zip(beside, (3, 1, 1), strict=True)]
        rows.append([f"`{codec}`", *cells])
    return table(["codec", *(f"bpp at {look}" for look in LOOKS), *BESIDE.values()], rows)


def between(curve: list[dict[str, Any]], name: str, look: float) -> float | None:
    """The value of a column where LPIPS-Alex is `look`; rates by their logarithm. None outside the curve."""
    points = sorted((mean["lpips_alex"], mean[name]) for mean in curve)
    if not points[0][0] <= look <= points[-1][0]:
        return None
    distances, values = (np.array(column) for column in zip(*points, strict=True))
    if name == "bpp":
        return math.exp(float(np.interp(look, distances, np.log(values))))
    return float(np.interp(look, distances, values))


def shown(value: float | None, digits: int) -> str:
    """A number, or that there is none."""
    return "none" if value is None else f"{value:.{digits}f}"


def speeds(method: str, results: Mapping[str, Result]) -> list[str]:
    """A row; of `extreme`, whose speed depends on the quality, from its slowest to its fastest."""
    found = results[f"speed-{method}"]["results"]
    if "qualities" in found:
        ranges = []
        for name in ("encode", "decode"):
            rates = sorted(found["frames"] / one["seconds"][name]["median"] for one in found["qualities"])
            ranges.append(f"{rates[0]:.1f} to {rates[-1]:.1f}")
        return [f"`{method}`", *ranges]
    rates = found["frames_per_second"]
    tuned = rates.get("encode, tuned for PSNR")
    also = f" ({tuned:.1f})" if tuned else ""
    return [f"`{method}`", f"{rates['encode']:.1f}{also}", f"{rates['decode']:.1f}"]
