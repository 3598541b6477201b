"""The report writes what was measured, and notices when a page is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import report  # noqa: E402
from rd_video import by_clip  # noqa: E402

from gencodec.evaluation.tables import Table  # noqa: E402

POINT = {"setting": 3, "bpp": 0.1, "lpips_alex": 0.2, "lpips_vgg": 0.3, "dists": 0.1, "psnr": 25.0}
RATE = {"percent": -51.24, "overlap_percent": 71.6, "by_clip": {"a": -50.0, "b": None}}
RD = {
    "commit": "0123456789abcdef",
    "command": "python benchmarks/rd.py intra",
    "machine": "a machine",
    "versions": {"torch": "2.4"},
    "clips": {"a": "", "b": ""},
    "curves": {"intra": [POINT, {**POINT, "setting": 63, "bpp": 0.7}], "x265": [POINT]},
    "bd_rate_percent": dict.fromkeys(report.METRICS, RATE),
    "bd_rate_percent_of_payload": dict.fromkeys(report.METRICS, RATE | {"percent": -54.32}),
}
ROWS = [
    {"clip": clip, "clip_sha256": clip, "codec": codec, "setting": setting, "bpp": bpp, "payload_bpp": bpp}
    | {"metrics": {"lpips_alex": 0.6 - 0.1 * setting}, "frames": 2, "encode_seconds": 1, "decode_seconds": 1}
    for clip in ("a", "b")
    for codec, factor in (("x265", 1), ("new", 0.5))
    for setting, bpp in ((1, 0.02 * factor), (2, 0.05 * factor), (3, 0.1 * factor))
]
TABLE = Table.of(ROWS, ["lpips_alex"], Path())
VIDEO = {k: RD[k] for k in ("commit", "command", "machine", "versions", "clips")} | {
    "identities": {"x265": "libx265", "new": "new 1"},
    "metrics": ["lpips_alex"],
    "means": TABLE.means,
    "bd_rate": {"x265": TABLE.bd_rates("x265")},
    "bd_rate_by_clip": {"x265": by_clip(TABLE, "x265")},
    "points": ROWS,
}
METRICS_COST = VIDEO | {
    "size": [448, 256],
    "threads": 2,
    "seconds_per_1000_frames": {"lpips_alex": {"first": 140.0, "further": 87.04}},
}
EXACT = {
    "commit": "0123456789abcdef",
    "command": "python benchmarks/exact_cuda.py",
    "machine": "a machine",
    "device": "cuda (a GPU)",
    "default_way": "double",
    "ways": {"default": {"cases": 8, "equal": 8, "milliseconds": 1.234, "failures": []}},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "rd-intra.json").write_text(json.dumps(RD))
    (results / "exact-cuda.json").write_text(json.dumps(EXACT))
    entropy = (ROOT / "benchmarks" / "results" / "speed-entropy.json").read_text()
    (results / "speed-entropy.json").write_text(entropy)
    (tmp_path / "README.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    return tmp_path


def test_pages_hold_the_numbers_and_nothing_else_changes(root: Path) -> None:
    assert report.main(["--root", str(root)]) == 0
    readme = (root / "README.md").read_text()
    assert readme.startswith(f"before\n{report.BEGIN}\n")
    assert readme.endswith(f"{report.END}\nafter\n")
    assert "| LPIPS-Alex | -51.2 % | -54.3 % | 72 % |" in readme
    assert "0.100 to 0.700 bpp" in readme
    assert "old" not in readme
    details = (root / "docs" / "benchmarks.md").read_text()
    assert "| b | none |" in details
    assert "| default | 8 of 8 | 1.23 |" in details
    assert "commit 012345678;" in details


def test_whole_clips_have_tables_and_a_picture(root: Path) -> None:
    (root / "benchmarks" / "results" / "rd-video.json").write_text(json.dumps(VIDEO))
    (root / "benchmarks" / "results" / "speed-metrics.json").write_text(json.dumps(METRICS_COST))
    report.main(["--root", str(root)])
    assert "| `new` | -50.0 % |" in (root / "README.md").read_text()
    details = (root / "docs" / "benchmarks.md").read_text()
    assert "| b | -50.0 % |" in details
    assert "| new | 2 | 0.0250 | 0.4000 |" in details
    assert "| LPIPS-Alex | 140.0 | 87.0 |" in details
    drawn = ElementTree.fromstring((root / "docs" / "images" / "rd-video.svg").read_text())
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}circle")) == 6


def test_psnr_stands_at_equal_rate(root: Path) -> None:
    def better(row: dict[str, Any]) -> dict[str, Any]:
        """By one dB at the same rates, by three in the second clip."""
        gain = {("a", "new"): 1.0, ("b", "new"): 3.0}.get((row["clip"], row["codec"]), 0.0)
        bpp = row["bpp"] * (2 if row["codec"] == "new" else 1)
        return row | {"bpp": bpp, "metrics": {"psnr": 20 + row["setting"] + gain}}

    rows = [better(row) for row in ROWS]
    table = Table.of(rows, ["psnr"], Path())
    result = VIDEO | {"metrics": ["psnr"], "points": rows, "means": table.means}
    result |= {"bd_rate": {"x265": table.bd_rates("x265")}}
    (root / "benchmarks" / "results" / "rd-video.json").write_text(json.dumps(result))
    report.main(["--root", str(root)])
    details = (root / "docs" / "benchmarks.md").read_text()
    assert "| b | +3.00 |" in details
    assert "| mean | +2.00 |" in details


def test_s2vc_has_its_speed_ablations_and_drift(root: Path) -> None:
    origin = {k: RD[k] for k in ("commit", "command", "machine", "versions")}
    parts = {"encode": {"median": 0.2}, "render": {"median": 0.0156}}
    rates = {"encode": 5.04, "decode": 6.5}
    found = {"threads": 2, "frames_per_second": rates, "seconds_a_frame": parts}
    curve = [[0.01, 0.5], [0.02, 0.25]]
    part = origin | {"frames": 5, "clips": ["a"]}
    percents = ({"full": 0.0, "no temporal prior": 12.34}, {"full": 0.0, "no TCG": 4.56})
    curves = {"full": curve, "no TCG": curve}
    ablations = {
        "priors": part
        | {"commit": "0123456789abcdef", "steps": 3, "from_nothing": True, "percent": percents[0]},
        "generators": part | {"steps": 4, "percent": percents[1], "curves": curves},
    }
    drift = {
        "last_over_first_third": {"bits": {"8": 1.05}, "lpips_alex": {"8": 0.97}},
        "clips": [{"clip": "a", "quality": 8, "key_bits": 9000, "bits": [1000.0, 0.0, 500.0]}],
    }
    zeroed = {
        "frames": 7,
        "clip_hashes": {"a": "0"},
        "variants": {"no U-Net": {"lpips_alex": 7.89, "dists": 4.32, "flicker": -1.23}},
    }
    results: dict[str, dict[str, Any]] = {
        "speed": {"results": found},
        "ablations": ablations,
        "drift": drift,
        "zeroed": zeroed,
    }
    for name, result in results.items():
        path = root / "benchmarks" / "results" / f"{name}-s2vc.json"
        path.write_text(json.dumps(origin | result))
    report.main(["--root", str(root)])
    details = (root / "docs" / "benchmarks.md").read_text()
    assert "on 2 threads: encode 5.0, decode 6.5." in details
    assert "| render | 16 |" in details
    assert "| no temporal prior | +12.3 % |" in details
    assert "| no TCG | +4.6 % | 0.500 | 0.250 |" in details
    assert "Each prior begins from nothing, without the part, and is trained for 3 steps" in details
    assert "Each generator begins from the same weights without the part, and is trained for 4" in details
    assert "commit 012345678" in details, "each part says when it was measured"
    assert "| 8 | +5.0 % | -60.0 % | -3.0 % |" in details
    assert "| no U-Net | +7.9 % | +4.3 % | -1.2 % |" in details


def test_candidates_on_digits_are_compared_with_one(root: Path) -> None:
    origin = {k: RD[k] for k in ("commit", "command", "machine", "versions")}
    row = {"bytes": 2000.0, "lpips_alex": 0.0567, "generated_share": 0.5, "coded_frames": 9.25}
    rows = [
        row | {"candidates": 0, "bytes": 3000.0},
        row | {"candidates": 1},
        row | {"candidates": 32, "bytes": 1500.0},
    ]
    result = {"clips": 8, "threshold": 0.1, "key_quality": 58, "training_steps": 77, "sampler_steps": 8}
    path = root / "benchmarks" / "results" / "digits-extreme.json"
    path.write_text(json.dumps(origin | result | {"rows": rows}))
    report.main(["--root", str(root)])
    details = (root / "docs" / "benchmarks.md").read_text()
    assert "| the last frame repeated | 3000 | +50.0 % | 0.0567 | 50 % | 9.2 |" in details
    assert "| 32 | 1500 | -25.0 % | 0.0567 | 50 % | 9.2 |" in details
    assert "trained for 77 steps; 8 steps of the sampler" in details


def test_diffsit_has_its_options_and_its_frames_by_type(root: Path) -> None:
    origin = {k: RD[k] for k in ("commit", "command", "machine", "versions")}
    mean = {"bpp": 0.01, "lpips_alex": 0.5}
    ablations = {
        "frames": 18,
        "clips": {"a": "00"},
        "qualities": [8],
        "variants": {"chains of 2": {"bd_rate": 7.89, "overlap": 90.0, "means": [mean]}},
    }

    def shown(backbone: float, mv: float) -> dict:
        return {"lpips": {"backbone": backbone, "mv": mv}, "flicker": {"seams": 3.0, "groups": 2.5}}

    by_type = {
        "shown": shown(0.1, 0.11),
        "stem": shown(0.2, 0.22),
        "still": shown(0.2, 0.33),
        "moved": shown(0, 0.04),
    }
    frames = {
        "frames": 18,
        "clips": {"a": "00"},
        "means": [{"quality": 8, "mv_over_backbone_bits": 0.054} | by_type],
    }
    for name, result in (("ablations", ablations), ("frames", frames)):
        path = root / "benchmarks" / "results" / f"{name}-diffsit.json"
        path.write_text(json.dumps(origin | result))
    report.main(["--root", str(root)])
    details = (root / "docs" / "benchmarks.md").read_text()
    assert "| chains of 2 | +7.9 % | 90 % | 0.0100 / 0.500 |" in details
    assert "| 8 | 0.2000 | 0.2200 | 0.1000 | 0.1100 | 0.3300 | 0.0400 | 5.4 % | 3.00 | 2.50 |" in details


def test_parts_of_the_generator_of_diffsit_are_compared(root: Path) -> None:
    full = {"mean": 0.2, "backbone": 0.19, "mv": 0.209, "deviation": 0.0123}
    result = {k: RD[k] for k in ("commit", "command", "machine", "versions", "clips")} | {
        "frames": 18,
        "steps": 400,
        "variants": {"full": {"8": full}, "no FTE": {"8": full | {"mean": 0.21, "mv": 0.228}}},
    }
    path = root / "benchmarks" / "results" / "ablations-diffsit-training.json"
    path.write_text(json.dumps(result))
    report.main(["--root", str(root)])
    page = (root / "docs" / "benchmarks.md").read_text()
    assert "trained for 400 steps" in page
    assert "| full | 8 | 0.2000 | 0.1900 | 0.2090 | +10.0 % | 0.0123 |" in page
    assert "| no FTE | 8 | 0.2100 | 0.1900 | 0.2280 | +20.0 % | 0.0123 |" in page


def test_choosing_has_the_rate_at_equal_look(root: Path) -> None:
    curve = [("new", 0.01, 0.4, 20.0), ("new", 0.04, 0.1, 24.0), ("other", 0.1, 0.1, 30.0)]
    means = [
        {"codec": codec, "bpp": bpp, "lpips_alex": lpips, "psnr": psnr, "dists": 0.2, "flicker": 9.0}
        for codec, bpp, lpips, psnr in curve
    ]
    found = report.choosing({"rd-video": VIDEO | {"means": means}})
    # a third of the way from .1 to .4, in the logarithm of the rate
    assert f"| `new` | 0.0100 | 0.0159 | {0.04 * 0.25 ** (1 / 3):.4f} |" in found
    assert "| 0.200 | 22.7 | 9.0 |" in found
    assert "| `other` | none | none | none | none | none | none | none |" in found
    slow, fast = ({"encode": {"median": s}, "decode": {"median": s}} for s in (20.0, 4.0))
    speed = {"results": {"frames": 40, "qualities": [{"seconds": slow}, {"seconds": fast}]}}
    assert "| `extreme` | 2.0 to 10.0 | 2.0 to 10.0 |" in report.choosing({"speed-extreme": speed})


def test_check_notices_pages_that_are_out_of_date(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--root", str(root), "--check"]) == 1
    assert "benchmarks.md is out of date" in capsys.readouterr().out
    report.main(["--root", str(root)])
    assert report.main(["--root", str(root), "--check"]) == 0
    (root / "benchmarks" / "results" / "exact-cuda.json").unlink()
    assert report.main(["--root", str(root), "--check"]) == 1


def test_without_results_it_says_so(root: Path) -> None:
    for path in (root / "benchmarks" / "results").iterdir():
        path.unlink()
    report.main(["--root", str(root)])
    assert "Nothing has been measured yet." in (root / "README.md").read_text()


def test_a_readme_without_markers_is_refused(root: Path) -> None:
    (root / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        report.main(["--root", str(root)])


def test_the_pages_of_this_project_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--check"]) == 0, capsys.readouterr().out
