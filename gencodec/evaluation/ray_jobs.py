"""Points measured by a Ray cluster (extra `ray`). The folder of results must be one that all machines see.

Rows are written by the driver alone; the point of a worker that dies is given to another, by Ray itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gencodec.evaluation.workers import ATTEMPTS, Done, Order


def carry_out_on_ray(orders: Sequence[Order], folder: Path, *, address: str) -> Iterator[Done]:
    """Yield (order, row or {"error": ...}) as they are done; `address` is that of a cluster, or "local".

    Raises ValueError where Ray is not installed, ConnectionError where no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise ValueError('--ray needs Ray: pip install "gencodec[ray]"') from None
    started = not ray.is_initialized()
    if started:
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    try:
        task = ray.remote(max_retries=ATTEMPTS - 1)(_carry_out)
        running = {task.remote(order, folder.absolute()): order for order in orders}
        while running:
            done, _ = ray.wait(list(running))
            for reference in done:
                order = running.pop(reference)
                try:
                    yield order, ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield order, {"error": f"Ray gave it up: {str(error).splitlines()[0]}"}
    finally:
        if started:
            ray.shutdown()


def _carry_out(order: Order, folder: Path) -> dict[str, Any]:
    return order.carry_out(folder)
