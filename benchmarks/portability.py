"""Does a stream decode alike elsewhere? `python benchmarks/portability.py METHOD CLIP [--frames N] [--quality
Q ...]`

Encodes the first frames of a clip, decodes the file in processes that differ in threads and in the vector
instructions that oneDNN and ATen may use, and writes results/portability-METHOD.json: whether
`latents_sha256` is the same (law 2), and by how many grey levels pixels differ from the first process's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from speed import RESULTS, environment

import gencodec
from gencodec.video import open_video

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "two threads": {"OMP_NUM_THREADS": "2"},  # said outright: the caller's own setting would be inherited
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, oneDNN limited to AVX2": {"OMP_NUM_THREADS": "2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "one thread, oneDNN limited to AVX2": {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "two threads, oneDNN limited to SSE4.1, ATen without vectors": {
        "OMP_NUM_THREADS": "2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
    },
}


def main() -> None:
    """Measure and write the JSON; exit status 1 if any process decoded other symbols."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--quality", type=int, nargs="+", default=[0, 32, 63])
    options = parser.parse_args()
    rows = [row for quality in options.quality for row in compare(options, quality)]
    result = environment() | {
        "clip": options.clip.name,
        "frames": options.frames,
        "decodes": rows,
        "latents_equal": all(row["latents_equal"] for row in rows),
        "largest_pixel_difference": max(row["largest_pixel_difference"] for row in rows),
    }
    (RESULTS / f"portability-{options.method}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: result[k] for k in ("latents_equal", "largest_pixel_difference")}))
    sys.exit(not result["latents_equal"])


def compare(options: argparse.Namespace, quality: int) -> list[dict[str, Any]]:
    """Encode once, decode in every environment, compare symbols and pixels."""
    codec = gencodec.create(options.method, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gcv"
        sent = gencodec.encode(options.clip, path, codec=codec, quality=quality, frames=(0, options.frames))
        rows, first = [], None
        for number, (name, variables) in enumerate(ENVIRONMENTS.items()):
            target = Path(folder) / f"out{number}"
            command = [sys.executable, "-m", "gencodec", "decode", str(path), str(target), "--json"]
            run = subprocess.run(
                command, env=os.environ | variables, capture_output=True, text=True, check=True
            )
            with open_video(target) as video:
                frames = [frame.int() for frame in video]
            first = first or frames
            differences = [(a - b).abs() for a, b in zip(frames, first, strict=True)]
            rows.append(
                {
                    "environment": name,
                    "quality": quality,
                    "latents_equal": json.loads(run.stdout)["latents_sha256"] == sent.latents_sha256,
                    "largest_pixel_difference": max(int(d.max()) for d in differences),
                    "pixels_that_differ_percent": 100
                    * sum(float((d > 0).float().mean()) for d in differences)
                    / len(frames),
                }
            )
    return rows


if __name__ == "__main__":
    main()
