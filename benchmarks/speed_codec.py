"""How fast a codec is by the clock: what speed_s2vc.py and speed_diffsit.py share. See speed.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import gencodec
from gencodec.codec import Packet
from gencodec.demo import SAMPLE
from gencodec.rate import ConstantQuality
from gencodec.video import open_video

FRAMES, QUALITY = 27, 24  # three pieces of diffsit


def whole(
    method: str, repetitions: int
) -> tuple[dict[str, Any], gencodec.Codec, list[torch.Tensor], list[Packet], gencodec.VideoInfo]:
    """Frames a second of a method on the shipped sample at 448x256, loading left out.

    Encoder, with both tunes, and decoder run in turns. Gives also the codec, the frames, and their packets.
    """
    with open_video(SAMPLE, frames=(0, FRAMES), size=(448, 256)) as video:
        frames = list(video)
    info = gencodec.VideoInfo(448, 256, video.info.fps, len(frames))
    codec = gencodec.create(method, device="cpu")
    rounding = gencodec.create(method, device="cpu", tune="psnr")
    packets = list(codec.encode(frames, info, ConstantQuality(QUALITY)))
    seconds = clocked(
        {
            "encode": lambda: list(codec.encode(frames, info, ConstantQuality(QUALITY))),
            "encode, tuned for PSNR": lambda: list(rounding.encode(frames, info, ConstantQuality(QUALITY))),
            "decode": lambda: list(codec.decode(packets, info)),
        },
        repetitions,
    )
    found = {
        "threads": torch.get_num_threads(),
        "frames": FRAMES,
        "bytes": sum(len(packet.payload) for packet in packets),
        "frames_per_second": {name: FRAMES / times["median"] for name, times in seconds.items()},
        "seconds": seconds,
    }
    return found, codec, frames, packets, info


def clocked(functions: dict[str, Callable[[], object]], repetitions: int) -> dict[str, dict[str, float]]:
    """Median and least seconds by the clock of each function, called in turns after one round."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return {name: {"median": float(np.median(s)), "least": min(s)} for name, s in seconds.items()}
