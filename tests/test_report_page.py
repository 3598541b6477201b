"""The report in a real browser: a click, a drag and key presses do what they say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gencodec.demo import SAMPLE
from gencodec.evaluation.compare import compare

webdriver = pytest.importorskip("selenium.webdriver")

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
SIZE = (160, 96)
PUBLISHED = ["DVC-P", "VTM17.0", "A codec with quite a long name", "DCVC-FM", "HM16.25"]
CONTEXT = "const c = document.getElementById('canvas').getContext('2d');"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "out"
    papers = out.with_name("papers.json")
    papers.write_text(json.dumps({"S/LPIPS": {name: [[0.05, 0.4], [0.2, 0.2]] for name in PUBLISHED}}))
    settings = {"x264": [45, 30], "x265": [44, 28]}
    compare(
        SAMPLE,
        ["x265", "x264"],
        out,
        settings=settings,
        metrics=["psnr", "lpips_alex"],
        frames=(0, 12),
        size=SIZE,
        published=f"{papers}:S",
    )
    return out / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def viewer(browser: Any, page: Path) -> Any:
    """The page, its first picture drawn."""
    browser.get(page.as_uri())
    wait(browser, "return document.getElementById('canvas').dataset.frame === '0'")
    return browser


def wait(browser: Any, script: str, seconds: float = 20) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds).until(lambda b: b.execute_script(script))


def canvas(browser: Any) -> Any:
    return browser.find_element("id", "canvas")


def pixels(browser: Any, x: int) -> list[int]:
    """The middle pixel of a column of the canvas, RGB."""
    return list(
        browser.execute_script(f"{CONTEXT} return [...c.getImageData(arguments[0], 48, 1, 1).data]", x)
    )[:3]


def test_it_draws_without_errors(viewer: Any) -> None:
    assert [line for line in viewer.get_log("browser") if line["level"] == "SEVERE"] == []
    assert sum(pixels(viewer, 20)) > 0
    assert "x264" in viewer.find_element("tag name", "h1").text
    assert len(viewer.find_elements("css selector", "table")) == 2
    assert len(viewer.find_elements("css selector", ".curves svg")) == 2
    titles = [e.text for e in viewer.find_elements("css selector", ".hint") if "up to" in e.text]
    assert [t.split(",")[0] for t in titles] == ["LPIPS of each frame", "bits of each frame"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_published_curves_have_keys_that_can_be_read(viewer: Any, scheme: str) -> None:
    """Dashed, in the colour of their curve, which stands out from the page."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    viewer.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    keys = viewer.find_elements("css selector", ".keys span")
    assert [key.text for key in keys[2:]] == [f"{name} (published, other harness)" for name in PUBLISHED]
    back = viewer.find_element("tag name", "body").value_of_css_property("background-color")
    for key in keys:
        mark = key.find_element("tag name", "i")
        dashed = key in keys[2:]
        assert mark.value_of_css_property("border-top-style") == ("dashed" if dashed else "solid")
        assert contrast(mark.value_of_css_property("border-top-color"), back) > 2.5
        assert contrast(key.value_of_css_property("color"), back) > 7
    lines = viewer.find_elements("css selector", ".curves polyline[stroke-dasharray]")
    assert len(lines) == len(PUBLISHED)


def contrast(one: str, other: str) -> float:
    """Of two CSS colours, as WCAG counts it: 1 to 21."""
    lights = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


def test_a_clip_without_its_source_shows_its_streams(browser: Any, page: Path, tmp_path: Path) -> None:
    """As in reports of folders that an older version filled."""
    text = page.read_text()
    start, end = text.index('id="data">') + len('id="data">'), text.index('</script>\n<script>"use strict"')
    data = json.loads(text[start:end])
    data["sample"]["source"] = ""
    bare = tmp_path / "bare.html"
    bare.write_text(text[:start] + json.dumps(data) + text[end:])
    browser.get(bare.as_uri())
    wait(browser, "return document.getElementById('canvas').dataset.frame === '0'")
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    texts = [o.text for o in browser.find_elements("css selector", "#left option")]
    assert len(texts) == 4
    assert "source" not in texts
    assert sum(pixels(browser, 20)) > 0


def test_keys_step_the_frames(viewer: Any) -> None:
    body = viewer.find_element("tag name", "body")
    body.send_keys("\ue014", "\ue014")  # arrow right
    wait(viewer, "return document.getElementById('canvas').dataset.frame === '2'")
    body.send_keys("\ue012")  # arrow left
    wait(viewer, "return document.getElementById('canvas').dataset.frame === '1'")
    assert viewer.find_element("id", "number").text == "1"


def test_a_drag_moves_the_border(viewer: Any) -> None:
    from selenium.webdriver import ActionChains

    box = canvas(viewer).size
    ActionChains(viewer).move_to_element(canvas(viewer)).click_and_hold().move_by_offset(
        box["width"] // 4, 0
    ).release().perform()
    wait(viewer, "return Math.abs(document.getElementById('canvas').dataset.border - 0.75) < 0.02")


def test_the_two_sides_are_what_was_chosen(viewer: Any) -> None:
    """With one codec on both sides the difference is grey everywhere; source against it is not."""
    from selenium.webdriver.support.ui import Select

    Select(viewer.find_element("id", "mode")).select_by_value("difference")
    wait(viewer, "return document.getElementById('canvas').dataset.frame === '0'")
    same = Select(viewer.find_element("id", "right"))
    same.select_by_value("source")
    grey = f"{CONTEXT} const d = c.getImageData(0, 0, {SIZE[0]}, {SIZE[1]}).data;"
    grey += " return d.every((v, i) => i % 4 === 3 || v === 128)"
    wait(viewer, grey)
    same.select_by_value("0")
    wait(viewer, f"return !(() => {{ {grey} }})()")


def test_a_click_plays(viewer: Any) -> None:
    viewer.find_element("id", "play").click()
    wait(viewer, "return +document.getElementById('canvas').dataset.frame >= 3")
    viewer.find_element("id", "play").click()
    assert viewer.find_element("id", "play").text == "play"


def test_it_fits_a_phone(viewer: Any) -> None:
    viewer.set_window_size(390, 800)
    try:
        assert viewer.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        viewer.set_window_size(1100, 1400)
