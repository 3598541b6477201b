"""Methods of this package and of others: found without importing; a broken one breaks only itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import invalidate_caches
from pathlib import Path

import pytest

from gencodec import registry
from gencodec.codec import Codec, UnsupportedStream

PLUG_IN = """
import torch
from gencodec.codec import Codec

class {cls}(Codec):
    name, codec_id, version, qualities, weight_sets = {name!r}, {codec_id}, 1, range(64), {{"tiny": ((),)}}
    load = classmethod(lambda cls, weights, settings, *, device: cls())
    encode = decode = lambda self, *a, **k: iter(())
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package by hand: a module and the metadata with an entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(package: str, name: str, code: str, target: str) -> None:
        (tmp_path / f"{package}.py").write_text(code, encoding="utf-8")
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8"
        )
        (folder / "entry_points.txt").write_text(
            f"[{registry.GROUP}]\n{name} = {package}:{target}\n", encoding="utf-8"
        )
        invalidate_caches()

    return add


def plug_in(name: str, codec_id: int) -> str:
    return PLUG_IN.format(cls="Plug", name=name, codec_id=codec_id)


def test_built_in_numbers_are_what_the_classes_say() -> None:
    ids = [entry.codec_id for entry in registry.BUILT_IN.values()]
    assert len(set(ids)) == len(ids)
    for name, entry in registry.BUILT_IN.items():
        cls = registry.codec_class(name)
        assert (cls.name, cls.codec_id) == (name, entry.codec_id)
        assert issubclass(cls, Codec)
        assert registry.codec_class_by_id(entry.codec_id) is cls
        assert entry.codec_id < 128


def test_unknown_names_and_numbers() -> None:
    with pytest.raises(ValueError, match=r"no method 'h264'; there are intra"):
        registry.codec_class("h264")
    with pytest.raises(UnsupportedStream, match="number 99 is not installed"):
        registry.codec_class_by_id(99)


def test_pip_installed_method(toy: str) -> None:
    assert toy in registry.method_names()
    cls = registry.codec_class(toy)
    assert (cls.name, cls.codec_id, cls.__module__) == ("toy", 200, "gencodec_toy")
    assert registry.codec_class_by_id(200) is cls
    assert registry.plug_in_problems() == {}


def test_listing_imports_nothing(toy_env: dict[str, str]) -> None:
    code = (
        "import sys; from gencodec import registry; assert 'toy' in registry.method_names(); "
        "assert 'gencodec_toy' not in sys.modules and 'gencodec.methods' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=toy_env, check=True)


@pytest.mark.parametrize(
    ("code", "target", "complaint"),
    [
        ("raise RuntimeError('no CUDA')", "Plug", "cannot be loaded: RuntimeError: no CUDA"),
        ("import not_there_at_all", "Plug", "cannot be loaded: ModuleNotFoundError"),
        ("x = 1", "Plug", "cannot be loaded: AttributeError"),
        ("Plug = 3", "Plug", "is not a gencodec.Codec"),
        (plug_in("other", 201), "Plug", "calls itself 'other'"),
        (plug_in("mine", 3), "Plug", "has number 3; other packages have 128..255"),
    ],
)
def test_broken_plug_in_breaks_only_itself(
    install: Callable[..., None], toy: str, code: str, target: str, complaint: str
) -> None:
    install("broken_plug_in", "mine", code, target)
    sys.modules.pop("broken_plug_in", None)
    with pytest.raises(ValueError, match=complaint):
        registry.codec_class("mine")
    assert complaint in registry.plug_in_problems()["mine"]
    assert "broken_plug_in" in registry.plug_in_problems()["mine"]
    assert registry.codec_class_by_id(200) is registry.codec_class(toy)
    assert registry.codec_class("intra").codec_id == 1


def test_clash_of_numbers(install: Callable[..., None], toy: str) -> None:
    install("rival_package", "rival", plug_in("rival", 200), "Plug")
    with pytest.raises(UnsupportedStream, match="200 is taken by"):
        registry.codec_class_by_id(200)
    assert set(registry.plug_in_problems()) == {"toy", "rival"}
    assert registry.codec_class("intra").codec_id == 1


def test_clash_of_names(install: Callable[..., None], toy: str) -> None:
    install("second_toy", "toy", plug_in("toy", 222), "Plug")
    with pytest.raises(ValueError, match="several packages"):
        registry.codec_class("toy")
    assert "toy" in registry.plug_in_problems()


def test_name_of_this_package_stays_its_own(install: Callable[..., None]) -> None:
    install("impostor", "intra", plug_in("intra", 222), "Plug")
    assert registry.codec_class("intra").codec_id == 1
    assert registry.method_names().count("intra") == 1
    assert "not used" in registry.plug_in_problems()["intra"]
