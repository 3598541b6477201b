"""What measuring costs: seconds per 1000 frames of 448x256 for each metric, to results/speed-metrics.json.

    python benchmarks/metrics_speed.py --vgg VGG16.safetensors --spynet SPYNET.safetensors --i3d I3D

Frames are the shipped sample's at 448x256, "decoded" ones the same a little blurred. A metric that looks at
every fifth frame is timed on the frames it takes, and counted so. CPU seconds of this process, for the first
decoding of a clip and for each further one, which finds what the networks made of the source.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed import RESULTS, environment

from gencodec.demo import SAMPLE
from gencodec.metrics.suite import METRICS, Suite
from gencodec.video import open_video

SIZE = (448, 256)
FRAMES = 32  # two windows of I3D


def main() -> None:
    """Time every metric whose weights are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in ("vgg", "spynet", "i3d", "inception"):
        parser.add_argument(f"--{kind}", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed-metrics.json")
    options = parser.parse_args()
    paths = {k: v for k, v in vars(options).items() if v and k != "out"}
    with open_video(SAMPLE, frames=(0, FRAMES), size=SIZE) as video:
        source = torch.stack(list(video))
    decoded = F.avg_pool2d(source.float(), 3, 1, 1).to(torch.uint8)
    seconds: dict[str, Any] = {}
    for name in METRICS:
        suite = Suite.load([name], paths)
        if name in suite.names:
            suite.clip().add(source[:8], decoded[:8])  # warm up
            spent = [1000 / len(source) * time_of(suite, source, decoded) for _ in range(3)]
            seconds[name] = {"first": round(spent[0], 2), "further": round(sum(spent[1:]) / 2, 2)}
    result = environment() | {"threads": torch.get_num_threads(), "size": SIZE, "frames": len(source)}
    result["seconds_per_1000_frames"] = seconds
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(seconds, indent=1))


def time_of(suite: Suite, source: torch.Tensor, decoded: torch.Tensor) -> float:
    """CPU seconds of measuring all frames."""
    clip, start = suite.clip("sample"), time.process_time()
    for a, b in zip(source.split(8), decoded.split(8), strict=True):
        clip.add(a, b)
    return time.process_time() - start


if __name__ == "__main__":
    main()
