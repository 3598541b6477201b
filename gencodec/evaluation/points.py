"""Which settings of each codec to measure, so that all curves cover a common range of rates.

Settings say nothing about rates before one has encoded: a few probes of one clip give each codec's rate as a
function of its setting, and settings are then picked at rates spaced evenly in the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

PROBES = 4
ROOM = 2.0  # how far beyond the methods' range anchors go: at equal quality they need more


def probe_settings(settings: Sequence[int], count: int = PROBES) -> list[int]:
    """Settings to probe: evenly over the range, both ends with it."""
    places = np.unique(np.linspace(0, len(settings) - 1, count).round().astype(int))
    return [settings[i] for i in places]


def choose_settings(
    rates: Mapping[int, float], settings: Sequence[int], targets: Sequence[float]
) -> list[int]:
    """The settings whose interpolated rates are nearest to `targets`, each once, by rising rate.

    `rates` are those of the probed settings. Fewer than `targets` where the codec has no more of them.
    """
    places = sorted(settings.index(setting) for setting in rates)
    logs = np.log([rates[settings[i]] for i in places])
    curve = np.interp(np.arange(len(settings)), places, np.maximum.accumulate(logs))
    chosen: set[int] = set()
    for target in targets:
        free = [i for i in range(len(settings)) if i not in chosen]
        if free:
            chosen.add(min(free, key=lambda i: abs(curve[i] - math.log(target))))
    return [settings[i] for i in sorted(chosen)]


def common_range(rates: Mapping[str, Mapping[int, float]]) -> tuple[float, float]:
    """The rates that every codec reaches; where there are none, all that any one reaches."""
    lows, highs = ([pick(r.values()) for r in rates.values()] for pick in (min, max))
    low, high = max(lows), min(highs)
    return (low, high) if high > 1.5 * low else (min(lows), max(highs))


def plan(
    settings: Mapping[str, Sequence[int]],
    anchors: Sequence[str],
    count: int,
    rate_of: Callable[[str, int], float],
) -> dict[str, list[int]]:
    """`count` settings of each codec; `rate_of(codec, setting)` encodes a probe and returns its rate.

    The methods (all but `anchors`) share the range that all of them reach; anchors go on beyond its ends by a
    factor of `ROOM`, as far as they can.
    """
    rates = {
        name: {setting: rate_of(name, setting) for setting in probe_settings(ladder)}
        for name, ladder in settings.items()
    }
    methods = {name: r for name, r in rates.items() if name not in anchors} or rates
    low, high = common_range(methods)
    chosen = {}
    for name, ladder in settings.items():
        room = ROOM if name in anchors and name not in methods else 1.0
        targets = np.geomspace(low / room, high * room, count)
        reach = min(rates[name].values()), max(rates[name].values())
        chosen[name] = choose_settings(rates[name], ladder, np.clip(targets, *reach).tolist())
    return chosen
