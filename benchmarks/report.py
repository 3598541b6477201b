"""Writes the measured numbers into the README's results block and the docs: nobody types them.

    python benchmarks/report.py            rewrite all pages from results/*.json
    python benchmarks/report.py --check    change nothing; exit 1 if one is out of date

Reads those that are there of rd-video.json and rd-intra.json (rd.py), speed-metrics.json (metrics_speed.py),
speed-entropy.json (speed.py), exact-cuda.json (exact_cuda.py), size-s2vc-paper.json (s2vc_paper_size.py),
speed-s2vc-paper.json (s2vc_paper_speed.py), the last two for docs/methods/s2vc-paper.md, those of
`diffsit` (diffsit_paper_size.py, diffsit_paper_speed.py) for docs/methods/diffsit-paper.md; speed-s2vc.json
(speed.py), ablations-s2vc.json (s2vc_ablations.py), zeroed-s2vc.json (s2vc_zeroed.py),
drift-s2vc.json (s2vc_drift.py), and speed, ablations and drift of `extreme` (speed.py, codec_ablations.py,
extreme_drift.py), digits-extreme.json (extreme_digits.py), of `diffsit` the first two, frames-diffsit.json
(diffsit_frames.py) and ablations-diffsit-training.json (diffsit_ablations.py).

The curves of whole clips become docs/images/rd-video.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import report_diffsit
import report_extreme
import report_s2vc
from report_choosing import choosing
from report_codec import ablation_detail, speed_detail
from report_paper import clip_size_table, clip_speed_table, size_table, speed_table
from report_video import metrics_detail, picture, video_detail, video_summary
from report_words import Result, percent, provenance, table

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
METRICS = {"lpips_alex": "LPIPS-Alex", "lpips_vgg": "LPIPS-VGG", "dists": "DISTS", "psnr": "PSNR"}


def main(args: Sequence[str] | None = None) -> int:
    """Write, or check, both pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a page is out of date"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(args)
    stale = [path for path, text in pages(options.root).items() if _text_of(path) != text]
    if options.check:
        for path in stale:
            print(f"{path} is out of date: run python benchmarks/report.py")
        return 1 if stale else 0
    for path, text in pages(options.root).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def pages(root: Path) -> dict[Path, str]:
    """What README.md and the pages should hold. Raises ValueError if the README has no markers."""
    results = {
        path.stem: json.loads(path.read_text()) for path in (root / "benchmarks" / "results").glob("*.json")
    }
    readme = root / "README.md"
    detail = sections(results, DETAILS)
    origin = "Written by `benchmarks/report.py` from `benchmarks/results/*.json`, never by hand."
    docs = root / "docs"
    found = {
        readme: _between_markers(readme, sections(results, SUMMARIES)),
        docs / "benchmarks.md": f"# Benchmarks\n\n{origin}\n\n{detail}\n",
    }
    for name, writers in PAPERS.items():
        if (paper := docs / "methods" / name).exists():
            found[paper] = _between_markers(paper, sections(results, writers))
    if (page := docs / "choosing.md").exists():
        found[page] = _between_markers(page, choosing(results))
    if "rd-video" in results:
        found[docs / "images" / "rd-video.svg"] = picture(results["rd-video"])
    return found


def _between_markers(page: Path, block: str) -> str:
    head, begin, rest = _text_of(page).partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the markers {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{block}\n{END}{tail}"


def sections(results: dict[str, Result], writers: dict[str, Callable[[Result], str]]) -> str:
    """The parts whose results are there, in order."""
    parts = [write(results[name]) for name, write in writers.items() if name in results]
    return "\n\n".join(parts) or "Nothing has been measured yet."


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


# ---- rate and quality --------------------------------------------------------------------------------------


def rd_summary(result: Result) -> str:
    """How much less rate `intra` needs than x265."""
    rows = []
    for metric, name in METRICS.items():
        rate = result["bd_rate_percent"].get(metric)
        if rate:
            of_payload = result["bd_rate_percent_of_payload"][metric]["percent"]
            overlap = f"{rate['overlap_percent']:.0f} %"
            rows.append([name, percent(rate["percent"]), percent(of_payload), overlap])
    count = len(result["clips"])
    ends = result["curves"]["intra"][0]["bpp"], result["curves"]["intra"][-1]["bpp"]
    return (
        f"`intra`, whole files, against x265 (preset slow, one frame, payload only) on the first frames of "
        f"{count} held-out clips. BD-rate: negative is less rate. Quality 0 to 63 spans {ends[0]:.3f} to "
        f"{ends[1]:.3f} bpp.\n\n"
        + table(["at equal", "BD-rate of `intra`", "of its payload", "quality range in common"], rows)
    )


def rd_detail(result: Result) -> str:
    """The summary, every curve, BD-rates clip by clip."""
    parts = ["## Key frames", rd_summary(result), "BD-rate clip by clip:"]
    clips = sorted(next(iter(result["bd_rate_percent"].values()))["by_clip"])
    of = result["bd_rate_percent"]
    rows = [[clip, *(percent(of[m]["by_clip"].get(clip)) for m in METRICS if m in of)] for clip in clips]
    parts.append(table(["clip", *(name for m, name in METRICS.items() if m in of)], rows))
    for codec, curve in result["curves"].items():
        parts.append(f"`{codec}`, mean over the clips:")
        rows = [
            [
                str(row["setting"]),
                f"{row['bpp']:.4f}",
                *(f"{row[m]:.{2 if m == 'psnr' else 4}f}" for m in METRICS),
            ]
            for row in curve
        ]
        parts.append(table(["quality" if codec == "intra" else "CRF", "bpp", *METRICS.values()], rows))
    return "\n\n".join([*parts, provenance(result)])


# ---- entropy coder -----------------------------------------------------------------------------------------


def entropy_summary(result: Result) -> str:
    """One sentence."""
    uniform, frame = result["results"]["uniform"], result["results"]["frame_1080p"]
    encode, decode = (1000 * frame["seconds"][way]["median"] for way in ("encode", "decode"))
    return (
        f"Entropy coder, one core: {uniform['encode_speed_ratio']:.1f} times the encoding and "
        f"{uniform['decode_speed_ratio']:.1f} times the decoding speed of CompressAI's rANS on "
        f"{uniform['symbols']:,} symbols, {uniform['over_ideal_percent']:.4f} % above the ideal size. The "
        f"packet of a 1080p frame at {frame['bpp']:.2f} bpp takes {encode:.1f} ms to encode "
        f"and {decode:.1f} ms to decode."
    )


def entropy_detail(result: Result) -> str:
    """The sentence and the times behind it."""
    parts = result["results"]
    rows = [
        [
            name,
            f"{part['symbols']:,}",
            way.replace("_", " "),
            f"{1000 * times['median']:.2f}",
            f"{1000 * times['least']:.2f}",
        ]
        for name, part in parts.items()
        for way, times in part["seconds"].items()
    ]
    head = ["test", "symbols", "what", "median, ms", "least, ms"]
    return "\n\n".join(["## Entropy coder", entropy_summary(result), table(head, rows), provenance(result)])


# ---- exact networks ----------------------------------------------------------------------------------------


def exact_detail(result: Result) -> str:
    """Which ways of computing gave the reference's bits, and how fast they are."""
    rows = [
        [name, f"{way['equal']} of {way['cases']}", f"{way['milliseconds']:.2f}"]
        for name, way in result["ways"].items()
    ]
    return "\n\n".join(
        [
            "## Exact networks",
            f"On {result['device']}, against float64 on the CPU. Cases are switches (reduced precision, "
            f"choice of kernels, autocast) x memory formats x batch sizes x networks; the default is "
            f"`{result['default_way']}`.",
            table(["way", "equal", "ms a layer"], rows),
            provenance(result),
        ]
    )


SUMMARIES: dict[str, Callable[[Result], str]] = {
    "rd-video": video_summary,
    "rd-intra": rd_summary,
    "speed-entropy": entropy_summary,
}
PAPERS: dict[str, dict[str, Callable[[Result], str]]] = {
    "s2vc-paper.md": {"size-s2vc-paper": size_table, "speed-s2vc-paper": speed_table},
    "diffsit-paper.md": {"size-diffsit-paper": clip_size_table, "speed-diffsit-paper": clip_speed_table},
}
DETAILS: dict[str, Callable[[Result], str]] = {
    "rd-video": video_detail,
    "rd-intra": rd_detail,
    "speed-s2vc": partial(speed_detail, "s2vc"),
    "ablations-s2vc": report_s2vc.ablation_detail,
    "zeroed-s2vc": report_s2vc.zeroed_detail,
    "drift-s2vc": report_s2vc.drift_detail,
    "speed-diffsit": partial(speed_detail, "diffsit"),
    "ablations-diffsit": partial(ablation_detail, "diffsit"),
    "frames-diffsit": report_diffsit.frames_detail,
    "ablations-diffsit-training": report_diffsit.training_detail,
    "speed-extreme": report_extreme.speed_detail,
    "ablations-extreme": partial(ablation_detail, "extreme"),
    "drift-extreme": report_extreme.drift_detail,
    "digits-extreme": report_extreme.digits_detail,
    "speed-entropy": entropy_detail,
    "speed-metrics": metrics_detail,
    "exact-cuda": exact_detail,
}

if __name__ == "__main__":
    sys.exit(main())
