"""`gencodec demo`: the sample through every method, each file decoded by a process of its own.

sample.mp4 ─► encode ─► METHOD.gcv ─► (another process) decode ─► PNGs ─► LPIPS, PSNR · METHOD.mp4
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencodec import api, registry
from gencodec.cli_output import progress, put, put_json, put_table, say
from gencodec.codec import CorruptStream, GencodecError
from gencodec.video import open_video, write_video

if TYPE_CHECKING:
    from gencodec.results import CodingResult

SAMPLE = Path(__file__).parent / "zoo" / "sample.mp4"
COLUMNS = ("method", "bytes", "bpp", "LPIPS", "PSNR dB", "encode s", "decode s")


@dataclass(frozen=True, slots=True)
class Row:
    """One method's numbers; metrics are means over the frames that the other process decoded."""

    method: str
    bytes: int
    bpp: float
    lpips: float
    psnr: float
    encode_seconds: float
    decode_seconds: float

    def cells(self) -> list[str]:
        """The numbers as they are shown."""
        seconds = [f"{self.encode_seconds:.2f}", f"{self.decode_seconds:.2f}"]
        return [
            self.method,
            str(self.bytes),
            f"{self.bpp:.4f}",
            f"{self.lpips:.4f}",
            f"{self.psnr:.2f}",
            *seconds,
        ]


def run(out: Path, quality: int, *, as_json: bool) -> None:
    """Run all methods on the sample and print a table; files and clips stay in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rows, problems = [], dict(registry.plug_in_problems())
    for name in registry.method_names():
        if name in problems:
            continue
        try:
            rows.append(run_method(name, SAMPLE, out, quality))
        except GencodecError as error:
            if name in registry.BUILT_IN:
                raise
            problems[name] = str(error)
    if as_json:
        return put_json({"out": str(out), "quality": quality, "methods": [_as_dict(row) for row in rows]})
    put_table(COLUMNS, [row.cells() for row in rows])
    for name, problem in problems.items():
        say(f"method {name!r} was left out: {problem}")
    put(f"files and decoded clips are in {out}")


def run_method(name: str, source: Path, out: Path, quality: int) -> Row:
    """Encode, decode in a clean process, measure what came out, and keep it as a clip."""
    codec = api.create(name)
    stream = out / f"{name}.gcv"
    with progress(f"{name}: encoding") as on_progress:
        encoded = api.encode(source, stream, codec=codec, quality=quality, on_progress=on_progress)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        decoded = decode_elsewhere(stream, Path(folder) / "frames")
        lpips, psnr = measure(source, Path(folder) / "frames")
        clip = api.decode(stream).info
        with open_video(Path(folder) / "frames") as frames:
            write_video(out / f"{name}.mp4", frames, clip)
    if decoded["latents_sha256"] != encoded.latents_sha256:
        raise CorruptStream(
            f"{name}: the decoder read other symbols than the encoder wrote; please report this"
        )
    return _row(name, encoded, decoded["seconds"], lpips, psnr)


def _row(name: str, encoded: CodingResult, decode_seconds: float, lpips: float, psnr: float) -> Row:
    assert encoded.bpp is not None
    return Row(name, encoded.bytes, encoded.bpp, lpips, psnr, encoded.seconds, decode_seconds)


def decode_elsewhere(stream: Path, folder: Path) -> dict[str, Any]:
    """Decode to PNGs by `gencodec decode` in a process of its own and return its JSON."""
    command = [sys.executable, "-m", "gencodec", "decode", str(stream), str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CorruptStream(f"{' '.join(command[2:5])} failed: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def measure(source: Path, decoded: Path) -> tuple[float, float]:
    """Return mean LPIPS and mean PSNR (dB) of a decoded folder against the source."""
    from gencodec.metrics.lpips import Lpips
    from gencodec.metrics.psnr import psnr

    lpips = Lpips.load("cpu")
    distances, decibels = [], []
    with open_video(source) as originals, open_video(decoded) as frames:
        for original, frame in zip(originals, frames, strict=True):
            distances.append(float(lpips(original[None], frame[None])))
            decibels.append(float(psnr(original[None], frame[None])))
    return sum(distances) / len(distances), sum(decibels) / len(decibels)


def _as_dict(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}
