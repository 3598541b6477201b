"""How fast `diffsit` is: frames a second of encoder and decoder, and where the time goes. See speed.py."""

from __future__ import annotations

from typing import Any

from speed_codec import QUALITY, clocked, whole

from gencodec.methods.diffsit.codec import DiffSit


def diffsit(repetitions: int) -> dict[str, Any]:
    """`diffsit` on the shipped sample at 448x256; parts are of its second piece, a frame."""
    found, codec, frames, packets, info = whole("diffsit", repetitions)
    assert isinstance(codec, DiffSit)
    length = packets[0].num_frames
    own = frames[length : 2 * length]
    before = codec.coder.encode(frames[:length], None, QUALITY)[1]
    payload, piece = codec.coder.encode(own, before.state, QUALITY)
    carry = codec.renderer.render(before, QUALITY, None, info)[1]
    seconds = clocked(
        {
            "encode": lambda: codec.coder.encode(own, before.state, QUALITY),
            "decode_pictures": lambda: codec.coder.decode(payload, info, length, before.state, QUALITY),
            "render": lambda: codec.renderer.render(piece, QUALITY, carry, info),
        },
        repetitions,
    )
    frame = {name: {k: v / length for k, v in times.items()} for name, times in seconds.items()}
    return found | {"seconds_a_frame": frame}
