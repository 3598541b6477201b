"""Training `extreme`'s predictor: the clips it is proved on, and steps that lower its loss."""

from __future__ import annotations

import copy
import gzip
import json
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_clip

from gencodec import training
from gencodec.codec import VideoInfo
from gencodec.methods.extreme.network import SMMNIST, PredictorConfig, PredictorNet
from gencodec.nn.state import config_from, load_float
from gencodec.training.extreme import PredictorRecipe, PredictorTask
from gencodec.training.extreme_cli import load_models
from gencodec.training.extreme_examples import CleanExamples, CodedExamples
from gencodec.training.extreme_record import AHEAD, BATCH, FARTHEST, AnchorBank, record
from gencodec.training.moving_mnist import DIGIT, SIDE, MovingMnist, read_images, walk
from gencodec.video import write_video
from gencodec.weights import load_file

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


# ---- examples --------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a small moving clip, with restarts and without."""
    folder = tmp_path_factory.mktemp("records")
    record(load_models(), Panning(), folder, first=0, count=6, seed=1)
    return folder


class Panning:
    """Clips of a picture that goes two pixels to the left from frame to frame."""

    def batch(self, size: int, generator: np.random.Generator) -> torch.Tensor:
        still = make_clip(1, 192, 96)[0].float() / 255
        frames = [still.roll(-2 * t, -1)[:, :96, 48:144] for t in range(FARTHEST + 1 + AHEAD)]
        return torch.stack([torch.stack(frames)] * size)


def test_records_are_what_both_sides_know(records: Path) -> None:
    bank = AnchorBank(records, crop=96)
    r = bank.records
    assert len(r.anchor) == 6 * BATCH
    assert r.ahead.shape[1:] == (AHEAD, 3, 96, 96)
    assert set(r.known.tolist()) == {1, 2}
    alone = r.known == 1
    assert not r.velocity[alone].any()
    middle = r.velocity[~alone][:, 0, 2:4, 2:4]
    assert (middle - 2).abs().median() < 0.3  # back in time is to the right
    last = Panning().batch(1, np.random.default_rng())[0, 0]
    away = (r.anchor[alone].float() / 255 - last).abs().mean()
    assert away < 0.15


def test_records_are_not_made_twice(records: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in records.iterdir()}
    record(load_models(), Panning(), records, first=0, count=6, seed=1)
    assert before == {p.name: p.stat().st_mtime_ns for p in records.iterdir()}


def test_crops_lie_on_blocks(records: Path) -> None:
    bank = AnchorBank(records, crop=32)
    rows = bank.batch(50, np.random.default_rng(0))
    part = bank.read(rows)
    assert part.anchor.shape == (50, 3, 32, 32)
    assert part.velocity.shape == (50, 2, 2, 2)
    number, row, column = (int(n) for n in rows[0])
    whole = bank.records.anchor[number]
    assert torch.equal(part.anchor[0], whole[:, 16 * row :, 16 * column :][:, :32, :32])


def test_a_folder_without_records(tmp_path: Path, records: Path) -> None:
    with pytest.raises(ValueError, match="no records"):
        AnchorBank(tmp_path, crop=32)
    with pytest.raises(ValueError, match="smaller than the crop"):
        AnchorBank(records, crop=128)


def test_what_is_seen_is_followed_by_what_came(records: Path) -> None:
    bank = AnchorBank(records, crop=64)
    examples, generator = CodedExamples(bank, CPU), np.random.default_rng(0)
    net = PredictorNet(SMALL)
    rows = bank.batch(3, np.random.default_rng(0))
    found = set()
    for _ in range(12):
        seen, target = examples(rows, net, generator)
        since = int(seen.since[0])
        found.add(since)
        ahead = bank.read(rows).ahead[:, since : since + 5].flatten(1, 2)
        assert torch.equal(target, ahead.float() / 127.5 - 1)
        assert torch.equal(seen.past[:, :3], seen.past[:, 3:]) == (since == 0)
        levels = (seen.past + 1) * 127.5
        assert (levels - levels.round()).abs().max() < 1e-3
    assert 0 in found
    assert max(found) > 1


def test_some_clean_clips_show_one_frame(digits: Path) -> None:
    x = MovingMnist(digits, frames=7).batch(64, np.random.default_rng(0))
    net = PredictorNet(replace(SMMNIST, widths=(16, 24, 32, 40)))
    seen, target = CleanExamples(CPU)(x, net, np.random.default_rng(0))
    assert target.shape == (64, 5, 64, 64)
    alone = seen.known == 1
    assert 4 < alone.sum() < 32
    assert torch.equal(seen.past[alone, :1], seen.past[alone, 1:])
    assert not torch.equal(seen.past[~alone, :1], seen.past[~alone, 1:])


# ---- the flow --------------------------------------------------------------------------------------------


def task(bank: AnchorBank, seed: int = 0, **recipe: float) -> PredictorTask:
    return PredictorTask(
        PredictorRecipe(learning_rate=2e-3, **recipe),  # type: ignore[arg-type]
        SMALL,
        CodedExamples(bank, CPU),
        CPU,
        seed,
    )


def mean_loss(run: PredictorTask, rows: torch.Tensor, perceptual: bool) -> float:
    torch.manual_seed(1)
    run.random = np.random.default_rng(3)
    with torch.no_grad():
        batches = [run.examples(rows, run.model, run.random) for _ in range(12)]
        losses = [run.perceptual_loss(*b)[0] if perceptual else run.flow_loss(*b) for b in batches]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("perceptual", [False, True])
def test_steps_lower_the_loss(records: Path, perceptual: bool) -> None:
    bank = AnchorBank(records, crop=64)
    run, rows = task(bank, perceptual_from=0.5), bank.batch(3, np.random.default_rng(0))
    before = mean_loss(run, rows, perceptual)
    for _ in range(25):
        run.step(rows, float(perceptual))
    assert mean_loss(run, rows, perceptual) < 0.93 * before


def test_a_task_resumes(records: Path) -> None:
    """The second, begun otherwise, takes the same step as the first once it has its state."""
    bank = AnchorBank(records, crop=64)
    rows = bank.batch(2, np.random.default_rng(0))
    first, second = (task(bank, seed, perceptual_from=0.5) for seed in (0, 5))
    first.step(rows, 0.0)
    state = copy.deepcopy(first.state())
    torch.manual_seed(4)  # the trainer's to keep
    steps = [first.step(rows, 0.6) for _ in range(3)]
    second.load_state(state)
    torch.manual_seed(4)
    assert steps == [second.step(rows, 0.6) for _ in range(3)]
    assert steps[0].keys() == {"loss", "lpips", "error", "of_last_frame"}


# ---- the command line ------------------------------------------------------------------------------------


def test_all_stages_by_the_command_line(digits: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", make_clip(48, 64, 64), VideoInfo(64, 64, Fraction(25)))
    made = tmp_path / "records"
    training.run(
        "extreme",
        ["--stage", "record", "--data", str(tmp_path), "--crop", "64", "--count", "1", "--out", str(made)],
    )
    sizes = {"widths": [16, 24], "blocks": 1, "attention": [False, True], "unshuffle": 2}
    common = ["--stage", "predictor", "--steps", "2", "--batch", "2", "--device", "cpu"]
    recipe = ["--recipe", '{"perceptual_from": 0.5}', "--crop", "64"]
    for name, more in {
        "digits": ["--digits", str(digits), "--config", json.dumps(sizes | {"channels": 1})],
        "clips": ["--records", str(made), "--config", json.dumps(sizes), *recipe],
    }.items():
        out = tmp_path / name
        training.run("extreme", [*common, *more, "--out", str(out)])
        assert len((out / "log.jsonl").read_text().splitlines()) == 2
    checkpoint, file = tmp_path / "clips" / "checkpoint.pt", tmp_path / "own.safetensors"
    training.run("extreme", ["--stage", "export", "--predictor", str(checkpoint), "--out", str(file)])
    tensors, metadata = load_file(file)
    config = config_from(PredictorConfig, metadata["predictor"])
    assert config == replace(SMALL, widths=(16, 24))
    load_float(PredictorNet(config), tensors, skip=())

    again = tmp_path / "again.safetensors"
    training.run("extreme", ["--stage", "export", "--predictor", str(file), "--out", str(again)])
    others, same = load_file(again)
    assert others.keys() == tensors.keys()
    assert all(torch.allclose(others[name].float(), tensors[name].float(), rtol=1e-3) for name in tensors)
    assert (same["predictor"], same["training"]) == (metadata["predictor"], metadata["training"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--stage", "predictor", "--steps", "1"], "--records or --digits"),
        (["--stage", "predictor", "--digits", "x"], "--steps"),
        (["--stage", "record"], "--data or --photos"),
        (["--stage", "export"], "--predictor"),
        (["--stage", "record", "--data", "x", "--crop", "40"], "multiple of 32"),
    ],
)
def test_it_says_what_it_needs(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.run("extreme", args)
    assert said in capsys.readouterr().err
