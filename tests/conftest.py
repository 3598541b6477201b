"""Fixtures for all tests: generators are restored, tiny clips are made, a toy method is installed."""

from __future__ import annotations

import importlib
import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch: it and its children take one core for each process
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import gencodec
from gencodec import api
from gencodec.video import write_video

TOY = Path(__file__).parent / "toy_method"


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    """No test leaves another with a moved or seeded generator."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])


def make_clip(count: int, width: int, height: int) -> torch.Tensor:
    """Return (count, 3, height, width) uint8: a gradient that moves to the right under a static texture."""
    x = torch.arange(width).view(1, 1, 1, -1) + 2 * torch.arange(count).view(-1, 1, 1, 1)
    y = torch.arange(height).view(1, 1, -1, 1)
    colour = torch.tensor([3, 5, 7]).view(1, 3, 1, 1)
    texture = torch.from_numpy(np.random.default_rng(0).integers(0, 24, (1, 3, height, width)))
    return ((x * colour + y * 2 + texture) % 256).to(torch.uint8)


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video file: 20 frames of 48x32, lossless."""
    path = tmp_path_factory.mktemp("clips") / "clip.y4m"
    write_video(path, make_clip(20, 48, 32), gencodec.VideoInfo(48, 32, Fraction(25)))
    return path


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy package, installed by pip into a folder of its own, without network."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("toy")
    for file in TOY.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())  # pip writes build files beside the source
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def toy(toy_folder: Path) -> Iterator[str]:
    """The toy method's name, with its package importable."""
    sys.path.insert(0, str(toy_folder))
    importlib.invalidate_caches()
    yield "toy"
    sys.path.remove(str(toy_folder))
    sys.modules.pop("gencodec_toy", None)


@pytest.fixture(scope="session")
def toy_env(toy_folder: Path) -> dict[str, str]:
    """The environment of a subprocess that has the toy method."""
    paths = [str(toy_folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="session")
def toy_stream(toy: str) -> bytes:
    """A small .gcv file: 20 frames of 24x16 in GOPs of 8, 8 and 4."""
    file = io.BytesIO()
    api.encode(make_clip(20, 24, 16), file, codec=api.create(toy), quality=40)
    return file.getvalue()


def without(folder: Path, name: str, drop: int = 1, misshape: int = 0) -> list[str]:
    """Take tensors out of a file, and give others one number more; their names."""
    tensors = load_file(folder / name)
    with safe_open(folder / name, "pt") as f:
        metadata = f.metadata()
    names = sorted(tensors)
    gone, changed = names[:drop], names[drop : drop + misshape]
    kept = {n: torch.zeros(3) if n in changed else t for n, t in tensors.items() if n not in gone}
    save_file(kept, folder / name, metadata)
    return [*gone, *changed]
