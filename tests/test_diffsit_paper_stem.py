"""The learned STEM of `diffsit`'s paper preset, small and random: on the wire, in training, in a folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_clip, without
from test_diffsit_paper import (
    CLIP,
    HEIGHT,
    INFO,
    SMALL,
    WIDTH,
    _registered,
    create,
    generator_of,
    save_base,
    save_records,
)
from torch import Tensor

from gencodec import training
from gencodec.codec import CorruptStream, FrameType, InexactDevice, WeightsMissing
from gencodec.methods.diffsit.codec import DiffSit
from gencodec.methods.diffsit.paper.folder import OWN, read_folder
from gencodec.methods.diffsit.paper.motion_codec import FlowNet
from gencodec.methods.diffsit.paper.stem_coder import LearnedStem
from gencodec.methods.diffsit.paper.stem_config import StemConfig, parse_stem
from gencodec.methods.diffsit.paper.stem_model import StemModel
from gencodec.methods.intra.model import IntraModel
from gencodec.nn.exact import exact_layers
from gencodec.rate import ConstantQuality
from gencodec.training.diffsit_paper import PaperRecipe, PaperTask, Stage
from gencodec.training.diffsit_paper_export import export_paper
from gencodec.training.diffsit_record import DiffsitBank
from gencodec.training.diffsit_stem import StemRecipe, StemTask, StemTraining
from gencodec.training.trainer import Task
from gencodec.weights import load_named

__all__ = ["_registered"]  # a fixture for all tests here, too
STEM = StemConfig(
    widths=(8, 16, 24),
    y_channels=16,
    z_channels=8,
    motion_channels=8,
    motion_z_channels=8,
    state_channels=8,
    prior_width=16,
    motion_prior_width=16,
    reset_period=2,
)


def stem_of(config: StemConfig = STEM) -> StemTraining:
    torch.manual_seed(3)
    return StemTraining(StemModel(config), IntraModel.frozen(load_named("intra-tiny-9")[0]))


def clip_of(count: int = CLIP) -> Tensor:
    return make_clip(count, 64, 64)[None].float() / 255


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def exact_stem() -> StemTraining:
    """With integers, as if trained: motion and residuals are worth something."""
    stem = stem_of()
    stem.make_exact(clip_of())
    return stem


@pytest.fixture(scope="module")
def folder(
    base: Path, records: Path, exact_stem: StemTraining, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    target = tmp_path_factory.mktemp("paper") / "diffsit"
    shutil.copytree(base, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gencodec.training.diffsit_paper_export.COUNTED", 1)
        export_paper(generator_of(base), records, target, exact_stem)
    return target


@pytest.fixture(scope="module")
def codec(folder: Path) -> DiffSit:
    with pytest.MonkeyPatch.context() as patch:
        _register(patch)
        made = create(weights=folder, diffusion=0)
    assert isinstance(made, DiffSit)
    assert isinstance(made.coder, LearnedStem)
    return made


def _register(patch: pytest.MonkeyPatch) -> None:
    from gencodec import registry

    built_in = registry.BuiltIn(4, "gencodec.methods.diffsit.codec:DiffSit")
    patch.setitem(registry.BUILT_IN, "diffsit", built_in)


# ---- the stream --------------------------------------------------------------------------------------------


def test_closed_loop_with_resets(codec: DiffSit) -> None:
    recon, frames = list[Tensor](), make_clip(20, WIDTH, HEIGHT)
    sent, got = list[np.ndarray](), list[np.ndarray]()
    rate = ConstantQuality(40)
    packets = list(codec.encode(frames, INFO, rate, on_recon=recon.append, on_symbols=sent.append))
    decoded = list(codec.decode(packets, INFO, on_symbols=got.append))
    assert [(p.type, p.num_frames) for p in packets] == [
        (FrameType.INTRA, 9),
        (FrameType.PREDICTED, 9),
        (FrameType.PREDICTED, 2),
    ]
    assert len(decoded) == len(recon) == 20
    assert all(torch.equal(a, b) for a, b in zip(recon, decoded, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(sent, got, strict=True))
    assert decoded[0].shape == (3, HEIGHT, WIDTH)
    assert any(np.any(symbols) for symbols in sent[10:])
    for damaged in (packets[0].payload[:-3], packets[0].payload[:20]):
        with pytest.raises(CorruptStream):
            list(codec.decode([replace(packets[0], payload=damaged)], INFO))
    with pytest.raises(CorruptStream, match="before any key frame"):
        list(codec.decode(packets[1:], INFO))


def test_no_float_network_touches_a_symbol(codec: DiffSit) -> None:
    """Law 3: whatever picture and features are, the same symbols come out."""
    coder: Any = codec.coder
    frames = list(make_clip(6, WIDTH, HEIGHT))
    _, first = coder.encode(frames[:3], None, 40)
    payload, second = coder.encode(frames[3:], first.state, 40)
    for other in (torch.rand_like(first.state.picture), torch.zeros_like(first.state.picture)):
        decoded = coder.decode(payload, INFO, 3, first.state._replace(picture=other), 40)
        assert all(np.array_equal(a, b) for a, b in zip(second.symbols, decoded.symbols, strict=True))
        assert torch.equal(decoded.state.memory, second.state.memory)
        assert not torch.equal(decoded.pictures, second.pictures)


def test_training_sees_what_is_sent(codec: DiffSit, exact_stem: StemTraining) -> None:
    """The same pictures, but for weights in half precision, and about as many bits as the payload has."""
    frames = make_clip(6, 64, 64)
    codec.set_tune("psnr")
    payload, piece = codec.coder.encode(list(frames), None, 30)
    alone, key = codec.coder.encode(list(frames[1:2]), None, 30)  # the key frame
    codec.set_tune("lpips")
    with torch.no_grad():
        coded = exact_stem.code(frames[None].float() / 255, torch.tensor([30]))
    assert piece.is_mv == [True, False, True] * 2
    assert torch.allclose(coded.pictures[0, 1], piece.pictures[1], atol=1e-4)
    assert (coded.pictures[0] - piece.pictures).abs().mean() < 0.02
    hyper = coded.z_hats["mv.latents."][0][0]
    assert (piece.symbols[len(key.symbols)] == hyper.numpy()).mean() > 0.9
    sent = 8 * (len(payload) - len(alone)) / (6 * 64 * 64)
    assert 0.4 * float(coded.bpp) < sent < 1.1 * float(coded.bpp)  # tables of z are counted afterwards


# ---- the folder --------------------------------------------------------------------------------------------


def test_everything_that_is_missing_is_listed(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    lost = [name for name in without(broken, OWN, 700) if name.startswith("stem.")]
    assert len(lost) > 100
    for diffusion in (0, 1):
        with pytest.raises(WeightsMissing) as error:
            create(weights=broken, diffusion=diffusion)
        assert all(name.removeprefix("stem.") in str(error.value) for name in lost)


def test_a_device_that_is_not_exact_is_refused(folder: Path) -> None:
    loaded = read_folder(folder)
    assert set(loaded.files) == {"diffsit", "intra", "prompt"}
    notes = {**loaded.metadata, "diffsit": {**loaded.metadata["diffsit"], "fingerprint": "0"}}
    with pytest.raises(InexactDevice):
        DiffSit.load(replace(loaded, metadata=notes), DiffSit.pack_settings(diffusion=0), device="cpu")


def test_configuration() -> None:
    assert parse_stem(STEM.to_json()) == STEM
    assert parse_stem("{}") == StemConfig()
    for text in ('{"depth": 3}', '{"widths": [1, 2]}', '{"reset_period": 0}'):
        with pytest.raises(ValueError, match=r"layout|three widths"):
            parse_stem(text)


# ---- networks ----------------------------------------------------------------------------------------------


def test_flow_brings_the_reference_onto_the_picture() -> None:
    """What the coarsest level answers is passed on, twice as long at each finer one."""
    net: Any = FlowNet()
    for level, (first, *others) in enumerate(net.levels):
        for layer in (first, *others):
            for parameter in layer.parameters():
                torch.nn.init.zeros_(parameter)
        if level == 0:
            others[-1].bias.data = torch.tensor([1.0, -0.5])
    with torch.no_grad():
        flow = net(torch.rand(1, 3, 64, 32), torch.rand(1, 3, 64, 32))
    assert torch.allclose(flow[0, :, 20, 20], torch.tensor([8.0, -4.0]))


def test_features_are_forgotten_at_a_reset() -> None:
    model = StemModel(STEM).eval()
    picture, flow = torch.rand(1, 3, 64, 64), torch.zeros(1, 2, 64, 64)
    state = model.begin(picture, torch.zeros(1, 192, 4, 4))
    features = torch.rand(1, 8, 64, 64)
    with torch.no_grad():
        fresh = model.context(state, flow)
        for age, is_same in ((1, False), (2, True), (3, False), (4, True)):
            now = model.context(state._replace(features=features, age=age), flow)
            assert all(torch.equal(a, b) == is_same for a, b in zip(now, fresh, strict=True))
    assert [tuple(c.shape[1:]) for c in fresh] == [(8, 64, 64), (16, 32, 32), (24, 16, 16)]


# ---- training ----------------------------------------------------------------------------------------------


def test_steps_of_stem_lower_the_loss(records: Path) -> None:
    bank = DiffsitBank(records, frames=9, crop=64)
    run = StemTask(StemRecipe(), stem_of(), bank)
    draw = bank.batch(1, np.random.default_rng(0))
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-3
    losses = [run.step(draw, 0.0)["loss"] for _ in range(3)]
    assert losses[-1] < 0.9 * losses[0]
    learned = {n.split(".")[0] for n, p in run.stem.model.named_parameters() if p.grad is not None}
    assert learned >= {"motion", "mv", "contexts", "see", "show", "latents", "temporal", "to_picture"}
    assert np.isfinite(run.step(draw, 0.9)["loss"])
    assert all(layer.exact for layer in exact_layers(run.stem.model))


@pytest.mark.slow
def test_a_run_of_stem_resumes(records: Path) -> None:
    bank = DiffsitBank(records, frames=9, crop=64)
    draw = bank.batch(1, np.random.default_rng(0))
    first, second = (StemTask(StemRecipe(), stem_of(), bank) for _ in range(2))
    first.step(draw, 0.9)
    again: Task = second
    again.load_state(first.state())
    assert all(layer.exact for layer in exact_layers(second.stem.model))
    assert first.step(draw, 0.9) == again.step(draw, 0.9)


def test_only_a_joint_run_teaches_stem(base: Path, records: Path) -> None:
    bank = DiffsitBank(records, frames=9, crop=64)
    draw = bank.batch(1, np.random.default_rng(0))
    stages: tuple[Stage, ...] = ("latent", "joint")
    for stage in stages:
        run = PaperTask(stage, PaperRecipe(), generator_of(base), bank, stem=stem_of())
        before = run.model.stem.to_picture.weight.clone()
        for group in run.optimizer.param_groups:
            group["lr"] = 1e-3
        first = run.step(draw, 0.0)
        assert ("rate" in first) == (stage == "joint")
        assert torch.equal(before, run.model.stem.to_picture.weight) == (stage == "latent")
    last = [run.step(draw, 0.0) for _ in range(3)][-1]
    assert last["loss"] < 0.99 * first["loss"]
    assert last["aligned"] < 0.99 * first["aligned"]


@pytest.mark.slow
def test_stages_by_the_command_line(
    base: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gencodec.training.diffsit_paper_export.COUNTED", 1)
    common = ["--preset", "paper", "--base", str(base), "--records", str(records), "--device", "cpu"]
    common += ["--config", SMALL.to_json(), "--stem", STEM.to_json(), "--batch", "1", "--crop", "64"]
    init: list[str] = []
    for stage, recipe in (("stem", '{"exact_from": 0.5}'), ("latent", "{}"), ("joint", "{}")):
        out = tmp_path / stage
        steps = ["--stage", stage, "--steps", "2", "--recipe", recipe, "--out", str(out)]
        training.run("diffsit", [*common, *steps, *init])
        init = ["--init", str(out / "checkpoint.pt")]
    target = tmp_path / "folder"
    shutil.copytree(base, target)
    training.run("diffsit", [*common, "--stage", "export", "--out", str(target), *init])
    made = create(weights=target)
    assert isinstance(made, DiffSit)
    assert isinstance(made.coder, LearnedStem)
