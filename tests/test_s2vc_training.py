"""The stages of `s2vc`'s training: records, prior, generator, and the weights file that they end in."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import make_clip
from safetensors.torch import save_file
from torch import Tensor

from gencodec.codec import InexactDevice, VideoInfo, Weights
from gencodec.entropy.motion_counts import count_tables
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.codec import S2vc
from gencodec.methods.s2vc.generator import GeneratorConfig, Memory, Rendered
from gencodec.methods.s2vc.model import CYCLE, CodedFrame, CodingLoop, key_quality, level_of
from gencodec.metrics.lpips import Lpips
from gencodec.nn.exact import exact_layers
from gencodec.nn.exact_io import export_exact
from gencodec.nn.state import from_int8
from gencodec.rate import ConstantQuality
from gencodec.training import s2vc_losses, s2vc_render
from gencodec.training.s2vc_cli import INTRA, parse, train_s2vc
from gencodec.training.s2vc_export import export, load_generator, load_loop
from gencodec.training.s2vc_held_out import distance_left
from gencodec.training.s2vc_prior import PriorRecipe, PriorTask, levels
from gencodec.training.s2vc_record import (
    Draws,
    Record,
    RecordBank,
    coded_frame,
    key_of,
    record,
    record_clip,
    stacked,
)
from gencodec.training.s2vc_render import RenderRecipe, RenderTask
from gencodec.training.s2vc_sent import encoder_of, record_sent
from gencodec.video import write_video
from gencodec.weights import ZOO, load_file, load_named

CPU = torch.device("cpu")
FRAMES = 6
SMALL = GeneratorConfig(features=12, content=16, widths=(8, 12, 16), tokens=8)
RENDER = RenderRecipe(
    batch=2, crop=64, window=64, frames=2, burn=1, adversarial_from=0.8, deep=1.0, steadied=1.0
)
PRIOR = PriorRecipe(batch=2, window=3)
DRAWS = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]])  # both records, from their first frame on
PHASES = {"denoise": 0.0, "perceptual": 0.2, "adversarial": 0.9}


@pytest.fixture(scope="module")
def intra() -> IntraModel:
    return IntraModel.frozen(load_named(INTRA)[0])


class Clips:
    """A bank of one clip, brighter for each draw."""

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        clip = make_clip(FRAMES, 64, 64)[None].float() / 255
        return (0.6 * clip + 0.4 * generator.random()).repeat(size, 1, 1, 1, 1)


def write_records(intra: IntraModel, folder: Path, **arguments: int) -> None:
    bank: Any = Clips()
    record(partial(record_clip, CodingLoop(), intra), bank, folder, "cpu", **arguments)


@pytest.fixture(scope="module")
def records(intra: IntraModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two records of six frames, 64x64."""
    folder = tmp_path_factory.mktemp("records")
    write_records(intra, folder, first=0, count=2)
    return folder


def copied(state: Any) -> dict[str, Any]:
    """A task's state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def learning(task: PriorTask | RenderTask, rate: float) -> None:
    for group in task.optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def steps(task: PriorTask | RenderTask, progress: float, count: int, name: str) -> list[float]:
    return [task.step(DRAWS, progress)[name] for _ in range(count)]


def weights_of(task: PriorTask | RenderTask) -> list[Tensor]:
    return [value.clone() for value in task.model.state_dict().values()]


def resumes(make: Callable[[], Any], progress: float) -> None:
    """A task that was saved and loaded goes on bit for bit."""
    first, second = make(), make()
    first.step(DRAWS, progress)
    second.load_state(copied(first.state()))
    logs = []
    for task in (first, second):
        torch.manual_seed(3)
        learning(task, 1e-3)
        logs.append([task.step(DRAWS, progress) for _ in range(2)])
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(weights_of(first), weights_of(second), strict=True))


# ---- records -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("quality", [3, 60])
def test_a_record_is_what_the_loop_made(intra: IntraModel, quality: int) -> None:
    loop, x = CodingLoop(), make_clip(FRAMES, 48, 32).float() / 255
    made = record_clip(loop, intra, x, quality)
    key = key_of(intra, x[:1], quality)
    picture = key.picture
    assert torch.equal(made.key_y_hat, key.y_hat)
    assert made.clock.flatten().tolist() == [key_quality(quality)] + [quality] * (FRAMES - 1)
    for t in range(1, FRAMES):
        q, level = torch.tensor([quality]), torch.tensor([level_of(quality, t)])
        frame, symbols, motion = loop(x[t : t + 1], picture, q, level)
        picture = frame.picture
        assert torch.equal(made.picture[t], (255 * picture[0]).round().to(torch.uint8))
        assert torch.equal(made.scaled[t], frame.scaled[0].half())
        assert torch.equal(made.symbols[t - 1].float(), symbols[0])
        assert torch.equal(made.motion[t - 1].float(), motion[0])


def test_records_that_are_there_are_left(intra: IntraModel, tmp_path: Path) -> None:
    write_records(intra, tmp_path, first=1, count=1)
    whole = (tmp_path / "00001.safetensors").read_bytes()
    (tmp_path / "00000.safetensors").write_bytes(b"mine")
    write_records(intra, tmp_path, first=0, count=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"0000{i}.safetensors" for i in range(3)]
    assert (tmp_path / "00000.safetensors").read_bytes() == b"mine"
    assert (tmp_path / "00001.safetensors").read_bytes() == whole
    (tmp_path / "00001.safetensors").unlink()
    write_records(intra, tmp_path, first=0, count=3)
    assert (tmp_path / "00001.safetensors").read_bytes() == whole, "a record depends on its number alone"


def labelled(frames: int = 9, rows: int = 5, columns: int = 7) -> Record:
    """A record whose planes say which frame, block row and block column a place belongs to."""

    def planes(first: int, stride: int, step: int = 1) -> Tensor:
        t = torch.arange(first, frames)[:, None, None]
        row = torch.arange(rows).repeat_interleave(stride)[:, None]
        column = torch.arange(columns).repeat_interleave(stride)
        shape = (frames - first, stride * rows, stride * columns)
        return torch.stack([step * values.expand(shape) for values in (t, row, column)], 1)

    return Record(
        torch.tensor([40]),
        torch.arange(frames)[:, None],
        planes(0, 16, 10).to(torch.uint8),
        planes(0, 16, 10).to(torch.uint8),
        planes(0, 1).half(),
        planes(0, 1)[:1].float(),
        planes(1, 1).to(torch.int16),
        planes(1, 1).to(torch.int16),
    )


def test_windows_are_aligned(tmp_path: Path) -> None:
    """Motion and symbols t - 1 belong to frame t, and all planes to the same places."""
    save_file({k: v.contiguous() for k, v in labelled()._asdict().items()}, tmp_path / "a.safetensors")
    bank, seen = RecordBank(tmp_path, window=4, crop=64), []
    for draw in bank.batch(60, np.random.default_rng(0)):
        (cut,) = bank.cut(draw[None], CPU)
        place = Draws(*draw.tolist())
        seen.append(place)
        times = list(range(place.first, place.first + 4))
        assert cut.clock.flatten().tolist() == times
        for values, of_frames, stride in (
            (25.5 * cut.x, times, 16),
            (25.5 * cut.picture, times, 16),
            (cut.scaled, times, 1),
            (cut.motion, times[1:], 1),
            (cut.symbols, times[1:], 1),
        ):
            assert values.shape[2:] == (4 * stride, 4 * stride)
            blocks = values[..., ::stride, ::stride].round()
            assert blocks[:, 0, 0, 0].tolist() == of_frames
            assert blocks[0, 1, :, 0].tolist() == list(range(place.row, place.row + 4))
            assert blocks[0, 2, 0].tolist() == list(range(place.column, place.column + 4))
    assert {place.first for place in seen} == set(range(6))
    assert {place.row for place in seen} == {0, 1}
    assert {place.column for place in seen} == {0, 1, 2, 3}
    clip = stacked(bank.cut(bank.batch(2, np.random.default_rng(1)), CPU))
    frame = coded_frame(clip, 2)
    assert torch.equal(frame.flow, clip.motion[:, 1] / 2)
    assert torch.equal(frame.picture, clip.picture[:, 2])
    assert not coded_frame(clip, 0).flow.any()


def test_a_bank_without_fitting_records_is_refused(records: Path, tmp_path: Path) -> None:
    for folder, window, crop in ((tmp_path, 2, 64), (records, FRAMES + 1, 64), (records, 2, 128)):
        with pytest.raises(ValueError, match="no record"):
            RecordBank(folder, window=window, crop=crop)


def test_a_bank_in_memory_gives_what_one_in_files_gives(records: Path) -> None:
    in_files = RecordBank(records, window=FRAMES)
    in_memory = RecordBank.of(list(in_files), window=FRAMES)
    assert len(in_files) == len(in_memory) == 2
    for a, b in zip(in_files.cut(DRAWS, CPU), in_memory.cut(DRAWS, CPU), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_batches_of_whole_records_are_equally_long(intra: IntraModel, records: Path, tmp_path: Path) -> None:
    """Records of two methods have other lengths, and other cycles."""
    short = record_clip(CodingLoop(), intra, make_clip(3, 64, 64).float() / 255, 30, 1)
    mixed = RecordBank.of([*RecordBank(records), short])
    lengths, generator = set(), np.random.default_rng(0)
    for _ in range(30):
        clip = stacked(mixed.cut(mixed.batch(2, generator), CPU))
        lengths.add(clip.x.shape[1])
        assert clip.cycle.tolist() == [1 if clip.x.shape[1] == 3 else CYCLE] * 2
    assert lengths == {3, FRAMES}
    save_file({k: v.contiguous() for k, v in short._asdict().items()}, tmp_path / "a.safetensors")
    (read,) = RecordBank(tmp_path).cut(torch.zeros(1, 4, dtype=torch.int64), CPU)
    assert read.cycle.tolist() == [1]
    whole = {k: v.contiguous() for k, v in short._asdict().items() if k != "cycle"}
    save_file(whole, tmp_path / "a.safetensors")  # as records were before
    assert RecordBank(tmp_path).cut(torch.zeros(1, 4, dtype=torch.int64), CPU)[0].cycle.tolist() == [CYCLE]


# ---- prior -------------------------------------------------------------------------------------------------


def prior_task(records: Path, recipe: PriorRecipe = PRIOR) -> PriorTask:
    torch.manual_seed(0)
    task = PriorTask(recipe, CodingLoop(), RecordBank(records, window=FRAMES), CPU)
    learning(task, 2e-3)
    return task


def test_a_prior_begins_at_shipped_weights(records: Path) -> None:
    """As integers, those of the coder, and learns from there."""
    tensors = load_file(ZOO / "s2vc-tiny-6.safetensors")[0]
    task = PriorTask(PRIOR, CodingLoop(), RecordBank(records), CPU)
    task.begin_from_weights(tensors)
    prior = task.model.latents.prior
    again = export_exact(task.model.temporal, [], "temporal.")
    again |= export_exact(prior, prior.tables(), "latents.prior.")
    assert again
    away = [(tensor.int() - tensors[name].int()).abs().max() for name, tensor in again.items()]
    assert max(away) <= 1, "64 rows come back from 9 anchors"
    learning(task, 5e-5)
    clip = stacked(task.bank.cut(DRAWS, CPU))
    with torch.no_grad():
        before = float(task.rates(clip, 0, 5)[0].log2().mean())
    steps(task, 0.0, 20, "log2")
    assert task.exact
    with torch.no_grad():
        assert float(task.rates(clip, 0, 5)[0].log2().mean()) < before


@torch.no_grad()
@pytest.mark.parametrize("temporal", [True, False])
def test_a_windows_rate_is_that_of_its_frames_one_by_one(records: Path, temporal: bool) -> None:
    task = prior_task(records, replace(PRIOR, temporal=temporal))
    model, clip = task.model.eval(), stacked(task.bank.cut(DRAWS, CPU, with_pictures=False))
    state, expected = model.temporal.begin(clip.key_y_hat[:, 0]), torch.zeros(len(DRAWS))
    for t in range(3):
        moved = model.moved(state, clip.motion[:, t]) if temporal else torch.zeros_like(state)
        if t >= 1:
            expected += model.latents(clip.symbols[:, t], levels(clip, t + 1), moved).bits
        state = model.temporal.update(moved, clip.symbols[:, t])
    bits, states = task.rates(clip, 1, 2)
    assert torch.allclose(bits, expected, rtol=1e-5)
    assert torch.allclose(states[-1], state, atol=1e-5)


def test_what_the_prior_reads_of_a_record_is_the_same_without_pictures(records: Path) -> None:
    whole, bare = (RecordBank(records).cut(DRAWS, CPU, with_pictures=b) for b in (True, False))
    for one, other in zip(whole, bare, strict=True):
        for name, value in one._asdict().items():
            kept = getattr(other, name)
            is_picture = name in ("x", "picture", "scaled")
            assert kept.shape == (len(value), 0) if is_picture else torch.equal(kept, value), name


def test_a_prior_refuses_records_no_longer_than_its_window(records: Path) -> None:
    with pytest.raises(ValueError, match=f"needs records of {FRAMES + 1} or more, one has {FRAMES}"):
        prior_task(records, replace(PRIOR, window=FRAMES))


def test_the_priors_rate_falls_in_float_and_as_integers(records: Path) -> None:
    task = prior_task(records)
    assert not any(layer.exact for layer in exact_layers(task.model))
    rates = steps(task, 0.0, 10, "log2")
    assert np.mean(rates[-3:]) < rates[0] - 0.1
    learning(task, 1e-3)
    exact = steps(task, 0.5, 5, "log2")
    assert all(layer.exact for layer in exact_layers(task.model))
    assert exact[0] < rates[-1] + 0.2, "the conversion costs little"
    assert np.mean(exact[-3:]) < exact[0] + 0.02


def test_a_window_sees_the_frames_before_it_without_gradients(records: Path) -> None:
    task = prior_task(records)
    clip = stacked(task.bank.cut(DRAWS, CPU))
    whole, states = task.rates(clip, 0, FRAMES - 1)
    parts = [task.rates(clip, first, 1)[0] for first in range(FRAMES - 1)]
    assert torch.allclose(torch.stack(parts).sum(0), whole, rtol=1e-4)
    assert len(states) == FRAMES - 1
    parts[-1].sum().backward()
    assert not _has_gradient(task.model.temporal.from_key)  # four frames before
    task.rates(clip, 0, 2)[0].sum().backward()
    assert _has_gradient(task.model.temporal.from_key)
    assert _has_gradient(task.model.temporal.from_frame)


def _has_gradient(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_a_prior_run_resumes(records: Path, progress: float) -> None:
    resumes(lambda: prior_task(records), progress)


@pytest.mark.parametrize("exact_from", [0.3, 2.0])
def test_a_prior_begins_from_another_run(records: Path, exact_from: float) -> None:
    first = prior_task(records)
    first.step(DRAWS, 0.5)
    task = prior_task(records, replace(PRIOR, exact_from=exact_from))
    task.begin_from({"ema": first.model.state_dict(), "task": first.state()})
    clip = stacked(task.bank.cut(DRAWS, CPU))
    assert task.exact is (exact_from < 1)
    theirs, mine = (t.rates(clip, 0, 3)[0].detach() for t in (first, task))
    assert torch.allclose(mine, theirs, rtol=0 if task.exact else 0.05)
    assert all(layer.exact is task.exact for layer in exact_layers(task.model))


# ---- generator ---------------------------------------------------------------------------------------------


def render_task(records: Path, config: GeneratorConfig = SMALL, recipe: RenderRecipe = RENDER) -> RenderTask:
    bank = RecordBank(records, window=recipe.burn + recipe.frames, crop=recipe.crop)
    task = RenderTask(recipe, config, bank, None, CPU, seed=0)
    task.start_from(load_named(INTRA)[0])
    learning(task, 1e-3)
    return task


class Shows(torch.nn.Module):
    """In place of a generator: so much of the way from the coded picture to the source."""

    def __init__(self, bank: RecordBank, share: float) -> None:
        super().__init__()
        self.sources = {tuple(r.picture[-1].flatten()[:50].tolist()): r.x[-1] for r in bank}
        self.share = share

    def forward(self, frame: CodedFrame, quality: Tensor, memory: Memory | None) -> Rendered:
        found = self.sources.get(tuple((255 * frame.picture).round().flatten()[:50].int().tolist()))
        x = frame.picture if found is None else found[None].float() / 255
        picture = frame.picture + self.share * (x - frame.picture)
        return Rendered(picture, picture[:, :0], Memory(picture[:, :0], []))


def test_each_frame_is_weighed_by_its_own_quality(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RENDER, burn=0, deep=1.0, steadied=1.0)
    plain = render_task(records, recipe=replace(recipe, fine=1.0)).step(DRAWS[:1], 0.2)
    asked: list[Tensor] = []

    def three(quality: Tensor, fine: float) -> Tensor:
        assert fine == recipe.fine
        asked.append(quality)
        return torch.full((len(quality),), 3.0)

    monkeypatch.setattr(s2vc_losses, "loss_weights", three)
    task = render_task(records, recipe=recipe)
    clip = task.bank.cut(DRAWS[:1], CPU)
    weighed = task.step(DRAWS[:1], 0.2)
    clock = stacked(clip).clock[0, : recipe.frames, 0]
    assert sorted(torch.cat(asked).tolist()) == sorted([*clock.tolist(), *[int(clock[-1])] * 2])
    for name in ("l1", "alex", "steady", "lpips"):
        assert weighed[name] == pytest.approx(3 * plain[name], rel=1e-3)
    assert weighed["semantic"] == pytest.approx(plain["semantic"], rel=1e-3)


def test_what_is_left_on_held_out_clips(records: Path) -> None:
    bank, lpips = RecordBank(records, window=FRAMES), Lpips.load()
    left = [distance_left(cast("Any", Shows(bank, share)), bank, lpips, CPU) for share in (0.0, 0.5, 1.0)]
    assert left[0] == 1
    assert 0.01 < left[1] < 0.99
    assert left[2] < 1e-4


def test_a_run_shows_what_is_left(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s2vc_render, "CHECK_EVERY", 2)
    task = render_task(records)
    task.held_out = RecordBank(records, window=RENDER.burn + RENDER.frames)
    before = distance_left(task.model, task.held_out, task.losses.teacher.lpips, CPU)
    logs = [task.step(DRAWS, 0.2) for _ in range(2)]
    assert logs[0]["held_out"] == pytest.approx(before)
    assert "held_out" not in logs[1]
    assert task.model.training


def test_the_decoder_begins_as_intras(records: Path, intra: IntraModel) -> None:
    task = render_task(records)
    theirs = dict(intra.transforms.synthesis.named_parameters())
    for number in (4, 5, 6):  # what is left out, and what takes its number
        for name in [name for name in theirs if name.startswith(f"at4.{number}.")]:
            del theirs[name]
    theirs |= {name.replace("at4.7", "at4.4"): p for name, p in theirs.items()}
    last = {name: p for name, p in theirs.items() if name.startswith("at2.4")}
    theirs |= {name.replace("at2.4", "at2.2"): p for name, p in last.items()}
    for name, mine in task.model.decoder.named_parameters():
        if not name.endswith("anchors"):
            assert torch.equal(mine, theirs[name]), name
    quality = torch.arange(64)
    strength = task.model.decoder.log2_strength(quality)
    assert torch.allclose(strength, intra.transforms.synthesis.log2_strength(quality), atol=1e-3)
    assert torch.equal(task.model.analysis.weight, intra.transforms.analysis.weight)


def test_phases_come_in_order(records: Path) -> None:
    task = render_task(records)
    assert {name: task.phase(progress) for name, progress in PHASES.items()} == {n: n for n in PHASES}
    assert render_task(records, replace(SMALL, unet=False)).phase(0.0) == "perceptual"
    for progress, terms in (
        (0.0, {"denoise"}),
        (0.2, {"l1", "alex", "lpips", "dists", "steady", "semantic"}),
        (0.9, {"l1", "alex", "lpips", "dists", "steady", "semantic", "adversarial", "critic"}),
    ):
        assert task.step(DRAWS, progress).keys() - {"loss"} == terms


def test_a_new_critic_learns_before_it_is_heard(records: Path) -> None:
    task = render_task(records, recipe=replace(RENDER, adversarial_from=0.2, heard_from=0.6))
    for progress, seen in ((0.1, set()), (0.3, {"critic"}), (0.7, {"critic", "adversarial"})):
        assert task.step(DRAWS, progress).keys() & {"critic", "adversarial"} == seen


def test_vgg_and_the_critic_see_a_share_of_the_steps(records: Path) -> None:
    task = render_task(records, recipe=replace(RENDER, deep=0.5))
    seen = ["critic" in task.step(DRAWS, 0.9) for _ in range(8)]
    assert 0 < sum(seen) < 8
    assert "dists" not in render_task(records, recipe=replace(RENDER, deep=0.0)).step(DRAWS, 0.9)


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_lowers_its_loss(records: Path, phase: str) -> None:
    task = render_task(records)
    if phase == "denoise":
        learning(task, 4e-3)
    losses = steps(task, PHASES[phase], 36 if phase == "denoise" else 9, "loss")
    third = len(losses) // 3
    assert np.mean(losses[-third:]) < np.mean(losses[:third])


def test_the_decoder_is_frozen_while_denoising(records: Path) -> None:
    task = render_task(records)
    for progress, moves in ((0.9, True), (0.0, False), (0.2, True)):
        before = {name: value.clone() for name, value in task.model.state_dict().items()}
        task.step(DRAWS, progress)
        changed = {n for n, value in task.model.state_dict().items() if not torch.equal(value, before[n])}
        assert any(name.startswith("decoder.") for name in changed) is moves
        assert any(name.startswith("unet.") for name in changed)
        assert "analysis.weight" not in changed


@pytest.mark.parametrize(
    ("config", "recipe"),
    [(replace(SMALL, semantics="none"), RENDER), (SMALL, replace(RENDER, semantic=0.0))],
    ids=["no tokens", "no distillation"],
)
def test_tokens_without_a_teacher(records: Path, config: GeneratorConfig, recipe: RenderRecipe) -> None:
    assert "semantic" not in render_task(records, config, recipe).step(DRAWS, 0.2)


def test_a_generator_begins_from_another_run(records: Path) -> None:
    first = render_task(records)
    first.step(DRAWS, 0.9)
    average = {name: value.clone() for name, value in first.model.state_dict().items()}
    task = render_task(records, replace(SMALL, semantics="none"))
    task.begin_from({"ema": average, "task": first.state()})
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, average[name]), name
    assert task.model.state_dict().keys() < average.keys(), "the semantic head is left out"
    for name, value in task.critic.state_dict().items():
        assert torch.equal(value, first.critic.state_dict()[name])
    task.step(DRAWS, 0.9)


def test_a_generator_begins_from_a_weights_file(run: Path) -> None:
    tensors, _ = load_file(run / "w.safetensors")
    task = render_task(run / "records", recipe=replace(RENDER, burn=0))
    task.begin_from_weights(tensors)
    average = load_generator(run / "generator" / "checkpoint.pt").state_dict()
    for name, value in task.model.named_parameters():
        if not name.endswith("anchors"):  # of the strength, which was chosen at export
            missed = (value - average[name]).abs().max()
            assert missed <= 0.005 * average[name].abs().max() + 1e-7, name
    task.step(DRAWS, 0.9)
    with pytest.raises(ValueError, match="lack"):
        task.begin_from_weights({})


@pytest.mark.parametrize("phase", PHASES)
def test_a_generator_run_resumes(records: Path, phase: str) -> None:
    resumes(lambda: render_task(records), PHASES[phase])


# ---- the command, from clips to a weights file -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--stage record", "--data"),
        ("--stage prior --steps 1", "--records"),
        ("--stage generator --records a", "budget"),
        ("--stage export --records a --prior b", "--generator"),
        ("--stage generator --records a --steps 1 --crop 100", "multiple of 64"),
        ("--stage record --data a --frames 1", "2 or more"),
        ("--stage loops", "loops"),
    ],
)
def test_wrong_arguments(arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments.split())
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all stages of a run of two steps: clips, records, prior, generator, w.safetensors."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "clips").mkdir()
    write_video(folder / "clips" / "a.mp4", make_clip(9, 96, 80), VideoInfo(96, 80, Fraction(25)))
    small = json.dumps({"features": 12, "content": 16, "widths": [8, 12, 16], "tokens": 8})
    for stage, arguments in {
        "records": f"--stage record --data {folder / 'clips'} --crop 64 --frames 4 --count 3",
        "prior": '--stage prior --records RECORDS --frames 4 --batch 2 --steps 2 --recipe {"window":2}',
        "generator": "--stage generator --records RECORDS --frames 2 --crop 64 --batch 2 --steps 2 "
        f'--recipe {{"burn":1}} --config {small}',
        "w.safetensors": "--stage export --records RECORDS --prior PRIOR --generator GENERATOR",
    }.items():
        text = arguments.replace("RECORDS", str(folder / "records")).replace(": ", ":").replace(", ", ",")
        for name in ("prior", "generator"):
            text = text.replace(name.upper(), str(folder / name / "checkpoint.pt"))
        train_s2vc([*text.split(), "--out", str(folder / stage), "--device", "cpu"])
    return folder


def loaded(run: Path) -> tuple[dict[str, Tensor], Weights]:
    tensors, metadata = load_file(run / "w.safetensors")
    intra, of_intra = load_named(INTRA)
    files = {"s2vc": tensors, "intra": intra}
    return tensors, Weights("tiny", files, {"s2vc": metadata, "intra": of_intra}, 0)


def test_an_export_is_what_the_codec_loads(run: Path) -> None:
    _, weights = loaded(run)
    codec = S2vc.load(weights, S2vc.pack_settings(reset_period=3), device="cpu")
    metadata = weights.metadata["s2vc"]
    assert codec.loop.fingerprint() == metadata["fingerprint"]
    assert codec.renderer.generator.config == SMALL
    assert (metadata["method"], metadata["licence"]) == ("s2vc", "MIT")
    assert "bpp" in json.loads(metadata["training"])[0]
    frames, info = make_clip(5, 40, 24), VideoInfo(40, 24, Fraction(25), 5)
    recon: list[Tensor] = []
    sent: list[np.ndarray] = []
    received: list[np.ndarray] = []
    packets = list(
        codec.encode(frames, info, ConstantQuality(30), on_recon=recon.append, on_symbols=sent.append)
    )
    decoded = list(codec.decode(packets, info, on_symbols=received.append))
    assert all(torch.equal(a, b) for a, b in zip(decoded, recon, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(sent, received, strict=True))


def test_an_export_holds_the_averages_of_both_runs(run: Path) -> None:
    tensors, _ = loaded(run)
    loop = load_loop(run / "prior" / "checkpoint.pt")
    generator = load_generator(run / "generator" / "checkpoint.pt")
    assert all(layer.exact for layer in exact_layers(loop))
    head = loop.latents.prior.heads()[2]
    own = head.grid_weight() / torch.exp2(head.exponent)[:, None, None, None]
    assert torch.equal(tensors["latents.prior.nets.2.conv_out.weight"], own.to(torch.int8))
    join = generator.state_dict()["unet.join8.weight"]
    assert torch.equal(tensors["generator.unet.join8.weight"], join.half())
    leave = generator.state_dict()["unet.leave.weight"]  # large enough for int8
    back = from_int8(tensors["generator.unet.leave.weight"], tensors["generator.unet.leave.weight.scale"])
    assert (back - leave).abs().max() < leave.abs().max() / 200


def test_an_export_may_keep_the_loop_of_a_weights_file(run: Path, tmp_path: Path) -> None:
    generator = run / "generator" / "checkpoint.pt"
    export(run / "w.safetensors", generator, run / "records", tmp_path / "again.safetensors")
    (first, about), (again, data) = (
        load_file(p) for p in (run / "w.safetensors", tmp_path / "again.safetensors")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert data["fingerprint"] == about["fingerprint"]
    assert data["training"] == about["training"]


def test_an_export_may_keep_the_generator_of_a_weights_file(run: Path, tmp_path: Path) -> None:
    prior, kept, shipped = (
        run / "prior" / "checkpoint.pt",
        run / "w.safetensors",
        ZOO / "s2vc-tiny-6.safetensors",
    )
    export(prior, kept, run / "records", tmp_path / "again.safetensors", motion=shipped)
    (first, about), (again, data), (seen, _) = (
        load_file(p) for p in (kept, tmp_path / "again.safetensors", shipped)
    )
    assert first.keys() == again.keys()
    for name in first:
        expected = seen if name.startswith("motion_tables") else first
        assert torch.equal(expected[name], again[name]), name
    assert any(not torch.equal(first[n], seen[n]) for n in first if n.startswith("motion_tables"))
    assert data | {"commit": ""} == about | {"commit": ""}


def test_records_may_know_what_motion_costs(run: Path, tmp_path: Path) -> None:
    """Under tables that have never seen any motion another one is found."""
    tensors, metadata = load_file(run / "w.safetensors")
    still = count_tables([[np.zeros((2, 4, 4), np.int32)] * 50]).to_tensors("motion_tables")
    save_file(tensors | still, tmp_path / "still.safetensors", metadata)
    made = f"--stage record --data {run / 'clips'} --crop 64 --frames 4 --count 3 --device cpu --encoder"
    train_s2vc([*made.split(), str(tmp_path / "still.safetensors"), "--out", str(tmp_path / "records")])
    plain, weighed = (list(RecordBank(f, window=2)) for f in (run / "records", tmp_path / "records"))
    assert all(torch.equal(a.x, b.x) for a, b in zip(plain, weighed, strict=True))
    assert not all(torch.equal(a.motion, b.motion) for a, b in zip(plain, weighed, strict=True))


def test_records_of_an_encoder_hold_what_it_sends() -> None:
    """Symbols, pictures and motion of a record are those of the packets, whatever they were chosen for."""
    coder = encoder_of(ZOO / "s2vc-tiny-6.safetensors", INTRA, "cpu")
    x = make_clip(6, 64, 64).float() / 255
    one, now = record_sent(coder, x, 40), None
    for t, frame in enumerate((255 * x).round().to(torch.uint8)):
        now = coder.encode_key(frame, 40)[1] if now is None else coder.encode(frame, now.state, 40)[1]
        assert torch.equal(one.picture[t], (255 * now.frame.picture[0]).round().to(torch.uint8))
        assert torch.equal(one.scaled[t], now.frame.scaled[0].half())
        assert int(one.clock[t]) == now.clock
    begun = coder.loop.temporal.begin(one.key_y_hat)
    assert torch.equal(begun, coder.encode_key((255 * x[0]).round().to(torch.uint8), 40)[1].state.memory)
    again = record_sent(coder, x, 40)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True)), "nothing is left to chance"
    coder.cycle = 1
    assert record_sent(coder, x[:2], 40).cycle.tolist() == [1]


@pytest.mark.parametrize("name", ["temporal.from_key.bias", "latents.prior.nets.5.conv_out.bias"])
def test_altered_exact_weights_are_refused(run: Path, name: str) -> None:
    tensors, weights = loaded(run)
    tensors[name] = tensors[name] + 1000  # every channel: one alone may not matter to what is tested
    altered = Weights("tiny", {**weights.files, "s2vc": tensors}, weights.metadata, 0)
    with pytest.raises(InexactDevice):
        S2vc.load(altered, S2vc.pack_settings(), device="cpu")


@pytest.mark.parametrize(
    "name",
    ["motion_tables.cdf", "latents.y_tables.skip", "temporal.from_key.bias", "generator.unet.leave.weight"],
)
def test_weights_of_another_layout_are_refused(run: Path, name: str) -> None:
    tensors, weights = loaded(run)
    left = {key: tensor for key, tensor in tensors.items() if key != name}
    lacking = Weights("tiny", {**weights.files, "s2vc": left}, weights.metadata, 0)
    with pytest.raises(ValueError, match="lack"):
        S2vc.load(lacking, S2vc.pack_settings(), device="cpu")
