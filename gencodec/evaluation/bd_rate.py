"""BD-rate: the mean difference of two rate-quality curves, in percent of the anchor's rate at equal quality.

Bjøntegaard, VCEG-M33 (2001): log10 of the rate as a function of quality, its mean over the qualities that
both curves have. Interpolated piecewise: PCHIP (JCTVC-I0409) or Akima. Negative: the test needs less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Interpolation = Literal["pchip", "akima"]
Curve = Sequence[tuple[float, float]]  # (rate, quality) of each point, in any order

MEANINGFUL_OVERLAP = 30.0  # percent; below it a BD-rate says little
MIN_POINTS: Mapping[str, int] = {"pchip": 2, "akima": 3}
BOOTSTRAP_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class BdRate:
    """`percent` is None where the curves have no quality in common; `low`, `high`: 95 % over clips."""

    percent: float | None
    overlap_percent: float  # of the union of both quality ranges
    low: float | None = None
    high: float | None = None

    @property
    def meaningful(self) -> bool:
        """Whether the curves share enough of their range."""
        return self.percent is not None and self.overlap_percent >= MEANINGFUL_OVERLAP

    def __str__(self) -> str:
        if self.percent is None:
            return "no quality in common"
        note = "" if self.meaningful else f" (not meaningful: {self.overlap_percent:.0f} % overlap)"
        return f"{self.percent:+.1f} %{note}"


def bd_rate(
    anchor: Curve, test: Curve, *, lower_is_better: bool, interpolation: Interpolation = "pchip"
) -> BdRate:
    """BD-rate of `test` against `anchor`, points (rate > 0, quality).

    Points that a cheaper one equals or beats are left out, for the curve must be a function of quality.
    Raises ValueError for a rate or quality that is not finite, a rate of 0, or an unknown interpolation.
    """
    if interpolation not in MIN_POINTS:
        raise ValueError(f"interpolation is one of {', '.join(MIN_POINTS)}, got {interpolation!r}")
    sign = -1.0 if lower_is_better else 1.0
    curves = [envelope([(rate, sign * quality) for rate, quality in curve]) for curve in (anchor, test)]
    if any(len(curve) < MIN_POINTS[interpolation] for curve in curves):
        return BdRate(None, 0.0)
    (low_a, high_a), (low_t, high_t) = ((curve[0][1], curve[-1][1]) for curve in curves)
    low, high = max(low_a, low_t), min(high_a, high_t)
    if high <= low:
        return BdRate(None, 0.0)
    overlap = 100 * (high - low) / (max(high_a, high_t) - min(low_a, low_t))
    logs = [[(float(np.log10(rate)), quality) for rate, quality in curve] for curve in curves]
    means = [_mean_over(curve, low, high, interpolation) for curve in logs]
    return BdRate(float(100 * (10 ** (means[1] - means[0]) - 1)), float(overlap))


def bd_psnr(anchor: Curve, test: Curve, *, interpolation: Interpolation = "pchip") -> float | None:
    """How much more PSNR `test` has than `anchor`, in dB, mean over the log rates that both have.

    The same of any quality that is better the higher. None where no rate is common. Raises as `bd_rate`.
    """
    if interpolation not in MIN_POINTS:
        raise ValueError(f"interpolation is one of {', '.join(MIN_POINTS)}, got {interpolation!r}")
    curves = [
        [(psnr, float(np.log10(rate))) for rate, psnr in envelope(curve)] for curve in (anchor, test)
    ]  # `_mean_over` wants the axis second
    if any(len(curve) < MIN_POINTS[interpolation] for curve in curves):
        return None
    low, high = max(curve[0][1] for curve in curves), min(curve[-1][1] for curve in curves)
    if high <= low:
        return None
    means = [_mean_over(curve, low, high, interpolation) for curve in curves]
    return means[1] - means[0]


def envelope(curve: Curve) -> list[tuple[float, float]]:
    """Points (rate, higher is better) by rising rate, without those that a cheaper one equals or beats."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not (np.isfinite(rate) and np.isfinite(quality) and rate > 0):
            raise ValueError(f"a curve's rates are positive and its values finite, got {(rate, quality)}")
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return kept


def bd_rate_over_clips(
    anchor: Mapping[str, Curve],
    test: Mapping[str, Curve],
    *,
    lower_is_better: bool,
    interpolation: Interpolation = "pchip",
    seed: int = 0,
) -> BdRate:
    """BD-rate of the mean curves, with a bootstrap interval over the clips that both have.

    A clip's curve lists its points by setting, the same settings in every clip; the mean is taken point by
    point. Raises ValueError where the clips' curves differ in length.
    """
    clips = sorted(set(anchor) & set(test))

    def of(chosen: Sequence[str]) -> BdRate:
        means = [mean_curve([curves[clip] for clip in chosen]) for curves in (anchor, test)]
        return bd_rate(means[0], means[1], lower_is_better=lower_is_better, interpolation=interpolation)

    if not clips:
        return BdRate(None, 0.0)
    result = of(clips)
    low, high = _bootstrap(lambda chosen: of(chosen).percent, clips, seed)
    return BdRate(result.percent, result.overlap_percent, low, high)


def mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Mean rate and mean quality of the clips at each setting. Raises ValueError for unequal lengths."""
    if len({len(curve) for curve in curves}) != 1:
        raise ValueError("every clip needs the same settings: some clip lacks a point")
    return [(float(rate), float(quality)) for rate, quality in np.mean(np.asarray(curves, float), axis=0)]


def _mean_over(
    curve: list[tuple[float, float]], low: float, high: float, interpolation: Interpolation
) -> float:
    """The mean of the first numbers of points, as a function of the second, from `low` to `high` of these."""
    from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

    values, places = (np.array(column) for column in zip(*curve, strict=True))
    make = {"pchip": PchipInterpolator, "akima": Akima1DInterpolator}[interpolation]
    return float(make(places, values).integrate(low, high) / (high - low))


def _bootstrap(
    statistic: Callable[[Sequence[str]], float | None], clips: Sequence[str], seed: int
) -> tuple[float | None, float | None]:
    """The middle 95 % of the statistic over clips drawn with replacement; none for fewer than three clips."""
    if len(clips) < 3:
        return None, None
    draws = np.random.default_rng(seed).integers(0, len(clips), (BOOTSTRAP_ROUNDS, len(clips)))
    values = [value for row in draws if (value := statistic([clips[i] for i in row])) is not None]
    if not values:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
