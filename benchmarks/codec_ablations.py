"""What the parts of a method are worth: `codec_ablations.py METHOD --clips VAL [--variants "1 step" ...]`.

Every variant is a set of options of the codec, nothing else: the same weights, clips and qualities. Files are
decoded in a process of its own and scored by LPIPS-Alex and PSNR on every frame; writes
results/ablations-METHOD.json with BD-rates against the default. Rows stay in --work: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import RESULTS, environment
from torch import Tensor

import gencodec
from gencodec import api
from gencodec.container import Reader
from gencodec.evaluation.bd_rate import bd_rate_over_clips
from gencodec.evaluation.clips import digest_of
from gencodec.evaluation.decode_file import decode_elsewhere, read_frames
from gencodec.methods.extreme.codec import Extreme
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.psnr import psnr
from gencodec.training.data import VIDEO_SUFFIXES
from gencodec.video import open_video

DEFAULT = "as shipped"
EXTREME: dict[str, dict[str, Any]] = {
    "the last frame repeated, with pans": {"steps": 0},
    "the last frame repeated": {"steps": 0, "pans": 0},
    "no pans": {"pans": 0},
    "1 step": {"steps": 1},
    "4 steps": {"steps": 4},
    "8 steps": {"steps": 8},
    "16 steps": {"steps": 16},
    "8 candidates": {"candidates": 8},
    "32 candidates": {"candidates": 32},
    "one fresh key frame a restart": {"restart": "key"},
    "a pair a restart": {"restart": "pair"},
    "beam of 2": {"beam": 2},
}
DIFFSIT: dict[str, dict[str, Any]] = {
    "no diffusion: STEM's frames": {"diffusion": 0},
    "every frame a backbone": {"pattern": "dense"},
    "chains of 2": {"chain": 2},
    "chains of 4": {"chain": 4},
    "clips of 21 frames": {"clip_length": 21},
    "symbols by rounding": {"tune": "psnr"},
}
VARIANTS = {"extreme": EXTREME, "diffsit": DIFFSIT}


def main() -> None:
    """Code, decode, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add = parser.add_argument
    add("method", choices=list(VARIANTS))
    add("--clips", type=Path, required=True)
    add("--variants", nargs="+", help="all of the method's")
    add("--qualities", type=int, nargs="+", default=[8, 22, 36, 50])
    add("--frames", type=int, default=40)
    add("--work", type=Path, help="ablations-METHOD")
    add("--out", type=Path, help="results/ablations-METHOD.json")
    options = parser.parse_args()
    options.work = options.work or Path(f"ablations-{options.method}")
    options.out = options.out or RESULTS / f"ablations-{options.method}.json"
    all_variants: dict[str, dict[str, Any]] = {DEFAULT: {}} | VARIANTS[options.method]
    if unknown := set(options.variants or []) - all_variants.keys():
        parser.error(f"{options.method} has variants {', '.join(all_variants)}, got {', '.join(unknown)}")
    options.work.mkdir(parents=True, exist_ok=True)
    paths = [p for p in sorted(options.clips.iterdir()) if p.suffix in VIDEO_SUFFIXES]
    names = dict.fromkeys([DEFAULT, *(options.variants or all_variants)])
    variants = {name: all_variants[name] for name in names}
    asked = [(path, quality) for path in paths for quality in options.qualities]
    rows = {name: [row(name, own, *one, options) for one in asked] for name, own in variants.items()}
    result = environment() | {
        "weights": f"{api.create(options.method).weights_id:08x}",
        "clips": {path.stem: digest_of(path) for path in paths},
        "frames": options.frames,
        "qualities": options.qualities,
        "variants": {
            name: {"options": variants[name]} | against(rows[DEFAULT], found) | means(found)
            for name, found in rows.items()
        },
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({n: v["bd_rate"] for n, v in result["variants"].items()}, indent=1))


def row(
    name: str, own: dict[str, Any], path: Path, quality: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One clip at one quality; from --work if it is there."""
    kept = options.work / f"{name.replace(' ', '-')}-{path.stem}-q{quality}.json"
    if not kept.exists():
        codec = api.create(options.method, **own)
        found = {"clip": path.stem, "quality": quality} | measured(codec, path, quality, options.frames)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(kept)
    loaded: dict[str, Any] = json.loads(kept.read_text())
    return loaded


def measured(codec: gencodec.Codec, path: Path, quality: int, count: int) -> dict[str, Any]:
    """Size, quality, seconds of the encoder, and of `extreme` how many frames were generated."""
    with open_video(path, frames=(0, None)) as video:
        frames = [frame for _, frame in zip(range(count), video, strict=False)]
    height, width = frames[0].shape[1:]
    info = gencodec.VideoInfo(width, height, video.info.fps, len(frames))
    with tempfile.TemporaryDirectory() as folder:
        coded, raw = Path(folder) / "a.gcv", Path(folder) / "a.rgb"
        start = time.perf_counter()
        made = api.encode(frames, coded, codec=codec, quality=quality, fps=video.info.fps)
        seconds = time.perf_counter() - start
        decode_elsewhere(codec.name, coded, raw, info)
        decoded = torch.cat(list(read_frames(raw, info, 8)))
        own = {"generated_share": generated_share(coded, codec, info)} if isinstance(codec, Extreme) else {}
    scores = scored(torch.stack(frames), decoded)
    return {"bpp": made.bpp, "encode_seconds": seconds} | own | scores


def generated_share(path: Path, codec: Extreme, info: gencodec.VideoInfo) -> float:
    """Of a file's frames, those that were predicted."""
    generated = total = 0
    with path.open("rb") as file:
        reader = Reader(file)
        for packet in (packet for gop in reader.gops() for packet in gop.packets):
            events = codec.events_of(packet, info)
            generated += sum(max(event.kept, 0) for event in events)
            total += packet.num_frames
    return generated / total


@torch.inference_mode()
def scored(source: Tensor, decoded: Tensor) -> dict[str, float]:
    """Means over frames, uint8 (T,3,H,W)."""
    net = Lpips.load()
    pairs = list(zip(source.split(8), decoded.split(8), strict=True))
    return {
        "lpips_alex": float(torch.cat([net(a, b) for a, b in pairs]).mean()),
        "psnr": float(torch.cat([psnr(a, b) for a, b in pairs]).mean()),
    }


def against(base: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, Any]:
    """BD-rate in percent at equal LPIPS-Alex."""
    rate = bd_rate_over_clips(curves(base), curves(found), lower_is_better=True)
    return {"bd_rate": rate.percent, "overlap": rate.overlap_percent}


def curves(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Of each clip."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in rows:
        found.setdefault(one["clip"], []).append((one["bpp"], one["lpips_alex"]))
    return found


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over clips, for each quality."""
    names = [name for name in rows[0] if name not in ("clip", "quality")]
    qualities = sorted({one["quality"] for one in rows})
    return {
        "means": [
            {"quality": q} | {n: float(np.mean([r[n] for r in rows if r["quality"] == q])) for n in names}
            for q in qualities
        ]
    }


if __name__ == "__main__":
    main()
