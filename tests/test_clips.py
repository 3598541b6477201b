"""Clips to train on: scenes apart, runs of the asked length, nothing made up."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import gencodec
from gencodec.training.clips import HELD_OUT, ClipBank, of_part, reduced, scenes
from gencodec.video import write_video


def test_scenes_are_taken_apart() -> None:
    dark, light = np.zeros((3, 8, 8), np.uint8), np.full((3, 8, 8), 200, np.uint8)
    assert [len(s) for s in scenes([dark, dark, light, light, light])] == [2, 3]
    assert scenes([]) == []


def test_a_bank_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clip"):
        ClipBank([tmp_path], crop=64, frames=3)


def test_runs_are_consecutive_frames(tmp_path: Path) -> None:
    ramp = torch.arange(12, dtype=torch.uint8)[:, None, None, None] * 16  # each frame is brighter
    write_video(tmp_path / "a.mp4", ramp.expand(12, 3, 64, 96), gencodec.VideoInfo(96, 64, Fraction(25), 12))
    batch = ClipBank([tmp_path], crop=64, frames=3).batch(8, np.random.default_rng(0))
    assert batch.shape == (8, 3, 3, 64, 64)
    change = batch.mean((2, 3, 4)).diff(dim=1) * 255 / 16  # 1 or 2 frames on, or back
    assert torch.allclose(change[:, 0], change[:, 1], atol=0.2)
    assert set(change.abs().round().flatten().tolist()) <= {1.0, 2.0}


@pytest.mark.parametrize("size", [(48, 90), (90, 48)])
def test_clips_are_reduced_by_their_short_side(size: tuple[int, int]) -> None:
    ramp = torch.linspace(0, 255, size[0])[:, None].expand(2, 3, *size).to(torch.uint8)
    small = reduced(ramp, 32)
    assert small.shape == ((2, 3, 32, 60) if size[0] < size[1] else (2, 3, 60, 32))
    assert small.dtype == torch.uint8
    assert (small[0, 0].diff(dim=0) >= 0).all()
    assert small.float().mean() == pytest.approx(ramp.float().mean(), abs=1)
    assert reduced(ramp, 64) is ramp  # nothing is made larger


def test_a_bank_reduces_its_clips(tmp_path: Path) -> None:
    noise = torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8).expand(7, -1, -1, -1)
    write_video(tmp_path / "a.mp4", noise, gencodec.VideoInfo(96, 64, Fraction(25), 7))
    bank = ClipBank([tmp_path], crop=32, frames=1, short_side=32)
    assert [clip.shape for clip in bank.clips] == [(7, 3, 32, 48)]
    with pytest.raises(ValueError, match="hold no crop of 64"):
        ClipBank([tmp_path], crop=64, frames=1, short_side=32)


def test_parts_share_no_clip() -> None:
    paths = [Path(f"{i:03d}.mp4") for i in range(3 * HELD_OUT + 1)]
    training, held_out = of_part(paths, "training"), of_part(paths, "held-out")
    assert len(held_out) == 3
    assert sorted(training + held_out) == paths == of_part(paths, "all")
