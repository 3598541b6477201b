"""`rd.py video`: `gencodec.compare` on whole clips, its outcome as results/rd-video.json.

Every method and anchor at the protocol of docs/evaluation.md. The JSON has the rows without their values of
each frame, the means, and BD-rates against each of `ANCHORS`, also clip by clip.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speed import environment

import gencodec
from gencodec.evaluation.bd_rate import bd_rate
from gencodec.evaluation.store import Row
from gencodec.evaluation.tables import Table

METHODS = "extreme,s2vc,intra,x264,x265,svtav1,x265-hold2,x265-hold3"
MEASURED = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "dists", "warping_error", "flicker")
ANCHORS = ("x265", "svtav1", "x265-hold2", "x265-hold3")
LEFT_OUT = (
    "key",
    "source",
    "per_frame",
    "bits_per_frame",
    "commit",
)  # of a row: large, or of one run's folder
SPEEDS = ("encode_fps", "decode_fps", "encode_seconds", "decode_seconds")  # several jobs slow one another


def run(options: argparse.Namespace) -> None:
    """Compare and write the JSON."""
    found = gencodec.compare(
        options.clips,
        options.methods.split(","),
        options.work,
        points=options.points,
        metrics=MEASURED,
        settings=dict(parsed(text) for text in options.settings),
        weights={"vgg": options.vgg, "spynet": options.spynet},
        jobs=options.jobs,
        on_point=lambda done, total: print(f"{done} of {total} points", flush=True),
    )
    if found.failures or found.missing:
        raise SystemExit(f"not everything was measured: {found.failures} {found.missing}")
    earlier = taken(options.also, found.rows) if options.also else []
    rows = in_order([*found.rows, *earlier], options.also) if earlier else found.rows
    table = Table.of(rows, MEASURED, options.work) if earlier else found.table
    result = environment() | {
        "clips": {row["clip"]: row["clip_sha256"] for row in rows},
        "identities": {row["codec"]: row["identity"] for row in rows},
        "measured_earlier": {row["codec"]: row["commit"] for row in earlier},
        "metrics": list(table.metrics),
        "means": [without(mean, SPEEDS) for mean in table.means],
        "bd_rate": {name: table.bd_rates(name) for name in ANCHORS if name in table.codecs},
        "bd_rate_by_clip": {name: by_clip(table, name) for name in ANCHORS if name in table.codecs},
        "points": [without(row, (*LEFT_OUT, *SPEEDS)) for row in rows],
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["bd_rate"], indent=1))


def taken(path: Path, new: list[Row]) -> list[Row]:
    """Rows of an earlier result for codecs that `new` lacks, on the same clips. Raises ValueError for others.

    A method's row says by which version and weights it was made (`identity`), and here by which commit.
    """
    result = json.loads(path.read_text())
    clips = {row["clip"]: row["clip_sha256"] for row in new}
    if result["clips"] != clips:
        raise ValueError(f"{path} was measured on other clips")
    measured = {row["codec"] for row in new}
    commits = result.get("measured_earlier", {})
    unknown = {"encode_seconds": math.nan, "decode_seconds": math.nan}
    return [
        {"commit": commits.get(row["codec"], result["commit"])} | unknown | row
        for row in result["points"]
        if row["codec"] not in measured
    ]


def in_order(rows: list[Row], path: Path) -> list[Row]:
    """Codecs as an earlier result has them, new ones behind them."""
    known = [row["codec"] for row in json.loads(path.read_text())["points"]]
    places = {codec: place for place, codec in enumerate(dict.fromkeys(known))}
    return sorted(rows, key=lambda row: places.get(row["codec"], len(places)))


def parsed(text: str) -> tuple[str, list[int]]:
    """NAME=A,B,C: a codec and its settings. Raises ValueError."""
    name, _, numbers = text.partition("=")
    return name, [int(number) for number in numbers.split(",")]


def without(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The row but for these."""
    return {k: v for k, v in row.items() if k not in names}


def by_clip(table: Table, anchor: str) -> list[dict[str, Any]]:
    """BD-rate in percent at equal LPIPS-Alex of each codec on each clip; None where nothing is in common."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in table.rows:
        point = row["bpp"], row["metrics"]["lpips_alex"]
        curves.setdefault((row["codec"], row["clip"]), []).append(point)
    return [
        {"codec": codec, "clip": clip}
        | {"percent": bd_rate(curves[anchor, clip], curve, lower_is_better=True).percent}
        for (codec, clip), curve in curves.items()
        if codec != anchor
    ]
