"""How fast `s2vc` is: frames a second of encoder and decoder, and where the time goes. See speed.py."""

from __future__ import annotations

from typing import Any

import torch
from speed_codec import QUALITY, clocked, whole

import gencodec
from gencodec.codec import Packet
from gencodec.methods.s2vc.codec import S2vc


def s2vc(repetitions: int) -> dict[str, Any]:
    """`s2vc` on 24 frames of the shipped sample at 448x256: seconds by the clock, loading left out.

    Encoder and decoder run in turns; parts are single calls on the last frame.
    """
    found, codec, frames, packets, info = whole("s2vc", repetitions)
    assert isinstance(codec, S2vc)
    return found | {"seconds_a_frame": parts(codec, frames, packets, info, 4 * repetitions)}


def parts(
    codec: S2vc,
    frames: list[torch.Tensor],
    packets: list[Packet],
    info: gencodec.VideoInfo,
    repetitions: int,
) -> dict[str, dict[str, float]]:
    """What one predicted frame's time is made of."""
    loop = codec.loop
    coded = loop.decode_key(packets[0].payload, info, packets[0].quality)
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
