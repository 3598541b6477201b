"""`compare` from clips to the page: points, resuming, failures, and the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from gencodec.codec import CorruptStream, VideoInfo
from gencodec.demo import SAMPLE
from gencodec.evaluation import workers as module
from gencodec.evaluation.compare import Comparison, compare
from gencodec.evaluation.curves import rate_ticks, value_ticks
from gencodec.evaluation.decode_file import decode_elsewhere
from gencodec.evaluation.measure import Point
from gencodec.evaluation.points import choose_settings, common_range, plan, probe_settings
from gencodec.evaluation.store import Store, locked
from gencodec.video import open_video

FAST = {"x264": [45, 35, 25], "x265": [42, 33, 24]}
METRICS = ["psnr", "lpips_alex", "flicker", "dists"]


def run(out: Path, methods: Sequence[str] = ("x265", "x264"), **options: object) -> Comparison:
    arguments = {"settings": FAST, "metrics": METRICS, "frames": (0, 3), "size": (96, 64)} | options
    return compare(SAMPLE, methods, out, **arguments)  # type: ignore[arg-type]


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert len(found.failures) == 6
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Nothing was measured." in page
    assert "x264 45 on sample: all broken" in page
    assert page.endswith("</html>")
    assert viewer_data(tmp_path / "out") == {}
    assert json.loads((tmp_path / "out" / "results.json").read_text())["means"] == []


def viewer_data(out: Path) -> dict[str, Any]:
    """What the viewer of a report is given."""
    page = (out / "report.html").read_text()
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_one_folder_keeps_the_sources_of_two_selections_apart(tmp_path: Path) -> None:
    means, names = [], []
    for frames in ((0, 3), (40, 43)):
        found = run(tmp_path, methods=["x264"], settings={"x264": [40]}, metrics=["psnr"], frames=frames)
        source = io.BytesIO(base64.b64decode(viewer_data(tmp_path)["sample"]["source"]))
        means.append([frame.float().mean((1, 2)) for frame in open_video(source)])
        with open_video(SAMPLE, frames=frames, size=(96, 64)) as expected:
            true = [frame.float().mean((1, 2)) for frame in expected]
        assert torch.allclose(torch.stack(means[-1]), torch.stack(true), atol=2.0)
        names.append(found.rows[0]["source"])
    assert not torch.allclose(torch.stack(means[0]), torch.stack(means[1]), atol=4.0)
    assert {path.name for path in (tmp_path / "decoded").glob("source-*")} == {
        f"source-{n}.mp4" for n in names
    }


def test_rows_of_older_versions_show_no_source(finished: tuple[Path, Comparison], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    source = out / "decoded" / f"source-{rows[0]['source']}.mp4"
    source.rename(source.with_name("source-sample.mp4"))
    for row in rows:
        del row["source"]
    (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(run(out).rows) == 6
    assert viewer_data(out)["sample"]["source"] == ""
    assert len(viewer_data(out)["sample"]["streams"]) == 6


def test_published_curves_change_no_number(finished: tuple[Path, Comparison], tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "papers.json"
    shutil.copytree(finished[0], out)
    file.write_text(
        json.dumps({"UVG/PSNR": {"Other": [[0.5, 30.0], [1.0, 35.0]]}, "B/DISTS": {"No": [[1, 0.1]]}})
    )
    found = run(out, published=f"{file}:UVG")
    assert found.table.means == finished[1].table.means
    before, after = (json.loads((folder / "results.json").read_text()) for folder in (finished[0], out))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert after.pop("published") == {"file": "papers.json", "set": "UVG", "sha256": sha256}
    assert before.pop("published") is None
    assert after == before
    for name in ("report.html", "curves.svg"):
        plain, drawn = ((folder / name).read_text() for folder in (finished[0], out))
        assert "Other (published, other harness): 0.5000 bpp" in drawn
        assert drawn.count("stroke-dasharray") > plain.count("stroke-dasharray") == 0
    assert (out / "table.csv").read_text() == (finished[0] / "table.csv").read_text()
    heading = "<h1>{}</h1>".format(
        (finished[0] / "report.html").read_text().split("<h1>")[1].split("</h1>")[0]
    )
    assert heading in (out / "report.html").read_text()
    with pytest.raises(ValueError, match="there are B, UVG"):
        run(tmp_path / "never", published=f"{file}:MCL-JCV")
    assert not (tmp_path / "never").exists()
