"""A mirrored record is what the coding loop would have made of the mirrored clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_clip

from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.model import CodingLoop
from gencodec.training.mirrors import ACROSS, DOWN, drawn_mirror, mirrored
from gencodec.training.s2vc_cli import INTRA
from gencodec.training.s2vc_record import Record, record_clip, stacked
from gencodec.weights import load_named

FRAMES = 5
TURNS = ((ACROSS,), (DOWN,), (ACROSS, DOWN))


@pytest.fixture(scope="module")
def intra() -> IntraModel:
    return IntraModel.frozen(load_named(INTRA)[0])


@pytest.fixture(scope="module")
def clip(intra: IntraModel) -> Record:
    """One that moves by half pixels, stacked, with pictures in [0,1]."""
    made = record_clip(CodingLoop(), intra, make_clip(FRAMES, 96, 80).float() / 255, 50)
    assert made.motion.abs().sum((0, 2, 3)).bool().all(), "it moves in x and in y"
    parts = {"x": made.x / 255, "picture": made.picture / 255, "scaled": made.scaled.float()}
    return stacked([made._replace(motion=made.motion.float(), symbols=made.symbols.float(), **parts)])


@torch.no_grad()
@pytest.mark.parametrize("axes", TURNS)
def test_pictures_follow_from_mirrored_motion_and_latents(
    intra: IntraModel, clip: Record, axes: tuple[int, ...]
) -> None:
    loop, turned = CodingLoop(), mirrored(clip, axes)
    assert torch.equal(turned.x, clip.x.flip(axes))
    latents = (turned.key_y_hat[:, 0], clip.key_y_hat[:, 0].flip(axes))  # the other lacks the signs
    keys = [intra.transforms.to_linear_picture(y, turned.clock[:, 0, 0])[0] for y in latents]
    missed, without = (float((key.clamp(0, 1) - turned.picture[:, 0]).abs().mean()) for key in keys)
    assert missed < 0.2 * without  # the way back from key frames' latents was learned: nearly a mirror image
    for t in range(1, FRAMES):
        prediction = loop.predict(turned.picture[:, t - 1], turned.motion[:, t - 1])
        level = torch.zeros(1, dtype=torch.int64)
        picture, _ = loop.to_picture(turned.scaled[:, t] * loop.gains[level], prediction, level)
        assert (picture - turned.picture[:, t]).abs().mean() < 2e-3


@pytest.mark.parametrize("axes", TURNS)
def test_a_mirror_image_mirrored_is_what_was(clip: Record, axes: tuple[int, ...]) -> None:
    turned = mirrored(clip, axes)
    assert not torch.equal(turned.symbols, clip.symbols)
    assert all(torch.equal(a, b) for a, b in zip(mirrored(turned, axes), clip, strict=True))


def test_all_four_are_drawn() -> None:
    random = np.random.default_rng(0)
    drawn = [drawn_mirror(random) for _ in range(400)]
    for axes in ((), *TURNS):
        assert drawn.count(axes) / 400 == pytest.approx(0.25, abs=0.07)
