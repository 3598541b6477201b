"""What networks made of a clip's source, kept while other decodings of the same clip are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from torch import Tensor

LIMIT = 1 << 30  # bytes
Made = TypeVar("Made", bound=Sequence[Tensor])


class Recall:
    """A store of tensors by name, of one source at a time; what no longer fits is made again each time."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.source = ""
        self._kept: dict[object, Sequence[Tensor]] = {}
        self._size = 0

    def begin(self, source: str) -> None:
        """Decodings of `source` follow; what belongs to another is dropped. Empty: nothing is kept."""
        if source != self.source:
            self.source, self._size = source, 0
            self._kept.clear()

    def __call__(self, name: object, make: Callable[[], Made]) -> Made:
        """What `make` gives or gave for `name`."""
        if name in self._kept:
            return cast(Made, self._kept[name])
        made = make()
        size = sum(t.numel() * t.element_size() for t in made)
        if self.source and self._size + size <= self.limit:
            self._kept[name] = made
            self._size += size
        return made
