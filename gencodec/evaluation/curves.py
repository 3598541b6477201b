"""Rate-quality curves as SVG: small multiples, one for each metric, hover texts on every point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from gencodec.evaluation.tables import Table
from gencodec.metrics.suite import METRICS

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 44  # room around the plot
COLOURS = ("#0b6fd0", "#d1495b", "#2f9e44", "#b3730a", "#7b4fd1", "#0c8599", "#c2255c", "#5c636a")
DASHED = "6 4"

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:currentColor}"
    ".grid{stroke:currentColor;opacity:.15}.axis{stroke:currentColor;opacity:.6}"
    ".title{font-weight:600}"
)


def curves_svg(table: Table, columns: int = 2) -> str:
    """One picture of all metrics with a legend; colours follow the order of the codecs."""
    metrics = shown_metrics(table)
    rows = math.ceil(len(metrics) / columns) if metrics else 0
    width, height = columns * WIDTH, rows * HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Rate against quality"><style>{STYLE}</style>',
        legend(table.codecs),
    ]
    for i, metric in enumerate(metrics):
        x, y = i % columns * WIDTH, 30 + i // columns * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{plot(table, metric)}</g>')
    return "".join([*parts, "</svg>"])


def single_plots(table: Table) -> list[str]:
    """A picture for each metric, for a page that lays them out by its width."""
    style = f"<style>{STYLE}</style>"
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(METRICS[metric].label)} against rate">{style}{plot(table, metric)}</svg>'
        for metric in shown_metrics(table)
    ]


def shown_metrics(table: Table) -> list[str]:
    """Those that any codec has a value of."""
    return [m for m in table.metrics if any(table.curve(codec, m) for codec in table.codecs)]


def legend(codecs: Sequence[str]) -> str:
    """A line of colour keys."""
    parts, x = [], LEFT
    for i, codec in enumerate(codecs):
        parts.append(
            f'<rect x="{x}" y="9" width="12" height="12" rx="2" fill="{colour(i)}"/>'
            f'<text x="{x + 17}" y="19">{escape(codec)}</text>'
        )
        x += 34 + 8 * len(codec)
    return "".join(parts)


def colour(i: int) -> str:
    """Of the i-th codec."""
    return COLOURS[i % len(COLOURS)]


def plot(table: Table, metric: str) -> str:
    """The axes and every codec's curve for one metric."""
    curves = {codec: table.curve(codec, metric) for codec in table.codecs}
    points = [point for curve in curves.values() for point in curve]
    rates, values = ([p[k] for p in points] for k in range(2))
    place = _Axes((min(rates), max(rates)), (min(values), max(values)))
    info = METRICS[metric]
    better = "lower is better" if info.lower_is_better else "higher is better"
    parts = [f'<text class="title" x="{LEFT}" y="18">{escape(info.label)}, {better}</text>', place.grid()]
    for i, (codec, curve) in enumerate(curves.items()):
        spots = [(*place.at(rate, value), rate, value) for rate, value in curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in spots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour(i)}" stroke-width="2"/>')
        for x, y, rate, value in spots:
            text = f"{escape(codec)}: {rate:.4f} bpp, {value:.{info.digits}f}"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour(i)}"><title>{text}</title></circle>'
            )
    return "".join(parts)


class _Axes:
    """Logarithmic rates from left to right, values from bottom to top."""

    def __init__(self, rates: tuple[float, float], values: tuple[float, float]) -> None:
        low, high = rates
        room = (high / low) ** 0.04 if high > low else 1.2
        self.rates = low / room, high * room
        spread = (values[1] - values[0]) * 0.06 or 1.0
        self.values = values[0] - spread, values[1] + spread

    def at(self, rate: float, value: float) -> tuple[float, float]:
        """Pixels of a point."""
        low, high = (math.log(r) for r in self.rates)
        x = LEFT + (math.log(rate) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        share = (value - self.values[0]) / (self.values[1] - self.values[0])
        return x, HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def grid(self) -> str:
        """Lines and numbers."""
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for rate in rate_ticks(*self.rates):
            x, _ = self.at(rate, self.values[0])
            parts.append(
                f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>'
                f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{rate:g}</text>'
            )
        for value in value_ticks(*self.values):
            _, y = self.at(self.rates[0], value)
            parts.append(
                f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
        parts.append(f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">bits per pixel</text>')
        return "".join(parts)


def rate_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range of rates."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [v for d in decades for m in (1, 2, 5) if low <= (v := float(f"{m}e{d}")) <= high]


def value_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers within a range."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= count)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]
