"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(target: str | Path) -> Iterator[BinaryIO]:
    """Give a file beside `target` to write; it takes the name at the end and is removed on any exception.

    A killed process leaves at most the hidden file `.NAME.PID.part`. Raises OSError where nothing can be
    written.
    """
    path = Path(target)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "cannot write: the folder does not exist", str(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "cannot write: there is a folder of that name", str(path))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
