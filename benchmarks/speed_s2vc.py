"""How fast `s2vc` is: frames a second of encoder and decoder, and where the time goes. See speed.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import gencodec
from gencodec.codec import Packet
from gencodec.demo import SAMPLE
from gencodec.methods.s2vc.codec import S2vc
from gencodec.rate import ConstantQuality
from gencodec.video import open_video

FRAMES, QUALITY = 24, 24


def s2vc(repetitions: int) -> dict[str, Any]:
    """`s2vc` on 24 frames of the shipped sample at 448x256: seconds by the clock, loading left out.

    Encoder and decoder run in turns; parts are single calls on the last frame.
    """
    with open_video(SAMPLE, frames=(0, FRAMES), size=(448, 256)) as video:
        frames = list(video)
    info = gencodec.VideoInfo(448, 256, video.info.fps, len(frames))
    codec = gencodec.create("s2vc", device="cpu")
    assert isinstance(codec, S2vc)
    rounding = gencodec.create("s2vc", device="cpu", tune="psnr")
    packets: list[Packet] = list(codec.encode(frames, info, ConstantQuality(QUALITY)))
    seconds = clocked(
        {
            "encode": lambda: list(codec.encode(frames, info, ConstantQuality(QUALITY))),
            "encode, tuned for PSNR": lambda: list(rounding.encode(frames, info, ConstantQuality(QUALITY))),
            "decode": lambda: list(codec.decode(packets, info)),
        },
        repetitions,
    )
    return {
        "threads": torch.get_num_threads(),
        "frames": FRAMES,
        "bytes": sum(len(packet.payload) for packet in packets),
        "frames_per_second": {name: FRAMES / times["median"] for name, times in seconds.items()},
        "seconds": seconds,
        "seconds_a_frame": parts(codec, frames, packets, info, 4 * repetitions),
    }


def parts(
    codec: S2vc,
    frames: list[torch.Tensor],
    packets: list[Packet],
    info: gencodec.VideoInfo,
    repetitions: int,
) -> dict[str, dict[str, float]]:
    """What one predicted frame's time is made of."""
    loop = codec.loop
    coded = loop.decode_key(packets[0].payload, info, QUALITY)
    _, memory = codec.renderer.render(coded, None, info)
    payload, after = loop.encode(frames[1], coded.state, QUALITY)
    x = frames[1][None].float() / 255
    generator = codec.renderer.generator
    clock = torch.tensor([after.clock])

    def features() -> torch.Tensor:
        with torch.inference_mode():
            return generator.remember(after.frame, memory)

    def decoder() -> torch.Tensor:
        with torch.inference_mode():
            return generator.decode(
                generator.latent_of(after.frame.picture, clock), after.frame.picture, clock
            )

    return clocked(
        {
            "encode": lambda: loop.encode(frames[1], coded.state, QUALITY),
            "motion_search": lambda: loop.loop.motion_of(x, coded.state.picture, torch.tensor([QUALITY])),
            "decode_picture": lambda: loop.decode(payload, coded.state, QUALITY),
            "render": lambda: codec.renderer.render(after, memory, info),
            "feature_buffer": features,
            "latent_and_decoder": decoder,
        },
        repetitions,
    )


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
