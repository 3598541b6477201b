"""Rate-quality curves as SVG: small multiples, one for each metric, hover texts on every point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gencodec.evaluation.published import Curve, Published
from gencodec.evaluation.tables import Table
from gencodec.metrics.suite import METRICS

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 44  # room around the plot
COLOURS = ("#0b6fd0", "#d1495b", "#2f9e44", "#b3730a", "#7b4fd1", "#0c8599", "#c2255c", "#5c636a")
DASHED = "6 4"  # published curves, thinner too
ROW = 24  # height of a line of the legend

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:currentColor}"
    ".grid{stroke:currentColor;opacity:.15}.axis{stroke:currentColor;opacity:.6}"
    ".title{font-weight:600}"
)


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    text: str
    colour: str
    dashed: bool = False


def curves_svg(table: Table, published: Published | None = None, columns: int = 2) -> str:
    """One picture of all metrics with a legend; colours follow the order of the codecs."""
    metrics = shown_metrics(table)
    rows = math.ceil(len(metrics) / columns) if metrics else 0
    keys, top = legend(legend_keys(table, published), columns * WIDTH)
    width, height = columns * WIDTH, rows * HEIGHT + top
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Rate against quality"><style>{STYLE}</style>',
        keys,
    ]
    for i, metric in enumerate(metrics):
        x, y = i % columns * WIDTH, top + i // columns * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{plot(table, metric, published)}</g>')
    return "".join([*parts, "</svg>"])


def single_plots(table: Table, published: Published | None = None) -> list[str]:
    """A picture for each metric, for a page that lays them out by its width."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(METRICS[metric].label)} against rate"><style>{STYLE}</style>'
        f"{plot(table, metric, published)}</svg>"
        for metric in shown_metrics(table)
    ]


def shown_metrics(table: Table) -> list[str]:
    """Those that any codec has a value of."""
    return [m for m in table.metrics if any(table.curve(codec, m) for codec in table.codecs)]


def legend_keys(table: Table, published: Published | None = None) -> list[Key]:
    """Codecs, then what others published; its colours go on where those of the codecs end."""
    codecs = table.codecs
    others = published_codecs(table, published)
    return [Key(codec, colour(i)) for i, codec in enumerate(codecs)] + [
        Key(note_of(codec), colour(i), dashed=True) for i, codec in enumerate(others, len(codecs))
    ]


def published_codecs(table: Table, published: Published | None) -> list[str]:
    """Those that any shown metric has a published curve of."""
    found = [codec for metric in shown_metrics(table) for codec in _published(published, metric)]
    return list(dict.fromkeys(found))


def note_of(codec: str) -> str:
    """What a published curve is called."""
    return f"{codec} (published, other harness)"


def legend(keys: Sequence[Key], width: int) -> tuple[str, int]:
    """Lines of colour keys within a width, and their height."""
    parts, x, y = [], LEFT, 15
    for key in keys:
        room = 38 + 7 * len(key.text)
        if x > LEFT and x + room > width:
            x, y = LEFT, y + ROW
        dash = f' stroke-width="2" stroke-dasharray="{DASHED}"' if key.dashed else ' stroke-width="12"'
        parts.append(
            f'<path d="M{x} {y}h16" stroke="{key.colour}"{dash}/>'
            f'<text x="{x + 21}" y="{y + 4}">{escape(key.text)}</text>'
        )
        x += room
    return "".join(parts), y + 15


def colour(i: int) -> str:
    """Of the i-th codec."""
    return COLOURS[i % len(COLOURS)]


def plot(table: Table, metric: str, published: Published | None = None) -> str:
    """The axes and every codec's curve for one metric, published ones dashed; the axes hold all of them."""
    curves = {codec: table.curve(codec, metric) for codec in table.codecs}
    others, order = _published(published, metric), published_codecs(table, published)
    points = [point for curve in (*curves.values(), *others.values()) for point in curve]
    rates, values = ([p[k] for p in points] for k in range(2))
    place = _Axes((min(rates), max(rates)), (min(values), max(values)))
    info = METRICS[metric]
    better = "lower is better" if info.lower_is_better else "higher is better"
    parts = [f'<text class="title" x="{LEFT}" y="18">{escape(info.label)}, {better}</text>', place.grid()]
    for codec, curve in others.items():  # first, so that they lie below
        key = Key(note_of(codec), colour(len(curves) + order.index(codec)), dashed=True)
        parts.append(_line(key, curve, place, info.digits))
    for i, (codec, curve) in enumerate(curves.items()):
        parts.append(_line(Key(codec, colour(i)), curve, place, info.digits))
    return "".join(parts)


def _published(published: Published | None, metric: str) -> dict[str, Curve]:
    return published.curves.get(metric, {}) if published else {}


def _line(key: Key, curve: Curve, place: _Axes, digits: int) -> str:
    """A curve and its points, each with a hover text."""
    spots = [(*place.at(rate, value), rate, value) for rate, value in curve]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in spots)
    way = f'stroke-width="1.25" stroke-dasharray="{DASHED}"' if key.dashed else 'stroke-width="2"'
    parts = [f'<polyline points="{line}" fill="none" stroke="{key.colour}" {way}/>']
    for x, y, rate, value in spots:
        text = f"{escape(key.text)}: {rate:.4f} bpp, {value:.{digits}f}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2.5 if key.dashed else 4}" fill="{key.colour}">'
            f"<title>{text}</title></circle>"
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
