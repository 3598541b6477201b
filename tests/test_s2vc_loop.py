"""The coding loop of `s2vc`: what it gives before training, and that training lowers its loss and resumes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gencodec
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.model import CodingLoop
from gencodec.methods.s2vc.pcodec import Config
from gencodec.training import s2vc_loop
from gencodec.training.clips import ClipBank, scenes
from gencodec.training.data import BatchSource
from gencodec.training.s2vc_cli import INTRA
from gencodec.training.s2vc_loop import LoopRecipe, LoopTask, key_of
from gencodec.training.trainer import Budget, Trainer
from gencodec.video import write_video
from gencodec.weights import load_named

SMALL = LoopRecipe(batch=2, crop=64, frames=3)


def moving(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """A grey texture that moves by 2 pixels a frame, (1,count,3,size,size) in [0,1]."""
    noise = torch.rand(1, 1, size, size + 2 * count, generator=torch.Generator().manual_seed(seed))
    wide = torch.nn.functional.avg_pool2d(noise, 9, 1, 4, count_include_pad=False)
    wide = (0.5 + 4 * (wide - 0.5)).clamp(0, 1).repeat(1, 3, 1, 1)
    return torch.stack([wide[..., 2 * t : 2 * t + size] for t in range(count)], 1)


@pytest.fixture(scope="module")
def intra() -> IntraModel:
    return IntraModel.frozen(load_named(INTRA)[0])


def task(intra: IntraModel) -> LoopTask:
    return LoopTask(SMALL, intra, torch.device("cpu"), 0)


@torch.no_grad()
def test_untrained_it_is_a_transform_codec_with_motion(intra: IntraModel) -> None:
    torch.manual_seed(0)
    net, clip = CodingLoop(Config()).eval(), moving(3)
    quality = torch.tensor([63])
    buffer, state = net.begin(*key_of(intra, clip[:, 0], quality))
    for t in (1, 2):
        frame = net(clip[:, t], buffer, state, quality)
        buffer, state = frame.buffer, frame.state
        held = (clip[:, t - 1] - clip[:, t]).square().mean()
        assert (buffer.picture - clip[:, t]).square().mean() < 0.2 * held
    assert buffer.features.shape == (1, 96, 8, 8)


def test_frames_depend_on_one_another_through_time(intra: IntraModel) -> None:
    net, clip = task(intra), moving(3).repeat(2, 1, 1, 1, 1)
    net.model.train()
    frames = net.code(clip, torch.tensor([10, 50]))
    frames[1].buffer.picture.sum().backward()
    for parameters in (net.model.key, net.model.extractor, net.model.residuals):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.parameters())


def test_a_few_steps_lower_the_loss(intra: IntraModel, monkeypatch: pytest.MonkeyPatch) -> None:
    net, clip = task(intra), moving(3).repeat(2, 1, 1, 1, 1)
    monkeypatch.setattr(s2vc_loop, "draw_quality", lambda *_: torch.tensor([10, 50]))
    for group in net.optimizer.param_groups:
        group["lr"] = 1e-4 * group["scale"]
    losses = [net.step(clip, 0.0)["loss"] for _ in range(24)]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    net.make_exact(clip)
    exact = net.step(clip, 0.9)
    assert exact["loss"] < 1.3 * losses[-1]
    assert exact["saturation"] < 0.05


def test_a_resumed_run_equals_one_that_was_not(intra: IntraModel, tmp_path: Path) -> None:
    info = gencodec.VideoInfo(96, 64, Fraction(25), 9)
    frames = (moving(9, 96)[0, :, :, :64] * 255).to(torch.uint8)
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.mp4", frames, info)
    states = []
    for name, slices in (("whole", [None]), ("parts", [2, None])):
        for part in slices:
            source = BatchSource(ClipBank([tmp_path / "clips"], crop=64, frames=3), 2, torch.device("cpu"), 1)
            run = Trainer(task(intra), source, tmp_path / name, Budget(4), Budget(part))
            run.run()
        states.append(run.task.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_scenes_are_taken_apart() -> None:
    dark, light = np.zeros((3, 8, 8), np.uint8), np.full((3, 8, 8), 200, np.uint8)
    assert [len(s) for s in scenes([dark, dark, light, light, light])] == [2, 3]
    assert scenes([]) == []


def test_a_bank_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clip"):
        ClipBank([tmp_path], crop=64, frames=3)
