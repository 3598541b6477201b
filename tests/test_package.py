"""The package as strangers meet it: dependencies, the wheel, and the demo from an empty environment."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import gencodec

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
CODEC = "torch numpy einops av constriction safetensors typer rich"
RESEARCH = "torchvision diffusers compressai lpips pytorch-fid scipy jinja2"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


# ---- what pyproject.toml says ------------------------------------------------------------------------------


def test_versions_licence_and_extras(project: dict[str, Any]) -> None:
    supported = SpecifierSet(project["requires-python"])
    assert ["3.9" in supported, "3.10" in supported, "3.12" in supported] == [False, True, True]
    assert project["license"] == "MIT"
    assert project["version"] == gencodec.__version__
    assert project["optional-dependencies"].keys() == {"test", "train", "report", "ray", "docs", "paper"}
    assert project["scripts"] == {"gencodec": "gencodec.cli:main"}


def test_dependencies_are_the_stated_stack_with_a_floor_each(project: dict[str, Any]) -> None:
    requirements = [Requirement(text) for text in project["dependencies"]]
    assert {r.name for r in requirements} == set(f"{CODEC} {RESEARCH}".split())
    assert all(any(s.operator == ">=" for s in r.specifier) for r in requirements)
    assert [r.name for r in requirements if r.marker] == ["compressai"]


PLATFORMS = [
    ("3.11", "linux", "x86_64", True),
    ("3.10", "linux", "x86_64", True),
    ("3.12", "darwin", "arm64", True),
    ("3.11", "darwin", "x86_64", True),
    ("3.13", "linux", "x86_64", False),
    ("3.13", "darwin", "arm64", False),
    ("3.11", "win32", "AMD64", False),
    ("3.11", "linux", "aarch64", False),
]


@pytest.mark.parametrize(("python", "system", "machine", "wanted"), PLATFORMS)
def test_compressai_is_asked_for_where_it_has_wheels(
    project: dict[str, Any], python: str, system: str, machine: str, wanted: bool
) -> None:
    (text,) = [t for t in project["dependencies"] if t.startswith("compressai")]
    marker = Requirement(text).marker
    assert marker
    here = {"python_version": python, "sys_platform": system, "platform_machine": machine}
    assert marker.evaluate(here) is wanted


def test_the_installed_copy_is_this_folder() -> None:
    """Tests import the folder, their subprocesses may import what is installed: both must be the same."""
    installed = Path(str(importlib.metadata.distribution("gencodec").locate_file("gencodec")))
    if not installed.is_dir():
        return  # installed in place
    here = {path.name: path for path in (ROOT / "gencodec").glob("*.py")}
    stale = [name for name, path in here.items() if path.read_bytes() != _bytes(installed / name)]
    assert not stale, 'the installed copy is an older one: run pip install ".[test]"'


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


# ---- the wheel ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked and new files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        (source / part).write_bytes((ROOT / part).read_bytes())
    for path in (ROOT / "gencodec").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    run("build the wheel", sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def venv(tmp_path: Path) -> Iterator[Path]:
    """A place for an environment, emptied afterwards: it takes gigabytes."""
    yield tmp_path / "venv"
    shutil.rmtree(tmp_path / "venv", ignore_errors=True)


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    ours = {str(p.relative_to(ROOT)) for p in (ROOT / "gencodec").rglob("*.py")}
    assert ours <= set(names)
    weights = {f"gencodec/zoo/{path.name}" for path in (ROOT / "gencodec" / "zoo").glob("*.safetensors")}
    assert weights
    assert weights | {"gencodec/py.typed", "gencodec/zoo/sample.mp4", "gencodec/zoo/README.md"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"gencodec"}
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or "/tests/" in name]
    assert wheel.stat().st_size < 50e6


@pytest.mark.slow
def test_a_stranger_installs_the_wheel_and_runs_the_demo(wheel: Path, tmp_path: Path, venv: Path) -> None:
    """An empty environment, the registry's newest dependencies, a folder that is not the clone."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run("make an environment", sys.executable, "-m", "venv", str(venv))
    scripts = venv / ("Scripts" if sys.platform == "win32" else "bin")
    run("install", str(scripts / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    printed = run("run the demo", str(scripts / "gencodec"), "demo", "--json", cwd=folder)
    methods = {row["method"]: row for row in json.loads(printed)["methods"]}
    assert "intra" in methods
    for name, row in methods.items():
        assert (folder / "gencodec-demo" / f"{name}.gcv").stat().st_size == row["bytes"]
        assert (folder / "gencodec-demo" / f"{name}.mp4").stat().st_size > 0
        assert 0 < row["bpp"] < 2
    run("look for faults", str(scripts / "gencodec"), "doctor", cwd=folder)


def run(what: str, *command: str, cwd: Path | None = None) -> str:
    """Run a command in a clean environment and return what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "GENCODEC"))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, f"could not {what}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
