"""How fast `extreme` is: seconds of encoder and decoder by quality. See speed.py."""

from __future__ import annotations

from typing import Any

import torch
from speed_codec import clocked

import gencodec
from gencodec.demo import SAMPLE
from gencodec.methods.extreme.codec import Extreme
from gencodec.rate import ConstantQuality
from gencodec.video import open_video

FRAMES, QUALITIES = 40, (8, 32, 56)


def extreme(repetitions: int) -> dict[str, Any]:
    """`extreme` on 40 frames of the shipped sample at 448x256: seconds by the clock, loading left out."""
    with open_video(SAMPLE, frames=(0, FRAMES), size=(448, 256)) as video:
        frames = list(video)
    info = gencodec.VideoInfo(448, 256, video.info.fps, len(frames))
    codec = gencodec.create("extreme", device="cpu")
    assert isinstance(codec, Extreme)
    return {
        "threads": torch.get_num_threads(),
        "frames": len(frames),
        "qualities": [at(codec, frames, info, quality, repetitions) for quality in QUALITIES],
    }


def at(
    codec: Extreme, frames: list[torch.Tensor], info: gencodec.VideoInfo, quality: int, repetitions: int
) -> dict[str, Any]:
    """One quality."""
    packets = list(codec.encode(frames, info, ConstantQuality(quality)))
    generated = sum(max(e.kept, 0) for packet in packets for e in codec.events_of(packet, info))
    seconds = clocked(
        {
            "encode": lambda: list(codec.encode(frames, info, ConstantQuality(quality))),
            "decode": lambda: list(codec.decode(packets, info)),
        },
        repetitions,
    )
    bits = 8 * sum(len(packet.payload) for packet in packets)
    return {
        "quality": quality,
        "bpp": bits / (len(frames) * info.width * info.height),
        "generated_share": generated / len(frames),
        "seconds": seconds,
    }
