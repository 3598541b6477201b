"""The paper preset of `s2vc`: small random models in the real layout, by the real path; sizes on meta."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_clip, without
from safetensors.torch import load_file, save_file
from torch import Tensor

from gencodec import api, training
from gencodec.codec import CorruptStream, FrameType, InexactDevice, VideoInfo, WeightsMissing
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.codec import S2vc
from gencodec.methods.s2vc.paper import sizes
from gencodec.methods.s2vc.paper.base import load_base
from gencodec.methods.s2vc.paper.config import PaperConfig, parse_config
from gencodec.methods.s2vc.paper.folder import OWN, read_folder
from gencodec.methods.s2vc.paper.generator import PaperGenerator
from gencodec.methods.s2vc.paper.pcodec import PCodec
from gencodec.methods.s2vc.paper.prior import halves
from gencodec.methods.s2vc.paper.vae import WindowedAttention
from gencodec.nn.exact import exact_layers
from gencodec.rate import ConstantQuality
from gencodec.training import s2vc_paper
from gencodec.training.s2vc_paper import PaperRecipe, PaperTask
from gencodec.training.s2vc_paper_export import export_paper
from gencodec.training.trainer import Task
from gencodec.video import write_video
from gencodec.weights import load_named

pytest.importorskip("diffusers")
pytest.importorskip("peft")

SMALL = PaperConfig(
    features=32,
    wide=48,
    y_channels=16,
    z_channels=8,
    hyper_width=16,
    state_channels=16,
    reading_width=16,
    fusion_width=32,
    context_width=24,
    content=32,
    tokens=32,
    levels=(32, 64, 64),
    motion_channels=8,
    lora_rank=4,
    lora_alpha=2,
)
UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
VAE = {
    "block_out_channels": (16, 16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.18215,
}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FRAMES, WIDTH, HEIGHT = 6, 80, 48


def save_base(folder: Path) -> None:
    """What anyone has who saved a Stable Diffusion pipeline, at a thousandth of the size."""
    diffusers: Any = import_module("diffusers")
    torch.manual_seed(0)
    diffusers.UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    diffusers.AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    diffusers.DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")


def generator_of(folder: Path, config: PaperConfig = SMALL) -> PaperGenerator:
    base, problems = load_base({part: folder / part for part in ("unet", "vae", "scheduler")})
    assert not problems
    assert base is not None
    return PaperGenerator(base, config)


def moving() -> Tensor:
    """Two clips (2,3,3,64,64) in [0,1]."""
    first = make_clip(3, 64, 64).float()[None] / 255
    return torch.cat([first, first.flip(-1)])


def task(folder: Path, stage: Any, config: PaperConfig = SMALL) -> PaperTask:
    torch.manual_seed(1)
    intra = IntraModel.frozen(load_named("intra-tiny-9")[0])
    recipe = PaperRecipe(reset_share=0.0)  # else losses of the same clip differ
    return PaperTask(stage, recipe, PCodec(config), generator_of(folder, config), intra)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of weights."""
    target = tmp_path_factory.mktemp("paper") / "s2vc"
    shutil.copytree(base, target)
    made = task(base, "loop")
    made.make_exact(moving())
    with torch.no_grad():  # as if trained: fusion and adapters do something
        for name, parameter in made.model.own.items():
            if name.endswith("out/weight") or "lora_B" in name:
                parameter.normal_(std=0.02)
    export_paper(made, [moving()[:1]], target)
    return target


@pytest.fixture(scope="module")
def codec(folder: Path) -> S2vc:
    created = api.create("s2vc", preset="paper", weights=folder, device="cpu", gop_length=5, reset_period=2)
    assert isinstance(created, S2vc)
    return created


INFO = VideoInfo(WIDTH, HEIGHT, Fraction(25), FRAMES)


# ---- the stream --------------------------------------------------------------------------------------------


def test_closed_loop_with_a_reset_and_two_key_frames(codec: S2vc) -> None:
    recon: list[Tensor] = []
    sent: list[np.ndarray] = []
    got: list[np.ndarray] = []
    frames = make_clip(FRAMES, WIDTH, HEIGHT)
    packets = list(
        codec.encode(frames, INFO, ConstantQuality(40), on_recon=recon.append, on_symbols=sent.append)
    )
    decoded = list(codec.decode(packets, INFO, on_symbols=got.append))
    assert [p.type for p in packets].count(FrameType.INTRA) == 2
    assert len(decoded) == len(recon) == FRAMES
    assert all(torch.equal(a, b) for a, b in zip(recon, decoded, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(sent, got, strict=True))
    assert decoded[0].shape == (3, HEIGHT, WIDTH)
    assert any(np.any(symbols) for symbols in sent[4:])
    with pytest.raises(CorruptStream):
        list(codec.decode([replace(packets[1], payload=packets[1].payload[:-3])], INFO))
    from_second = list(codec.decode(packets[5:], INFO))
    assert torch.equal(from_second[0], decoded[5])


def test_a_file_through_the_api(folder: Path, base: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    created = api.create("s2vc", preset="paper", weights=folder, device="cpu")
    result = api.encode(make_clip(2, WIDTH, HEIGHT), file, codec=created, quality=20)
    assert (result.preset, result.frames) == ("paper", 2)
    video = api.decode(io.BytesIO(file.getvalue()), weights=folder, device="cpu")
    assert len(list(video)) == 2
    assert video.latents_sha256 == result.latents_sha256
    with pytest.raises(WeightsMissing, match="give a folder"):
        api.decode(io.BytesIO(file.getvalue()), device="cpu")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "scheduler" / "scheduler_config.json").read_text())
    (other / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"beta_end": 0.013}))
    with pytest.raises(WeightsMissing, match="the folder that it was made with"):
        api.decode(io.BytesIO(file.getvalue()), weights=other, device="cpu")


def test_tiny_imports_none_of_it() -> None:
    code = "import sys, gencodec.api, gencodec.methods.s2vc.codec; \
assert not {'diffusers', 'peft', 'transformers', 'gencodec.methods.s2vc.paper'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_float_network_touches_a_symbol(codec: S2vc) -> None:
    """Law 3: whatever the features are, the same symbols come out, and the same steps."""
    loop: Any = codec.loop
    frames = make_clip(2, WIDTH, HEIGHT)
    _, key = loop.encode_key(frames[0], 40)
    payload, coded = loop.encode(frames[1], key.state, 40)
    features = key.state.features
    for other in (features + 0.1 * torch.randn_like(features), torch.zeros_like(features)):
        decoded = loop.decode(payload, key.state._replace(features=other), 40)
        assert all(np.array_equal(a, b) for a, b in zip(coded.symbols, decoded.symbols, strict=True))
        assert torch.equal(decoded.state.memory, coded.state.memory)
    with torch.inference_mode():
        model, q = loop.model, torch.tensor([40])
        z = torch.from_numpy(coded.symbols[0]).float()[None]
        want = model.latents.prior.params(z, q, key.state.memory)
        for layer in exact_layers(model):
            layer.way = "double"
        assert torch.equal(model.latents.prior.params(z, q, key.state.memory), want)
        for layer in exact_layers(model):
            layer.way = None
    assert torch.all(torch.remainder(model.latents.prior.log2_step(want), 0.125) == 0)


def test_a_device_that_is_not_exact_is_refused(folder: Path) -> None:
    loaded = read_folder(folder)
    notes = {**loaded.metadata, "s2vc": {**loaded.metadata["s2vc"], "fingerprint": "0"}}
    with pytest.raises(InexactDevice):
        S2vc.load(replace(loaded, metadata=notes), S2vc.pack_settings(), device="cpu")


# ---- strict loading ----------------------------------------------------------------------------------------


def test_everything_that_is_missing_is_listed(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    lost = without(broken, OWN, 2, 2)
    lost += without(broken, "unet/diffusion_pytorch_model.safetensors", 2, 1)
    lost += without(broken, "vae/diffusion_pytorch_model.safetensors", 1, 1)
    with pytest.raises(WeightsMissing) as error:
        api.create("s2vc", preset="paper", weights=broken, device="cpu")
    assert all(name in str(error.value) for name in lost)


def test_absent_files_are_listed(folder: Path, tmp_path: Path) -> None:
    for path in (None, tmp_path / "none", folder / OWN):
        with pytest.raises(WeightsMissing, match=r"s2vc-paper\.md"):
            api.create("s2vc", preset="paper", weights=path, device="cpu")
    with pytest.raises(WeightsMissing) as error:
        api.create("s2vc", preset="paper", weights=tmp_path, device="cpu")
    for name in (OWN, "unet", "vae", "scheduler_config.json"):
        assert name in str(error.value)


@pytest.mark.slow
def test_base_models_from_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        if name == "nobody/nothing":
            raise OSError("no such repository\nand more")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(folder / OWN, own / OWN)
    ids = {"unet": "a/sd15", "vae": "b/sd21@main", "scheduler": "a/sd15"}
    (own / "base.json").write_text(json.dumps(ids))
    assert read_folder(own).id == read_folder(folder).id
    assert asked == [("a/sd15", None), ("b/sd21", "main"), ("a/sd15", None)]
    (own / "base.json").write_text(json.dumps(ids | {"vae": "nobody/nothing"}))
    with pytest.raises(WeightsMissing, match=r"cannot get vae of 'nobody/nothing' from the hub: no such"):
        read_folder(own)


@pytest.mark.slow
def test_old_names_and_shards(folder: Path, tmp_path: Path) -> None:
    """Published autoencoders name the attention's layers as older versions of diffusers did."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, before in old.items():
        tensors = {name.replace(f".0.{new}.", f".0.{before}."): t for name, t in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, file, {"format": "pt"})
    base, _ = load_base({part: folder / part for part in ("unet", "vae", "scheduler")})
    assert base is not None
    shutil.rmtree(other / "unet")
    base.unet.save_pretrained(other / "unet", max_shard_size="500KB")
    assert len(list((other / "unet").glob("*.safetensors"))) > 1
    assert isinstance(api.create("s2vc", preset="paper", weights=other, device="cpu"), S2vc)
    next((other / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(WeightsMissing, match=r"lacks .*diffusion_pytorch_model-000"):
        read_folder(other)


def test_configuration(folder: Path) -> None:
    assert parse_config(SMALL.to_json()) == SMALL
    assert parse_config("{}") == PaperConfig()
    for text in ('{"depth": 3}', '{"form": "flow"}'):
        with pytest.raises(ValueError, match=r"layout|version"):
            parse_config(text)
    with pytest.raises(ValueError, match="levels"):
        generator_of(folder, replace(SMALL, levels=(32, 32, 32)))


# ---- parts -------------------------------------------------------------------------------------------------


def test_halves_of_the_latents() -> None:
    first, second = halves(4, 3, 5)
    assert torch.equal(first, ~second)
    assert bool(first[0, 0, 0, 0])
    assert not first[0, 2, 0, 0]
    assert not first[0, 0, 0, 1]


def test_windows_of_attention(folder: Path) -> None:
    from diffusers.models.attention_processor import AttnProcessor2_0

    layer = generator_of(folder).vae.decoder.mid_block.attentions[0]
    x = torch.randn(2, 32, 12, 16)
    with torch.no_grad():
        whole, windows = AttnProcessor2_0()(layer, x), WindowedAttention()(layer, x)
        assert torch.allclose(whole, windows, atol=1e-5)
        # a place beyond the first window changes nothing there but by the normalisation
        layer.group_norm = torch.nn.Identity()
        wide = torch.randn(1, 32, 24, 40)
        changed = wide.clone()
        changed[..., 20:, 20:] += 1
        before, after = WindowedAttention()(layer, wide), WindowedAttention()(layer, changed)
    assert torch.equal(before[..., :16, :16], after[..., :16, :16])
    assert not torch.allclose(before[..., 16:, 16:], after[..., 16:, 16:])


def test_fusion_begins_as_nothing_and_adapters_differ(base: Path) -> None:
    generator = generator_of(base).eval()
    content, tokens = torch.randn(1, 32, 8, 16), torch.randn(1, 2, 32)
    with torch.no_grad():
        alone, levels = generator.guided(content, tokens, "pframe", None)
        fused, _ = generator.guided(content, tokens, "pframe", levels)
        assert torch.equal(alone, fused)
        library = generator.guided.unet(content, 999, encoder_hidden_states=tokens).sample
        assert torch.allclose(alone, library, atol=1e-6)
        assert [tuple(x.shape[1:]) for x in levels] == [(32, 4, 8), (64, 2, 4), (64, 1, 2)]
        for name, parameter in generator.named_parameters():
            if "lora_B.iframe" in name:
                parameter.normal_(std=0.1)
        assert not torch.equal(alone, generator.guided(content, tokens, "iframe", None)[0])
        assert torch.equal(alone, generator.guided(content, tokens, "pframe", None)[0])


def test_forms(base: Path) -> None:
    r, out = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    epsilon = generator_of(base)
    assert epsilon.alpha_bar == pytest.approx(0.00466, abs=1e-5)
    assert torch.allclose(epsilon.x0(r, out), 14.65 * r - 14.61 * out, atol=0.05)
    assert torch.equal(generator_of(base, replace(SMALL, form="residual")).x0(r, out), r + out)


def test_tokens_of_one_frame_or_two() -> None:
    features, before = torch.randn(2, 32, 16, 8), torch.randn(2, 32, 16, 8)
    for semantics, differs in (("single", False), ("paired", True)):
        codec = PCodec(parse_config(json.dumps({**json.loads(SMALL.to_json()), "semantics": semantics})))
        with torch.no_grad():
            alone, both = codec.view(features, None), codec.view(features, before)
        assert alone.tokens.shape == (2, 2, 32)
        assert alone.r.shape == (2, 4, 16, 8)
        assert torch.equal(alone.tokens, both.tokens) != differs


# ---- sizes -------------------------------------------------------------------------------------------------


def test_every_part_has_the_published_number_of_parameters() -> None:
    counted = sizes.parameters()
    assert set(counted) >= set(sizes.PUBLISHED)
    for part, millions in sizes.PUBLISHED.items():
        assert counted[part] / 1e6 == pytest.approx(millions, rel=0.01), part


# ---- training ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["loop", "render", "joint"])
def test_steps_lower_the_loss(base: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    run, clip = task(base, stage), moving()[:1, :2]
    monkeypatch.setattr(s2vc_paper, "draw_quality", lambda *_: torch.tensor([30]))
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-3
    losses = [run.step(clip, 0.0)["loss"] for _ in range(8 if stage == "loop" else 4)]
    assert losses[-1] < 0.99 * losses[0]
    own = {id(p) for p in run.model.own.values()}
    assert not any(p.requires_grad for p in run.generator.parameters() if id(p) not in own)
    if stage == "loop":
        run.make_exact(clip)
        assert all(layer.exact for layer in exact_layers(run.model.codec))
        assert np.isfinite(run.step(clip, 0.9)["loss"])


@pytest.mark.slow
def test_a_task_resumes(base: Path) -> None:
    clip = moving()[:1, :2]
    first: Task = task(base, "joint")
    second: Task = task(base, "joint")
    first.step(clip, 0.0)
    second.load_state(first.state())
    assert first.step(clip, 0.1) == second.step(clip, 0.1)


@pytest.mark.slow
def test_stages_by_the_command_line(base: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_video(clips / "a.mp4", make_clip(8, 64, 64), VideoInfo(64, 64, Fraction(25)))
    common = ["--preset", "paper", "--data", str(clips), "--base", str(base), "--device", "cpu"]
    common += ["--config", SMALL.to_json(), "--batch", "1", "--crop", "64", "--frames", "2"]
    init: list[str] = []
    for stage in ("loop", "render", "joint"):
        out = tmp_path / stage
        recipe = json.dumps({"exact_from": 0.4})
        options = ["--stage", stage, "--steps", "2", "--recipe", recipe, "--out", str(out)]
        training.run("s2vc", [*common, *options, *init])
        init = ["--init", str(out / "checkpoint.pt")]
        assert len((out / "log.jsonl").read_text().splitlines()) == 2
    target = tmp_path / "folder"
    shutil.copytree(base, target)
    training.run("s2vc", [*common, "--stage", "export", "--out", str(target), *init])
    assert isinstance(api.create("s2vc", preset="paper", weights=target, device="cpu"), S2vc)


def test_training_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--preset", "paper", "--data", str(tmp_path), "--base", str(tmp_path)]
    with pytest.raises(SystemExit):
        training.run("s2vc", [*common, "--stage", "joint", "--steps", "1"])
    assert "needs --init CHECKPOINT" in capsys.readouterr().err
    with pytest.raises(WeightsMissing, match="cannot train on"):
        training.run("s2vc", [*common, "--stage", "loop", "--steps", "1"])
