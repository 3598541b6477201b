"""Frames that lead in quality: an encoder's choice, which packets tell like any quality.

All of a group of pictures is made of its key frame, and what an anchor shows stays on the screen, moved. So
the key frame is better than what follows, and every third anchor renews that, as golden frames do in other
codecs: without them quality sinks to what anchors have by themselves. They lead by more than the key frame,
which is far better at the same quality, and by more the less there is left of it; but by less the fewer
frames are to come, for which a lead is paid (docs/decisions.md).
"""

from __future__ import annotations

from gencodec.nn.quality import NUM_QUALITIES, led

KEY_LEAD, GOLDEN_LEAD, MOST_LEAD = 3, 6, 13  # qualities
FADED, AGEING = 30, 3  # a lead grows by one for each AGEING frames that a group is older than FADED
LAST, PAYING = 8, 2  # and needs PAYING frames to come for each quality, beyond LAST frames
EVERY = 12  # frames from one that leads to the next, a multiple of the coding loop's cycle


def led_quality(quality: int, age: int, gop_length: int) -> int:
    """At which an encoder that is asked for `quality` codes the frame `age` frames behind the key frame.

    `gop_length`: frames of the group if no cut ends it before.
    """
    if age == 0:
        return led(quality, KEY_LEAD)
    if age % EVERY:
        return quality
    growth = max(0, age - FADED) // AGEING
    paid = max(0, gop_length - 1 - age - LAST) // PAYING
    lead = min(min(quality, GOLDEN_LEAD) + growth, MOST_LEAD, paid)
    return min(quality + lead, NUM_QUALITIES - 1)
