"""When the frames of a video file are shown: read from its packets, nothing decoded, before coding starts.

A .gcv stores one frame rate, so each frame must lie within an eighth of a frame of its place at a constant
rate. That allows for the rounding of containers (Matroska: 1 ms) and the jitter of phones, not for a variable
rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from .codec import UnreadableInput

_MAX_JITTER = 0.125  # frames
_COMMON_RATES = [Fraction(n) for n in (24, 25, 30, 48, 50, 60, 100, 120)] + [
    Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)
]


@dataclass(frozen=True)
class Timing:
    """Frame rate, and the presentation time of every frame where the file has them.

    `pts` rises and counts in `time_base` seconds; None means that frames can only be counted.
    """

    fps: Fraction
    time_base: Fraction
    pts: Sequence[int] | None
    num_frames: int | None


def read_timing(container: Any, stream: Any, name: str) -> Timing:
    """Read every packet. Raises UnreadableInput for a cut file, no frames, or a variable frame rate."""
    time_base = stream.time_base or Fraction(1, 1000)
    if container.format.name == "yuv4mpegpipe":  # raw pictures at a fixed rate: nothing to look for
        num_frames = _some(stream.duration, name)
        return Timing(stream.average_rate, time_base, range(num_frames), num_frames)
    pts, num_packets = _packet_times(container, stream, name)
    _check_whole(container, stream, pts, num_packets, name)
    _some(len(pts), name)
    times = [t for t in pts if t is not None]
    is_avi = (
        container.format.name == "avi"
    )  # a fixed rate, a packet a frame, and no times for reordered frames
    if len(times) < len(pts) or (is_avi and stream.codec_context.has_b_frames):
        return Timing(stream.guessed_rate or Fraction(25), time_base, None, len(pts) if is_avi else None)
    times.sort()
    return Timing(_constant_rate(stream, times, time_base, name), time_base, times, len(times))


def _packet_times(container: Any, stream: Any, name: str) -> tuple[list[int | None], int]:
    """The times of the packets that are shown, and how many packets there are in all."""
    pts, num_packets = [], 0
    try:
        for packet in _packets(container, stream):
            num_packets += 1
            if packet.is_corrupt:
                raise UnreadableInput(_cut(name))
            if not (packet.is_discard or _is_hidden(packet, stream)):
                pts.append(packet.pts)
    except av.error.FFmpegError as error:
        raise UnreadableInput(_cut(name)) from error
    return pts, num_packets


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(stream) if packet.size)  # the last one is empty: a flush


def _is_hidden(packet: Any, stream: Any) -> bool:
    """VP8 sends pictures only for reference; bit 4 of the first byte is show_frame (RFC 6386, 9.1)."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & 0x10


def _check_whole(container: Any, stream: Any, pts: list[int | None], num_packets: int, name: str) -> None:
    """Raise UnreadableInput where the header promises more than the file holds."""
    is_mp4 = "mp4" in container.format.name  # the count in its header ignores edit lists, its index does not
    if is_mp4 and num_packets < len(getattr(stream, "index_entries", ())):
        raise UnreadableInput(_cut(name))
    times = [t for t in pts if t is not None]
    promised_seconds = _promised_seconds(container, stream)
    if times and promised_seconds:
        seconds = float((max(times) - min(times)) * stream.time_base)
        frame_seconds = seconds / (len(times) - 1) if seconds else 1 / float(stream.guessed_rate or 25)
        missing_seconds = promised_seconds - float(max(times) * stream.time_base)
        if missing_seconds > 1.5 * frame_seconds:  # the last frame lasts for 1
            raise UnreadableInput(_cut(name))


def _promised_seconds(container: Any, stream: Any) -> float:
    """When the last frame ends according to the header; 0 where it does not tell."""
    if container.format.name == "avi":
        return float(stream.frames * stream.time_base)  # empty chunks, for frames that stay, are counted too
    return _seconds(stream.metadata.get("DURATION", ""))  # Matroska


def _seconds(text: str) -> float:
    """Seconds of "HH:MM:SS.fraction", 0 where it is none."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _constant_rate(stream: Any, times: list[int], time_base: Fraction, name: str) -> Fraction:
    rates = [stream.guessed_rate, stream.average_rate, stream.base_rate]
    rest = times[1:] if len(times) > 2 else times  # the first may be late
    if rest[-1] > rest[0]:
        measured = Fraction(len(rest) - 1, rest[-1] - rest[0]) / time_base
        rates += sorted(_COMMON_RATES, key=lambda rate: abs(rate - measured))
        rates += [measured.limit_denominator(1001), measured.limit_denominator(10**6)]
    for rate in rates:
        if rate and is_constant(times, time_base, rate):
            return Fraction(rate)
    raise UnreadableInput(
        f"{name} has a variable frame rate; make it constant first: "
        f"ffmpeg -i {name} -vf fps={rates[0] or 30} constant.mp4"
    )


def is_constant(times: Sequence[int], time_base: Fraction, rate: Fraction) -> bool:
    """Whether rising `times` keep `rate` within an eighth of a frame; the first may be half a frame off."""
    frames = (np.asarray(times, np.float64) - times[0]) * float(time_base * rate)
    drift = frames - np.arange(len(frames))
    limit = max(_MAX_JITTER, float(time_base * rate))
    rest = drift[1:] if len(drift) > 2 else drift
    return bool(np.ptp(rest) <= 2 * limit and abs(drift[0] - rest.mean()) <= 0.5 + limit)


def _some(num_frames: int | None, name: str) -> int:
    if not num_frames:
        raise UnreadableInput(f"{name} holds no video frames: check the file")
    return num_frames


def _cut(name: str) -> str:
    return f"{name} is cut or damaged: fewer whole frames than its header says; copy it again"
