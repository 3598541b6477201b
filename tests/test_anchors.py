"""Classical anchors: what they cost, and that they give their frames back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gencodec.codec import CorruptStream, UnreadableInput, VideoInfo
from gencodec.evaluation import anchors
from gencodec.evaluation.anchors import ANCHORS
from gencodec.evaluation.contestants import contestant
from gencodec.evaluation.vvc import VvcAnchor
from gencodec.metrics.psnr import psnr


def clip(frames: int = 7, height: int = 64, width: int = 96) -> list[Tensor]:
    """A smooth pattern that moves to the right, uint8 (3,H,W) each."""
    x = torch.arange(width).float()
    y = torch.arange(height).float()[:, None]
    waves = [
        128 + 60 * torch.sin((x - 2 * t) / 9) * torch.cos(y / 7) + 20 * torch.sin(x / 31)
        for t in range(frames)
    ]
    return [torch.stack([w, 0.5 * w + 60, 255 - w]).clamp(0, 255).to(torch.uint8) for w in waves]


def info_of(frames: list[Tensor]) -> VideoInfo:
    return VideoInfo(frames[0].shape[2], frames[0].shape[1], Fraction(24), len(frames))


def available(name: str) -> str:
    if not ANCHORS[name].is_available():
        pytest.skip(f"this PyAV lacks {ANCHORS[name].library}")
    return name


@pytest.mark.parametrize("name", [name for name in ANCHORS if "hold" not in name])
def test_frames_come_back(name: str, tmp_path: Path) -> None:
    anchor, frames = ANCHORS[available(name)], clip()
    payload = anchor.encode(frames, info_of(frames), tmp_path / "a.mkv", 20)
    assert 0 < payload < (tmp_path / "a.mkv").stat().st_size
    decoded = list(anchor.decode(tmp_path / "a.mkv", info_of(frames)))
    assert len(decoded) == len(frames)
    assert min(float(psnr(a, b)) for a, b in zip(frames, decoded, strict=True)) > 30


@pytest.mark.parametrize("name", ["x264", "x265", "svtav1", "vp9"])
def test_a_grey_clip_does_not_cost_the_container(name: str, tmp_path: Path) -> None:
    """30 frames of 128x128: x265's own text and the file's boxes alone would be 0.06 bits a pixel."""
    frames = [torch.full((3, 128, 128), 128, dtype=torch.uint8)] * 30
    payload = ANCHORS[available(name)].encode(frames, info_of(frames), tmp_path / "a.mkv", 45)
    assert 8 * payload / (30 * 128 * 128) < 0.015
    assert payload < (tmp_path / "a.mkv").stat().st_size - 400


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="only Linux has these calls")
@pytest.mark.parametrize("name", ["x264", "x265", "svtav1", "vp9"])
def test_encoding_leaves_the_process_s_priority_alone(name: str, tmp_path: Path) -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    ANCHORS[available(name)].encode(clip(), info_of(clip()), tmp_path / "a.mkv", 40)
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before  # SVT-AV1 as root: real-time


@pytest.mark.parametrize(("name", "hold"), [("x265-hold2", 2), ("x265-hold3", 3)])
def test_held_frames_are_shown_until_the_next(name: str, hold: int, tmp_path: Path) -> None:
    frames = clip(frames=7)
    ANCHORS[name].encode(frames, info_of(frames), tmp_path / "a.mkv", 20)
    decoded = list(ANCHORS[name].decode(tmp_path / "a.mkv", info_of(frames)))
    assert len(decoded) == 7
    for number, frame in enumerate(decoded):
        assert torch.equal(frame, decoded[number - number % hold])
        assert float(psnr(frame, frames[number - number % hold])) > 30


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (71, 130)])
@pytest.mark.parametrize("name", ["x264", "x265", "svtav1", "vp9"])
def test_any_size_is_kept(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    anchor, frames = ANCHORS[available(name)], clip(frames=2, height=size[0], width=size[1])
    anchor.encode(frames, info_of(frames), tmp_path / "a.mkv", 20)
    decoded = list(anchor.decode(tmp_path / "a.mkv", info_of(frames)))
    assert [tuple(f.shape) for f in decoded] == [(3, *size)] * 2
    assert float(psnr(frames[1], decoded[1])) > 28


def test_decoding_times_behind_the_frame_are_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As x265 gives them at times for clips of one or two frames, by what lies in its memory."""
    mux = anchors._Writer._mux

    def with_garbage(writer: anchors._Writer, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.dts = packet.pts + 1000
            mux(writer, [packet])

    monkeypatch.setattr(anchors._Writer, "_mux", with_garbage)
    frames = clip(frames=2)
    ANCHORS["x265"].encode(frames, info_of(frames), tmp_path / "a.mkv", 20)
    assert len(list(ANCHORS["x265"].decode(tmp_path / "a.mkv", info_of(frames)))) == 2


FAKE_VVENC = """#!{python}
import pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if words["-q"] == "17":
    sys.exit("out of bits")
size = pathlib.Path(words["-i"]).stat().st_size
pathlib.Path(words["-o"]).write_text(f"{{size}} {{words['-s']}} {{words['--fps']}} {{words['--preset']}}")
"""


def test_vvc_gives_the_encoder_whole_padded_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder is a stand-in that writes down what it was given: VVenC has no package here."""
    tool = tmp_path / "bin" / "vvencapp"
    tool.parent.mkdir()
    tool.write_text(FAKE_VVENC.format(python=sys.executable))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    frames = clip(frames=2, height=33, width=47)
    size = VvcAnchor().encode(frames, info_of(frames), tmp_path / "a.266", 32)
    assert (tmp_path / "a.266").read_text() == f"{2 * 48 * 40 * 3 // 2} 48x40 24/1 medium"
    assert size == (tmp_path / "a.266").stat().st_size
    with pytest.raises(CorruptStream, match="out of bits"):
        VvcAnchor().encode(frames, info_of(frames), tmp_path / "b.266", 17)
    with pytest.raises(CorruptStream, match=r"a\.266"):
        list(VvcAnchor().decode(tmp_path / "a.266", info_of(frames)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.266", "bin"]


def test_an_anchor_that_is_not_here_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="vvc needs vvencapp, which is not on the PATH"):
        contestant("vvc")


def test_wrong_use_leaves_no_file(tmp_path: Path) -> None:
    frames = clip(frames=1)
    with pytest.raises(ValueError, match="crf is"):
        ANCHORS["x265"].encode(frames, info_of(frames), tmp_path / "a.mkv", 99)
    with pytest.raises(UnreadableInput, match="no frames"):
        ANCHORS["x265"].encode([], info_of(frames), tmp_path / "a.mkv", 30)
    assert list(tmp_path.iterdir()) == []
