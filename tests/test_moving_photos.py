"""Clips from photographs: they move as smoothly as a camera does, and something covers something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gencodec.nn.block_search import block_motion
from gencodec.nn.motion import compensate
from gencodec.training import moving_photos
from gencodec.training.moving_photos import MovingPhotos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs with something to see everywhere."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        small = torch.from_numpy(generator.random((1, 3, 24, 30)).astype(np.float32))
        large = torch.nn.functional.interpolate(small, scale_factor=8, mode="bicubic").clamp(0, 1)[0]
        Image.fromarray((255 * large).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{name}.png")
    return tmp_path


def test_clips_move(photos: Path) -> None:
    bank = MovingPhotos([photos], crop=96, frames=9)
    clips = bank.batch(6, np.random.default_rng(0))
    assert clips.shape == (6, 9, 3, 96, 96)
    assert clips.min() >= 0
    assert clips.max() <= 1
    assert torch.equal(clips, bank.batch(6, np.random.default_rng(0)))
    changes = (clips[:, 1:] - clips[:, :-1]).abs().mean((1, 2, 3, 4))
    assert changes.max() > 0.02
    assert changes.max() < 0.4


def test_motion_explains_what_changes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_photos, "FRONT", 0.0)
    clips = MovingPhotos([photos], crop=96, frames=3).batch(8, np.random.default_rng(1))
    before, after = clips[:, 1], clips[:, 2]
    moved = compensate(before, block_motion(before, after, torch.full((8,), 0.0002)))
    assert (moved - after).square().mean() < 0.2 * (before - after).square().mean()


def test_a_shape_covers_what_is_behind(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(moving_photos, "FRONT", share)
        clips[share] = MovingPhotos([photos], crop=96, frames=2).batch(1, np.random.default_rng(4))
    covered = ((clips[0.0] - clips[1.0]).abs().amax(2) > 0.02).float().mean()
    assert 0.02 < covered < 0.9


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clip or photograph"):
        MovingPhotos([tmp_path], crop=96, frames=2)
