"""The tables of docs/methods/s2vc-paper.md: sizes, counted without weights, and times, once measured."""

from __future__ import annotations

from report_words import Result, provenance, table


def size_table(result: Result) -> str:
    """Parameters against the published ones, operations and memory of each part."""
    counts, published = result["parameters"], result["published_millions"]
    rows = [
        [
            name,
            f"{count / 1e6:.2f}",
            f"{published[name]:.2f}" if name in published else "",
            f"{4 * count / 2**20:,.0f}",
            f"{2 * count / 2**20:,.0f}",
        ]
        for name, count in counts.items()
    ]
    head = ["part", "parameters, M", "published, M", "MiB in float32", "MiB in bfloat16"]
    work = [
        [name, f"{part['gflop']:,.0f}", f"{part['attention_gflop']:,.0f}", f"{part['largest_mib']:,.0f}"]
        for name, part in result["work"].items()
    ]
    buffers = ", ".join(f"{name} {mib:.0f}" for name, mib in result["buffers"].items())
    return "\n\n".join(
        [
            "Of those without a published number, `key frames` and `reduction` are this project's own.",
            table(head, rows),
            f"One predicted frame of {result['width']}x{result['height']}; `key frames` in key frames. A "
            "multiply-add counts as two operations; the largest tensor is the largest single output, in "
            "float32.",
            table(["part", "GFLOP", "of that attention", "largest tensor, MiB"], work),
            f"Kept from frame to frame, MiB in float32: {buffers}.",
            provenance(result),
        ]
    )


def speed_table(result: Result) -> str:
    """Milliseconds of each part, both ways."""
    loop = [[name, f"{1000 * seconds:.1f}"] for name, seconds in result["loop"].items()]
    parts = [name for name in next(iter(result["ways"].values())) if name != "peak_gib"]
    rows = [
        [way, *(f"{1000 * times[part]:.1f}" for part in parts), f"{times['peak_gib']:.1f}"]
        for way, times in result["ways"].items()
    ]
    return "\n\n".join(
        [
            f"One predicted frame of {result['width']}x{result['height']}, random weights.",
            table(["loop, float32", "ms"], loop),
            table(["generator", *(f"{part}, ms" for part in parts), "memory, GiB"], rows),
            provenance(result),
        ]
    )
