"""Weights: found, verified, chosen by the header's id; foreign files are read without running them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gencodec import weights
from gencodec.codec import WeightsMissing
from gencodec.weights_foreign import import_foreign


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A table of two files, a-tiny-1 and b-tiny-1, in a folder of their own."""
    files = {}
    entries = {}
    for name in ("a-tiny-1", "b-tiny-1"):
        files[name] = tmp_path / f"{name}.safetensors"
        save_file({"w": torch.full((2, 3), float(len(files)))}, files[name], metadata={"name": name})
        digest = hashlib.sha256(files[name].read_bytes()).hexdigest()
        entries[name] = weights.WeightsFile(f"{name}.safetensors", digest, "MIT", "test")
    monkeypatch.setattr(weights, "ZOO", tmp_path)
    monkeypatch.setattr(weights, "WEIGHTS", entries)
    return files


def test_set(table: dict[str, Path]) -> None:
    loaded = weights.load_set(["a-tiny-1", "b-tiny-1"], "tiny")
    assert set(loaded.files) == {"a", "b"}
    assert loaded.files["b"]["w"].shape == (2, 3)
    assert loaded.metadata["a"] == {"name": "a-tiny-1"}
    digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in table.values())
    assert loaded.id == int.from_bytes(hashlib.sha256(digests).digest()[:4], "little")
    assert loaded.id == weights.set_id(["a-tiny-1", "b-tiny-1"]) != weights.set_id(["b-tiny-1", "a-tiny-1"])
    assert weights.parameter_count("a-tiny-1") == 6
    assert weights.problem_with("a-tiny-1") == ""


def test_altered_or_absent(table: dict[str, Path]) -> None:
    data = bytearray(table["a-tiny-1"].read_bytes())
    data[-1] ^= 1
    table["a-tiny-1"].write_bytes(bytes(data))
    for call in (weights.load_named, lambda name: weights.load_set([name], "tiny")):
        with pytest.raises(WeightsMissing, match="recorded SHA-256"):
            call("a-tiny-1")
    table["a-tiny-1"].unlink()
    for call in (weights.load_named, lambda name: weights.load_set([name], "tiny")):
        with pytest.raises(WeightsMissing, match="are not at"):
            call("a-tiny-1")
    with pytest.raises(WeightsMissing, match="not in this version"):
        weights.load_set(["c-tiny-1"], "tiny")


def test_choice_by_id(table: dict[str, Path], tmp_path: Path) -> None:
    sets = [["a-tiny-1"], ["b-tiny-1"]]
    assert set(weights.choose_set(sets, weights.set_id(["b-tiny-1"]), "tiny").files) == {"b"}
    with pytest.raises(WeightsMissing, match=r"needs tiny weights 00000005, here is .*a-tiny-1.*b-tiny-1"):
        weights.choose_set(sets, 5, "tiny")
    own = tmp_path / "own.safetensors"
    save_file({"w": torch.ones(4)}, own)
    loaded = weights.load_set(["a-tiny-1"], "tiny", path=own)
    assert loaded.id not in {weights.set_id(names) for names in sets}
    assert weights.choose_set(sets, loaded.id, "tiny", path=own).files["a"]["w"].shape == (4,)
    with pytest.raises(WeightsMissing, match=r"own\.safetensors"):
        weights.choose_set(sets, 5, "tiny", path=own)


def test_other_places(table: dict[str, Path], tmp_path: Path) -> None:
    names = ["a-tiny-1", "b-tiny-1"]
    assert weights.load_set(names, "tiny", path=tmp_path).id == weights.set_id(names)
    with pytest.raises(WeightsMissing, match="wants a folder"):
        weights.load_set(names, "tiny", path=table["a-tiny-1"])
    with pytest.raises(WeightsMissing, match="cannot read"):
        weights.load_set(names[:1], "tiny", path=tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsMissing, match="cannot read"):
        weights.load_set(names[:1], "tiny", path=tmp_path / "bad")


def test_the_real_table() -> None:
    for name, entry in weights.WEIGHTS.items():
        assert len(entry.sha256) == 64
        assert entry.filename == f"{name}.safetensors"
        assert entry.licence
        assert weights.problem_with(name) == ""


# ---- import ----------------------------------------------------------------------------------------------


def test_import(tmp_path: Path) -> None:
    state = {"net.weight": torch.rand(3, 2).T, "tied": torch.ones(4)}
    source, target = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save({"state_dict": state, "step": 7, "name": "net"}, source)
    assert import_foreign(source, target) == 2
    tensors, _ = weights.load_file(target)
    assert torch.equal(tensors["state_dict.net.weight"], state["net.weight"])


class Evil:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_import_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    source, target = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save(
        {"w": torch.ones(2), "evil": Evil(tmp_path / "hit")},
        source,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(WeightsMissing, match="more than tensors"):
        import_foreign(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pth"]


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\3\4" + bytes(50), b"\x80\x02}."])
def test_import_of_rubbish(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "x.pth"
    source.write_bytes(data)
    with pytest.raises(WeightsMissing):
        import_foreign(source, tmp_path / "x.safetensors")
    with pytest.raises(WeightsMissing, match="no weights at"):
        import_foreign(tmp_path / "none.pt", tmp_path / "x.safetensors")


def test_import_takes_safetensors_too(tmp_path: Path) -> None:
    tensors = {"params/a/kernel": torch.arange(6.0).reshape(2, 3)}
    save_file(tensors, tmp_path / "i3d.safetensors")
    assert import_foreign(tmp_path / "i3d.safetensors", tmp_path / "x.safetensors") == 1
    found, _ = weights.load_file(tmp_path / "x.safetensors")
    assert torch.equal(found["params/a/kernel"], tensors["params/a/kernel"])
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "i3d.safetensors").read_bytes()[:-4])
    with pytest.raises(WeightsMissing, match="cannot read"):
        import_foreign(tmp_path / "cut.safetensors", tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()
