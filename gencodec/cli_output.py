"""What the command line prints: progress and messages on stderr, results on stdout, one line for an error."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gencodec.codec import (
    CorruptStream,
    GencodecError,
    InexactDevice,
    UnreadableInput,
    UnsupportedStream,
    WeightsMissing,
)

PLAIN_SECONDS = 5.0  # between progress lines where there is no terminal
EXIT_CODES: list[tuple[type[BaseException], int]] = [
    (CorruptStream, 3),
    (UnsupportedStream, 3),
    (WeightsMissing, 4),
    (UnreadableInput, 5),
    (InexactDevice, 2),
    (ValueError, 2),
    (OSError, 2),  # reading has its own error: what is left is the output
    (KeyboardInterrupt, 130),
]


def report(error: BaseException) -> int:
    """Print an error as one line and return the exit code. GENCODEC_DEBUG=1 adds the traceback."""
    if os.environ.get("GENCODEC_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(type(error), error, error.__traceback__)
    if hasattr(error, "format_message"):  # typer's, whose classes moved between its versions
        say(f"error: {error.format_message()} See `gencodec --help`.")
        return 2
    for kind, code in EXIT_CODES:
        if isinstance(error, kind):
            say("interrupted" if code == 130 else f"error: {_message(error)}")
            return code
    if isinstance(error, GencodecError):
        say(f"error: {error}")
        return 1
    if type(error).__name__ == "Abort":
        say("interrupted")
        return 130
    say(f"error: {type(error).__name__}: {error}; this is a bug, please report it (more: GENCODEC_DEBUG=1)")
    return 1


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def say(message: str) -> None:
    """Print one line on stderr."""
    print(" ".join(message.split()), file=sys.stderr, flush=True)  # noqa: T201


def put(line: str) -> None:
    """Print a line of the result on stdout."""
    print(line, flush=True)  # noqa: T201


def put_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    put(json.dumps(value))


def put_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout: drawn on a terminal, else aligned text that is never cut to a width."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(*columns)
        for row in rows:
            table.add_row(*map(escape, row))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def progress(doing: str, unit: str = "frames") -> Iterator[Callable[[int, int | None], None]]:
    """Give a function that shows (frames done, in all): a bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(doing, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = began = time.monotonic()

    def line(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            left = f", {(total - done) * (last - began) / done:.0f} s left" if total and done else ""
            say(f"{doing}: {done} of {total} {unit}{left}" if total else f"{doing}: {done} {unit}")

    yield line
