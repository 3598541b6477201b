"""A full disk: one line that says what to do, nothing half-written, and the same command goes on later.

A limit on the size of files stands for the disk: the write that passes it fails half-way, as it would there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gencodec.evaluation.compare import compare

resource = pytest.importorskip("resource", reason="Windows has no limit on the size of files")

SETTINGS = [45, 30]
SIZE = (8, 8)  # of 20 frames: 3840 bytes where they are bare
EARLIER = {
    "key": "earlier",
    "note": 10_000 * "x",
}  # of another run: results outgrow other files
SHORT_OF_FRAMES, SHORT_OF_ROWS, SHORT_OF_PAGE = 3000, 12_500, 20_000  # bytes; a row has about 1600


def run(clip: Path, out: Path, limit: int | None, jobs: int = 1) -> subprocess.CompletedProcess[str]:
    def lower() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    settings = "x264=" + ",".join(map(str, SETTINGS))
    command = [sys.executable, "-m", "gencodec", "compare", str(clip), "--methods", "x264", "--json"]
    command += ["--settings", settings, "--metrics", "psnr,flicker", "--size", "x".join(map(str, SIZE))]
    return subprocess.run(
        [*command, "--out", str(out), "--jobs", str(jobs)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lower if limit else None,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # some Pythons keep half a .pyc
    )


def fails_well(done: subprocess.CompletedProcess[str], out: Path) -> int:
    """Check how it failed; returns how many rows there are."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("comparing: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"error: cannot write to {out}: ")
    assert "make room there and give the same command again" in lines[0]
    assert not (out / "report.html").exists()
    for file in out.rglob("*"):
        assert not file.name.endswith((".part", ".rgb")), f"{file} was left"
    results = out / "results.jsonl"
    text = results.read_text() if results.exists() else ""
    assert not text or text.endswith("\n")
    return len([json.loads(line) for line in text.splitlines()])


def without_speed(means: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in mean.items() if not k.endswith("_fps")} for mean in means]


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_run_goes_on_later(clip_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert fails_well(run(clip_file, out, SHORT_OF_FRAMES), out) == 0
    assert list((out / "decoded").iterdir()) == []
    (out / "results.jsonl").write_text(json.dumps(EARLIER) + "\n")
    assert fails_well(run(clip_file, out, SHORT_OF_ROWS), out) == 2
    assert fails_well(run(clip_file, out, SHORT_OF_PAGE), out) == 1 + len(SETTINGS)
    done = run(clip_file, out, None)
    assert done.returncode == 0, done.stderr
    assert "</html>" in (out / "report.html").read_text()
    undisturbed = compare(
        clip_file,
        ["x264"],
        tmp_path / "undisturbed",
        settings={"x264": SETTINGS},
        metrics=["psnr", "flicker"],
        size=SIZE,
    )
    assert without_speed(json.loads(done.stdout)["means"]) == without_speed(undisturbed.table.means)


def test_a_worker_tells_of_it_too(clip_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert fails_well(run(clip_file, out, SHORT_OF_FRAMES, jobs=2), out) == 0
