"""VVC as an anchor: Fraunhofer's `vvencapp` where it is on the PATH, decoded by FFmpeg's own decoder in PyAV.

8-bit 4:2:0 in, a raw .266 stream out, which is payload and nothing else; preset medium, constant QP.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from gencodec.codec import CorruptStream, UnreadableInput, VideoInfo
from gencodec.colour import default_matrix, rgb_to_yuv
from gencodec.nn.layers import pad_to_multiple
from gencodec.video_frame import frame_to_rgb

ENCODER = "vvencapp"
MULTIPLE = 8  # of both sides that the encoder takes; what is added is cut off again


class VvcAnchor:
    """`name`, `settings` and the two functions of an `Anchor`."""

    name, library, hold = "vvc", ENCODER, 1
    options = {"preset": "medium"}  # noqa: RUF012 - never changed
    settings = range(50, 16, -1)  # QP

    def is_available(self) -> bool:
        """Whether the encoder is on the PATH and PyAV has the decoder."""
        return shutil.which(ENCODER) is not None and "vvc" in av.codecs_available

    def encode(self, frames: Iterable[Tensor], info: VideoInfo, target: Path, qp: int) -> int:
        """Write frames, uint8 (3,H,W), as a raw stream; returns its bytes.

        Raises ValueError for a QP that is not in `settings`, UnreadableInput where there are no frames,
        CorruptStream where the encoder fails.
        """
        if qp not in self.settings:
            raise ValueError(f"vvc: QP is {min(self.settings)}..{max(self.settings)}, got {qp}")
        width, height = (-(-side // MULTIPLE) * MULTIPLE for side in (info.width, info.height))
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            source, made = Path(scratch) / "source.yuv", Path(scratch) / "made.266"
            if not _write_yuv(source, frames, default_matrix(info.height)):
                raise UnreadableInput("there are no frames to encode")
            rate = f"{info.fps.numerator}/{info.fps.denominator}"
            command = [ENCODER, "-i", source, "-s", f"{width}x{height}", "-c", "yuv420", "--fps", rate]
            _run([*command, "--preset", self.options["preset"], "-q", qp, "-o", made])
            made.replace(target)
        return target.stat().st_size

    def decode(self, source: Path, info: VideoInfo) -> Iterator[Tensor]:
        """Yield the frames at the size of `info`. Raises CorruptStream."""
        empty = True
        try:
            with av.open(str(source), format="vvc") as container:
                for frame in container.decode(video=0):
                    empty = False
                    yield frame_to_rgb(frame, codec="vvc")[:, : info.height, : info.width].contiguous()
        except av.error.FFmpegError as error:
            raise CorruptStream(f"{source} cannot be decoded: {error}") from error
        if empty:
            raise CorruptStream(f"{source} holds no picture")


def _write_yuv(path: Path, frames: Iterable[Tensor], matrix: Any) -> int:
    count = 0
    with open(path, "wb") as file:
        for frame in frames:
            padded = pad_to_multiple(frame[None].float(), MULTIPLE)[0].to(torch.uint8)
            for plane in rgb_to_yuv(padded, matrix=matrix, subsampling="420"):
                file.write(plane.numpy().tobytes())
            count += 1
    return count


def _run(command: list[object]) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = ((done.stderr or done.stdout).strip().splitlines() or ["no message"])[-1]
        raise CorruptStream(f"{ENCODER} failed: {reason}")
