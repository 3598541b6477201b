"""The folder of one comparison: a line of JSON for each finished point, so that a killed run goes on.

OUT/results.jsonl   one line a point, written when it is whole
OUT/files/          coded files        OUT/decoded/  what the report shows, visually lossless
OUT/features/       of FID and KID     OUT/.lock     held while a run writes
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a full disk, a quota and a limit answer


class Store:
    """Rows by key, on disk as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, Row] = {}
        for name in ("files", "decoded", "features"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.jsonl"
        self._read()

    def add(self, row: Row) -> None:
        """Write a finished row; it survives a crash from here on. Raises OSError, the file as it was then."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise
        self.rows[row["key"]] = row

    def _read(self) -> None:
        """Take the whole lines; the end of a line that a crash cut is removed."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
        for line in whole.splitlines():
            row = json.loads(line)
            self.rows[row["key"]] = row


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises ValueError where another living process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with open(path, "a+") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise
            raise ValueError(
                f"another run is writing to {folder}: wait for it or name another folder"
            ) from None
        try:
            yield
        finally:
            _unlock(file.fileno())


def _lock(fd: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(fd: int) -> None:
    if os.name == "nt":
        import msvcrt

        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)
