"""What the README and the pages say is run: Python blocks, commands, links."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest
import typer
from conftest import make_clip

from gencodec import registry
from gencodec.cli import app
from gencodec.codec import CorruptStream, Packet, VideoInfo
from gencodec.rate import ConstantQuality
from gencodec.training.cli import parse as parse_intra
from gencodec.training.diffsit_cli import parse as parse_diffsit
from gencodec.training.diffsit_paper_cli import parse as parse_diffsit_paper
from gencodec.training.extreme_cli import parse as parse_extreme
from gencodec.training.recipe import Recipe
from gencodec.training.s2vc_cli import parse as parse_s2vc
from gencodec.training.s2vc_paper_cli import parse as parse_paper
from gencodec.video import write_video

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?:[^\n]*?title=\"([^\"]+)\")?[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALL = 'pip install . && gencodec demo\npip install ".[test]" && pytest'


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is (or nothing), its text."""

    language: str
    title: str
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    found = [Block(*match.groups(default="")) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]
    return [block for block in found if block.language == language]


def named(pages: list[Path]) -> list:
    return [pytest.param(page, id=page.name) for page in pages]


# ---- Python ------------------------------------------------------------------------------------------------


LONG = "evaluation.md"  # whose blocks compare codecs
RUN = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize(
    "page",
    [
        *named([p for p in RUN if p.name != LONG]),
        pytest.param(ROOT / "docs" / LONG, marks=pytest.mark.slow, id=LONG),
    ],
)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """One process a page, its blocks in order, in a folder with a clip, a log, and the files it shows."""
    write_video(tmp_path / "in.mp4", make_clip(3, 48, 32), VideoInfo(48, 32, Fraction(25)))
    log = tmp_path / "runs" / "intra" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"step": 1, "bpp": 0.5, "loss": 1.0}) + "\n")
    shown = blocks(page, "python")
    for block in shown:
        if block.title:
            (tmp_path / block.title).write_text(block.text)
    for block in blocks(page, "toml"):
        install_entry_points(block.text, tmp_path)
    script = "\n".join(block.text for block in shown if not block.title)
    paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def install_entry_points(pyproject: str, folder: Path) -> None:
    """Do what pip would do with the methods of a pyproject.toml: leave their names beside the modules."""
    group, _, rest = pyproject.partition('[project.entry-points."gencodec.methods"]')[2].partition("\n[")
    lines = [line.replace('"', "") for line in group.strip().splitlines()]
    assert lines, rest
    info = folder / "shown-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shown\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n" + "\n".join(lines) + "\n")


def test_the_codec_of_the_page_keeps_the_laws(tmp_path: Path) -> None:
    """The page promises that test_laws.py runs on it; a few of them do here."""
    page = ROOT / "docs" / "add-a-codec.md"
    (module,) = [block for block in blocks(page, "python") if block.title]
    names: dict = {"__name__": "mosaic"}
    exec(compile(module.text, module.title, "exec"), names)
    mosaic = names["Mosaic"]
    assert mosaic.codec_id in registry.EXTERNAL_IDS
    codec = mosaic(type("W", (), {"preset": "tiny", "id": 0}), b"")
    frames, info = make_clip(3, 17, 9), VideoInfo(17, 9, Fraction(25))
    seen: list = []
    packets = list(codec.encode(frames, info, ConstantQuality(63), on_recon=seen.append))
    decoded = list(codec.decode(packets, info))
    assert all((a == b).all() for a, b in zip(seen, decoded, strict=True))
    broken = Packet(packets[0].type, 63, 0, 1, packets[0].payload[:-3])
    with pytest.raises(CorruptStream):
        list(codec.decode([broken], info))


# ---- commands ----------------------------------------------------------------------------------------------


def commands(page: Path) -> list[list[str]]:
    """Every `gencodec ...` in the page's shell blocks, as words."""
    lines = [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part, comments=True) for part in parts if part.startswith("gencodec ")]


@pytest.mark.parametrize("page", named([page for page in PAGES if commands(page)]))
def test_commands_exist_with_their_options(page: Path) -> None:
    command_line = typer.main.get_command(app)
    known = command_line.commands  # type: ignore[attr-defined]
    for _, name, *arguments in commands(page):
        assert name in known, name
        if name == "train":
            continue
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options, arguments


PARSERS = {
    ("intra", "tiny"): parse_intra,
    ("extreme", "tiny"): parse_extreme,
    ("diffsit", "tiny"): parse_diffsit,
    ("diffsit", "paper"): parse_diffsit_paper,
    ("s2vc", "tiny"): parse_s2vc,
    ("s2vc", "paper"): parse_paper,
}


@pytest.mark.parametrize("page", named([page for page in PAGES if commands(page)]))
def test_training_commands_parse(page: Path) -> None:
    for words in commands(page):
        if words[1] == "train" and "--export" not in words:
            preset = words[words.index("--preset") + 1] if "--preset" in words else "tiny"
            assert PARSERS[words[2], preset](words[3:])


def test_the_readme_has_exactly_two_set_up_commands() -> None:
    text = README.read_text(encoding="utf-8")
    installing = [
        line for line in text.splitlines() if re.match(r"\s*(pip|conda|uv|python|apt|brew)\b", line)
    ]
    assert installing == INSTALL.splitlines()


def test_ci_takes_the_readmes_test_command() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    (pattern,) = re.findall(r"grep -m1 -E '([^']+)' README\.md", ci)
    (line,) = [line for line in README.read_text().splitlines() if re.search(pattern, line)]
    assert line == INSTALL.splitlines()[1]


# ---- pages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_navigation_and_reference_name_what_exists() -> None:
    navigation = re.findall(r"^\s*- [^\n:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = sorted((ROOT / "docs").rglob("*.md"))
    assert sorted(navigation) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in pages)
    for page in pages:
        for module in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            import_module(module)


def test_the_training_page_has_the_recipes_numbers() -> None:
    text, recipe = (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), Recipe()
    for name, (start, _) in recipe.phases().items():
        assert f"| {start:.2f} | {name} |" in text
    assert f"{recipe.lambda_min:g} to {recipe.lambda_max:g}, and" in text
    rates = (recipe.prior_rate, recipe.repair_rate, recipe.perceptual_rate)
    words = (f"{rate:g}" if rate < 1e-4 else re.sub(r"\.?0*e-0", "e-", f"{rate:.1e}") for rate in rates)
    assert "Adam at {} for the prior, {} for the repair and {} for".format(*words) in " ".join(text.split())


def test_the_changelog_has_this_version() -> None:
    import gencodec

    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(gencodec.__version__)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)
    for heading in ("Added", "Bitstream", "Weights", "Speed"):
        assert f"\n### {heading}\n" in text
