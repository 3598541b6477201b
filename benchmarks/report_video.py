"""The report's part on whole clips (rd-video.json) and on what metrics cost (speed-metrics.json)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from report_words import Result, percent, provenance, table

from gencodec.evaluation.bd_rate import bd_psnr
from gencodec.evaluation.curves import curves_svg
from gencodec.evaluation.tables import Table
from gencodec.metrics.suite import METRICS

SHORT = ("lpips_alex", "dists", "psnr")  # of the README's table
ANCHOR = "x265"


def video_summary(result: Result) -> str:
    """How much less rate each codec needs than x265, and the curves."""
    clips = len(result["clips"])
    return "\n\n".join(
        [
            f"Whole clips ({clips} held-out ones), whole files of the methods and the payload of the "
            f"classical codecs; BD-rate against {ANCHOR} (preset slow), negative is less rate, with the "
            "95 % interval over clips:",
            bd_table(result, ANCHOR, [m for m in SHORT if m in result["metrics"]]),
            "![Rate against quality on whole clips](docs/images/rd-video.svg)",
        ]
    )


def video_detail(result: Result) -> str:
    """BD-rates against every anchor, clip by clip, and all means."""
    parts = ["## Whole clips", "![Rate against quality](images/rd-video.svg)"]
    measured = [m for m in result["metrics"] if METRICS[m].ranks]
    for anchor, rates in result["bd_rate_by_clip"].items():
        parts += [
            f"BD-rate against `{anchor}`:",
            bd_table(result, anchor, measured),
            f"Clip by clip at equal {METRICS['lpips_alex'].label}, against `{anchor}`:",
            clip_table(rates),
        ]
    if "psnr" in result["metrics"]:
        parts += [f"PSNR at equal rate, dB above or below `{ANCHOR}` (BD-PSNR):", psnr_table(result)]
    head = ["codec", "setting", "bpp", *(METRICS[m].label for m in result["metrics"])]
    rows = [
        [mean["codec"], str(mean["setting"]), f"{mean['bpp']:.4f}"]
        + [f"{mean[m]:.{METRICS[m].digits}f}" if m in mean else "" for m in result["metrics"]]
        for mean in result["means"]
    ]
    names = "; ".join(f"`{codec}`: {identity}" for codec, identity in result["identities"].items())
    earlier = result.get("measured_earlier", {})
    taken = ", ".join(f"`{codec}` at commit {commit[:9]}" for codec, commit in earlier.items())
    told = [f"{names}.", *([f"Measured earlier in the same way: {taken}."] if taken else [])]
    return "\n\n".join([*parts, "Means over the clips:", table(head, rows), *told, provenance(result)])


def bd_table(result: Result, anchor: str, metrics: Any) -> str:
    """A row for each codec."""
    rates = {(r["codec"], r["metric"]): r for r in result["bd_rate"][anchor]}
    rows = [
        [f"`{codec}`", *(bd_cell(rates.get((codec, metric))) for metric in metrics)]
        for codec in dict.fromkeys(codec for codec, _ in rates)
    ]
    return table(["codec", *(METRICS[m].label for m in metrics)], rows)


def bd_cell(rate: dict[str, Any] | None) -> str:
    """The number, its interval, and how much of the quality range it is about where that is little."""
    if rate is None or rate["percent"] is None:
        return "none in common"
    interval = f" [{rate['low']:+.0f}, {rate['high']:+.0f}]" if rate["low"] is not None else ""
    overlap = f"{rate['overlap_percent']:.0f} % overlap"
    note = "" if rate["meaningful"] else f", not meaningful ({overlap})"
    return f"{percent(rate['percent'])}{interval}{note}"


def clip_table(rates: list[dict[str, Any]]) -> str:
    """A row for each clip, a column for each codec."""
    found = {(rate["clip"], rate["codec"]): rate["percent"] for rate in rates}
    codecs = list(dict.fromkeys(codec for _, codec in found))
    clips = list(dict.fromkeys(clip for clip, _ in found))
    return table(["clip", *codecs], [[clip, *(percent(found[clip, c]) for c in codecs)] for clip in clips])


def psnr_table(result: Result) -> str:
    """BD-PSNR against the anchor, a row for each clip and one for their mean, a column for each codec."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for point in result["points"]:
        place = curves.setdefault((point["clip"], point["codec"]), [])
        place.append((point["bpp"], point["metrics"]["psnr"]))
    clips, codecs = (list(dict.fromkeys(keys)) for keys in zip(*curves, strict=True))
    others = [codec for codec in codecs if codec != ANCHOR]
    found = [[bd_psnr(curves[clip, ANCHOR], curves[clip, codec]) for codec in others] for clip in clips]
    means = [_mean(column) for column in zip(*found, strict=True)]
    rows = [
        [name, *("none in common" if gain is None else f"{gain:+.2f}" for gain in row)]
        for name, row in zip([*clips, "mean"], [*found, means], strict=True)
    ]
    return table(["clip", *others], rows)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def picture(result: Result) -> str:
    """The curves as SVG on white, for pages that show it as a picture."""
    drawn = Table(result["points"], tuple(result["metrics"]), result["means"])
    head, style, rest = curves_svg(drawn).partition("</style>")
    return f'{head}{style}<rect width="100%" height="100%" fill="#fff"/>{rest}\n'


def metrics_detail(result: Result) -> str:
    """What measuring costs."""
    rows = [
        [METRICS[name].label, f"{spent['first']:.1f}", f"{spent['further']:.1f}"]
        for name, spent in result["seconds_per_1000_frames"].items()
    ]
    width, height = result["size"]
    return "\n\n".join(
        [
            "## Metrics",
            f"CPU seconds for 1000 frames of {width}x{height}, {result['threads']} threads: the first "
            "decoding of a clip, and each further one, for which what the networks made of the source is "
            "known. LPIPS-VGG, DISTS and the warping error look at every fifth frame.",
            table(["metric", "first", "further"], rows),
            provenance(result),
        ]
    )
