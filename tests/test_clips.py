"""Clips to train on: scenes apart, runs of the asked length, nothing made up."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import gencodec
from gencodec.training.clips import HELD_OUT, ClipBank, of_part, scenes
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


def test_parts_share_no_clip() -> None:
    paths = [Path(f"{i:03d}.mp4") for i in range(3 * HELD_OUT + 1)]
    training, held_out = of_part(paths, "training"), of_part(paths, "held-out")
    assert len(held_out) == 3
    assert sorted(training + held_out) == paths == of_part(paths, "all")
