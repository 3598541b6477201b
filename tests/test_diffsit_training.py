"""The stages of `diffsit`'s generator: each lowers its loss and goes on where it stopped; and the weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from conftest import make_clip
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.methods.diffsit.generator import Carry, ClipGenerator, ClipRendered, GeneratorConfig
from gencodec.metrics.lpips import Lpips
from gencodec.nn.quality import QualityTable
from gencodec.nn.state import config_from, load_float
from gencodec.training import diffsit_export, diffsit_joint
from gencodec.training.banks import Either
from gencodec.training.data import BatchSource
from gencodec.training.diffsit_autoencoder import AutoencoderRecipe, AutoencoderTask
from gencodec.training.diffsit_cli import parse, train_diffsit
from gencodec.training.diffsit_flow import FlowRecipe, FlowTask
from gencodec.training.diffsit_joint import JointRecipe, JointTask, distance_left
from gencodec.training.diffsit_stage import Stage, some_frames
from gencodec.training.diffsit_strength import choose_strength
from gencodec.training.patches import random_window
from gencodec.training.qualities import loss_weights
from gencodec.training.trainer import Budget, Trainer
from gencodec.video import write_video
from gencodec.weights import load_file

CPU = torch.device("cpu")
SMALL = GeneratorConfig(
    width=16, wide=16, latents=8, detail=8, detail_blocks=1, channels=32, blocks=2, heads=2, hidden=48
)
FIELDS = {n: v for n, v in asdict(SMALL).items() if v != asdict(GeneratorConfig())[n]}
AUTOENCODER, FLOW = AutoencoderRecipe(batch=2, crop=64), FlowRecipe(batch=2, crop=64)
JOINT = JointRecipe(batch=2, crop=64, deep=1.0, judged=1, adversarial_from=0.8)
DRAWS = torch.tensor([[0, 0], [1, 0]])


class Clip(NamedTuple):
    """As `diffsit_record.Window`."""

    x: Tensor
    picture: Tensor
    is_mv: Tensor
    quality: Tensor


class StandIn:
    """A bank of two records, of 18 frames: pictures are blurred, those of MV frames more."""

    def __init__(self, frames: int = 18) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return 2

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        return torch.stack([torch.arange(size) % 2, torch.zeros(size, dtype=torch.long)], 1)

    def cut(self, draws: Tensor, device: torch.device | str = "cpu") -> Clip:
        n = draws[:, 0]
        x = make_clip(self.frames, 64, 64).float()[None] / 255 * (1 - 0.4 * n[:, None, None, None, None])
        is_mv = torch.tensor([t % 3 != 1 for t in range(self.frames)])
        blurred = [torch.nn.functional.avg_pool2d(x.flatten(0, 1), k, 1, k // 2) for k in (3, 7)]
        backbone, mv = (b.unflatten(0, x.shape[:2]) for b in blurred)
        return Clip(x, torch.where(is_mv[:, None, None, None], mv, backbone), is_mv, 10 + 40 * n)


def clips() -> Tensor:
    return StandIn(9).cut(DRAWS).x


def autoencoder(config: GeneratorConfig = SMALL) -> AutoencoderTask:
    return AutoencoderTask(AUTOENCODER, config, CPU, seed=0)


def flow(config: GeneratorConfig = SMALL) -> FlowTask:
    return FlowTask(FLOW, config, CPU, seed=0)


def joint(config: GeneratorConfig = SMALL, recipe: JointRecipe = JOINT) -> JointTask:
    return JointTask(recipe, config, StandIn(), None, CPU, seed=0)


STAGES: dict[str, tuple[Callable[[], Any], Tensor]] = {
    "autoencoder": (autoencoder, clips()),
    "flow": (flow, clips()),
    "joint": (joint, DRAWS),
}


def learning(task: Stage, rate: float) -> None:
    for group in task.optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def copied(state: Any) -> dict[str, Any]:
    """A task's state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


# ---- steps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lowers_its_loss(name: str) -> None:
    make, batch = STAGES[name]
    task = make()
    learning(task, 3e-3)
    losses = [task.step(batch, 0.1)["loss"] for _ in range(8)]
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:2])


def test_each_clip_is_weighed_by_its_own_quality() -> None:
    """Clips 0 and 1 of the stand-in have qualities 10 and 50."""
    for number, quality in enumerate((10, 50)):
        draws = torch.tensor([[number, 0]])
        plain, weighed = (joint(recipe=replace(JOINT, deep=1.0, fine=f)).step(draws, 0.0) for f in (1.0, 9.0))
        weight = float(loss_weights(torch.tensor([quality]), 9.0))
        assert {"l1", "alex", "change", "lpips"} <= plain.keys()
        for name in ("l1", "alex", "change", "lpips"):
            assert weighed[name] == pytest.approx(weight * plain[name], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "progress"), [("autoencoder", 0.0), ("flow", 0.0), ("joint", 0.0), ("joint", 0.9)]
)
def test_a_stage_resumes_bit_for_bit(name: str, progress: float) -> None:
    make, batch = STAGES[name]
    first, second = make(), make()
    first.step(batch, progress)
    second.load_state(copied(first.state()))
    logs = []
    for task in (first, second):
        torch.manual_seed(3)
        learning(task, 1e-3)
        logs.append([task.step(batch, progress) for _ in range(2)])
    assert logs[0] == logs[1]
    states = (task.model.state_dict().values() for task in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize(
    "switches",
    [{}, {"fte": False}, {"fte_at": "latent"}, {"dit": False}, {"decoder": "frozen"}],
)
def test_the_joint_stage_trains_what_a_switch_leaves(switches: dict[str, Any]) -> None:
    task = joint(replace(SMALL, **switches))
    if "decoder" in switches:  # it would come trained
        torch.nn.init.normal_(task.model.head.last.weight, std=0.1)
    before = {n: p.clone() for n, p in task.model.named_parameters()}
    learning(task, 1e-3)
    for _ in range(4):
        task.step(DRAWS, 0.1)
    same = {n for n, p in task.model.named_parameters() if torch.equal(p, before[n])}
    frozen = {n for n in before if n.startswith(("decoder.", "head."))} if "decoder" in switches else set()
    assert same == frozen


def test_what_the_other_stages_train() -> None:
    for task, batch, learned in (
        (autoencoder(), clips(), ("encoder.", "decoder.", "head.")),
        (flow(), clips(), ("dit.",)),
    ):
        before = {n: p.clone() for n, p in task.model.named_parameters()}
        learning(task, 1e-3)
        for _ in range(3):
            task.step(batch, 0.1)
        changed = {n for n, p in task.model.named_parameters() if not torch.equal(p, before[n])}
        unused = ("decoder.skip", "head.see", "dit.quality")  # without a clip to repair, and its quality
        assert changed == {n for n in before if n.startswith(learned) and not n.startswith(unused)}


def test_latents_of_clean_clips_are_measured() -> None:
    task = autoencoder()
    learning(task, 0.0)
    for _ in range(3):
        task.step(clips(), 0.0)
    latents = task.model.encoded(clips()).detach().flatten(0, -2)
    assert latents.mean(0).abs().max() < 0.05
    assert (latents.std(0) - 1).abs().max() < 0.05


def test_a_generator_without_a_transformer_has_no_flow() -> None:
    with pytest.raises(ValueError, match="leave this stage out"):
        flow(replace(SMALL, dit=False))


def test_terms_of_the_joint_stage() -> None:
    task = joint()
    shown = {"loss", "l1", "alex", "change", "lpips", "dists"}
    assert set(task.step(DRAWS, 0.1)) == shown
    assert set(task.step(DRAWS, 0.9)) == shown | {"adversarial", "critic"}
    assert set(joint(recipe=replace(JOINT, deep=0.0)).step(DRAWS, 0.9)) == {"loss", "l1", "alex", "change"}


def test_so_many_pieces_are_behind_others() -> None:
    task = joint()
    seen: list[bool] = []
    del task.model
    task.model = cast("Any", Notes(seen))
    clip = StandIn().cut(DRAWS)
    for _ in range(400):
        task._rendered(clip)
    assert sum(seen) / 400 == pytest.approx(JOINT.carried, abs=0.07)


def test_pictures_and_sources_are_mirrored_alike() -> None:
    task = joint()
    del task.model
    task.model = cast("Any", Notes([]))
    clip = StandIn().cut(DRAWS)
    clip = clip._replace(x=torch.arange(4.0).view(2, 2).repeat_interleave(32, 0).repeat_interleave(32, 1))
    clip = clip._replace(x=clip.x.expand(2, 18, 3, 64, 64))
    corners = set()
    for _ in range(40):
        shown, x = task._rendered(clip._replace(picture=clip.x))
        assert torch.equal(shown, x)
        corners.add(int(x[0, 0, 0, 0, 0]))
    assert corners == {0, 1, 2, 3}


class Notes:
    """In place of a generator: notes whether a piece that is learned from is behind another."""

    def __init__(self, seen: list[bool]) -> None:
        self.seen = seen

    def __call__(self, clip: Tensor, is_mv: Tensor, quality: Tensor, before: Any = None) -> ClipRendered:
        if torch.is_grad_enabled():
            self.seen.append(before is not None)
        return ClipRendered(clip, cast("Carry", "carry"))


# ---- from stage to stage -----------------------------------------------------------------------------------


def test_a_stage_begins_from_the_one_before() -> None:
    first = autoencoder()
    first.step(clips(), 0.0)
    second, third = flow(), joint()
    second.begin_from({"ema": first.model.state_dict(), "task": first.state()})
    second.step(clips(), 0.0)
    third.begin_from({"ema": second.model.state_dict(), "task": second.state()})
    clip = StandIn(9).cut(DRAWS)
    third.model.eval()
    assert torch.equal(third.model(clip.picture, clip.is_mv, clip.quality).picture, clip.picture)
    latents = [task.model.encoded(clip.x) for task in (second, third)]
    assert torch.equal(*latents)
    assert torch.equal(second.model.dit.leave.weight, third.model.dit.leave.weight)
    third.step(DRAWS, 0.9)
    fourth = joint()
    fourth.begin_from({"ema": third.model.state_dict(), "task": third.state()})
    assert torch.equal(fourth.model.head.last.weight, third.model.head.last.weight)
    assert all(map(torch.equal, fourth.critic.state_dict().values(), third.critic.state_dict().values()))


def test_a_run_with_the_trainer(tmp_path: Path) -> None:
    task = joint()
    bank: Any = task.bank
    Trainer(task, BatchSource(bank, 2, CPU, seed=0), tmp_path, Budget(steps=2)).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


# ---- what is left on held-out records ----------------------------------------------------------------------


class Shows(torch.nn.Module):
    """In place of a generator: so much of the way from STEM's picture to the source; MV frames all of it."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, clip: Tensor, is_mv: Tensor, quality: Tensor, before: Any = None) -> ClipRendered:
        whole = StandIn().cut((quality[:, None] > 20).long().expand(-1, 2))
        first = 9 if before else 0
        x = whole.x[:, first : first + 9]
        assert torch.equal(clip, whole.picture[:, first : first + 9])
        share = torch.where(is_mv, 1.0, self.share)[:, None, None, None]
        return ClipRendered(clip + share * (x - clip), cast("Any", "carry"))


def test_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffsit_joint, "CHECKED", 2)
    lpips = Lpips.load()
    left = [distance_left(cast("Any", Shows(s)), StandIn(), lpips, 9, CPU) for s in (0.0, 1.0)]
    assert left[0]["held_out_mv"] < 1e-4
    assert 0.05 < left[0]["held_out"] < 0.95
    assert left[1]["held_out"] < 1e-4


def test_a_run_shows_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffsit_joint, "CHECK_EVERY", 2)
    monkeypatch.setattr(diffsit_joint, "CHECKED", 1)
    task = joint(recipe=replace(JOINT, deep=0.0))
    task.held_out = StandIn(9)
    before = distance_left(task.model, task.held_out, task.lpips, JOINT.frames, CPU)["held_out"]
    logs = [task.step(DRAWS, 0.2) for _ in range(2)]
    assert logs[0]["held_out"] == pytest.approx(before)
    assert "held_out" not in logs[1]
    assert task.model.training


# ---- draws -------------------------------------------------------------------------------------------------


def test_frames_and_windows_are_the_same_of_all() -> None:
    clip = torch.arange(2 * 9.0).view(2, 9, 1, 1, 1) + torch.arange(64.0) / 100
    clip = clip.expand(-1, -1, 3, 64, -1)
    random = np.random.default_rng(0)
    a, b = some_frames([clip, 2 * clip], 4, random)
    assert a.shape == (8, 3, 64, 64)
    assert torch.equal(2 * a, b)
    assert len(set(a[:, 0, 0, 0].tolist())) == 8
    assert (a[:4] < 9).all()
    c, d = random_window([a, b], 32, random)
    assert c.shape == (8, 3, 32, 32)
    assert torch.equal(2 * c, d)


class Constant:
    """A bank of clips of one value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        return torch.full((size, 2, 3, 8, 8), self.value)


def test_clips_come_from_several_banks() -> None:
    bank = Either([Constant(0.0), Constant(1.0)])
    random = np.random.default_rng(0)
    assert bank.batch(4, random).shape == (4, 2, 3, 8, 8)
    assert bank.batch(4, random).mean() == 0.5
    assert {float(bank.batch(1, random).mean()) for _ in range(20)} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stage", "joint", "--steps", "1"], "needs --records"),
        (["--stage", "flow", "--steps", "1"], "needs --data or --photos"),
        (["--stage", "autoencoder", "--data", "x"], "give a budget"),
        (["--stage", "joint", "--records", "x", "--steps", "1", "--crop", "100"], "multiple of 32"),
        (["--stage", "export", "--records", "x"], "needs --checkpoint"),
    ],
)
def test_arguments_that_do_not_fit(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(args)
    assert message in capsys.readouterr().err


# ---- export ------------------------------------------------------------------------------------------------


class Leads(Shows):
    """Goes the whole way to the source for MV frames, and to grey for backbones."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.log2_strength = QualityTable(2, 0.5)

    def forward(self, clip: Tensor, is_mv: Tensor, quality: Tensor, before: Any = None) -> ClipRendered:
        right = super().forward(clip, is_mv, quality)
        return right._replace(picture=torch.where(is_mv[:, None, None, None], right.picture, 0.5))


def test_the_share_that_is_shown() -> None:
    model = Leads()
    share = choose_strength(cast("Any", model), StandIn(9), most=2)
    assert share.shape == (64, 2)
    assert (share[:, 0] < 0.001).all()
    assert (share[:, 1] == 1).all()
    assert torch.allclose(model.log2_strength.rows, 0.5 + torch.from_numpy(np.log2(share)).float())
    assert model.log2_strength.frozen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all stages of a run of a few steps, from a clip to w.safetensors."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "clips").mkdir()
    write_video(folder / "clips" / "a.mp4", make_clip(44, 80, 64), VideoInfo(80, 64, Fraction(25)))
    common = ["--device", "cpu", "--crop", "64"]
    config = ["--config", json.dumps(FIELDS), "--batch", "2", "--steps", "2"]
    data, records = ["--data", f"{folder / 'clips'}"], ["--records", f"{folder / 'records'}"]
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(diffsit_export, "choose_strength", partial(choose_strength, most=2))
    for stage, arguments in {
        "record": [*data, "--count", "2"],
        "autoencoder": [*data, *config],
        "flow": [*data, *config, "--init", f"{folder / 'autoencoder' / 'checkpoint.pt'}"],
        "joint": [*records, *config, "--init", f"{folder / 'flow' / 'checkpoint.pt'}"],
        "export": [*records, "--checkpoint", f"{folder / 'joint' / 'checkpoint.pt'}"],
    }.items():
        out = {"record": "records", "export": "w.safetensors"}.get(stage, stage)
        train_diffsit(["--stage", stage, *arguments, *common, "--out", str(folder / out)])
    monkeypatch.undo()
    return folder


def test_all_stages_end_in_a_weights_file(run: Path) -> None:
    for stage in ("autoencoder", "flow", "joint"):
        lines = [json.loads(line) for line in (run / stage / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2]
    tensors, metadata = load_file(run / "w.safetensors")
    config = config_from(GeneratorConfig, metadata["generator"])
    assert config == SMALL
    assert tensors["generator.encoder.enter.weight"].dtype == torch.int8
    assert any(n.startswith("mv.") for n in tensors)
    model = ClipGenerator(config).eval()
    assert int(metadata["parameters"]) == sum(p.numel() for p in model.parameters())
    own = {n.removeprefix("generator."): t for n, t in tensors.items() if n.startswith("generator.")}
    load_float(model, own, skip=())
    clip = StandIn(9).cut(DRAWS)
    trained = diffsit_export.load_generator(run / "joint" / "checkpoint.pt")
    with torch.no_grad():
        shown, exported = (m(clip.picture, clip.is_mv, clip.quality).picture for m in (trained, model))
    assert 0 < (exported - clip.picture).abs().max() < 1
    assert (shown - clip.picture).abs().max() > 0


def test_an_export_may_choose_anew_what_a_weights_file_shows(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(generator: ClipGenerator, bank: object) -> np.ndarray:
        generator.log2_strength.rows -= 1
        return np.full((64, 2), 0.5)

    monkeypatch.setattr(diffsit_export, "choose_strength", half)
    arguments = ["--stage", "export", "--records", f"{run / 'records'}", "--out", f"{tmp_path / 'again'}"]
    train_diffsit([*arguments, "--checkpoint", f"{run / 'w.safetensors'}"])
    (first, about), (again, data) = (
        load_file(path) for path in (run / "w.safetensors", tmp_path / "again.safetensors")
    )
    rows = "generator.log2_strength.rows"
    assert torch.equal(again.pop(rows), first.pop(rows) - 1)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    shown = np.array(json.loads(about["repair_shown"]))
    assert np.allclose(json.loads(data["repair_shown"]), shown / 2, atol=6e-4)
    assert data | {"repair_shown": "", "commit": ""} == about | {"repair_shown": "", "commit": ""}


def test_a_stage_begins_from_a_weights_file(run: Path) -> None:
    tensors, _ = load_file(run / "w.safetensors")
    task = joint(config=SMALL)
    task.begin_from_weights(tensors)
    average = diffsit_export.load_generator(run / "joint" / "checkpoint.pt").state_dict()
    for name, value in task.model.named_parameters():
        if not name.endswith("anchors"):  # of the strength, which was chosen at export
            missed = (value - average[name]).abs().max()
            assert missed <= 0.005 * average[name].abs().max() + 1e-7, name
    before = task.model.log2_strength.anchors.clone()
    task.step(DRAWS, 0.9)
    assert not torch.equal(task.model.log2_strength.anchors, before), "tables are trained again"
    with pytest.raises(ValueError, match="lack"):
        task.begin_from_weights({})


def test_the_command_begins_from_a_weights_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Stage, "begin_from_weights", lambda self, tensors: seen.append(tensors.keys()))
    arguments = ["--stage", "joint", "--records", f"{run / 'records'}", "--steps", "1", "--crop", "64"]
    arguments += ["--config", json.dumps(FIELDS), "--device", "cpu", "--out", f"{run / 'again'}"]
    train_diffsit([*arguments, "--init", f"{run / 'w.safetensors'}"])
    assert seen == [load_file(run / "w.safetensors")[0].keys()]


def test_a_run_that_is_done_stays(run: Path) -> None:
    checkpoint = (run / "joint" / "log.jsonl").read_bytes()
    arguments = ["--stage", "joint", "--records", f"{run / 'records'}", "--steps", "2", "--crop", "64"]
    train_diffsit(
        [*arguments, "--config", json.dumps(FIELDS), "--device", "cpu", "--out", f"{run / 'joint'}"]
    )
    assert (run / "joint" / "log.jsonl").read_bytes() == checkpoint
