"""Training `extreme`'s predictor: the clips it is proved on, and steps that lower its loss."""

from __future__ import annotations

import gzip
import json
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_clip

from gencodec import training
from gencodec.codec import VideoInfo
from gencodec.methods.extreme.network import PredictorConfig
from gencodec.methods.intra.model import IntraModel
from gencodec.training.extreme import PredictorRecipe, PredictorTask
from gencodec.training.moving_mnist import DIGIT, SIDE, MovingMnist, read_images, walk
from gencodec.training.trainer import Task
from gencodec.video import write_video
from gencodec.weights import load_named

SMALL = PredictorConfig(unshuffle=2, widths=(16, 24), blocks=1, attention=(False, True))


# ---- Stochastic Moving MNIST -----------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Three images of an even brightness each, as MNIST is distributed."""
    pixels = np.stack([np.full((28, 28), v, np.uint8) for v in (50, 100, 255)])
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(struct.pack(">4i", 2051, 3, 28, 28) + pixels.tobytes()))
    return path


def test_walks_keep_the_rules() -> None:
    places, hits = walk(400, 30, np.random.default_rng(0))
    assert places.min() == 0
    assert places.max() == SIDE - DIGIT - 1
    steps = np.diff(places, axis=0)
    assert np.abs(steps).max() <= 4
    # without a wall speeds stay
    free = (hits[1:-1] == 0) & (hits[2:] == 0)
    assert (steps[:-1] == steps[1:]).all(2)[free].all()
    # a wall is left at once
    at_wall = (hits[:-1] > 0) & (hits[1:] == 0)
    assert (np.abs(steps)[at_wall].max(1) >= 1).all()


def test_bounces_are_as_many_as_measured() -> None:
    """On the facts page: 3.57 frames of 30 in which a digit bounces, 22 % of runs of five frames without."""
    _, hits = walk(20000, 30, np.random.default_rng(1))
    assert (hits > 0).sum(0).mean() == pytest.approx(3.57, abs=0.04)
    both = hits[:, ::2] + hits[:, 1::2]
    runs = np.lib.stride_tricks.sliding_window_view(both, 5, axis=0).sum(-1)
    assert (runs == 0).mean() == pytest.approx(0.22, abs=0.01)


def test_clips(digits: Path) -> None:
    bank = MovingMnist(digits, frames=7)
    assert read_images(digits).shape == (3, 32, 32)
    clips = bank.batch(5, np.random.default_rng(0))
    assert clips.shape == (5, 7, 1, 64, 64)
    assert clips.max() <= 1
    assert torch.equal(clips, bank.batch(5, np.random.default_rng(0)))
    lit = (clips > 0).flatten(2).sum(2)
    assert lit.max() <= 2 * DIGIT**2
    assert lit.min() >= DIGIT**2


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.idx").write_bytes(struct.pack(">4i", 2051, 3, 28, 28))
    with pytest.raises(ValueError, match="no idx file"):
        read_images(tmp_path / "x.idx")


# ---- the flow --------------------------------------------------------------------------------------------


def task(seed: int = 0, **recipe: float) -> PredictorTask:
    return PredictorTask(
        PredictorRecipe(learning_rate=2e-3, **recipe),  # type: ignore[arg-type]
        SMALL,
        IntraModel.frozen(load_named("intra-tiny-4")[0]),
        torch.device("cpu"),
        seed,
    )


def moving() -> torch.Tensor:
    frames = make_clip(7, 64, 64).float() / 255
    return torch.stack([frames, frames.flip(-1)])


def test_steps_lower_the_loss() -> None:
    run, x = task(), moving()
    torch.manual_seed(1)
    with torch.no_grad():
        before = np.mean([float(run.loss(x)) for _ in range(12)])
    for _ in range(25):
        run.step(x, 0.0)
    torch.manual_seed(1)
    with torch.no_grad():
        after = np.mean([float(run.loss(x)) for _ in range(12)])
    assert after < 0.9 * before


def test_a_task_resumes() -> None:
    first: Task = task(seed=0)
    second: Task = task(seed=5)
    first.step(moving(), 0.0)
    second.load_state(first.state())
    torch.manual_seed(3)
    one = first.step(moving(), 0.1)
    torch.manual_seed(3)
    assert one == second.step(moving(), 0.1)


def test_the_past_is_what_a_decoder_has() -> None:
    x = moving()[:, :2]
    clean, known = task(coded=0.0, noisy=0.0, alone=0.0).degraded(x)
    assert torch.allclose(clean, 2 * x.flatten(1, 2) - 1, atol=1 / 255)
    assert known.tolist() == [2, 2]
    only, known = task(coded=0.0, noisy=0.0, alone=1.0).degraded(x)
    assert known.tolist() == [1, 1]
    assert torch.equal(only[:, :3], only[:, 3:])
    coded, _ = task(coded=1.0, noisy=0.0, alone=0.0).degraded(x)
    assert 0.001 < (coded - clean).abs().mean() < 0.3
    levels = (coded + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-3


# ---- the command line ------------------------------------------------------------------------------------


def test_both_kinds_of_clips_by_the_command_line(digits: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", make_clip(16, 64, 64), VideoInfo(64, 64, Fraction(25)))
    sizes = {"widths": [16, 24], "blocks": 1, "attention": [False, True], "unshuffle": 2}
    common = ["--steps", "2", "--batch", "2", "--device", "cpu"]
    for name, more in {
        "digits": ["--digits", str(digits), "--config", json.dumps(sizes | {"channels": 1})],
        "clips": ["--data", str(tmp_path), "--crop", "64", "--config", json.dumps(sizes)],
    }.items():
        out = tmp_path / name
        training.run("extreme", [*common, *more, "--out", str(out)])
        assert len((out / "log.jsonl").read_text().splitlines()) == 2
        assert (out / "checkpoint.pt").exists()


def test_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    for args, said in ((["--steps", "1"], "--data or --digits"), (["--digits", "x"], "--steps")):
        with pytest.raises(SystemExit):
            training.run("extreme", args)
        assert said in capsys.readouterr().err
