"""Published curves: how they are read, how they are drawn, and what they never touch."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gencodec.codec import UnreadableInput
from gencodec.evaluation.curves import DASHED, curves_svg, legend_keys, single_plots
from gencodec.evaluation.published import Published
from gencodec.evaluation.tables import Table

CURVES = {
    "UVG/LPIPS": {"A&B": [[0.2, 0.1], [0.02, 0.3]], "VTM17.0": [[0.03, 0.25]]},
    "UVG/PSNR": {"Third": [[0.05, 31.0], [0.1, 33.0]]},
    "UVG/CLIPIQA": {"VTM17.0": [[0.03, 0.5]]},
    "HEVC-B/DISTS": {"VTM17.0": [[0.03, 0.2]]},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "papers.json"
    path.write_text(json.dumps(CURVES))
    return path


def table() -> Table:
    values = [(0.05, 0.3, 25.0), (0.1, 0.2, 28.0)]
    means = [{"codec": "x265", "setting": i, "bpp": b, "lpips_alex": v} for i, (b, v, _) in enumerate(values)]
    return Table([{"codec": "x265"}], ("lpips_alex", "psnr"), means)


def test_a_set_is_read_by_the_metrics_of_this_project(file: Path) -> None:
    found = Published.read(f"{file}:UVG")
    assert found.record == {
        "file": "papers.json",
        "set": "UVG",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert found.curves == {
        "lpips_alex": {"A&B": [(0.02, 0.3), (0.2, 0.1)], "VTM17.0": [(0.03, 0.25)]},
        "psnr": {"Third": [(0.05, 31.0), (0.1, 33.0)]},
    }


def test_they_are_drawn_dashed_and_named(file: Path) -> None:
    """Only where something was measured too, with the axes wide enough for both."""
    published = Published.read(f"{file}:UVG")
    for svg in (curves_svg(table(), published), *single_plots(table(), published)):
        root = ElementTree.fromstring(svg)
        lines = [e.attrib for e in root.iter() if e.tag.endswith("polyline")]
        dashed = [line for line in lines if line.get("stroke-dasharray") == DASHED]
        assert (len(lines), len(dashed)) == (3, 2)
        assert len({line["stroke"] for line in lines}) == 3
        places = [tuple(map(float, xy.split(","))) for line in lines for xy in line["points"].split()]
        assert all(0 < x < 460 and 0 < y < 350 for x, y in places)
        titles = [e.text for e in root.iter() if e.tag.endswith("title")]
        assert "A&B (published, other harness): 0.0200 bpp, 0.3000" in titles
        assert "x265: 0.0500 bpp, 0.3000" in titles
    texts = [e.text for e in ElementTree.fromstring(curves_svg(table(), published)).iter()]
    assert "VTM17.0 (published, other harness)" in texts
    assert not any(text and "Third" in text for text in texts), "psnr was not measured"
    assert [key.dashed for key in legend_keys(table(), published)] == [False, True, True]


def test_a_long_legend_goes_on_in_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "many.json"
    path.write_text(json.dumps({"S/LPIPS": {f"a codec with a name {i}": [[0.1, 0.2]] for i in range(7)}}))
    svg = curves_svg(table(), Published.read(f"{path}:S"))
    keys = re.findall(r'<path d="M(\d+) (\d+)h16"', svg)
    assert len(keys) == 8
    assert all(int(x) < 920 - 300 for x, _ in keys)
    assert len({y for _, y in keys}) > 2
    first_plot = re.search(r"translate\(0 (\d+)\)", svg)
    assert first_plot is not None
    assert int(first_plot[1]) > max(int(y) for _, y in keys)


def test_an_unknown_set_meets_a_list_of_the_known_ones(file: Path) -> None:
    with pytest.raises(ValueError, match=r"no set 'MCL'; there are HEVC-B, UVG$"):
        Published.read(f"{file}:MCL")
    for text in (file.name, f"{file}:", ":UVG", ""):
        with pytest.raises(ValueError, match=r"FILE\.json:SET"):
            Published.read(text)
    with pytest.raises(UnreadableInput, match=r"gone\.json cannot be read"):
        Published.read("gone.json:UVG")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "\x00",
        '{"UVG": {"a": [[0.1, 1]]}}',
        '{"UVG/PSNR": [[0.1, 1]]}',
        '{"UVG/PSNR": {"a": [0.1, 1]}}',
        '{"UVG/PSNR": {"a": []}}',
        '{"UVG/PSNR": {"a": [[0.1, "1"]]}}',
        '{"UVG/PSNR": {"a": [[0.1, 1, 2]]}}',
        '{"UVG/PSNR": {"a": [[0, 1]]}}',
        '{"UVG/PSNR": {"a": [[0.1, NaN]]}}',
        '{"UVG/PSNR": {"a": null}}',
    ],
)
def test_another_layout_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"wrong\.json is not of the layout") as caught:
        Published.read(f"{path}:UVG")
    assert "\n" not in str(caught.value)
