"""Curves that papers published, to be drawn beside measured ones and to take part in no number.

The file is JSON: {"SET/METRIC": {"codec": [[bpp, value], ...]}}, for example "UVG/LPIPS".
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencodec.codec import UnreadableInput

METRIC_OF = {"LPIPS": "lpips_alex", "DISTS": "dists", "PSNR": "psnr", "MS-SSIM": "ms_ssim"}
LAYOUT = '{"SET/METRIC": {"codec": [[bpp, value], ...]}}'

Curve = list[tuple[float, float]]  # (bpp, value), by rising rate


@dataclass(frozen=True)
class Published:
    """What one file says of one data set. `curves`: metric -> codec -> curve."""

    file: str
    set: str
    sha256: str
    curves: dict[str, dict[str, Curve]]

    @classmethod
    def read(cls, where: str) -> Published:
        """Read the set of "FILE.json:SET"; metrics that are not in `METRIC_OF` are left out.

        Raises UnreadableInput where there is no such file, ValueError for another layout or an unknown set.
        """
        path, colon, name = where.rpartition(":")
        if not (path and colon and name):
            raise ValueError(f"published curves are FILE.json:SET, got {where!r}")
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UnreadableInput(f"{path} cannot be read: {error.strerror}") from error
        sets = _parse(data, path)
        if name not in sets:
            raise ValueError(f"{path} has no set {name!r}; there are {', '.join(sorted(sets)) or 'none'}")
        curves = {METRIC_OF[kind]: found for kind, found in sets[name].items() if kind in METRIC_OF}
        return cls(Path(path).name, name, hashlib.sha256(data).hexdigest(), curves)

    @property
    def record(self) -> dict[str, str]:
        """What `results.json` says of it."""
        return {"file": self.file, "set": self.set, "sha256": self.sha256}


def _parse(data: bytes, path: str) -> dict[str, dict[str, dict[str, Curve]]]:
    """Set -> metric, as the paper names it -> codec -> curve."""
    sets: dict[str, dict[str, dict[str, Curve]]] = {}
    try:
        for key, codecs in json.loads(data).items():
            name, _, kind = key.rpartition("/")
            curves = {codec: sorted(_point(*pair) for pair in pairs) for codec, pairs in codecs.items()}
            if not name or not all(curves.values()):
                raise ValueError
            sets.setdefault(name, {})[kind] = curves
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{path} is not of the layout {LAYOUT}") from None
    return sets


def _point(rate: Any, value: Any) -> tuple[float, float]:
    """Raises TypeError or ValueError where it is none."""
    if not (math.isfinite(rate) and math.isfinite(value) and rate > 0):
        raise ValueError
    return float(rate), float(value)
