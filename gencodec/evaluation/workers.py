"""Points measured by several processes of this machine. Rows are written by the parent alone.

A worker that dies takes the points that were running with it; they are given to new workers, twice at most.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gencodec.codec import GencodecError
from gencodec.evaluation.clips import Clip
from gencodec.evaluation.contestants import Contestant, contestant
from gencodec.evaluation.measure import Point, measure
from gencodec.metrics.suite import Suite

ATTEMPTS = 3  # for each point, where workers die


@dataclass(frozen=True)
class Order:
    """A point as it travels to a worker, which loads codec and metrics itself, once."""

    key: str
    clip: Clip
    codec: str
    setting: int
    metrics: tuple[str, ...]
    weights: tuple[tuple[str, str], ...]  # of metrics: what needs them, path
    device: str

    def carry_out(self, folder: Path) -> dict[str, Any]:
        """Measure it here; a row, or {"error": why not}."""
        codec, suite = _codec(self.codec, self.device), _suite(self.metrics, self.weights)
        try:
            return measure(Point(self.clip, codec, self.setting, suite, self.device), folder)
        except GencodecError as error:
            return {"error": str(error)}


Done = tuple[Order, dict[str, Any]]


def carry_out_all(orders: Sequence[Order], folder: Path, jobs: int) -> Iterator[Done]:
    """Yield (order, row or {"error": ...}) as they are done, by `jobs` processes; 1: by this one."""
    if jobs == 1:
        yield from ((order, order.carry_out(folder)) for order in orders)
        return
    left, attempts = list(orders), dict.fromkeys((order.key for order in orders), 0)
    while left:
        finished: list[Order] = []
        for order, row in _one_pool(left, folder, jobs, attempts):
            finished.append(order)
            yield order, row
        left = [order for order in left if order not in finished]
        for order in [order for order in left if attempts[order.key] >= ATTEMPTS]:
            left.remove(order)
            yield order, {"error": f"its worker process died {ATTEMPTS} times"}


def _one_pool(orders: Sequence[Order], folder: Path, jobs: int, attempts: dict[str, int]) -> Iterator[Done]:
    """What one pool of processes gets done before it is through, or one of them dies."""
    context = multiprocessing.get_context("spawn")  # forks of a process with threads may hang
    with ProcessPoolExecutor(jobs, context, _begin, (jobs,)) as pool, suppress(BrokenProcessPool):
        waiting = iter(orders)
        running: dict[Future[dict[str, Any]], Order] = {}
        while True:
            while len(running) < jobs and (order := next(waiting, None)):
                attempts[order.key] += 1
                running[pool.submit(order.carry_out, folder)] = order
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _begin(jobs: int) -> None:
    """Share the cores among the workers, and the decoders that they start."""
    import torch

    threads = max(1, (os.cpu_count() or 1) // jobs)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # too many slow one another tenfold


@cache
def _codec(name: str, device: str) -> Contestant:
    return contestant(name, device=device)


@cache
def _suite(metrics: tuple[str, ...], weights: tuple[tuple[str, str], ...]) -> Suite:
    return Suite.load(metrics, dict(weights))


def order_of(point: Point, weights: Mapping[str, str | Path]) -> Order:
    """What to send for a point."""
    paths = tuple(sorted((kind, str(path)) for kind, path in weights.items()))
    return Order(
        point.key, point.clip, point.contestant.name, point.setting, point.suite.names, paths, point.device
    )


CarryOut = Callable[[Sequence[Order], Path], Iterator[Done]]
