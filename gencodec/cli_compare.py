"""`gencodec compare` and `bench`: arguments in, progress and the table out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from gencodec import cli_output as output
from gencodec.evaluation.clips import Selection
from gencodec.evaluation.compare import Comparison, OnPoint, compare, compare_clips
from gencodec.evaluation.datasets import FIRST_FRAMES, find
from gencodec.evaluation.moving_mnist import MNIST_FRAMES, SMMNIST, make_clips
from gencodec.evaluation.ray_jobs import carry_out_on_ray
from gencodec.evaluation.report import answer
from gencodec.metrics.suite import DEFAULT_METRICS, METRICS


def run(inputs: Sequence[Path], methods: str, out: Path, **options: Any) -> None:
    """Compare, and print the means, the BD-rates and what went wrong."""
    _run(lambda names, **rest: compare(inputs, names, out, **rest), methods, out, **options)


def run_bench(
    dataset: str,
    root: Path | None,
    methods: str,
    out: Path,
    *,
    first: int | None,
    crop: tuple[int, int] | None,
    size: tuple[int, int] | None,
    ray: str | None = None,
    **options: Any,
) -> None:
    """The same on a data set's clips."""
    if dataset == SMMNIST:
        found, frames = make_clips(out / "clips", root), first or MNIST_FRAMES
    else:
        found, frames = find(dataset, root), first or FIRST_FRAMES
    selection = Selection(frames=(0, frames), size=size, crop=crop)
    if ray:
        options["carry_out"] = partial(carry_out_on_ray, address=ray)
    _run(lambda names, **rest: compare_clips(found, names, out, selection, **rest), methods, out, **options)


def _run(
    work: Callable[..., Comparison],
    methods: str,
    out: Path,
    *,
    metrics: str | None,
    settings: Sequence[str],
    as_json: bool,
    **options: Any,
) -> None:
    names = [name.strip() for name in methods.split(",") if name.strip()]
    wanted = tuple(m.strip() for m in metrics.split(",")) if metrics else DEFAULT_METRICS
    with points_done() as on_point:
        found = work(names, metrics=wanted, settings=parse_settings(settings), on_point=on_point, **options)
    for name, why in found.missing.items():
        output.say(f"no {name}: {why}")
    for failure in found.failures:
        output.say("failed: {codec} {setting} on {clip}: {error}".format(**failure))
    if as_json:
        return output.put_json(
            {"means": found.table.means, "bd_rate": found.table.bd_rates(), "out": str(out)}
        )
    put_means(found)
    output.put(f"{answer(found.table)} More in {out / 'report.html'}")


def put_means(found: Comparison) -> None:
    """The table of means."""
    table = found.table
    head = ["codec", "setting", "bpp", *(METRICS[m].label for m in table.metrics)]
    rows = [
        [
            mean["codec"],
            str(mean["setting"]),
            f"{mean['bpp']:.4f}",
            *(f"{mean[m]:.{METRICS[m].digits}f}" if m in mean else "" for m in table.metrics),
        ]
        for mean in table.means
    ]
    output.put_table(head, rows)


def parse_settings(texts: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """{"x265": [22, 30]} of "x265=22,30". Raises ValueError."""
    found = {}
    for text in texts:
        name, equals, values = text.partition("=")
        try:
            found[name] = [int(v) for v in values.split(",")] if equals else []
        except ValueError:
            found[name] = []
        if not found[name]:
            raise ValueError(f"--settings is CODEC=A,B,... with whole numbers, got {text!r}")
    return found


@contextmanager
def points_done() -> Iterator[OnPoint]:
    """Progress in points, with the time left."""
    with output.progress("comparing", unit="points") as on_progress:
        yield on_progress
