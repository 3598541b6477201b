"""From rows of points to means, BD-rates and a CSV.

Per clip the mean over frames, then the plain mean over clips; FID and KID are of all clips' patches together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gencodec.evaluation.bd_rate import BdRate, Interpolation, bd_rate, bd_rate_over_clips
from gencodec.evaluation.store import Row
from gencodec.metrics.fid import fid, kid
from gencodec.metrics.fvd import fvd, i3d_distance
from gencodec.metrics.suite import FEATURES_OF, METRICS

PREFERRED_ANCHORS = ("x265", "svtav1", "x264", "vp9")
OF_FEATURES = {"fid": fid, "kid": kid, "fvd": fvd, "i3d_distance": i3d_distance}


@dataclass
class Table:
    """`means`: one row for each codec and setting that every clip has."""

    rows: list[Row]
    metrics: tuple[str, ...]
    means: list[dict[str, Any]]
    _bd_rates: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, rows: list[Row], metrics: Sequence[str], features: Path) -> Table:
        """Average over clips; points that some clip lacks are left out of the means."""
        clips = {row["clip_sha256"] for row in rows}
        means = []
        for codec, setting in dict.fromkeys((row["codec"], row["setting"]) for row in rows):
            here = [row for row in rows if (row["codec"], row["setting"]) == (codec, setting)]
            if {row["clip_sha256"] for row in here} == clips:
                means.append({"codec": codec, "setting": setting, **_mean(here, metrics, features)})
        means.sort(key=lambda m: (codecs_of(rows).index(m["codec"]), m["bpp"]))
        return cls(rows, tuple(metrics), means)

    @property
    def codecs(self) -> list[str]:
        """In the order of the call."""
        return codecs_of(self.rows)

    def curve(self, codec: str, metric: str) -> list[tuple[float, float]]:
        """(bpp, value) of the means, by rising rate."""
        return [(m["bpp"], m[metric]) for m in self.means if m["codec"] == codec and metric in m]

    def anchor(self) -> str | None:
        """What BD-rates are against: x265 where it takes part, else another anchor."""
        return next((name for name in PREFERRED_ANCHORS if name in self.codecs), None)

    def bd_rates(self, anchor: str | None = None) -> list[dict[str, Any]]:
        """BD-rate of every other codec against the anchor, by metric, PCHIP and Akima."""
        anchor = anchor or self.anchor()
        if anchor is None:
            return []
        if anchor not in self._bd_rates:  # intervals take a second a number
            self._bd_rates[anchor] = self._all_bd_rates(anchor)
        return self._bd_rates[anchor]

    def _all_bd_rates(self, anchor: str) -> list[dict[str, Any]]:
        found = []
        for codec in self.codecs:
            for metric in self._ranked() if codec != anchor else ():
                main = self._bd_rate(anchor, codec, metric)
                found.append(
                    {
                        "codec": codec,
                        "anchor": anchor,
                        "metric": metric,
                        "percent": main.percent,
                        "low": main.low,
                        "high": main.high,
                        "overlap_percent": main.overlap_percent,
                        "meaningful": main.meaningful,
                        "akima_percent": self._of_means(anchor, codec, metric, "akima").percent,
                    }
                )
        return found

    def _ranked(self) -> list[str]:
        return [m for m in self.metrics if METRICS[m].ranks]

    def csv(self) -> str:
        """The means as CSV."""
        columns = ["codec", "setting", "bpp", "payload_bpp", *self.metrics, "encode_fps", "decode_fps"]
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(self.means)
        return out.getvalue()

    def _bd_rate(self, anchor: str, codec: str, metric: str) -> BdRate:
        if metric in FEATURES_OF:  # no value of a single clip, so no interval over clips
            return self._of_means(anchor, codec, metric, "pchip")
        both = [self._by_clip(name, metric) for name in (anchor, codec)]
        return bd_rate_over_clips(both[0], both[1], lower_is_better=METRICS[metric].lower_is_better)

    def _of_means(self, anchor: str, codec: str, metric: str, way: Interpolation) -> BdRate:
        curves = [self.curve(name, metric) for name in (anchor, codec)]
        lower = METRICS[metric].lower_is_better
        return bd_rate(curves[0], curves[1], lower_is_better=lower, interpolation=way)

    def _by_clip(self, codec: str, metric: str) -> dict[str, list[tuple[float, float]]]:
        settings = [m["setting"] for m in self.means if m["codec"] == codec and metric in m]
        place = {(r["clip"], r["setting"]): r for r in self.rows if r["codec"] == codec}
        clips = sorted({r["clip"] for r in self.rows})
        return {
            clip: [(place[clip, s]["bpp"], place[clip, s]["metrics"][metric]) for s in settings]
            for clip in clips
            if all((clip, s) in place for s in settings)
        }


def codecs_of(rows: Sequence[Row]) -> list[str]:
    """Codecs in the order in which they appear."""
    return list(dict.fromkeys(row["codec"] for row in rows))


def _mean(rows: list[Row], metrics: Sequence[str], features: Path) -> dict[str, float]:
    """Means over clips; a metric that some clip lacks has none."""
    out = {name: float(np.mean([row[name] for row in rows])) for name in ("bpp", "payload_bpp")}
    for way in ("encode", "decode"):
        seconds = sum(row[f"{way}_seconds"] for row in rows)
        out[f"{way}_fps"] = sum(row["frames"] for row in rows) / max(seconds, 1e-9)
    for metric in metrics:
        values = [row["metrics"][metric] for row in rows if metric in row["metrics"]]
        if len(values) == len(rows):
            out[metric] = float(np.mean(values))
    return out | _of_data_set(rows, metrics, features)


def _of_data_set(rows: list[Row], metrics: Sequence[str], features: Path) -> dict[str, float]:
    """Metrics of all clips' features together; one that has too few of them has no value."""
    found = {}
    for name in metrics:
        if name not in FEATURES_OF:
            continue
        files = [features / f"{row['key']}-{FEATURES_OF[name]}.npz" for row in rows]
        if all(file.exists() for file in files):
            loaded = [np.load(file) for file in files]
            source, decoded = (np.concatenate([f[side] for f in loaded]) for side in ("source", "decoded"))
            with suppress(ValueError):
                found[name] = OF_FEATURES[name](source, decoded)
    return found
