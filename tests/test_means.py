"""Means of latents: their gains and what is left out, from a file and as they are found."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from gencodec.entropy.means import MEAN_MAX, MeanScale
from gencodec.methods.intra.model import IntraModel
from gencodec.metrics.lpips import Lpips
from gencodec.training import mean_gains
from gencodec.weights import load_named


def drawn(seed: int = 0) -> tuple[MeanScale, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gains, sums (3,2,4,5) as heads have them, their qualities and which places are idle."""
    chance = torch.Generator().manual_seed(seed)
    scale = MeanScale().eval()
    scale.gains.copy_(torch.rand(64, generator=chance) * 2)
    raw = torch.randint(-(2**20), 2**20, (3, 2, 4, 5), generator=chance) / 2.0**17
    return scale, raw, torch.tensor([0, 31, 63]), torch.rand(raw.shape, generator=chance) < 0.5


def test_means_are_their_twin() -> None:
    scale, raw, quality, idle = drawn()
    found = scale(raw, quality, idle)
    for at in np.ndindex(*raw.shape):
        q = int(quality[at[0]])
        product = np.float32(raw[at]) * np.float32(scale.gains[q])
        mean = Fraction(round(Fraction(float(product)) * 8), 8)
        is_left_out = bool(idle[at]) and abs(mean) <= Fraction(1, 8)
        assert float(found[at]) == (0 if is_left_out else float(mean))
    assert torch.equal(scale(raw, quality), scale(raw, quality, torch.zeros_like(idle)))
    assert float(scale(torch.full((1, 1, 1, 1), 1e9), torch.tensor([63]))) == MEAN_MAX


def test_in_training_every_mean_has_a_gradient() -> None:
    scale, raw, quality, idle = drawn()
    small = (raw / 2**7).requires_grad_()
    means = scale.train()(small, quality, idle)
    means.sum().backward()
    assert small.grad is not None
    assert (small.grad != 0).all()


def test_a_file_holds_the_gains() -> None:
    scale, raw, quality, idle = drawn()
    fresh = MeanScale().eval()
    fresh.load(scale.to_tensors("m"), "m")
    assert torch.equal(fresh(raw, quality, idle), scale(raw, quality, idle))


@pytest.mark.parametrize("wrong", [None, torch.zeros(63), torch.zeros(64, dtype=torch.float64)])
def test_another_layout_is_refused(wrong: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"m\.gains"):
        MeanScale().load({} if wrong is None else {"m.gains": wrong}, "m")


def test_what_ships_has_no_jumps() -> None:
    means = IntraModel.frozen(load_named("intra-tiny-9")[0]).latents.prior.means
    octaves = means.gains.log2()
    assert float(octaves.diff().abs().max()) < 0.7  # it was 1 at four qualities
    assert float(octaves[-1] - octaves[0]) == pytest.approx(4, abs=0.7)


def test_fitting_makes_bits_and_error_less(monkeypatch: pytest.MonkeyPatch) -> None:
    model = IntraModel.frozen(load_named("intra-tiny-9")[0])
    means, chance, net = model.latents.prior.means, torch.Generator().manual_seed(0), Lpips.load()
    soft = torch.rand(2, 3, 8, 8, generator=chance)
    x = torch.nn.functional.interpolate(soft, size=(96, 96), mode="bicubic").clamp(0, 1)
    monkeypatch.setattr(mean_gains, "NUM_QUALITIES", 2)
    means.gains[:2] *= 4
    before = [mean_gains.cost(model, net, x, q, float(means.gains[q])) for q in (0, 1)]
    others = means.gains[2:].clone()
    mean_gains.fit_means(model, x)
    for q in (0, 1):
        assert mean_gains.cost(model, net, x, q, float(means.gains[q])) < before[q]
    assert torch.equal(means.gains[2:], others)


def test_a_parabola_says_where_costs_are_least() -> None:
    places = [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert mean_gains.lowest(places, [(x - 0.1) ** 2 for x in places]) == pytest.approx(0.1)
    assert mean_gains.lowest(places, [-x for x in places]) == pytest.approx(0.25)  # no bend: the last but one
    assert mean_gains.lowest(places, [(x + 0.9) ** 2 for x in places]) == pytest.approx(-0.5)  # never beyond
