"""Rate against quality, on a folder of clips: the measured half of docs/benchmarks.md.

    python benchmarks/rd.py intra --clips FOLDER --vgg VGG16.safetensors
    python benchmarks/rd.py video --clips FOLDER --vgg VGG16.safetensors --spynet SPYNET.safetensors

`intra` is `rd_frames.py`: first frames, against one-frame x265. `video` is `rd_video.py`: whole clips, every
method against the anchors. Both write results/rd-*.json, from which report.py makes pages and pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rd_frames
import rd_video
from speed import RESULTS


def main() -> None:
    """Measure what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parts = parser.add_subparsers(dest="part", required=True)
    frames, video = parts.add_parser("intra"), parts.add_parser("video")
    for part in (frames, video):
        part.add_argument("--clips", type=Path, required=True)
        part.add_argument("--vgg", type=Path, required=True, help="VGG16 with LPIPS heads")
    frames.add_argument("--weights", type=Path, help="weights to measure instead of the shipped ones")
    frames.add_argument("--picture", type=Path, help="PNG with source, intra and x265 side by side")
    frames.add_argument("--out", type=Path, default=RESULTS / "rd-intra.json")
    video.add_argument("--spynet", type=Path, required=True, help="for the warping error")
    video.add_argument("--methods", default=rd_video.METHODS, help="comma-separated")
    video.add_argument("--points", type=int, default=5)
    video.add_argument(
        "--settings",
        nargs="*",
        action="extend",  # given twice, it counts twice
        default=[],
        help="NAME=A,B,C in place of points that are chosen by probing",
    )
    video.add_argument("--jobs", type=int, default=2)
    video.add_argument("--work", type=Path, default=Path("rd-video"), help="kept: a killed run goes on")
    video.add_argument("--also", type=Path, help="an earlier result: codecs that are not measured now")
    video.add_argument("--out", type=Path, default=RESULTS / "rd-video.json")
    options = parser.parse_args()
    (rd_frames if options.part == "intra" else rd_video).run(options)


if __name__ == "__main__":
    main()
