"""The trainer: it learns, goes on where it stopped, survives a kill, and exports what the codec loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_clip
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import gencodec
from gencodec import training
from gencodec.codec import VideoInfo
from gencodec.entropy.coder import SymbolEncoder
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.metrics.dists import Dists
from gencodec.nn.exact import exact_layers
from gencodec.rate import ConstantQuality
from gencodec.training import export, mean_gains
from gencodec.training.cli import recipe_for
from gencodec.training.data import BatchSource, DeviceBank, PictureBank
from gencodec.training.intra import IntraTask
from gencodec.training.patches import Patches
from gencodec.training.perceptual import PerceptualLoss
from gencodec.training.qualities import loss_weights
from gencodec.training.recipe import CONTINUE, PHASES, Recipe
from gencodec.training.trainer import Budget, Trainer, load_checkpoint
from gencodec.video import write_video
from gencodec.weights import load_file, load_named

CPU = torch.device("cpu")
ZOO = Path(gencodec.__file__).parent / "zoo"
TINY = replace(Recipe(), batch=2, crop=64, patch=4, repairs=2, windows=2, updates=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three PNGs of 160x144: the data of these tests."""
    folder = tmp_path_factory.mktemp("data")
    write_video(folder / "stills", make_clip(3, 160, 144), VideoInfo(160, 144, Fraction(1)))
    return folder


@pytest.fixture(scope="module")
def bank(pictures: Path) -> PictureBank:
    return PictureBank([pictures], crop=64)


@pytest.fixture(autouse=True)
def few_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports fit the means of four qualities, not of all."""
    monkeypatch.setattr(mean_gains, "NUM_QUALITIES", 4)


def make_trainer(bank: PictureBank, folder: Path, steps: int, slice_steps: int | None = None) -> Trainer:
    task = IntraTask(TINY, None, CPU, seed=3)
    source = BatchSource(bank, TINY.batch, CPU, seed=4)
    return Trainer(task, source, folder, Budget(steps), Budget(slice_steps))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def train(folder: Path, data: Path, *arguments: str) -> None:
    size = ["--batch", "2", "--crop", "64", "--device", "cpu"]
    training.run("intra", ["--data", str(data), "--out", str(folder), *size, *arguments])


# ---- learning ----------------------------------------------------------------------------------------------


LATER = [pytest.param(p, marks=pytest.mark.slow) for p in (TINY.repair_from, TINY.perceptual_from)]


@pytest.mark.parametrize("progress", [0.0, TINY.exact_from, *LATER])
def test_the_loss_falls_on_one_picture(bank: PictureBank, progress: float) -> None:
    task = IntraTask(replace(TINY, batch=4, repairs=16, windows=16, updates=1), None, CPU, seed=0)
    for group in task.optimizer.param_groups:
        group["lr"] = 2e-3 * group["scale"]
    x = bank.batch(1, np.random.default_rng(0)).expand(4, -1, -1, -1).contiguous()
    losses = [task.step(x, progress)["loss"] for _ in range(40)]
    assert np.mean(losses[-8:]) < 0.95 * np.mean(losses[:8])


def test_each_part_leaves_the_other_alone(bank: PictureBank) -> None:
    """The prior is trained without the synthesis, then the synthesis without the prior."""
    task = IntraTask(TINY, None, CPU, seed=0)
    x = bank.batch(2, np.random.default_rng(0))
    for progress, trained in ((0.0, "latents."), (0.99, "transforms.synthesis.")):
        task.make_exact(x) if progress else task.step(x, progress)  # the first step also sets scales
        before = {k: v.clone() for k, v in task.model.state_dict().items()}
        task.step(x, progress)
        changed = [k for k, v in task.model.state_dict().items() if not torch.equal(v, before[k])]
        assert {name[: len(trained)] for name in changed} == {trained}


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of twenty steps."""
    folder = tmp_path_factory.mktemp("run")
    train(folder, pictures, "--steps", "20")
    return folder


def test_phases_come_in_order(finished: Path) -> None:
    def phase(line: dict) -> str:
        if "bpp" in line:
            return "exact" if "saturation" in line else "rate"
        marks = {"adversarial": "adversarial", "lpips": "perceptual"}
        return next((phase for mark, phase in marks.items() if mark in line), "repair")

    task, log = IntraTask(TINY, None, CPU, seed=0), lines(finished)
    assert [phase(line) for line in log] == [task.phase(line["progress"]) for line in log]
    order = list(dict.fromkeys(phase(line) for line in log))
    assert order == list(PHASES)
    assert load_checkpoint(finished / "checkpoint.pt")["task"]["exact"] is True


def test_the_log_is_json_lines(finished: Path) -> None:
    log = lines(finished)
    assert [line["step"] for line in log] == list(range(1, 21))
    assert all(a["minutes"] <= b["minutes"] and a["progress"] < b["progress"] for a, b in pairwise(log))
    assert all({"loss", "pictures_per_second"} <= line.keys() for line in log)


def test_ema_is_the_average_that_was_asked_for(tmp_path: Path) -> None:
    class Task:
        device = CPU
        rescaled = False

        def __init__(self) -> None:
            self.model = nn.Linear(1, 1, bias=False)
            self.model.register_buffer("exponent", torch.zeros(1))
            self.optimizer = torch.optim.Adam([{"params": self.model.parameters(), "scale": 1.0}])
            self.count = 0

        def learning_rate(self, progress: float) -> float:
            return 1e-3

        def step(self, x: torch.Tensor, progress: float) -> dict[str, float]:
            self.count += 1
            self.model.weight.data.fill_(float(self.count))
            self.model.get_buffer("exponent").fill_(float(-self.count))
            return {}

        def state(self) -> dict:
            return {}

        def load_state(self, state: dict) -> None: ...

    class Source:
        def next(self) -> torch.Tensor:
            return torch.zeros(1)

        def state(self) -> dict:
            return {}

        def load_state(self, state: dict) -> None: ...

    run = Trainer(Task(), Source(), tmp_path, Budget(40), ema_decay=0.5)
    run.run()
    expected = 1.0
    for step in range(1, 40):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert float(run.ema["weight"]) == pytest.approx(expected, rel=1e-5)
    assert float(run.ema["exponent"]) == -40  # a grid is not averaged


def test_averages_begin_anew_where_conversion_rescales(bank: PictureBank, tmp_path: Path) -> None:
    run = make_trainer(bank, tmp_path, steps=20)
    start = round(20 * TINY.exact_from)
    run.slice = Budget(start + 1)
    run.run()
    assert run.ema_from == start
    assert all(torch.equal(run.ema[k], v) for k, v in run.task.model.state_dict().items())


def test_the_perceptual_loss_is_dists_and_lpips_on_one_vgg(tmp_path: Path) -> None:
    widths = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    layers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    random, before = torch.Generator().manual_seed(0), 3
    tensors: dict[str, torch.Tensor] = {}
    for layer, width in zip(layers, widths, strict=True):
        weight = torch.randn(width, before, 3, 3, generator=random) * (2 / (9 * before)) ** 0.5
        tensors |= {f"features.{layer}.weight": weight, f"features.{layer}.bias": torch.zeros(width)}
        before = width
    for k, width in enumerate((64, 128, 256, 512, 512)):
        tensors[f"lin{k}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=random)
    save_file(tensors, tmp_path / "vgg.safetensors")
    loss = PerceptualLoss(tmp_path / "vgg.safetensors")
    x = torch.rand(2, 3, 64, 64, generator=random)
    decoded = (0.9 * x).requires_grad_()
    found = loss(decoded, x)
    (found.lpips + found.dists).sum().backward()
    assert decoded.grad is not None
    assert torch.isfinite(decoded.grad).all()
    with torch.no_grad():
        expected = Dists.load(tmp_path / "vgg.safetensors").distance(decoded, x)
        assert torch.allclose(found.dists, expected, atol=1e-5)
        same = loss(x, x)
    assert float(same.lpips.abs().max()) == 0
    assert float(same.dists.abs().max()) < 1e-5
    assert (found.lpips > 0).all()
    assert loss.channels == [64, 128, 256, 512, 512]


# ---- going on ----------------------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_uninterrupted_one(bank: PictureBank, tmp_path: Path) -> None:
    make_trainer(bank, tmp_path / "whole", 6).run()
    for _ in range(2):
        torch.rand(5)  # another process has another generator state
        make_trainer(bank, tmp_path / "parts", 6, slice_steps=3).run()
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    for key in ("ema", "source", "torch_generator"):
        assert _equal(whole[key], parts[key]), key
    for key in whole["task"]:
        assert _equal(whole["task"][key], parts["task"][key]), key
    assert [line["step"] for line in lines(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_stays_exact(finished: Path) -> None:
    task = IntraTask(TINY, None, CPU, seed=3)
    task.load_state(load_checkpoint(finished / "checkpoint.pt")["task"])
    assert task.exact
    assert all(layer.exact for layer in exact_layers(task.model))


def test_a_finished_run_trains_no_more(bank: PictureBank, tmp_path: Path) -> None:
    for _ in range(2):
        make_trainer(bank, tmp_path, 1).run()
    assert len(lines(tmp_path)) == 1


def test_a_checkpoint_of_the_first_layout_goes_on(bank: PictureBank, tmp_path: Path) -> None:
    make_trainer(bank, tmp_path, 2, slice_steps=1).run()
    path = tmp_path / "checkpoint.pt"
    state = load_checkpoint(path)
    torch.save({key: state[key] for key in ("task", "step", "seconds", "ema")}, path)
    make_trainer(bank, tmp_path, 2).run()
    assert load_checkpoint(path)["step"] == 2


def test_a_failed_save_leaves_the_checkpoint_before_it(
    bank: PictureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer(bank, tmp_path, 3, slice_steps=1).run()

    def half(state, file) -> None:
        file.write(b"half a checkpoint")
        raise OSError("no space left on device")

    run = make_trainer(bank, tmp_path, 3, slice_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr("gencodec.training.trainer.torch.save", half)
        with pytest.raises(OSError, match="no space"):
            run.run()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1
    make_trainer(bank, tmp_path, 3).run()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


SAVE_ALWAYS = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_training as t
torch.set_num_threads(1)
bank = t.PictureBank([Path(sys.argv[3])], crop=64)
run = t.make_trainer(bank, Path(sys.argv[1]), 100000)
run.save_every_seconds = 0
run.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_kill_minus_nine_leaves_a_checkpoint_that_loads(pictures: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_ALWAYS, str(tmp_path), str(Path(__file__).parent), str(pictures)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        while not (tmp_path / "checkpoint.tmp").exists() and time.monotonic() < deadline:
            pass  # in the middle of a save, as near as one can get
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] >= 1


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


# ---- export ------------------------------------------------------------------------------------------------


def test_exported_weights_load_and_code_a_frame(finished: Path, pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "intra.safetensors"
    count = ["--data", str(pictures), "--rounds", "1", "--crop", "64", "--date", "2026-11-21"]
    training.run("intra", ["--export", str(finished / "checkpoint.pt"), str(target), *count])
    with safe_open(target, "pt") as f:
        metadata = f.metadata()
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    assert {"fingerprint", "licence", "command", "date", "commit", "training"} <= metadata.keys()
    assert json.loads(metadata["training"])["step"] == 20
    coder = KeyFrameCoder(tensors, metadata, "cpu")  # runs the self-test
    assert coder.latents.fingerprint(CPU) == metadata["fingerprint"]
    frame, info = make_clip(1, 48, 32), VideoInfo(48, 32, Fraction(25), 1)
    codec = gencodec.create("intra", device="cpu", weights=target)
    packets = list(codec.encode(frame, info, ConstantQuality(40)))
    (decoded,) = codec.decode(packets, info)
    assert (decoded.float() - frame[0].float()).abs().mean() < 64


def test_weights_are_counted_anew(pictures: Path, tmp_path: Path) -> None:
    """Networks stay bit for bit; a file from before means had gains gets them."""
    kept, shipped = tmp_path / "old.safetensors", next(ZOO.glob("intra-*.safetensors"))
    old = {name: t for name, t in load_file(shipped)[0].items() if not name.endswith("means.gains")}
    save_file(old, kept)
    target = tmp_path / "new.safetensors"
    count = ["--data", str(pictures), "--rounds", "1", "--crop", "64"]
    training.run("intra", ["--export", str(kept), str(target), *count])
    new, metadata = load_file(target)
    assert new.keys() - old.keys() == {"latents.prior.means.gains"}
    tables = {name for name in old if not torch.equal(old[name], new[name])}
    assert all(name.startswith("latents.y_tables.") for name in tables)
    KeyFrameCoder(new, metadata, "cpu")  # runs the self-test


def test_a_repair_trained_on_leaves_streams_as_they_are(finished: Path, tmp_path: Path) -> None:
    """`--keep`: all but the repair is the other file's, bit for bit, and so are the symbols it codes."""
    kept, target = next(ZOO.glob("intra-*.safetensors")), tmp_path / "intra.safetensors"
    training.run("intra", ["--export", str(finished / "checkpoint.pt"), str(target), "--keep", str(kept)])
    (old, known), (new, metadata) = load_file(kept), load_file(target)
    other = {name for name in old if not torch.equal(old[name], new[name])}
    assert old.keys() == new.keys()
    assert other
    assert all(name.startswith("transforms.synthesis.") and "linear" not in name for name in other)
    assert metadata["fingerprint"] == known["fingerprint"]
    frame, digests = make_clip(1, 48, 32)[0], set()
    for path in (kept, target):
        encoder = SymbolEncoder()
        KeyFrameCoder(*load_file(path), "cpu").encode(encoder, frame, 40)
        digests.add(encoder.finish())
    assert len(digests) == 1
    odd = tmp_path / "odd.safetensors"
    save_file({"latents.a": torch.zeros(1)}, odd, known)
    with pytest.raises(ValueError, match="another layout"):
        training.run("intra", ["--export", str(finished / "checkpoint.pt"), str(target), "--keep", str(odd)])


def test_training_goes_on_from_exported_weights(finished: Path, pictures: Path, tmp_path: Path) -> None:
    """The shipped file holds all that matters: a model begun from it does what the average did."""
    weights = tmp_path / "w.safetensors"
    count = ["--data", str(pictures), "--rounds", "1", "--crop", "64"]
    training.run("intra", ["--export", str(finished / "checkpoint.pt"), str(weights), *count])
    task = IntraTask(TINY, None, CPU, seed=0)
    task.start_from(load_file(weights)[0])
    average = export.load_checkpoint(finished / "checkpoint.pt")
    x, quality = torch.rand(2, 3, 64, 64), torch.tensor([3, 60])
    with torch.no_grad():
        begun, expected = task.model.eval()(x, quality), average(x, quality)
    assert (begun.x_hat - expected.x_hat).abs().mean() < 0.02  # half precision, and rounding that it tips
    train(tmp_path / "run", pictures, "--steps", "2", "--init", str(weights))
    assert len(lines(tmp_path / "run")) == 2


def test_a_new_prior_beside_old_transforms(pictures: Path, tmp_path: Path) -> None:
    """`--new-prior` keeps what shows pictures, even if the file's prior has another layout."""
    weights = tmp_path / "other.safetensors"
    old = {n: t for n, t in load_named("intra-tiny-9")[0].items() if not n.startswith("latents.prior.")}
    save_file(old, weights)
    with pytest.raises(ValueError, match="lack"):
        IntraTask(TINY, None, CPU, seed=0).start_from(load_file(weights)[0])
    shares = ["--shares", "0.5", "0.5", "0", "0", "0"]
    train(tmp_path / "run", pictures, "--steps", "4", "--init", str(weights), "--new-prior", *shares)
    assert ["saturation" in line for line in lines(tmp_path / "run")] == [False, False, True, True]
    found = export.load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert all(layer.exact for layer in exact_layers(found.latents.prior))
    for name, value in found.transforms.state_dict().items():
        if f"transforms.{name}" in old:
            assert torch.allclose(value, old[f"transforms.{name}"].float(), atol=1e-6), name


# ---- data and dependencies ---------------------------------------------------------------------------------


def test_no_pictures_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clip or photograph of at least 64 pixels"):
        PictureBank([tmp_path], crop=64)


def test_arguments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.run("intra", ["--data", "x"])
    assert "--steps" in capsys.readouterr().err
    with pytest.raises(ValueError, match="intra"):
        training.run("x265", [])


def test_a_batch_cut_on_the_device_holds_windows_of_the_pictures(bank: PictureBank) -> None:
    """Windows are compared with every place of every picture, both ways round."""
    device_bank = DeviceBank(bank, CPU)
    batch = device_bank.batch(64, np.random.default_rng(0))
    assert batch.shape == (64, 3, 64, 64)
    assert float(batch.min()) >= 0
    assert float(batch.max()) <= 1
    ways = [0, 0]
    for x in (batch[:30] * 255).round().to(torch.uint8):  # whole ones come first
        found = [_is_in(x, bank), _is_in(x.flip(2), bank)]
        ways = [a + b for a, b in zip(ways, found, strict=True)]
    assert sum(ways) >= 30
    assert min(ways) > 3


def _is_in(x: torch.Tensor, bank: PictureBank) -> bool:
    for picture in bank.pictures:
        alike = (picture[0, :-63, :-63] == x[0, 0, 0]).nonzero()  # by their first sample
        for top, left in alike.tolist():
            if torch.equal(picture[:, top : top + 64, left : left + 64], x):
                return True
    return False


def test_a_gpu_sees_every_picture() -> None:
    assert recipe_for(8, 256, CPU) == Recipe()
    recipe = recipe_for(64, 256, torch.device("cuda"))
    assert (recipe.windows, recipe.patch, recipe.crop) == (64, 8, 256)


def test_learning_rates_restart_with_each_part() -> None:
    r = Recipe()
    for start, stop, peak in (
        (0.0, r.repair_from, r.prior_rate),
        (r.repair_from, r.perceptual_from, r.repair_rate),
        (r.perceptual_from, 1.0, r.perceptual_rate),
    ):
        assert r.learning_rate(start) == pytest.approx(peak)
        assert r.learning_rate(stop - 1e-6) == pytest.approx(0.01 * peak, rel=1e-3)
    assert CONTINUE.learning_rate(0.0) == pytest.approx(CONTINUE.prior_rate)
    assert CONTINUE.learning_rate(CONTINUE.perceptual_from) == pytest.approx(CONTINUE.perceptual_rate)


def test_losses_of_high_qualities_weigh_more() -> None:
    weights = loss_weights(torch.tensor([0, 63]), 9.0)
    assert weights.tolist() == pytest.approx([1 / 3, 3.0])
    assert loss_weights(torch.arange(64), 1.0).tolist() == [1.0] * 64


@pytest.mark.parametrize(("quality", "weight"), [(0, 0.1), (63, 10.0)])
def test_each_picture_is_weighed_by_its_own_quality(quality: int, weight: float) -> None:
    """Of two pictures one is what the synthesis gives, a grey one, while its repair does nothing yet."""
    task = IntraTask(replace(TINY, fine=100.0), None, CPU, 0)
    x = torch.full((2, 3, 64, 64), 0.5)
    x[0] = 0.8
    no_edges = torch.zeros(2, 4, 4, dtype=torch.int64)
    patches = Patches(torch.zeros(2, 192, 4, 4), x, torch.tensor([quality, 63 - quality]), no_edges)
    shown = task._update_synthesis(patches, "repair", deep=False)
    assert shown["l1"] == pytest.approx(task.recipe.l1 * weight * 0.3 / 2, rel=0.01)


def test_shares_set_the_lengths_of_the_phases() -> None:
    phases = Recipe().with_shares([0, 2, 0, 5, 1]).phases()
    assert [phase for phase, (start, stop) in phases.items() if start < stop] == [
        PHASES[i] for i in (1, 3, 4)
    ]
    assert phases["perceptual"] == (0.25, 0.875)
    for bad in ([1, 1], [0] * 5, [-1, 1, 1, 1, 1]):
        with pytest.raises(ValueError, match="repair"):
            Recipe().with_shares(bad)


BARE = """
import importlib.abc, pathlib, sys, types
BLOCKED = set(
    "av diffusers compressai lpips constriction torchvision typer rich pytorch_fid PIL scipy".split()
)

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not on this machine", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
cv2 = types.ModuleType("cv2")  # PPM is all that this one reads
def imread(path):
    data = pathlib.Path(path).read_bytes()
    head, size, _, pixels = data.split(b"\\n", 3)
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
cv2.imread, cv2.COLOR_BGR2RGB = imread, 4
cv2.cvtColor = lambda picture, code: picture[..., ::-1]
sys.modules["cv2"] = cv2
from gencodec import training
training.run("intra", sys.argv[2:])
from gencodec.training import diffsit_cli, diffsit_joint, diffsit_record, s2vc_cli
sys.path.insert(0, sys.argv[1])
import exact_cuda
assert dict(exact_cuda.networks(1))
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
"""


def test_training_needs_torch_numpy_einops_safetensors_and_opencv_only(tmp_path: Path) -> None:
    """A lent GPU machine has no more than that."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    pixels = make_clip(1, 80, 72)[0].permute(1, 2, 0).contiguous().numpy().tobytes()
    (tmp_path / "a.png").write_bytes(b"P6\n80 72\n255\n" + pixels)
    run = ["--out", str(tmp_path / "run"), "--batch", "2", "--crop", "64", "--steps", "2", "--device", "cpu"]
    command = [sys.executable, "-c", BARE, str(benchmarks), "--data", str(tmp_path), *run]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(lines(tmp_path / "run")) == 2


def test_opencv_reads_the_same_picture(pictures: Path) -> None:
    pytest.importorskip("cv2")
    from gencodec.training.data import _read_clip_opencv, read_image

    path = next(p for p in sorted(pictures.rglob("*.png")))
    assert np.array_equal(next(_read_clip_opencv(path)), read_image(path))
