"""BD-rate against the `bjontegaard` package, and where it must not be trusted."""

from __future__ import annotations

import math
import random
import warnings

import pytest

from gencodec.evaluation.bd_rate import bd_psnr, bd_rate, bd_rate_over_clips, envelope


def curve(seed: int, scale: float = 1.0, points: int = 6) -> list[tuple[float, float]]:
    """A rising curve (rate, dB)."""
    generator = random.Random(seed)
    rates = [scale * 0.01 * 2**i * generator.uniform(0.8, 1.2) for i in range(points)]
    return [(r, 30 + 4 * math.log2(r / scale / 0.01) + generator.uniform(-0.5, 0.5)) for r in rates]


@pytest.mark.parametrize("way", ["pchip", "akima"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_reference(way: str, seed: int) -> None:
    reference = pytest.importorskip("bjontegaard")
    anchor, test = curve(seed), curve(seed + 100, 0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference.bd_rate(
            *zip(*anchor, strict=True), *zip(*test, strict=True), method=way, min_overlap=0
        )
    found = bd_rate(anchor, test, lower_is_better=False, interpolation=way)  # type: ignore[arg-type]
    assert found.percent == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("way", ["pchip", "akima"])
@pytest.mark.parametrize("seed", range(6))
def test_psnr_at_equal_rate_equals_the_reference(way: str, seed: int) -> None:
    reference = pytest.importorskip("bjontegaard")
    anchor, test = curve(seed), curve(seed + 100, 0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference.bd_psnr(
            *zip(*anchor, strict=True), *zip(*test, strict=True), method=way, min_overlap=0
        )
    assert bd_psnr(anchor, test, interpolation=way) == pytest.approx(expected, abs=0.01)  # type: ignore[arg-type]


def test_psnr_at_equal_rate_needs_rates_in_common() -> None:
    anchor = curve(1)
    assert bd_psnr(anchor, [(rate, quality + 2) for rate, quality in anchor]) == pytest.approx(2)
    assert bd_psnr(anchor, [(1000 * rate, quality) for rate, quality in anchor]) is None
    assert bd_psnr(anchor, anchor[:1]) is None
    with pytest.raises(ValueError, match="interpolation is one of"):
        bd_psnr(anchor, anchor, interpolation="cubic")  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["pchip", "akima"])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_scaled_rate_is_found_exactly(way: str, factor: float) -> None:
    anchor = curve(1)
    test = [(factor * rate, quality) for rate, quality in anchor]
    found = bd_rate(anchor, test, lower_is_better=False, interpolation=way)  # type: ignore[arg-type]
    assert found.percent == pytest.approx(100 * (factor - 1))
    assert found.overlap_percent == pytest.approx(100)


def test_lower_is_better_is_the_mirror_image() -> None:
    anchor, test = curve(2), curve(3, 0.8)
    mirrored = [[(rate, -quality) for rate, quality in c] for c in (anchor, test)]
    assert bd_rate(*mirrored, lower_is_better=True) == bd_rate(anchor, test, lower_is_better=False)


def test_what_cannot_be_compared_is_said_so() -> None:
    low, high = [(0.1, 20.0), (0.2, 25.0)], [(0.1, 30.0), (0.2, 35.0)]
    nothing = bd_rate(low, high, lower_is_better=False)
    assert nothing.percent is None
    assert not nothing.meaningful
    touching = bd_rate([(0.1, 20.0), (0.2, 31.0)], high, lower_is_better=False)
    assert touching.overlap_percent == pytest.approx(100 / 15)
    assert "not meaningful" in str(touching)
    assert bd_rate(low[:1], high, lower_is_better=False).percent is None


def test_points_that_a_cheaper_one_beats_are_left_out() -> None:
    assert envelope([(3, 5.0), (1, 4.0), (2, 3.0)]) == [(1, 4.0), (3, 5.0)]
    for bad in [(0.0, 1.0), (1.0, math.nan), (math.inf, 1.0)]:
        with pytest.raises(ValueError, match="positive"):
            envelope([bad])


def test_the_interval_over_clips_holds_the_mean_and_is_repeatable() -> None:
    anchor = {str(i): curve(i) for i in range(7)}
    test = {str(i): [(0.6 * r * (1 + 0.05 * i), q) for r, q in curve(i)] for i in range(7)}
    found = bd_rate_over_clips(anchor, test, lower_is_better=False)
    assert found.low is not None
    assert found.high is not None
    assert found.percent is not None
    assert found.low < found.percent < found.high
    assert found == bd_rate_over_clips(anchor, test, lower_is_better=False)
    two = {name: anchor[name] for name in ("0", "1")}
    assert bd_rate_over_clips(two, test, lower_is_better=False).low is None
    with pytest.raises(ValueError, match="some clip lacks"):
        bd_rate_over_clips(anchor | {"0": anchor["0"][:3]}, test, lower_is_better=False)
