"""`rd.py intra`: rate against quality of `intra` and of one-frame x265, on the first frames of clips.

Encodes each clip's first frame to a .gcv file at each quality, decodes all files in a clean process to PNG,
measures what that process wrote, and writes results/rd-intra.json. x265: preset slow, 8-bit 4:2:0, SEI text
off, one frame, raw payload with parameter sets, no container; its decoded frames come through the same colour
conversion. bpp of `intra` is that of the file; beside it stands that of its payload alone, for x265 has no
container either. Curves are the plain mean over clips, point by point; BD-rate by the `bjontegaard` package
(PCHIP). `--picture FILE.png` saves source, intra and x265 at the nearest rate side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import warnings
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from speed import environment
from torch import Tensor

import gencodec
from gencodec.codec import VideoInfo
from gencodec.colour import rgb_to_yuv
from gencodec.metrics.dists import Dists
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.psnr import psnr
from gencodec.video import open_video
from gencodec.video_frame import frame_to_rgb
from gencodec.video_out import write_video
from gencodec.video_sinks import planes_to_frame

RESULTS = Path(__file__).parent / "results"
QUALITIES = (0, 8, 16, 24, 32, 40, 48, 56, 63)
CRFS = (23, 26, 29, 32, 35, 38, 41, 44, 47, 50)
LOWER_IS_BETTER = ("lpips_alex", "lpips_vgg", "dists")
METRICS = (*LOWER_IS_BETTER, "psnr")
DECODE = """
import sys, gencodec
weights, *files = sys.argv[1:]
for source, target in zip(files[::2], files[1::2]):
    gencodec.decode(source, weights=weights or None).save(target)
"""


def run(options: argparse.Namespace) -> None:
    """Measure and write the JSON."""
    clips = sorted(p for p in options.clips.iterdir() if p.suffix in (".mp4", ".mkv", ".y4m"))
    sources = {clip.stem: first_frame(clip) for clip in clips}
    codec = gencodec.create("intra", weights=options.weights)
    decoded = {"intra": run_intra(sources, codec, options.weights), "x265": run_x265(sources)}
    metrics = load_metrics(options.vgg)
    points = [
        measure(codec_name, *row, sources, metrics) for codec_name, rows in decoded.items() for row in rows
    ]
    result = environment() | {
        "weights_id": f"{codec.weights_id:08x}",
        "clips": {clip.stem: hashlib.sha256(clip.read_bytes()).hexdigest() for clip in clips},
        "metrics": "LPIPS v0.1 Alex and VGG, DISTS (VGG16), PSNR on 8-bit RGB",
        "points": points,
        "curves": {name: mean_curve(points, name) for name in decoded},
        "bd_rate_percent": {m: bd_rates(points, m) for m in METRICS},
        "bd_rate_percent_of_payload": {m: bd_rates([of_payload(p) for p in points], m) for m in METRICS},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: result[k] for k in ("curves", "bd_rate_percent")}, indent=1))
    if options.picture:
        save_picture(options.picture, sources, decoded)


def first_frame(clip: Path) -> Tensor:
    """The first frame, uint8 (3,H,W)."""
    with open_video(clip, frames=(0, 1)) as video:
        return next(iter(video))


Row = tuple[str, int, int, int, Tensor]  # clip, setting, bytes, of these payload, decoded frame


def run_intra(sources: dict[str, Tensor], codec: gencodec.Codec, weights: Path | None) -> list[Row]:
    """Encode every frame at every quality to files, decode them in one clean process."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(clip, q, Path(folder) / f"{clip}-{q}.gcv") for clip in sources for q in QUALITIES]
        payloads = [
            gencodec.encode(sources[clip][None], path, codec=codec, quality=q, fps=Fraction(24)).payload_bytes
            for clip, q, path in jobs
        ]
        pairs = [str(p) for _, _, path in jobs for p in (path, path.with_suffix(""))]
        subprocess.run([sys.executable, "-c", DECODE, str(weights or ""), *pairs], check=True)
        return [
            (clip, q, path.stat().st_size, payload, first_frame(path.with_suffix("")))
            for (clip, q, path), payload in zip(jobs, payloads, strict=True)
        ]


def run_x265(sources: dict[str, Tensor]) -> list[Row]:
    """One I frame by libx265, preset slow, at every CRF."""
    rows = []
    for clip, frame in sources.items():
        for crf in CRFS:
            payload = x265_payload(frame, crf)
            with av.open(BytesIO(payload), format="hevc") as container:
                decoded = next(container.decode(video=0))
            rows.append((clip, crf, len(payload), len(payload), frame_to_rgb(decoded, codec="hevc")))
    return rows


def x265_payload(frame: Tensor, crf: int) -> bytes:
    """The bytes of VPS, SPS, PPS and one picture."""
    context = av.CodecContext.create("libx265", "w")
    context.height, context.width = frame.shape[1:]
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 24), Fraction(24)
    context.options = {
        "preset": "slow",
        "crf": str(crf),
        "x265-params": "info=0:log-level=none:repeat-headers=1",
    }
    context.color_range = 1
    planes = rgb_to_yuv(frame, matrix="bt601", subsampling="420")
    picture = planes_to_frame(planes, "yuv420p")
    picture.pts = 0
    return b"".join(bytes(p) for p in [*context.encode(picture), *context.encode(None)])


def load_metrics(vgg: Path) -> dict[str, Any]:
    """The metrics by name; each takes two frames."""
    return {
        "lpips_alex": Lpips.load(),
        "lpips_vgg": Lpips.from_file(vgg),
        "dists": Dists.load(vgg),
        "psnr": psnr,
    }


def measure(
    codec: str,
    clip: str,
    setting: int,
    size: int,
    payload: int,
    decoded: Tensor,
    sources: dict[str, Tensor],
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """One point: rate and every metric of one decoded frame."""
    source = sources[clip]
    bpp, payload_bpp = (round(8 * n / (source.shape[1] * source.shape[2]), 6) for n in (size, payload))
    values = {name: round(float(metric(source, decoded)), 5) for name, metric in metrics.items()}
    rates = {"bytes": size, "bpp": bpp, "payload_bpp": payload_bpp}
    return {"codec": codec, "clip": clip, "setting": setting, **rates, **values}


def of_payload(point: dict[str, Any]) -> dict[str, Any]:
    """The same point by what it takes without its container."""
    return point | {"bpp": point["payload_bpp"]}


def mean_curve(points: list[dict], codec: str) -> list[dict[str, float]]:
    """Plain mean over the clips at each setting, by rising rate."""
    settings = sorted({p["setting"] for p in points if p["codec"] == codec})
    rows = []
    for setting in settings:
        here = [p for p in points if p["codec"] == codec and p["setting"] == setting]
        rows.append(
            {"setting": setting}
            | {k: round(float(np.mean([p[k] for p in here])), 5) for k in ("bpp", "payload_bpp", *METRICS)}
        )
    return sorted(rows, key=lambda row: row["bpp"])


def bd_rates(points: list[dict], metric: str) -> dict[str, Any]:
    """BD-rate of intra against x265 in percent (negative: intra needs less): of the mean curves, and clip by
    clip.
    """
    clips = sorted({p["clip"] for p in points})
    of_mean = bd_rate(mean_curve(points, "x265"), mean_curve(points, "intra"), metric)
    by_clip = {}
    for clip in clips:
        anchor, test = (
            [p for p in points if p["clip"] == clip and p["codec"] == c] for c in ("x265", "intra")
        )
        by_clip[clip] = bd_rate(anchor, test, metric)["percent"]
    return of_mean | {"by_clip": by_clip}


def bd_rate(anchor: list[dict], test: list[dict], metric: str) -> dict[str, float | None]:
    """Mean rate difference over the common quality range, and how much of the union that range is, both in
    percent.
    """
    from bjontegaard import bd_rate as bjontegaard_rate

    sign = -1 if metric in LOWER_IS_BETTER else 1
    curves = [envelope([(p["bpp"], sign * p[metric]) for p in curve]) for curve in (anchor, test)]
    (ra, da), (rt, dt) = ([list(c) for c in zip(*curve, strict=True)] for curve in curves)
    low, high = max(min(da), min(dt)), min(max(da), max(dt))
    overlap = (high - low) / (max(*da, *dt) - min(*da, *dt))
    if overlap <= 0:
        return {"percent": None, "overlap_percent": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overlap is reported beside the number
        value = bjontegaard_rate(ra, da, rt, dt, method="pchip", require_matching_points=False, min_overlap=0)
    return {"percent": round(float(value), 2), "overlap_percent": round(100 * overlap, 1)}


def envelope(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, by rising rate, that are better than every cheaper one: BD-rate needs quality to rise."""
    kept: list[tuple[float, float]] = []
    for rate, value in sorted(curve):
        if not kept or value > kept[-1][1]:
            kept.append((rate, value))
    return kept


def save_picture(path: Path, sources: dict[str, Tensor], decoded: dict[str, list[Row]]) -> None:
    """Rows of source, intra and x265 at the nearest rate, for three clips of one size."""
    rows = []
    wanted = next(iter(sources.values())).shape
    for clip, target in [
        (c, b) for c in [c for c in sources if sources[c].shape == wanted][:3] for b in (0.1, 0.25)
    ]:
        nearest = []
        for name in ("intra", "x265"):
            of_clip = [r for r in decoded[name] if r[0] == clip]
            area = sources[clip].shape[1] * sources[clip].shape[2]
            nearest.append(min(of_clip, key=lambda r: abs(8 * r[2] / area - target))[4])
        rows.append(torch.cat([sources[clip], *nearest], 2))
    picture = torch.cat(rows, 1)
    with tempfile.TemporaryDirectory() as folder:
        info = VideoInfo(picture.shape[2], picture.shape[1], Fraction(1), 1)
        write_video(Path(folder) / "p", [picture], info)
        path.write_bytes(next((Path(folder) / "p").iterdir()).read_bytes())
