"""Classical codecs as anchors, through PyAV: the best that each does at rest, without a handicap.

8-bit 4:2:0, limited range, default GOP structure with B frames, constant rate factor; from the same RGB
frames and by the same colour conversion as every other codec here. Files are Matroska; the payload that rates
are counted on is what the encoder gave, parameter sets included, informational SEI text left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import torch
from av.bitstream import BitStreamFilterContext
from torch import Tensor

from gencodec.atomic import replacing
from gencodec.codec import UnreadableInput, VideoInfo
from gencodec.colour import default_matrix, rgb_to_yuv
from gencodec.metrics.frames import pad_to
from gencodec.nn.layers import pad_to_multiple
from gencodec.video import open_video
from gencodec.video_sinks import COLOUR_CODES, LIMITED_RANGE, planes_to_frame

os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1: errors only; read when its library loads

MIN_SIDE = 64  # smaller frames are padded: x265 writes beyond its buffers where one is smaller than its units


@dataclass(frozen=True, slots=True)
class Anchor:
    """A classical codec at one preset. `crfs`: from the worst to the best quality that it offers.

    `hold`: only every `hold`-th frame is coded, each shown until the next one.
    """

    name: str
    library: str
    options: Mapping[str, str]
    crfs: range
    removed: str = ""  # a bitstream filter for what no decoder needs
    hold: int = 1

    @property
    def settings(self) -> range:
        """The rate's steps, from the lowest rate to the highest."""
        return self.crfs

    def is_available(self) -> bool:
        """Whether this PyAV has the encoder."""
        return self.library in av.codecs_available

    def encode(self, frames: Iterable[Tensor], info: VideoInfo, target: Path, crf: int) -> int:
        """Write frames, uint8 (3,H,W), to a Matroska file; returns the payload's bytes.

        Raises ValueError for a crf that is not in `crfs`, UnreadableInput where there are no frames.
        """
        if crf not in self.crfs:
            raise ValueError(f"{self.name}: crf is {min(self.crfs)}..{max(self.crfs)}, got {crf}")
        coded = replace(info, fps=info.fps / self.hold) if self.hold > 1 else info
        kept = islice(frames, 0, None, self.hold)
        with (
            same_priority(),
            replacing(target) as file,
            av.open(file, "w", format="matroska") as container,
        ):
            writer = _Writer(self, container, coded, crf)
            for frame in kept:
                writer.write(frame)
            return writer.finish()

    def decode(self, source: Path, info: VideoInfo) -> Iterator[Tensor]:
        """Yield the frames at the size of `info`, as many as it says where frames were held."""
        with open_video(source) as video:
            for count, frame in enumerate(video):
                shown = frame[:, : info.height, : info.width].contiguous()
                first = count * self.hold
                times = self.hold if info.num_frames is None else min(self.hold, info.num_frames - first)
                for _ in range(times):
                    yield shown


@contextmanager
def same_priority() -> Iterator[None]:
    """Leave this thread's scheduling as it was.

    SVT-AV1 takes real-time priority for the thread that runs it where it may (as root) and keeps it; from
    then on that process and its children starve all others.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


class _Writer:
    """One stream into a container, counting what the encoder gives."""

    def __init__(self, anchor: Anchor, container: Any, info: VideoInfo, crf: int) -> None:
        self.container, self.info = container, info
        self.matrix = default_matrix(info.height)
        options = {**anchor.options, "crf": str(crf)}
        self.stream = container.add_stream(anchor.library, rate=info.fps, options=options)
        sides = (max(side + side % 2, MIN_SIDE) for side in (info.width, info.height))
        self.stream.width, self.stream.height = sides
        self.stream.pix_fmt = "yuv420p"
        context = self.stream.codec_context
        context.time_base = 1 / info.fps
        context.color_primaries, context.color_trc, context.colorspace = COLOUR_CODES[self.matrix]
        context.color_range = LIMITED_RANGE
        self.filter = BitStreamFilterContext(anchor.removed, self.stream) if anchor.removed else None
        self.count = self.bytes = 0

    def write(self, frame: Tensor) -> None:
        padded = pad_to(pad_to_multiple(frame[None].float(), 2), MIN_SIDE)[0].to(torch.uint8)
        planes = rgb_to_yuv(padded, matrix=self.matrix, subsampling="420")
        picture = planes_to_frame(planes, "yuv420p")
        picture.pts, picture.time_base = self.count, 1 / self.info.fps
        picture.colorspace, picture.color_range = COLOUR_CODES[self.matrix][2], LIMITED_RANGE
        self.count += 1
        self._mux(self.stream.encode(picture))

    def finish(self) -> int:
        if not self.count:
            raise UnreadableInput("there are no frames to encode")
        self._mux(self.stream.encode(None))
        return self.bytes + len(self.stream.codec_context.extradata or b"")

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            for kept in self.filter.filter(packet) if self.filter else [packet]:
                self.bytes += kept.size
                # x265 (until August 2026) left the decoding times of one or two frames uninitialised (its
                # issue 781): where they come out later than the frame is shown, the muxer refuses the packet.
                if kept.pts is not None and kept.dts is not None and kept.dts > kept.pts:
                    kept.dts = kept.pts
                self.container.mux(kept)


_X265 = {"preset": "slow", "x265-params": "info=0:log-level=none"}
ANCHORS: dict[str, Anchor] = {
    anchor.name: anchor
    for anchor in (
        Anchor("x264", "libx264", {"preset": "veryslow"}, range(51, 11, -1), "filter_units=remove_types=6"),
        Anchor("x265", "libx265", _X265, range(51, 11, -1)),
        Anchor("x265-hold2", "libx265", _X265, range(51, 11, -1), hold=2),
        Anchor("x265-hold3", "libx265", _X265, range(51, 11, -1), hold=3),
        Anchor("svtav1", "libsvtav1", {"preset": "4"}, range(63, 11, -1)),
        Anchor(
            "vp9",
            "libvpx-vp9",
            {"deadline": "good", "cpu-used": "1", "b": "0", "row-mt": "1"},
            range(63, 11, -1),
        ),
    )
}
