"""What is imported when: `import gencodec` is cheap, coding needs nothing heavy, arrows point one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gencodec

PACKAGE = Path(gencodec.__file__).parent
HEAVY = ("torchvision", "diffusers", "compressai", "lpips", "pytorch_fid", "matplotlib", "scipy", "peft")

# layer -> the layers it may import; `codec` is at the bottom, `training` may import all
LOW = {"codec"}
WEIGHTS = {"weights", "weights_foreign"}
VIDEO = {
    "video",
    "video_in",
    "video_out",
    "video_sinks",
    "video_frame",
    "video_timing",
    "colour",
    "pictures",
    "y4m",
}
FILES = {
    "varint",
    "wire_header",
    "wire",
    "chunks",
    "container",
    "container_writer",
    "rate",
    "atomic",
    "registry",
    "results",
} | WEIGHTS
TOP = {
    "api",
    "decoded",
    "cli",
    "cli_output",
    "cli_info",
    "cli_compare",
    "cli_arguments",
    "cli_kit",
    "cli_weights",
    "demo",
    "doctor",
    "__main__",
}
ALLOWED = {
    "codec": set(),
    "nn": {"nn"} | WEIGHTS | LOW,
    "entropy": {"entropy", "nn", "weights"} | LOW,
    "sampler": {"sampler", "nn", "weights"} | LOW,
    "metrics": {"metrics", "nn", "weights"} | LOW,
    "methods": {"entropy", "sampler", "nn", "metrics"} | WEIGHTS | LOW,
    **dict.fromkeys(VIDEO, VIDEO | LOW),
    **dict.fromkeys(FILES, FILES | LOW),
    "rate": FILES | LOW | {"metrics"},
    "evaluation": {"evaluation", "api", "metrics", "nn"} | FILES | VIDEO | LOW,
    **dict.fromkeys(TOP, TOP | FILES | VIDEO | LOW | {"metrics", "training", "evaluation"}),
}


def imports_of(file: Path) -> set[str]:
    """Return the modules of this package that a file imports anywhere, also inside functions."""
    package = ("gencodec", *file.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            is_package = module == "gencodec" or not (node.module or "").count(".")
            found |= {f"{module}.{alias.name}" for alias in node.names} if is_package else {module}
    return {name for name in found if name.startswith("gencodec.")}


# methods share `intra`; restarts of `extreme` and backbones of `diffsit` are coded by the loop of `s2vc`
BUILT_ON = {"extreme": {"intra", "s2vc"}, "diffsit": {"intra", "s2vc"}}
FILES_HERE = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES_HERE, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_arrows(file: Path) -> None:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    layer = parts[0]
    if layer in ("training", "__init__"):
        return
    assert layer in ALLOWED, f"{layer} is new: say in this test what it may import"
    for name in imports_of(file):
        target = name.split(".")[1]
        if target == "__version__":
            continue
        if layer == "methods" and target == "methods":
            own = len(parts) > 1 and name.split(".")[2] == parts[1]
            assert own or name.split(".")[2] in BUILT_ON.get(parts[1], {"intra"}), (
                f"{file.name} imports {name}: methods share only intra, but for BUILT_ON"
            )
        else:
            assert target in ALLOWED[layer], f"{layer} may not import {name}"


def test_only_one_file_unpickles() -> None:
    others = [file for file in FILES_HERE if "training" not in file.parts]  # which reads its own checkpoints
    users = [
        file.name for file in others if re.search(r"torch\.load\(|pickle\.load", file.read_text("utf-8"))
    ]
    assert users == ["weights_foreign.py"]


def test_coding_imports_nothing_heavy(toy_env: dict[str, str], clip_file: Path, tmp_path: Path) -> None:
    code = f"""
import sys, gencodec
codec = gencodec.create("toy")
gencodec.encode({str(clip_file)!r}, {str(tmp_path / "a.gcv")!r}, codec=codec, quality=30)
gencodec.decode({str(tmp_path / "a.gcv")!r}).save({str(tmp_path / "a.mp4")!r})
import gencodec.cli, gencodec.methods.intra.codec, gencodec.methods.s2vc.codec, gencodec.methods.diffsit.codec
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], env=toy_env, check=True)


def test_import_is_cheap_and_loads_no_method() -> None:
    """Time in our own and our imports' modules, torch and what it imports left out, against torch's."""
    code = "import torch, sys; torch_only = set(sys.modules); import gencodec; \
names = [n for n in sys.modules if n.startswith('gencodec')]; print(names); \
assert names == ['gencodec'], names; \
[getattr(gencodec, n) for n in gencodec.__all__]; \
assert not any(n.startswith('gencodec.methods.') for n in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    times = {
        name: int(cumulative)
        for cumulative, name in re.findall(
            r"^import time:\s+\d+ \|\s+(\d+) \| (?: *)(\S+)$", done.stderr, re.MULTILINE
        )
    }
    assert times["gencodec"] < 0.1 * times["torch"]


def test_public_names() -> None:
    assert set(gencodec.__all__) <= set(dir(gencodec))
    for name in gencodec.__all__:
        assert getattr(gencodec, name).__name__ == name
    assert set(gencodec._HOME) == set(gencodec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'encoder'"):
        gencodec.encoder  # noqa: B018
