"""`compare` from clips to the page: points, resuming, failures, and the page in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from gencodec.codec import CorruptStream, VideoInfo
from gencodec.demo import SAMPLE
from gencodec.evaluation import workers as module
from gencodec.evaluation.compare import Comparison, compare
from gencodec.evaluation.curves import rate_ticks, value_ticks
from gencodec.evaluation.decode_file import decode_elsewhere
from gencodec.evaluation.measure import Point
from gencodec.evaluation.points import choose_settings, common_range, plan, probe_settings
from gencodec.evaluation.store import Store, locked

FAST = {"x264": [45, 35, 25], "x265": [42, 33, 24]}
METRICS = ["psnr", "lpips_alex", "flicker", "dists"]


def run(out: Path, **options: object) -> Comparison:
    arguments = {"settings": FAST, "metrics": METRICS, "frames": (0, 3), "size": (96, 64)} | options
    return compare(SAMPLE, ["x265", "x264"], out, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, run(out)


def test_everything_is_there(finished: tuple[Path, Comparison]) -> None:
    out, found = finished
    names = {"results.jsonl", "results.json", "table.csv", "curves.svg", "report.html"}
    assert names <= {path.name for path in out.iterdir()}
    assert len(found.rows) == 6
    assert list(found.missing) == ["dists"]
    assert found.failures == []
    summary = json.loads((out / "results.json").read_text())
    assert len(summary["points"]) == len(summary["means"]) == 6
    assert {r["metric"] for r in summary["bd_rate"]} == {"psnr", "lpips_alex", "flicker"}
    for row in found.rows:
        assert row["payload_bytes"] < row["file_bytes"]
        assert row["bpp"] == pytest.approx(8 * row["payload_bytes"] / (3 * 96 * 64))
        assert len(row["bits_per_frame"]) == 3
    for codec in ("x264", "x265"):
        curve = found.table.curve(codec, "psnr")
        assert curve == sorted(curve)
        assert [v for _, v in curve] == sorted(v for _, v in curve)


def test_a_finished_run_is_not_measured_again(
    finished: tuple[Path, Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = finished
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("measured twice"))
    again = run(out)
    assert again.rows == found.rows
    assert again.table.means == found.table.means


def test_a_run_that_was_cut_goes_on_and_equals_a_whole_one(
    finished: tuple[Path, Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    measure = module.measure
    done: list[dict] = []

    def stop_at_the_third(*arguments: object) -> dict:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(measure(*arguments))  # type: ignore[arg-type]
        return done[-1]

    monkeypatch.setattr(module, "measure", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(out)
    with (out / "results.jsonl").open("ab") as file:
        file.write(b'{"key": "torn')
    monkeypatch.setattr(module, "measure", measure)
    assert _without_times(run(out)) == _without_times(finished[1])


def _without_times(found: Comparison) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in found.rows]


def test_a_decoder_that_fails_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = module.measure

    def fail_once(point: Point, folder: Path) -> dict:
        if point.contestant.name == "x264" and point.setting == 35:
            raise CorruptStream("x264 decoded 2 of 3 frames")
        return measure(point, folder)

    monkeypatch.setattr(module, "measure", fail_once)
    found = run(tmp_path / "out")
    assert [(f["codec"], f["setting"], f["clip"]) for f in found.failures] == [("x264", "35", "sample")]
    assert len(found.rows) == 5
    assert "2 of 3 frames" in (tmp_path / "out" / "report.html").read_text()


def test_a_clean_process_that_gives_too_few_frames_is_an_error(
    finished: tuple[Path, Comparison], tmp_path: Path
) -> None:
    file = next((finished[0] / "files").glob("*x264*.mkv"))
    info = VideoInfo(96, 64, 25, 5)  # type: ignore[arg-type]
    with pytest.raises(CorruptStream, match="3 of 5 frames"):
        decode_elsewhere("x264", file, tmp_path / "a.rgb", info)
    (tmp_path / "x.mkv").write_bytes(b"no video")
    with pytest.raises(CorruptStream, match=r"x\.mkv"):
        decode_elsewhere("x264", tmp_path / "x.mkv", tmp_path / "a.rgb", info)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    hold = "import sys, time; from gencodec.evaluation.store import locked; from pathlib import Path\n"
    hold += "with locked(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    try:
        with pytest.raises(ValueError, match="another run"), locked(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with locked(tmp_path):
        pass


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add({"key": "a", "x": 1})
    with store.path.open("ab") as file:
        file.write(b'{"key": "b", "x"')
    again = Store(tmp_path)
    assert again.rows == {"a": {"key": "a", "x": 1}}
    again.add({"key": "c"})
    assert list(Store(tmp_path).rows) == ["a", "c"]


def test_points_cover_the_common_range() -> None:
    rates = {"ours": lambda q: 0.01 * 2 ** (q / 12), "x265": lambda crf: 2 ** (-crf / 6) * 2}
    ladders = {"ours": range(64), "x265": range(51, 11, -1)}
    chosen = plan(ladders, ["x265"], 5, lambda name, setting: rates[name](setting))
    ours = [rates["ours"](s) for s in chosen["ours"]]
    x265 = [rates["x265"](s) for s in chosen["x265"]]
    low, high = common_range({"ours": {s: rates["ours"](s) for s in probe_settings(range(64))}})
    assert ours[0] == pytest.approx(low)
    assert ours[-1] == pytest.approx(high)
    assert all(1.5 < b / a < 3 for a, b in pairwise(ours))
    assert x265 == sorted(x265)
    assert x265[0] < low
    assert x265[-1] > high


def test_fewer_settings_than_points_are_each_taken_once() -> None:
    assert choose_settings({0: 0.1, 2: 0.4}, range(3), [0.1, 0.1, 0.4, 0.4, 0.4]) == [0, 1, 2]


def test_nothing_to_compare_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        compare([], ["x265"], tmp_path)
    with pytest.raises(ValueError, match="no codec 'h266'"):
        compare(SAMPLE, ["h266"], tmp_path, frames=(0, 1))


def test_ticks_are_round_numbers() -> None:
    assert rate_ticks(0.004, 0.3) == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
    assert value_ticks(0.1, 0.61) == [0.2, 0.4, 0.6]
    assert value_ticks(18.2, 41.0) == [20, 25, 30, 35, 40]


def test_the_page_needs_nothing_from_outside(finished: tuple[Path, Comparison]) -> None:
    page = (finished[0] / "report.html").read_text()
    for outside in ("http://", "https://", "src=", "@import", "url("):
        rest = page.replace("http://www.w3.org/2000/svg", "")
        assert outside not in rest.replace("video.src = URL", "")
    assert len(page) < 15_000_000
    assert "x264 needs" in page or "x265" in page


def test_a_report_of_no_results_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict:
        raise CorruptStream("all broken")

    monkeypatch.setattr(module, "measure", fail)
    found = run(tmp_path / "out")
    assert found.rows == []
    assert "Nothing was measured." in (tmp_path / "out" / "report.html").read_text()
