"""The page of a comparison: one HTML file without outside addresses, small enough to mail.

The pictures are short H.264 clips inside the page, which the viewer seeks in; where they would make the page
too large, they get coarser.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from gencodec.evaluation.curves import colour, legend_keys, single_plots
from gencodec.evaluation.tables import Table
from gencodec.metrics.suite import METRICS
from gencodec.video_frame import reformat

if TYPE_CHECKING:
    from gencodec.evaluation.compare import Comparison
    from gencodec.evaluation.store import Row

MAX_BYTES = 14_000_000  # of the page; pictures get what the rest leaves
SHOWN_RATES = 3  # of each codec, at most
QUALITIES = (17, 21, 25, 29, 34)  # x264's rate factors, tried in turn
KEY_EVERY = 8  # frames: seeking decodes at most so many


def report_html(comparison: Comparison, provenance: dict[str, Any]) -> str:
    """The whole page. A comparison without rows gives a page that says so."""
    import jinja2

    page = files("gencodec.evaluation") / "page"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((page / "report.html.j2").read_text(encoding="utf-8"))
    table = comparison.table
    room = MAX_BYTES - 400_000
    return template.render(
        style=(page / "report.css").read_text(encoding="utf-8"),
        script=(page / "report.js").read_text(encoding="utf-8"),
        answer=answer(table),
        columns=[METRICS[m].label for m in table.metrics],
        means=[_cells(table, mean) for mean in table.means],
        bd_rates=bd_rows(table),
        bd_columns=[METRICS[m].label for m in table.metrics if METRICS[m].ranks],
        anchor=table.anchor(),
        curves=single_plots(table, comparison.published),
        keys=legend_keys(table, comparison.published),
        published=comparison.published,
        clips=len({row["clip"] for row in comparison.rows}),
        provenance=provenance,
        identities=sorted({(row["codec"], row["identity"]) for row in comparison.rows}),
        missing=comparison.missing,
        failures=comparison.failures,
        data=json.dumps(viewer_data(comparison, room)).replace("</", "<\\/"),
    )


def answer(table: Table) -> str:
    """What the comparison found, in a sentence."""
    anchor = table.anchor()
    metric = next((m for m in ("lpips_alex", *table.metrics) if m in table.metrics), None)
    if not table.means:
        return "Nothing was measured."
    if anchor is None or metric is None or len(table.codecs) < 2:
        clips = len({row["clip"] for row in table.rows})
        return f"{len(table.codecs)} codecs on {clips} clips; no anchor to compare with."
    rates = [r for r in table.bd_rates(anchor) if r["metric"] == metric and r["percent"] is not None]
    label = METRICS[metric].label
    sound = [r for r in rates if r["meaningful"]]
    if not sound:
        return f"At equal {label} no codec shares enough of {anchor}'s quality range to name a saving."
    best = min(sound, key=lambda r: r["percent"])
    less = "less" if best["percent"] < 0 else "more"
    others = "" if len(sound) < 2 else f", the least of {len(sound)} codecs"
    amount = f"{abs(best['percent']):.0f} % {less} rate"
    doubt = ""
    if best["low"] is not None and best["low"] < 0 < best["high"]:
        doubt = f"; other clips may say otherwise (95 % interval {best['low']:+.0f} to {best['high']:+.0f} %)"
    return f"At equal {label}, {best['codec']} needs {amount} than {anchor}{others}{doubt}."


def bd_rows(table: Table) -> list[tuple[str, list[str]]]:
    """Codec and one cell for each metric."""
    rates = {(r["codec"], r["metric"]): r for r in table.bd_rates()}
    codecs = list(dict.fromkeys(codec for codec, _ in rates))
    ranked = [m for m in table.metrics if METRICS[m].ranks]
    return [(codec, [_bd_cell(rates.get((codec, m))) for m in ranked]) for codec in codecs]


def _bd_cell(rate: dict[str, Any] | None) -> str:
    if rate is None or rate["percent"] is None:
        return "none in common"
    interval = f" [{rate['low']:+.0f}, {rate['high']:+.0f}]" if rate["low"] is not None else ""
    note = "" if rate["meaningful"] else " not meaningful,"
    return f"{rate['percent']:+.1f} %{interval},{note} {rate['overlap_percent']:.0f} % overlap"


def _cells(table: Table, mean: dict[str, Any]) -> list[str]:
    values = [f"{mean[m]:.{METRICS[m].digits}f}" if m in mean else "" for m in table.metrics]
    speed = [f"{mean[way]:.1f}" for way in ("encode_fps", "decode_fps")]
    return [mean["codec"], str(mean["setting"]), f"{mean['bpp']:.4f}", *values, *speed]


# ---- pictures ----------------------------------------------------------------------------------------------


def viewer_data(comparison: Comparison, room: int) -> dict[str, Any]:
    """What the viewer needs, its clips as base64 within about `room` bytes."""
    rows = comparison.rows
    colours = {codec: colour(i) for i, codec in enumerate(comparison.table.codecs)}
    clips: dict[str, Any] = {}
    sources = {row["clip"]: row for row in sorted(rows, key=lambda row: "source" in row)}  # the last wins
    shown = list(_shown(rows, SHOWN_RATES))
    encode = partial(_within, comparison.folder, room=room * 3 // 4)
    pictures = encode([row["key"] for row in shown] + [source_of(row) for row in sources.values()])
    for name, row in sources.items():
        clips[name] = {k: row[k] for k in ("width", "height", "frames", "fps")} | {"streams": []}
    for row in shown:
        video = pictures.get(row["key"])
        if video is None:
            continue
        per_frame: list[list[float]] = row["per_frame"].get("lpips_alex") or next(
            iter(row["per_frame"].values()), []
        )
        clips[row["clip"]]["streams"].append(
            {
                "codec": row["codec"],
                "setting": row["setting"],
                "bpp": round(row["bpp"], 5),
                "color": colours[row["codec"]],
                "metrics": {METRICS[m].label: round(v, 4) for m, v in row["metrics"].items() if m in METRICS},
                "perFrame": [[i, round(v, 4)] for i, v in per_frame],
                "bits": row.get("bits_per_frame", []),
                "video": base64.b64encode(video).decode(),
            }
        )
    for name, row in sources.items():
        original = pictures.get(source_of(row))
        clips[name]["source"] = base64.b64encode(original).decode() if original else ""
    return clips


def _shown(rows: Sequence[Row], most: int) -> Iterator[Row]:
    """Of each clip and codec the rows at `most` rates: both ends and what lies evenly between."""
    for clip in dict.fromkeys(row["clip"] for row in rows):
        for codec in dict.fromkeys(row["codec"] for row in rows):
            here = sorted(
                (r for r in rows if (r["clip"], r["codec"]) == (clip, codec)), key=lambda r: r["bpp"]
            )
            count = min(most, len(here))
            places = {round(i * (len(here) - 1) / max(count - 1, 1)) for i in range(count)}
            yield from (here[i] for i in sorted(places))


def source_of(row: Row) -> str:
    """Name of the picture of a row's source; rows of older versions have none."""
    return f"source-{row.get('source', 'unknown')}"


def _within(folder: Path, wanted: Sequence[str], *, room: int) -> dict[str, bytes]:
    """Small clips by key, all of the finest quality with which they fit; the coarsest if none does."""
    paths = {key: folder / "decoded" / f"{key}.mp4" for key in wanted}
    paths = {key: path for key, path in paths.items() if path.exists()}
    made: dict[str, bytes] = {}
    for crf in QUALITIES:
        made = {}
        for key, path in paths.items():
            made[key] = _small_clip(path, crf)
            if sum(map(len, made.values())) > room and crf != QUALITIES[-1]:
                break
        else:
            return made
    return made


def _small_clip(path: Path, crf: int) -> bytes:
    """The clip again, coarser, with a key frame every few frames."""
    out = io.BytesIO()
    options = {"crf": str(crf), "preset": "medium", "g": str(KEY_EVERY), "bf": "0"}
    with av.open(str(path)) as source, av.open(out, "w", format="mp4") as target:
        video = source.streams.video[0]
        stream = target.add_stream("libx264", rate=video.average_rate, options=options)
        stream.width, stream.height = video.width, video.height
        stream.pix_fmt = "yuv444p" if video.width % 2 or video.height % 2 else "yuv420p"
        for frame in source.decode(video):
            frame.pict_type = 0  # else the source's frame types are kept
            target.mux(stream.encode(reformat(frame, stream.pix_fmt)))
        target.mux(stream.encode(None))
    return out.getvalue()
