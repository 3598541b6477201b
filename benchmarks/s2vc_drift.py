"""Whether `s2vc` holds over a long group of pictures: `s2vc_drift.py --clips VAL [--qualities 8 26 44]`.

Each clip of at least 40 frames is walked forth and back for 96 frames, one GOP, so that its last third shows
the frames of its first third again, in the other order: what differs between the two is age, not content.
Coded to a file, decoded in a process of its own. Writes results/drift-s2vc.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import RESULTS, environment
from torch import Tensor

import gencodec
from gencodec import api
from gencodec.evaluation.clips import digest_of
from gencodec.evaluation.contestants import bits_of_packets
from gencodec.evaluation.decode_file import decode_elsewhere, read_frames
from gencodec.metrics.lpips import Lpips
from gencodec.training.data import VIDEO_SUFFIXES
from gencodec.video import open_video

THIRD, NEEDED = 32, 40
FORTH, BACK = list(range(THIRD, NEEDED)), list(range(NEEDED - 1, THIRD - 1, -1))
WALK = [*range(THIRD), *(FORTH + BACK) * 2, *range(THIRD - 1, -1, -1)]


def main() -> None:
    """Code, decode, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--qualities", type=int, nargs="+", default=[8, 26, 44])
    parser.add_argument("--out", type=Path, default=RESULTS / "drift-s2vc.json")
    options = parser.parse_args()
    paths = [p for p in sorted(options.clips.iterdir()) if p.suffix in VIDEO_SUFFIXES]
    codec, lpips = api.create("s2vc"), Lpips.load()
    rows = [
        {"clip": path.stem, "sha256": digest_of(path), "quality": quality} | found
        for path in paths
        if (frames := walked(path))
        for quality in options.qualities
        if (found := thirds(frames, codec, quality, lpips))
    ]
    over = {name: of_all(rows, name) for name in ("bits", "lpips_alex")}
    result = environment() | {
        "weights": f"{codec.weights_id:08x}",
        "last_over_first_third": over,
        "clips": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(over, indent=1))


def walked(path: Path) -> list[Tensor]:
    """The 96 frames; none of a shorter clip."""
    with open_video(path, frames=(0, NEEDED)) as video:
        frames = list(video)
    return [frames[i] for i in WALK] if len(frames) == NEEDED else []


def thirds(frames: list[Tensor], codec: gencodec.Codec, quality: int, lpips: Lpips) -> dict[str, Any]:
    """Bits a predicted frame and LPIPS-Alex a frame, in each third."""
    height, width = frames[0].shape[1:]
    info = gencodec.VideoInfo(width, height, Fraction(25), len(frames))
    with tempfile.TemporaryDirectory() as name:
        coded, raw = Path(name) / "a.gcv", Path(name) / "a.rgb"
        api.encode(frames, coded, codec=codec, quality=quality, fps=25)
        bits = bits_of_packets(coded)
        decode_elsewhere("s2vc", coded, raw, info)
        decoded = (frame for batch in read_frames(raw, info, 8) for frame in batch)
        distances = [distance(lpips, a, b) for a, b in zip(decoded, frames, strict=True)]
    predicted = np.array(bits[1:], float)
    return {
        "key_bits": bits[0],
        "bits": [float(part.mean()) for part in np.split(predicted, [THIRD - 1, 2 * THIRD - 1])],
        "lpips_alex": [float(part.mean()) for part in np.split(np.array(distances), 3)],
    }


@torch.inference_mode()
def distance(lpips: Lpips, decoded: Tensor, source: Tensor) -> float:
    """LPIPS-Alex of two uint8 frames (3,H,W)."""
    return float(lpips.distance(decoded[None].float() / 255, source[None].float() / 255))


def of_all(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Last third over the first, for each quality: the ratio of the means over clips."""
    qualities = sorted({row["quality"] for row in rows})
    of = {q: np.mean([row[name] for row in rows if row["quality"] == q], axis=0) for q in qualities}
    return {str(q): float(values[2] / values[0]) for q, values in of.items()}


if __name__ == "__main__":
    main()
