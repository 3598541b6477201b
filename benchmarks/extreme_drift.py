"""How far generated pixels of `extreme` drift between machines: `extreme_drift.py --clips VAL`.

One clip at a time, 31 frames, all but the first generated, from one payload: decoded with one and two
threads, with and without oneDNN, in both memory layouts. Coded symbols must be equal; generated frames are
compared with the first decoding, by their number behind the key frame. Writes results/drift-extreme.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import RESULTS, environment
from torch import Tensor

import gencodec
from gencodec import api
from gencodec.evaluation.clips import digest_of
from gencodec.methods.extreme.codec import Extreme
from gencodec.methods.extreme.predictor import FlowPredictor
from gencodec.rate import ConstantQuality
from gencodec.training.data import VIDEO_SUFFIXES
from gencodec.video import open_video

FRAMES, QUALITY, ALL = 31, 32, 6.0
WAYS = list(product((1, 2), (True, False), (torch.channels_last, torch.contiguous_format)))


def main() -> None:
    """Decode in every way, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "drift-extreme.json")
    options = parser.parse_args()
    codec = api.create("extreme", threshold=ALL, device="cpu")
    assert isinstance(codec, Extreme)
    paths = [p for p in sorted(options.clips.iterdir()) if p.suffix in VIDEO_SUFFIXES]
    rows = [{"clip": path.stem, "sha256": digest_of(path)} | drift(codec, path) for path in paths]
    result = environment() | {
        "weights": f"{codec.weights_id:08x}",
        "ways": [f"{n} threads, oneDNN {'on' if dnn else 'off'}, {layout}" for n, dnn, layout in WAYS],
        "largest_difference": max(max(row["largest"]) for row in rows),
        "largest_share_of_bytes": max(max(row["share"]) for row in rows),
        "share_in_last_frame": sum(row["share"][-1] for row in rows) / len(rows),
        "clips": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k.startswith(("largest", "share"))}, indent=1))


def drift(codec: Extreme, path: Path) -> dict[str, Any]:
    """Of each generated frame, over all ways: the largest difference in grey levels, the share of bytes."""
    with open_video(path) as video:
        frames = list(islice(video, FRAMES))
    info = gencodec.VideoInfo(frames[0].shape[2], frames[0].shape[1], Fraction(25), len(frames))
    packets = list(codec.encode(frames, info, ConstantQuality(QUALITY)))
    largest, share = torch.zeros(FRAMES - 1), torch.zeros(FRAMES - 1)
    first: Tensor | None = None
    symbols = set()
    for way in WAYS:
        seen: list[np.ndarray] = []
        with computed(codec, *way):
            shown = torch.stack(list(codec.decode(packets, info, on_symbols=seen.append)))
        symbols.add(b"".join(array.tobytes() for array in seen))
        first = shown if first is None else first
        away = (shown[1:].int() - first[1:].int()).abs().flatten(1)
        largest = torch.maximum(largest, away.amax(1).float())
        share = torch.maximum(share, (away > 0).float().mean(1))
    if len(symbols) != 1:
        raise SystemExit("symbols differ")
    return {"largest": largest.int().tolist(), "share": [round(s, 7) for s in share.tolist()]}


@contextmanager
def computed(codec: Extreme, threads: int, one_dnn: bool, layout: torch.memory_format) -> Iterator[None]:
    """In a way of computing."""
    before = torch.get_num_threads()
    assert isinstance(codec.coder.predictor, FlowPredictor)
    codec.coder.predictor.net.to(memory_format=layout)
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=one_dnn):
            yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
