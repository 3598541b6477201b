"""How much of a repair is shown, region by region: on the wire, at a decoder, at an encoder."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_clip

from gencodec.codec import CorruptStream
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.coder_ref import SymbolDecoderRef as TwinDecoder
from gencodec.entropy.coder_ref import SymbolEncoderRef as TwinEncoder
from gencodec.entropy.shares import BITS, COUNTS, get_shares, neighbours, put_shares
from gencodec.entropy.tables import TOTAL
from gencodec.methods.intra.cheapest import cheapest
from gencodec.methods.intra.share_choice import Seen, choose_shares
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.shares import PLAIN, REGION, SHARES, grid_of, share_map, shown

GRIDS = [(1, 1), (1, 5), (3, 1), (4, 7), (16, 28)]


def drawn(grid: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(SHARES), grid, np.int32)


def written(index: np.ndarray | None, *, is_key: bool) -> bytes:
    encoder = SymbolEncoder()
    put_shares(encoder, index, is_key=is_key)
    return encoder.finish()


# ---- on the wire -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("is_key", [True, False])
def test_shares_come_back(grid: tuple[int, int], is_key: bool) -> None:
    for index in (drawn(grid), None):
        payload = written(index, is_key=is_key)
        decoder = SymbolDecoder(payload)
        back = get_shares(decoder, grid, is_key=is_key)
        decoder.finish()
        assert (back is None) == (index is None)
        assert index is None or (back is not None and np.array_equal(back, index) and back.dtype == np.int32)


def test_the_twin_writes_and_reads_the_same() -> None:
    index = drawn((3, 4))
    encoder = TwinEncoder()
    put_shares(encoder, index, is_key=True)
    payload = encoder.finish()
    assert payload == written(index, is_key=True)
    back = get_shares(TwinDecoder(payload), (3, 4), is_key=True)
    assert back is not None
    assert np.array_equal(back, index)


def test_counts_are_probabilities_that_fall_with_the_distance() -> None:
    assert (COUNTS >= 1).all()
    assert (COUNTS.sum(2) == TOTAL).all()
    for k in range(len(SHARES)):
        ahead, behind = COUNTS[k, k, k:], COUNTS[k, k, k::-1]
        assert (np.diff(ahead) < 0).all()
        assert (np.diff(behind) < 0).all()


@pytest.mark.parametrize("grid", [(16, 28), (68, 120)])
def test_bits_are_what_is_estimated(grid: tuple[int, int]) -> None:
    index = drawn(grid)
    left, above = neighbours(index)
    bits = BITS[left, above, index].sum()
    assert 8 * len(written(index, is_key=True)) == pytest.approx(bits + 32, rel=0.005, abs=40)


def test_one_share_everywhere_is_next_to_free() -> None:
    """Half a bit a region and less, and as much again along the border; nothing new: a fortieth of a bit."""
    for share in range(len(SHARES)):
        bits = 8 * len(written(np.full((16, 28), share, np.int32), is_key=True))
        assert bits < 0.5 * 16 * 28 + 4 * (16 + 28) + 32
    assert -math.log2(1 - 1 / 64) < 1 / 40
    assert len(written(None, is_key=False)) <= 4


def test_damaged_shares_are_refused_or_other_shares() -> None:
    payload, refused = written(drawn((4, 7)), is_key=True), 0
    generator = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(payload)
        broken[generator.integers(len(broken))] ^= 1 << int(generator.integers(8))
        try:
            decoder = SymbolDecoder(bytes(broken).rstrip(b"\0"))
            back = get_shares(decoder, (4, 7), is_key=True)
            assert back is None or (back.min() >= 0 and back.max() < len(SHARES))
            decoder.finish()
        except CorruptStream:
            refused += 1
    assert refused > 40


# ---- at a decoder ------------------------------------------------------------------------------------------


def test_shares_of_pixels() -> None:
    assert grid_of(1, 1) == (1, 1)
    assert grid_of(REGION, REGION + 1) == (1, 2)
    even = share_map(np.full((3, 4), PLAIN, np.int32), 48, 64)
    assert even.shape == (1, 1, 48, 64)
    assert (even == 1).all()
    index = drawn((3, 4))
    shares = share_map(index, 3 * 16, 4 * 16)[0, 0]
    centres = shares.unfold(0, 16, 16).unfold(1, 16, 16)[..., 7:9, 7:9].mean((2, 3))
    assert torch.allclose(centres, torch.tensor(SHARES)[torch.from_numpy(index).long()], atol=0.1)
    assert shares.min() >= min(SHARES)
    assert shares.max() <= max(SHARES)


def test_what_is_shown() -> None:
    noise = torch.Generator().manual_seed(0)
    coded, generated = torch.rand(2, 5, 3, 48, 64, generator=noise)
    assert shown(coded, generated, None) is generated
    plain, nothing = (np.full((3, 4), k, np.int32) for k in (PLAIN, SHARES.index(0.0)))
    assert torch.allclose(shown(coded, generated, plain), generated, atol=1e-6)
    assert torch.equal(shown(coded, generated, nothing), coded)
    half, double = (shown(coded, generated, np.full((3, 4), SHARES.index(s), np.int32)) for s in (0.5, 2.0))
    assert torch.allclose(half, (generated + coded) / 2, atol=1e-6)
    repair = generated - coded
    luma = 0.299 * repair[:, 0] + 0.587 * repair[:, 1] + 0.114 * repair[:, 2]
    assert torch.allclose(double, generated + luma[:, None], atol=1e-5), "beyond the whole repair luma alone"


# ---- at an encoder -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lpips() -> LpipsLoss:
    return LpipsLoss(Lpips.load(), half=False)


def test_regions_sum_up_to_the_distance(lpips: LpipsLoss) -> None:
    a, b = make_clip(2, 192, 128)[:, None].float() / 255
    b = b.flip(-1)
    by_region = lpips.by_region(torch.cat([a, b]), b, (8, 12))
    assert by_region.shape == (2, 8, 12)
    assert float(by_region[0].mean()) == pytest.approx(float(lpips(a, b)), rel=0.05)
    assert by_region[1].abs().max() < 1e-6


def test_a_difference_is_found_where_it_is(lpips: LpipsLoss) -> None:
    a = make_clip(1, 256, 256).float() / 255
    b = a.clone()
    b[..., 128:, :128] = b[..., 128:, :128].flip(-1)
    by_region = lpips.by_region(b, a, (2, 2))[0]
    assert by_region.argmax() == 2
    assert by_region[1, 0] > 5 * by_region[0, 1]


def halves(wanted: tuple[int, int]) -> Seen:
    """A frame whose left and right half are best with other shares of what was generated."""
    x = make_clip(1, 256, 128)[0].float() / 255
    x = 0.3 + 0.4 * x
    missing = 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 0.05
    missing = torch.nn.functional.avg_pool2d(missing[None].mean(1, keepdim=True), 3, 1, 1)[0].expand_as(x)
    left, right = (torch.tensor(max(SHARES[k], 1e-3)) for k in wanted)
    scale = torch.where(torch.arange(256) < 128, left, right)
    lack = torch.where(scale > 0.01, missing, 0 * missing)
    repair = torch.where(scale > 0.01, missing / scale, missing)
    return Seen(x - lack, x - lack + repair, x)


@pytest.mark.parametrize("wanted", [(4, 1), (0, 5), (2, 3)])
@pytest.mark.parametrize("by", ["lpips", "psnr"])
def test_each_region_gets_what_is_best_there(lpips: LpipsLoss, wanted: tuple[int, int], by: str) -> None:
    frame = halves(wanted)
    index = choose_shares([frame], 63, 1000, lpips if by == "lpips" else None)
    assert index is not None
    assert index.shape == grid_of(128, 256)
    away = np.abs(index - np.repeat(wanted, index.shape[1] // 2))
    assert away.mean() < 0.75
    even = [np.full(index.shape, k, np.int32) for k in range(len(SHARES))]
    pictures = [shown(frame.coded, frame.generated, i).clamp(0, 1)[None] for i in (index, *even)]
    missed = [float(lpips(p, frame.x[None])) for p in pictures]
    assert missed[0] < 0.7 * min(missed[1:])


def test_nothing_is_told_that_holds_already(lpips: LpipsLoss) -> None:
    frame = halves((4, 1))
    index = choose_shares([frame], 40, 100, lpips)
    assert index is not None
    assert choose_shares([frame], 40, 100, lpips, index) is None
    plain = halves((PLAIN, PLAIN))
    assert choose_shares([plain], 40, 100, lpips) is None
    back = choose_shares([plain], 40, 100, lpips, index)
    assert back is not None, "what held before is not what is best now"
    assert (back == PLAIN).all()


def total(missed: np.ndarray, index: np.ndarray, price: float) -> float:
    left, above = neighbours(index)
    own = np.take_along_axis(missed, index[None].astype(np.int64), 0).sum()
    return float(own + price * BITS[left, above, index].sum())


@pytest.mark.parametrize("price", [0.0, 0.01, 0.1, 10.0])
def test_bits_are_weighed(price: float) -> None:
    missed = np.random.default_rng(1).random((len(SHARES), 5, 6))
    index = cheapest(missed, price, BITS, PLAIN)
    greedy, even = missed.argmin(0).astype(np.int32), np.full((5, 6), missed.sum((1, 2)).argmin(), np.int32)
    assert total(missed, index, price) <= min(total(missed, i, price) for i in (greedy, even)) + 1e-9
    if price == 0:
        assert np.array_equal(index, greedy)
    if price == 10:
        assert (index == index[0, 0]).all()


def best_of_all(missed: np.ndarray, price: float) -> float:
    """The least cost of a row of three, by trying everything."""
    size = len(missed)
    every = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    return min(total(missed, index.astype(np.int32), price) for index in every)


def test_a_few_regions_are_settled_well() -> None:
    """Against the best of all, which is too slow for pictures."""
    generator = np.random.default_rng(2)
    gaps = []
    for _ in range(20):
        missed = generator.random((len(SHARES), 1, 3))
        best = best_of_all(missed, 0.05)
        gaps.append(total(missed, cheapest(missed, 0.05, BITS, PLAIN), 0.05) / best - 1)
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.03


def test_a_frame_that_is_judged_twice_is_looked_at_once(
    lpips: LpipsLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, calls = halves((4, 1)), list[object]()
    by_region = LpipsLoss.by_region

    def noted(*args: Any) -> torch.Tensor:
        calls.append(args)
        return by_region(*args)

    monkeypatch.setattr(LpipsLoss, "by_region", noted)
    first, again = (choose_shares([frame], 40, 100, lpips) for _ in range(2))
    assert first is not None
    assert again is not None
    assert np.array_equal(first, again)
    assert len(calls) == 1
    choose_shares([frame], 40, 100, lpips, texture=9.0)
    choose_shares([halves((4, 1))], 40, 100, lpips)
    assert len(calls) == 3, "what was asked for, or who looks, is another"


def test_choosing_leaves_no_gradients(lpips: LpipsLoss) -> None:
    frame = halves((4, 1))
    watched = replace(frame, generated=frame.generated.requires_grad_())
    choose_shares([watched], 40, 100, lpips)
    assert watched.generated.grad is None


# ---- statistics --------------------------------------------------------------------------------------------


def test_statistics_are_those_of_dists() -> None:
    """Over one region of the whole picture, on the same maps, what `Dists` would weigh evenly."""
    lpips = LpipsLoss(Lpips.load())
    a, b = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(3)).chunk(2)
    found = lpips.by_region(a, b, (1, 1), 1.0) - lpips.by_region(a, b, (1, 1))
    expected = []
    for x, y in zip([a, *lpips.backbone(a)], [b, *lpips.backbone(b)], strict=True):
        x, y = x[0].flatten(1), y[0].flatten(1)
        means, deviations = (x.mean(1), y.mean(1)), (x - x.mean(1, True), y - y.mean(1, True))
        first = (2 * means[0] * means[1] + 1e-6) / (means[0] ** 2 + means[1] ** 2 + 1e-6)
        pattern = 2 * (deviations[0] * deviations[1]).mean(1) + 1e-6
        second = pattern / ((deviations[0] ** 2).mean(1) + (deviations[1] ** 2).mean(1) + 1e-6)
        expected.append(1 - (first + second).mean() / 2)
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-3)


def test_statistics_tell_texture_from_none() -> None:
    """Another sample of the same noise is liked better than none, though every pixel is further away."""
    lpips, chance = LpipsLoss(Lpips.load()), torch.Generator().manual_seed(4)
    grain = 0.5 + 0.1 * torch.randn(2, 3, 64, 64, generator=chance)
    flat = torch.full((1, 3, 64, 64), 0.5)
    unlike = lpips.by_region(torch.cat([grain[:1], flat]), grain[1:], (2, 2), 1.0)
    unlike -= lpips.by_region(torch.cat([grain[:1], flat]), grain[1:], (2, 2))
    assert (unlike[0] < unlike[1]).all()
    same = lpips.by_region(flat, flat, (2, 2), 1.0)
    assert float(same.abs().max()) < 1e-6
