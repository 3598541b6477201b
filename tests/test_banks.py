"""Banks of clips that training draws from: which are sharp, and what the options of all methods name."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.training.banks import TRIES, Either, Sharp, add_clips, named_clips, sharpness
from gencodec.training.clips import ClipBank
from gencodec.training.moving_photos import MovingPhotos
from gencodec.video import write_video


class Blurred:
    """Clips of noise, each drawn blurred by another factor of `factors`."""

    def __init__(self, factors: list[int]) -> None:
        self.factors, self.drawn = factors, 0

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """See `data.Bank`."""
        factor = self.factors[self.drawn % len(self.factors)]
        self.drawn += size
        small = torch.from_numpy(generator.random((size, 3, 64 // factor, 64 // factor))).float()
        return F.interpolate(small, (64, 64), mode="bilinear")[:, None].expand(-1, 2, -1, -1, -1)


def test_sharpness_counts_steps_of_eight_bits() -> None:
    assert sharpness(torch.full((3, 8, 8), 0.3)) == pytest.approx(0, abs=1e-3)
    ramp = torch.linspace(0, 1, 8).expand(3, 8, 8)
    assert sharpness(ramp) == pytest.approx(0, abs=1e-3)  # the second derivative
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    assert sharpness(board.expand(3, 8, 8).float()) == pytest.approx(4 * 2 * 255 / 2)


def test_sharp_clips_are_drawn_until_found() -> None:
    bank = Blurred([8, 4, 1])
    least = sharpness(Blurred([1]).batch(1, np.random.default_rng(0))[0, 0]) / 2
    clips = Sharp(bank, least).batch(3, np.random.default_rng(1))
    assert clips.shape == (3, 2, 3, 64, 64)
    assert all(sharpness(clip[0]) >= least for clip in clips)
    assert bank.drawn == 9


def test_the_sharpest_of_soft_clips_is_taken() -> None:
    bank = Blurred([8, 8, 4, 8])
    clip = Sharp(bank, 1e9).batch(1, np.random.default_rng(0))[0]
    assert bank.drawn == TRIES
    again, generator = Blurred([8, 8, 4, 8]), np.random.default_rng(0)
    assert sharpness(clip[0]) == max(sharpness(again.batch(1, generator)[0, 0]) for _ in range(TRIES))


@pytest.mark.parametrize(
    ("args", "kind"),
    [("--data", ClipBank), ("--photos", MovingPhotos), ("--sharp 9 --data", Sharp), ("both", Either)],
)
def test_options_name_a_bank(args: str, kind: type, tmp_path: Path) -> None:
    from PIL import Image

    noise = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8).expand(9, -1, -1, -1)
    write_video(tmp_path / "a.mp4", noise, VideoInfo(64, 64, Fraction(25), 9))
    Image.fromarray(noise[0].permute(1, 2, 0).numpy()).save(tmp_path / "b.png")
    parser = argparse.ArgumentParser()
    add_clips(parser, "record")
    args = f"--data {tmp_path} --photos" if args == "both" else args
    bank = named_clips(parser.parse_args([*args.split(), str(tmp_path)]), crop=64, frames=3, most=9)
    assert type(bank) is kind
    assert bank.batch(2, np.random.default_rng(0)).shape == (2, 3, 3, 64, 64)


def test_held_out_photographs_are_not_trained_on(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(20):  # each of its own grey
        Image.new("RGB", (40, 40), (10 * number,) * 3).save(tmp_path / f"{number:02d}.png")
    seen = {}
    for part in ("training", "held-out"):
        bank = MovingPhotos([tmp_path], crop=32, frames=1, part=part)
        seen[part] = {int(photo[0, 0, 0]) for photo in bank.photos}
    assert seen["held-out"] == {80}
    assert len(seen["training"]) == 19
    with pytest.raises(ValueError, match="held-out"):
        MovingPhotos([tmp_path], crop=32, frames=1, limit=3, part="held-out")
