"""The tables of docs/methods/s2vc-paper.md and diffsit-paper.md: sizes counted without weights, times."""

from __future__ import annotations

from report_words import Result, provenance, table


def size_table(result: Result) -> str:
    """Parameters against the published ones, operations and memory of each part."""
    work = [
        [name, f"{part['gflop']:,.0f}", f"{part['attention_gflop']:,.0f}", f"{part['largest_mib']:,.0f}"]
        for name, part in result["work"].items()
    ]
    buffers = ", ".join(f"{name} {mib:.0f}" for name, mib in result["buffers"].items())
    return "\n\n".join(
        [
            "Of those without a published number, `key frames` and `reduction` are this project's own.",
            parameter_table(result),
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


def parameter_table(result: Result) -> str:
    """Parameters of each part against the published ones, and the memory that they take."""
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
    return table(head, rows)


def clip_size_table(result: Result) -> str:
    """Parameters, and at each size of pictures operations and memory of each part for a clip."""
    rows = [
        [
            f"{size}, {name}",
            *(f"{part[key] / 1000:,.1f}" for key in ("gflop", "attention_gflop")),
            *(f"{part[key] / 1024:,.1f}" for key in ("largest_mib", "held_mib")),
        ]
        for size, parts in result["work"].items()
        for name, part in parts.items()
    ]
    head = ["part", "TFLOP", "of that attention", "largest tensor, GiB", "held at most, GiB"]
    return "\n\n".join(
        [
            parameter_table(result),
            f"One clip of {result['frames']} frames in float32; of the learned STEM one frame, where an "
            "encoder's side has the decoder's in it. A multiply-add counts as two operations; the largest "
            "tensor is the largest single output; what is held at most is all outputs that live at once, "
            "without parameters: in bfloat16 half of it.",
            table(head, rows),
            provenance(result),
        ]
    )


def clip_speed_table(result: Result) -> str:
    """Seconds of each part for a clip, both ways, at each size of pictures."""
    sizes = result["sizes"]
    parts = [name for name in next(iter(next(iter(sizes.values())).values())) if name != "peak_gib"]
    rows = [
        [f"{size}, {way}", *(f"{times[part]:.2f}" for part in parts), f"{times['peak_gib']:.1f}"]
        for size, ways in sizes.items()
        for way, times in ways.items()
    ]
    return "\n\n".join(
        [
            f"One clip of {result['frames']} frames, random weights.",
            table(["generator", *(f"{part}, s" for part in parts), "memory, GiB"], rows),
            provenance(result),
        ]
    )
