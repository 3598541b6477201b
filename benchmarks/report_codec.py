"""What the report says of several methods in the same words: their speed, and what their parts are worth."""

from __future__ import annotations

from report_words import Result, percent, provenance, table


def speed_detail(method: str, result: Result) -> str:
    """Frames a second, and what a predicted frame's time is made of."""
    found = result["results"]
    rates = ", ".join(f"{name} {rate:.1f}" for name, rate in found["frames_per_second"].items())
    rows = [[name, f"{1000 * part['median']:.0f}"] for name, part in found["seconds_a_frame"].items()]
    return "\n\n".join(
        [
            f"## Speed of `{method}`",
            f"Frames a second of 448x256 on {found['threads']} threads: {rates}.",
            table(["part of a predicted frame", "ms"], rows),
            provenance(result),
        ]
    )


def ablation_detail(method: str, result: Result) -> str:
    """Rate that each set of options takes more than the default."""
    rows = [
        [
            name,
            percent(found["bd_rate"]),
            f"{found['overlap']:.0f} %",
            *(f"{mean['bpp']:.4f} / {mean['lpips_alex']:.3f}" for mean in found["means"]),
        ]
        for name, found in result["variants"].items()
    ]
    settings = (f"quality {quality}" for quality in result["qualities"])
    return "\n\n".join(
        [
            f"## What the parts of `{method}` are worth",
            f"The same weights with other options, on the first {result['frames']} frames of "
            f"{len(result['clips'])} held-out clips; at each quality bpp / LPIPS-Alex.",
            table(["variant", "BD-rate, LPIPS-Alex", "in common", *settings], rows),
            provenance(result),
        ]
    )
