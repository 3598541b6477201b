"""`compare`: clips x codecs x points to one table of results, curves, BD-rates and a page to look at."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gencodec.atomic import replacing
from gencodec.codec import GencodecError
from gencodec.evaluation import points as pointing
from gencodec.evaluation.contestants import Contestant, contestant
from gencodec.evaluation.measure import Clip, Point, measure
from gencodec.evaluation.store import Row, Store, locked
from gencodec.evaluation.tables import Table
from gencodec.metrics.suite import DEFAULT_METRICS, Suite

OnPoint = Callable[[int, int], None]  # points done, points in all


@dataclass(frozen=True)
class Plan:
    """What to compare. `settings` overrides the choice of points for the codecs that it names."""

    clips: Sequence[Clip]
    contestants: Sequence[Contestant]
    points: int
    settings: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass
class Comparison:
    """The outcome: rows, one for each clip, codec and setting, and what could not be measured."""

    folder: Path
    rows: list[Row]
    missing: dict[str, str]  # metric -> why there is no column
    failures: list[dict[str, str]]  # clip, codec, setting, error
    table: Table


def compare(  # noqa: PLR0913 - one argument for each thing that one may say
    inputs: Sequence[str | Path] | str | Path,
    methods: Sequence[str],
    out: str | Path,
    *,
    points: int = 5,
    metrics: Sequence[str] = DEFAULT_METRICS,
    weights: Mapping[str, str | Path] | None = None,
    settings: Mapping[str, Sequence[int]] | None = None,
    frames: tuple[int, int | None] | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    on_point: OnPoint | None = None,
) -> Comparison:
    """Compare codecs on clips; files and results go to the folder `out`, where a killed run goes on.

    `methods` are registered methods and anchors (x264, x265, x265-hold2, x265-hold3, svtav1, vp9). `weights`
    gives files for metrics: vgg, inception, spynet. Every codec codes every clip at the same `points`
    settings. A point that fails is reported and the rest goes on. Raises ValueError, UnreadableInput,
    WeightsMissing, OSError.
    """
    folder = Path(out)
    paths = [Path(p) for p in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    if not paths or not methods or points < 1:
        raise ValueError("compare needs at least one input, one method and one point")
    clips = [Clip.open(path, frames=frames, size=size) for path in _clips_in(paths)]
    contestants = [contestant(name, device=device) for name in dict.fromkeys(methods)]
    suite = Suite.load(metrics, weights)
    with locked(folder):
        run = _Run(Plan(clips, contestants, points, settings or {}), suite, Store(folder), device, on_point)
        comparison = run.all_points()
        write_results(comparison, _provenance())
    return comparison


class _Run:
    """One call of `compare`."""

    def __init__(self, plan: Plan, suite: Suite, store: Store, device: str, on_point: OnPoint | None) -> None:
        self.plan, self.suite, self.store = plan, suite, store
        self.device, self.on_point = device, on_point
        self.failures: list[dict[str, str]] = []

    def all_points(self) -> Comparison:
        wanted = [
            Point(clip, contestant, setting, self.suite, self.device)
            for contestant, settings in self._settings()
            for setting in settings
            for clip in self.plan.clips
        ]
        for done, point in enumerate(wanted):
            if self.on_point:
                self.on_point(done, len(wanted))
            if point.key not in self.store.rows:
                self._try(point)
        if self.on_point:
            self.on_point(len(wanted), len(wanted))
        rows = [self.store.rows[p.key] for p in wanted if p.key in self.store.rows]
        table = Table.of(rows, self.suite.names, self.store.folder / "features")
        return Comparison(self.store.folder, rows, self.suite.missing, self.failures, table)

    def _try(self, point: Point) -> None:
        try:
            self.store.add(measure(point, self.store.folder))
        except GencodecError as error:
            names = {"clip": point.clip.name, "codec": point.contestant.name, "setting": str(point.setting)}
            self.failures.append(names | {"error": str(error)})

    def _settings(self) -> list[tuple[Contestant, Sequence[int]]]:
        """Those given, those of a run that is being resumed, or newly chosen ones."""
        path = self.store.folder / "points.json"
        wish = {c.name: [c.identity, self.plan.points] for c in self.plan.contestants}
        before = json.loads(path.read_text()) if path.exists() else {}
        if before.get("for") != wish:
            before = {"for": wish, "settings": self._choose()}
            with replacing(path) as file:
                file.write(json.dumps(before, indent=1).encode())
        chosen = {**before["settings"], **self.plan.settings}
        return [(c, chosen[c.name]) for c in self.plan.contestants]

    def _choose(self) -> dict[str, list[int]]:
        free = {c.name: c for c in self.plan.contestants if c.name not in self.plan.settings}
        if not free:
            return {}
        clip = self.plan.clips[0]

        def rate_of(name: str, setting: int) -> float:
            file = self.store.folder / "files" / f"probe-{name}-{setting}{free[name].suffix}"
            with clip.video() as video:
                coded = free[name].encode(video, file, setting)
            file.unlink()
            return 8 * coded.rate_bytes / clip.pixels

        ladders = {name: c.settings for name, c in free.items()}
        anchors = [name for name, c in free.items() if c.is_anchor]
        return pointing.plan(ladders, anchors, self.plan.points, rate_of)


def write_results(comparison: Comparison, provenance: dict[str, Any]) -> None:
    """results.json, table.csv, curves.svg and report.html, each in one piece."""
    from gencodec.evaluation.curves import curves_svg
    from gencodec.evaluation.report import report_html

    table = comparison.table
    summary = {
        "schema": 1,
        **provenance,
        "missing_metrics": comparison.missing,
        "failures": comparison.failures,
        "means": table.means,
        "bd_rate": table.bd_rates(),
        "points": comparison.rows,
    }
    outputs = {
        "results.json": json.dumps(summary, indent=1),
        "table.csv": table.csv(),
        "curves.svg": curves_svg(table),
        "report.html": report_html(comparison, provenance),
    }
    for name, text in outputs.items():
        with replacing(comparison.folder / name) as file:
            file.write(text.encode())


def _clips_in(paths: Sequence[Path]) -> list[Path]:
    """Clips, with folders of clips taken apart; a folder of PNGs is a clip."""
    found: list[Path] = []
    for path in paths:
        videos = (
            sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in (".mp4", ".mkv", ".y4m", ".webm", ".mov", ".avi")
            )
            if path.is_dir()
            else []
        )
        found += videos or [path]
    return found


def _provenance() -> dict[str, Any]:
    """Machine, versions and command."""
    versions = {}
    for package in ("gencodec", "torch", "av", "numpy", "constriction"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **versions},
    }
