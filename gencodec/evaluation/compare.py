"""`compare`: clips x codecs x points to one table of results, curves, BD-rates and a page to look at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gencodec.atomic import replacing
from gencodec.evaluation import points as pointing
from gencodec.evaluation.clips import Clip, Selection
from gencodec.evaluation.contestants import Contestant, contestant
from gencodec.evaluation.datasets import Found, find
from gencodec.evaluation.measure import Point
from gencodec.evaluation.outputs import provenance, write_results
from gencodec.evaluation.published import Published
from gencodec.evaluation.store import FULL, Row, Store, locked
from gencodec.evaluation.tables import Table
from gencodec.evaluation.workers import CarryOut, Order, carry_out_all, order_of
from gencodec.metrics.suite import DEFAULT_METRICS, Suite

OnPoint = Callable[[int, int], None]  # points done, points in all


@dataclass(frozen=True)
class Plan:
    """What to compare. `settings` overrides the choice of points for the codecs that it names."""

    clips: Sequence[Clip]
    contestants: Sequence[Contestant]
    points: int
    suite: Suite
    settings: Mapping[str, Sequence[int]] = field(default_factory=dict)
    device: str = "auto"


@dataclass
class Comparison:
    """The outcome: rows, one for each clip, codec and setting, and what could not be measured."""

    folder: Path
    rows: list[Row]
    missing: dict[str, str]  # metric -> why there is no column
    failures: list[dict[str, str]]  # clip, codec, setting, error
    table: Table
    published: Published | None = None  # drawn, and no more


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
    jobs: int = 1,
    published: str | None = None,
    on_point: OnPoint | None = None,
) -> Comparison:
    """Compare codecs on clips; files and results go to the folder `out`, where a killed run goes on.

    `methods` are registered methods and anchors (x264, x265, x265-hold2, x265-hold3, svtav1, vp9). `weights`
    gives files for metrics: vgg, inception, spynet, raft, i3d. Every codec codes every clip at the same
    `points` settings, in `jobs` processes. A point that fails is reported and the rest goes on. `published`
    is FILE.json:SET, curves of papers to draw dashed (docs/evaluation.md). Raises ValueError,
    UnreadableInput, WeightsMissing, OSError.
    """
    paths = [Path(p) for p in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    return compare_clips(
        _clips_in(paths),
        methods,
        out,
        Selection(frames, size),
        points=points,
        metrics=metrics,
        weights=weights,
        settings=settings,
        device=device,
        jobs=jobs,
        published=published,
        on_point=on_point,
    )


def compare_clips(  # noqa: PLR0913 - see compare
    found: Sequence[Found],
    methods: Sequence[str],
    out: str | Path,
    selection: Selection,
    *,
    points: int = 5,
    metrics: Sequence[str] = DEFAULT_METRICS,
    weights: Mapping[str, str | Path] | None = None,
    settings: Mapping[str, Sequence[int]] | None = None,
    device: str = "auto",
    jobs: int = 1,
    published: str | None = None,
    carry_out: CarryOut | None = None,
    on_point: OnPoint | None = None,
) -> Comparison:
    """`compare` on clips that were found already; `carry_out` measures points elsewhere than in processes."""
    if not found or not methods or points < 1 or jobs < 1:
        raise ValueError("compare needs at least one input, one method, one point and one job")
    if len({clip.name for clip in found}) < len(found):
        raise ValueError("two clips have the same name: rename one, for results are listed by name")
    others = Published.read(published) if published else None
    contestants = [contestant(name, device=device) for name in dict.fromkeys(methods)]
    suite = Suite.load(metrics, weights)
    clips = [Clip.open(one, selection) for one in found]
    plan = Plan(clips, contestants, points, suite, settings or {}, device)
    work = carry_out or partial(carry_out_all, jobs=jobs)
    with locked(Path(out)), _told_of_full_disks(Path(out)):
        run = _Run(plan, Store(Path(out)), on_point or (lambda *_: None))
        comparison = replace(run.all_points(work, weights or {}), published=others)
        write_results(comparison, provenance())
    return comparison


@contextmanager
def _told_of_full_disks(folder: Path) -> Iterator[None]:
    """Say what to do where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        why = f"cannot write to {folder}: {os.strerror(error.errno)}; "
        advice = "make room there and give the same command again: finished points are kept"
        raise OSError(error.errno, why + advice) from error


class _Run:
    """One call of `compare`."""

    def __init__(self, plan: Plan, store: Store, on_point: OnPoint) -> None:
        self.plan, self.store, self.on_point = plan, store, on_point
        self.failures: list[dict[str, str]] = []

    def all_points(self, work: CarryOut, weights: Mapping[str, str | Path]) -> Comparison:
        plan = self.plan
        ladders = self._settings()
        wanted = [
            Point(clip, contestant, setting, plan.suite, plan.device)
            for clip in plan.clips  # outermost: the metrics remember what they made of its frames
            for contestant, settings in ladders
            for setting in settings
        ]
        orders = [order_of(p, weights) for p in wanted if p.key not in self.store.rows]
        done = len(wanted) - len(orders)
        self.on_point(done, len(wanted))
        for order, row in work(orders, self.store.folder):
            self._take(order, row)
            done += 1
            self.on_point(done, len(wanted))
        rows = [self.store.rows[p.key] for p in wanted if p.key in self.store.rows]
        table = Table.of(rows, plan.suite.names, self.store.folder / "features")
        return Comparison(self.store.folder, rows, plan.suite.missing, self.failures, table)

    def _take(self, order: Order, row: Row) -> None:
        if "error" not in row:
            return self.store.add(row)
        names = {"clip": order.clip.name, "codec": order.codec, "setting": str(order.setting)}
        self.failures.append(names | {"error": row["error"]})

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


def _clips_in(paths: Sequence[Path]) -> list[Found]:
    """Clips, with folders of clips taken apart; a folder of PNGs is a clip."""
    return [clip for path in paths for clip in ((path.is_dir() and find(path)) or [Found(path.stem, path)])]
