"""Symbols chosen for LPIPS: what they gain, that streams are of one form, and that decoders know nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

import gencodec
from gencodec.codec import Tune, VideoInfo
from gencodec.demo import SAMPLE
from gencodec.entropy.coder import SymbolEncoder
from gencodec.entropy.tables import gaussian_tables
from gencodec.methods.intra.codec import Intra
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.intra.perceptual import LARGEST, View, Wish, bits_of, costs_of
from gencodec.methods.s2vc.codec import S2vc
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.methods.s2vc.model import CYCLE
from gencodec.metrics.lpips import Lpips
from gencodec.nn.layers import rounded
from gencodec.rate import ConstantQuality
from gencodec.video import open_video

TUNES: tuple[Tune, ...] = ("lpips", "psnr")


@pytest.fixture(scope="module")
def frame() -> Tensor:
    with open_video(SAMPLE, frames=(0, 1)) as video:
        return next(iter(video))[:, 32:160, 64:256].contiguous()


@pytest.fixture(scope="module")
def key() -> KeyFrameCoder:
    return cast("Intra", gencodec.create("intra", device="cpu")).coder


def loop_of(tune: Tune) -> LoopCoder:
    return cast("S2vc", gencodec.create("s2vc", device="cpu", tune=tune)).loop


@pytest.mark.parametrize(("quality", "least"), [(12, 0.03), (24, 0.1), (40, 0.15)])
def test_coded_pictures_look_better_at_the_same_rate(frame: Tensor, quality: int, least: float) -> None:
    """Above all where there are many symbols to choose among."""
    lpips, x = Lpips.load(), frame[None].float() / 255
    sizes, distances = [], []
    for tune in TUNES:
        payload, coded = loop_of(tune).encode_key(frame, quality)
        sizes.append(len(payload))
        distances.append(float(lpips.distance(coded.frame.picture[..., : x.shape[2], : x.shape[3]], x)))
    # at these rates a tenth more rate is worth about a twentieth of the distance
    gain = np.log(distances[1] / distances[0]) - 0.5 * np.log(sizes[0] / sizes[1])
    assert gain > least


def test_only_anchors_are_chosen(frame: Tensor) -> None:
    """Frames between them have next to no symbols, and are rounded whatever the tune."""
    chosen, plain = loop_of("lpips"), loop_of("psnr")
    _, key = plain.encode_key(frame, 40)
    bright = (frame.float() * 0.9).to(torch.uint8)
    assert chosen.encode(bright, key.state, 40)[0] == plain.encode(bright, key.state, 40)[0]
    third = key.state._replace(age=CYCLE - 1)
    assert chosen.encode(bright, third, 40)[0] != plain.encode(bright, third, 40)[0]


def test_symbols_cost_what_tables_say() -> None:
    tables = gaussian_tables(skip=0)
    index = np.repeat(np.arange(tables.num_tables), 2 * LARGEST + 1)
    symbols = np.tile(np.arange(-LARGEST, LARGEST + 1), tables.num_tables)
    found = bits_of(torch.from_numpy(symbols).float(), torch.from_numpy(index), costs_of(tables))
    assert float(found) == pytest.approx(tables.bits(symbols, index).sum(), rel=1e-3)


def test_bits_lead_towards_zero() -> None:
    symbols = torch.tensor([-3.0, 2.0, 1.0], requires_grad=True)
    tables = gaussian_tables(skip=0)
    bits_of(symbols, torch.tensor([20, 20, 20]), costs_of(tables)).backward()
    assert symbols.grad is not None
    assert torch.equal(symbols.grad.sign(), torch.tensor([-1.0, 1.0, 1.0]))


def test_rounding_has_a_dead_zone() -> None:
    values = torch.tensor([0.59, 0.61, -1.59, -1.61, 0.0])
    assert rounded(values, 0.6).tolist() == [0, 1, -1, -2, 0]


def test_what_is_chosen_without_means_can_be_coded_as_it_is(frame: Tensor) -> None:
    """Symbols of residuals are whole numbers, none where the tables code nothing, and the same each time."""
    loop = loop_of("lpips")
    _, key = loop.encode_key(frame, 40)
    x, before = frame[None].float() / 255 * 0.9, key.state.picture
    still = loop.loop.moved(key.state.memory, torch.zeros(1, 2, 8, 12))
    own = torch.tensor([40])
    y = loop.loop.to_latents(x, before, own)
    wish = Wish(y, x, lambda y_hat: loop.loop.to_picture(y_hat, before, own)[0], 1.0, 0.6)
    symbols = loop.quantiser(wish, 40, still)
    _, index = loop.latents.expected(rounded(y, 0.6), 40, still)
    assert torch.equal(symbols, symbols.round())
    assert not symbols[index < loop.latents.tables.skip].any()
    assert torch.equal(symbols, loop.quantiser(wish, 40, still))
    assert not torch.equal(symbols, rounded(y, 0.6)), "nothing was chosen"


def test_what_is_chosen_with_means_is_near_what_was_wanted(frame: Tensor, key: KeyFrameCoder) -> None:
    """The coder rounds by the means that it meets: what comes back is half a step off, not more."""
    x, q = frame[None].float() / 255, torch.tensor([12])
    transforms = key.model.transforms
    y = transforms.to_latents(x, q)
    wish = Wish(y, x, lambda y_hat: transforms.to_linear_picture(y_hat, q)[0], 1.0)
    chosen = key.quantiser(wish, 12)
    _, index = key.latents.expected(chosen, 12)
    missed = (key.latents.encode(SymbolEncoder(), chosen, 12).y_hat - chosen).abs()
    assert float(missed[index >= key.latents.tables.skip].max()) <= 0.5
    assert torch.equal(chosen, key.quantiser(wish, 12))
    assert not torch.equal(chosen.round(), y.round()), "nothing was chosen"


def test_bits_can_be_made_dear(frame: Tensor, key: KeyFrameCoder) -> None:
    x = frame[None].float() / 255
    transforms, q = key.model.transforms, torch.tensor([30])
    sizes = []
    for price in (0.01, 10.0):
        encoder = SymbolEncoder()
        wish = Wish(transforms.to_latents(x, q), x, lambda y: transforms.to_linear_picture(y, q)[0], price)
        key.latents.encode(encoder, key.quantiser(wish, 30), 30)
        sizes.append(len(encoder.finish()))
    assert sizes[1] < 0.9 * sizes[0]


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (3, 130)])
def test_frames_of_any_size(size: tuple[int, int]) -> None:
    frames = [torch.full((3, *size), 40 * n, dtype=torch.uint8) for n in range(6)]
    codec, info = gencodec.create("s2vc", device="cpu"), VideoInfo(size[1], size[0], Fraction(24), 6)
    back = list(codec.decode(codec.encode(frames, info, ConstantQuality(32)), info))
    assert [one.shape for one in back] == [one.shape for one in frames]


def test_encoding_works_in_inference_mode(frame: Tensor) -> None:
    codec = gencodec.create("s2vc", device="cpu")
    info = VideoInfo(frame.shape[2], frame.shape[1], Fraction(24), 5)
    outside = list(codec.encode([frame] * 5, info, ConstantQuality(20)))
    with torch.inference_mode():
        assert list(codec.encode([frame] * 5, info, ConstantQuality(20))) == outside


def test_decoders_load_no_judge(frame: Tensor) -> None:
    codec = cast("S2vc", gencodec.create("s2vc", device="cpu"))
    fresh = cast("S2vc", gencodec.create("s2vc", device="cpu"))
    info = VideoInfo(frame.shape[2], frame.shape[1], Fraction(24), 1)
    list(fresh.decode(codec.encode([frame], info, ConstantQuality(5)), info))
    assert "quantiser" in vars(codec.loop.key)
    assert "quantiser" not in vars(fresh.loop.key)


def test_an_unknown_tune_is_refused() -> None:
    with pytest.raises(ValueError, match="lpips or psnr"):
        gencodec.create("intra", device="cpu", tune=cast("Tune", "ssim"))


def test_a_view_shows_both_pictures_alike() -> None:
    picture = torch.rand(1, 3, 48, 64)
    for seed in range(8):
        view = View.drawn(np.random.default_rng(seed), 48, 64)
        assert torch.equal(view.of(picture), view.of(picture.clone()))
        assert view.of(picture).mean() == pytest.approx(float(picture.mean()), abs=0.05)
