"""Decodes one coded file in this process and writes its frames as bare bytes: what the metrics look at.

    python -m gencodec.evaluation.decode_file CODEC FILE OUTPUT.rgb WIDTH HEIGHT NUM_FRAMES [DEVICE]

OUTPUT.rgb holds the frames one after the other, uint8 (3,H,W) each. Prints one JSON object: frames and
seconds, or the errno of a full disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import CorruptStream, VideoInfo
from gencodec.evaluation.store import FULL


def main(args: list[str]) -> None:
    """See the module."""
    name, source, target, width, height, num_frames, *device = args
    info = VideoInfo(int(width), int(height), Fraction(25), int(num_frames))
    start = time.perf_counter()
    frames = decoded_frames(name, Path(source), info, *device)
    count = 0
    try:
        with open(target, "wb") as file:
            for frame in frames:
                file.write(frame.numpy().tobytes())
                count += 1
        found = {"frames": count, "seconds": time.perf_counter() - start}
    except OSError as error:
        if error.errno not in FULL:
            raise
        found = {"errno": error.errno}
    print(json.dumps(found))  # noqa: T201


def decoded_frames(name: str, source: Path, info: VideoInfo, device: str = "auto") -> Iterable[Tensor]:
    """The frames of a file that contestant `name` wrote."""
    from gencodec.evaluation.contestants import all_anchors

    if anchor := all_anchors().get(name):
        return anchor.decode(source, info)
    from gencodec import api

    return api.decode(source, device=device)


def decode_elsewhere(name: str, source: Path, target: Path, info: VideoInfo, device: str = "auto") -> float:
    """Run `main` in a process of its own; returns its seconds.

    Raises CorruptStream where it fails, or gives another number of frames than `info` says; OSError where the
    disk is full.
    """
    size = [str(info.width), str(info.height), str(info.num_frames)]
    command = [sys.executable, "-m", __name__, name, str(source), str(target), *size, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CorruptStream(f"{name} could not decode {source.name}: {reason}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "errno" in result:
        raise OSError(result["errno"], os.strerror(result["errno"]), str(target))
    if result["frames"] != info.num_frames:
        raise CorruptStream(f"{name} decoded {result['frames']} of {info.num_frames} frames of {source.name}")
    return float(result["seconds"])


def read_frames(path: Path, info: VideoInfo, batch: int) -> Iterator[Tensor]:
    """Batches of a .rgb file, uint8 (N,3,H,W), read as they are asked for."""
    shape = (3, info.height, info.width)
    size = 3 * info.height * info.width
    with open(path, "rb") as file:
        while block := file.read(batch * size):
            yield torch.from_numpy(np.frombuffer(block, np.uint8).copy()).reshape(-1, *shape)


if __name__ == "__main__":
    main(sys.argv[1:])
