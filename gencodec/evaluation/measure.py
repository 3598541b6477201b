"""One point: a clip through one codec at one setting, decoded in a clean process, and measured.

clip ─► encode ─► file ─► (another process) decode ─► frames ─► metrics ─► row
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencodec.atomic import replacing
from gencodec.codec import CorruptStream, VideoInfo
from gencodec.evaluation.clips import Clip
from gencodec.evaluation.contestants import Contestant
from gencodec.evaluation.decode_file import decode_elsewhere, read_frames
from gencodec.metrics.suite import ClipScores, Suite, frames_at_once
from gencodec.video import VideoReader, write_video


def key_of(clip: Clip, contestant: Contestant, setting: int, metrics: tuple[str, ...]) -> str:
    """What a finished point is recognised by."""
    parts = (clip.sha256, clip.selection, contestant.name, contestant.identity, setting, sorted(metrics))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


@dataclass
class Point:
    """Everything that measuring one point needs."""

    clip: Clip
    contestant: Contestant
    setting: int
    suite: Suite
    device: str = "auto"

    @property
    def key(self) -> str:
        """See `key_of`."""
        return key_of(self.clip, self.contestant, self.setting, self.suite.names)

    def name(self) -> str:
        """For file names."""
        return f"{self.clip.name}-{self.contestant.name}-{self.setting}"


def measure(point: Point, folder: Path) -> dict[str, Any]:
    """Encode, decode, measure; returns the row. Raises GencodecError or OSError: nothing is recorded then."""
    clip, contestant = point.clip, point.contestant
    file = folder / "files" / (point.name() + contestant.suffix)
    with clip.video() as video:
        coded = contestant.encode(video, file, point.setting)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        raw = Path(scratch) / "frames.rgb"
        decode_seconds = decode_elsewhere(contestant.name, file, raw, clip.info, point.device)
        scores = score(clip, raw, point.suite)
        write_video(folder / "decoded" / f"{point.key}.mp4", _frames(raw, clip.info), clip.info)
    source = keep_source(clip, folder)
    for kind, (of_source, of_decoded) in scores.features.items():
        with replacing(folder / "features" / f"{point.key}-{kind}.npz") as opened:
            np.savez(opened, source=of_source.features(), decoded=of_decoded.features())
    return {
        "key": point.key,
        "clip": clip.name,
        "clip_sha256": clip.sha256,
        "source": source,
        "codec": contestant.name,
        "identity": contestant.identity,
        "setting": point.setting,
        "frames": clip.info.num_frames,
        "width": clip.info.width,
        "height": clip.info.height,
        "fps": str(clip.info.fps),
        "file_bytes": coded.file_bytes,
        "payload_bytes": coded.payload_bytes,
        "bpp": 8 * coded.rate_bytes / clip.pixels,
        "payload_bpp": 8 * coded.payload_bytes / clip.pixels,
        "encode_seconds": coded.seconds,
        "decode_seconds": decode_seconds,
        "bits_per_frame": coded.bits_per_frame,
        "metrics": scores.means(),
        "per_frame": {name: list(map(list, v.items())) for name, v in scores.per_frame.items()},
        "problems": scores.problems,
    }


def keep_source(clip: Clip, folder: Path) -> str:
    """Write what is taken of the clip beside the decoded ones, once, for the report; returns its digest."""
    digest = hashlib.sha256(_taken_of(clip).encode()).hexdigest()[:24]
    target = folder / "decoded" / f"source-{digest}.mp4"
    if not target.exists():
        with clip.video() as video:
            write_video(target, video, clip.info)
    return digest


def _taken_of(clip: Clip) -> str:
    return repr((clip.sha256, clip.selection))


def score(clip: Clip, raw: Path, suite: Suite) -> ClipScores:
    """Measure decoded frames against the clip's. Raises CorruptStream where the clip has changed."""
    scores = suite.clip(_taken_of(clip))
    batch = frames_at_once(clip.info.height, clip.info.width)
    with clip.video() as video:
        sources = _batches(video, batch)
        for decoded in read_frames(raw, clip.info, batch):
            source = next(sources, None)
            if source is None or source.shape != decoded.shape:
                raise CorruptStream(f"{clip.path} changed while it was being measured")
            scores.add(source, decoded)
    return scores


def _batches(video: VideoReader, size: int) -> Iterator[Tensor]:
    frames: list[Tensor] = []
    for frame in video:
        frames.append(frame)
        if len(frames) == size:
            yield torch.stack(frames)
            frames = []
    if frames:
        yield torch.stack(frames)


def _frames(raw: Path, info: VideoInfo) -> Iterator[Tensor]:
    for batch in read_frames(raw, info, 1):
        yield batch[0]
