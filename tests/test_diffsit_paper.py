"""The paper preset of `diffsit`: small random models in the real layout, by the real path; sizes on meta."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_clip, without
from safetensors.torch import load_file, save_file
from torch import Tensor

from gencodec import api, registry, training
from gencodec.codec import FrameType, VideoInfo, WeightsMissing
from gencodec.methods.diffsit.codec import DiffSit
from gencodec.methods.diffsit.paper import sizes
from gencodec.methods.diffsit.paper.base import PARTS, load_base
from gencodec.methods.diffsit.paper.config import PaperConfig, parse_config
from gencodec.methods.diffsit.paper.folder import OWN, PREFIX, load_generator, read_folder
from gencodec.methods.diffsit.paper.frame_types import FrameTypes
from gencodec.methods.diffsit.paper.generator import PaperGenerator, own_names
from gencodec.methods.diffsit.paper.prompt import FILE as PROMPT
from gencodec.methods.diffsit.paper.prompt import read_prompt, write_prompt
from gencodec.rate import ConstantQuality
from gencodec.training.diffsit_paper import PaperRecipe, PaperTask, Stage
from gencodec.training.diffsit_record import DiffsitBank, Record
from gencodec.training.diffsit_sent import count_tables
from gencodec.training.trainer import Task
from gencodec.weights import save_whole

pytest.importorskip("diffusers")
pytest.importorskip("peft")

VAE = {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1}  # 16 latents, so the published means and deviations
TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 24,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 2,
}
SMALL = PaperConfig(lora_rank=4, lora_alpha=4)
WIDTH, HEIGHT, CLIP = 64, 48, 9
INFO = VideoInfo(WIDTH, HEIGHT, Fraction(25), 12)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = registry.BuiltIn(4, "gencodec.methods.diffsit.codec:DiffSit")
    monkeypatch.setitem(registry.BUILT_IN, "diffsit", built_in)


def save_base(folder: Path) -> None:
    """What anyone has who saved a Wan2.1 pipeline, at a thousandth of the size."""
    diffusers: Any = import_module("diffusers")
    torch.manual_seed(0)
    diffusers.AutoencoderKLWan(**VAE).save_pretrained(folder / "vae")
    diffusers.WanTransformer3DModel(**TRANSFORMER).save_pretrained(folder / "transformer")
    prompt = torch.zeros(5, TRANSFORMER["text_dim"])
    prompt[0] = torch.randn(TRANSFORMER["text_dim"])
    save_whole({"embedding": prompt}, folder / PROMPT, {})


def generator_of(folder: Path, config: PaperConfig = SMALL) -> PaperGenerator:
    base, problems = load_base({part: folder / part for part in PARTS}, read_prompt(folder)["embedding"])
    assert not problems
    assert base is not None
    return PaperGenerator(base, config)


def record_of(count: int) -> Record:
    """As if STEM had made it: noise in place of what coding does, nothing moves."""
    x = make_clip(count, 64, 64)
    noise = torch.randint(-9, 10, x.shape, generator=torch.Generator().manual_seed(0))
    motion = torch.zeros(count, 2, 4, 4, dtype=torch.int16)
    picture = (x.int() + noise).clamp(0, 255).to(torch.uint8)
    return Record(x, picture, types_of(count), torch.tensor([40]), motion)


def save_own(folder: Path, config: PaperConfig = SMALL) -> PaperGenerator:
    """This project's file, as if trained: embedding and adapters do something."""
    torch.manual_seed(1)
    generator = generator_of(folder, config)
    state = generator.state_dict()
    with torch.no_grad():
        for name in own_names(generator):
            if name.startswith("types.out") or "lora_B" in name:
                state[name].normal_(std=0.1)
    tensors = count_tables([record_of(CLIP)]).to_tensors("mv")
    tensors |= {PREFIX + name: state[name].contiguous() for name in own_names(generator)}
    save_whole(tensors, folder / OWN, {"generator": config.to_json()})
    return generator.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of weights."""
    target = tmp_path_factory.mktemp("paper") / "diffsit"
    shutil.copytree(base, target)
    save_own(target)
    return target


create = partial(api.create, "diffsit", preset="paper", device="cpu")

# ---- the stream --------------------------------------------------------------------------------------------


def test_closed_loop_over_two_pieces(folder: Path) -> None:
    codec = create(weights=folder)
    assert isinstance(codec, DiffSit)
    frames, recon = make_clip(12, WIDTH, HEIGHT), list[Tensor]()
    sent, got = list[np.ndarray](), list[np.ndarray]()
    rate = ConstantQuality(30)
    packets = list(codec.encode(frames, INFO, rate, on_recon=recon.append, on_symbols=sent.append))
    decoded = list(codec.decode(packets, INFO, on_symbols=got.append))
    assert [(p.type, p.num_frames) for p in packets] == [(FrameType.INTRA, 9), (FrameType.PREDICTED, 3)]
    assert len(decoded) == len(recon) == 12
    assert all(torch.equal(a, b) for a, b in zip(recon, decoded, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(sent, got, strict=True))
    assert decoded[0].shape == (3, HEIGHT, WIDTH)
    assert decoded[0].float().std() > 1


def test_a_file_through_the_api(folder: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    result = api.encode(make_clip(3, WIDTH, HEIGHT), file, codec=create(weights=folder), quality=20)
    assert (result.preset, result.frames) == ("paper", 3)
    video = api.decode(io.BytesIO(file.getvalue()), weights=folder, device="cpu")
    assert len(list(video)) == 3
    assert video.latents_sha256 == result.latents_sha256
    with pytest.raises(WeightsMissing, match="give a folder"):
        api.decode(io.BytesIO(file.getvalue()), device="cpu")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    save_whole({"embedding": read_prompt(folder)["embedding"] + 1}, other / PROMPT, {})
    with pytest.raises(WeightsMissing, match="the folder that it was made with"):
        api.decode(io.BytesIO(file.getvalue()), weights=other, device="cpu")


# ---- strict loading ----------------------------------------------------------------------------------------


def test_everything_that_is_missing_is_listed(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    lost = without(broken, OWN, 2, 2)
    lost += without(broken, "transformer/diffusion_pytorch_model.safetensors", 2, 1)
    lost += without(broken, "vae/diffusion_pytorch_model.safetensors", 1, 1)
    with pytest.raises(WeightsMissing) as error:
        create(weights=broken)
    assert all(name in str(error.value) for name in lost)


def test_absent_files_are_listed(folder: Path, tmp_path: Path) -> None:
    for path in (None, tmp_path / "none", folder / OWN):
        with pytest.raises(WeightsMissing, match=r"diffsit-paper\.md"):
            create(weights=path)
    with pytest.raises(WeightsMissing) as error:
        create(weights=tmp_path)
    for name in (OWN, PROMPT, "transformer", "vae", "config.json", "--stage prompt"):
        assert name in str(error.value)


def test_parts_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    diffusers: Any = import_module("diffusers")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    diffusers.WanTransformer3DModel(**TRANSFORMER | {"text_dim": 32, "in_channels": 36}).save_pretrained(
        other / "transformer"
    )
    vae = VAE | {"latents_mean": [0.0] * 8, "temperal_downsample": [True, True, False]}
    diffusers.AutoencoderKLWan(**vae).save_pretrained(other / "vae")
    with pytest.raises(WeightsMissing) as error:
        create(weights=other)
    for words in ("in_channels is 36", "latents_mean has 8", "not that of Wan2.1", "takes (tokens, 32)"):
        assert words in str(error.value)


def test_base_models_from_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    own = tmp_path / "own"
    own.mkdir()
    for name in (OWN, PROMPT):
        shutil.copy(folder / name, own / name)
    (own / "base.json").write_text(json.dumps(dict.fromkeys(PARTS, "a/wan@main")))
    assert read_folder(own).id == read_folder(folder).id
    assert asked == [("a/wan", "main")] * 2
    (own / "base.json").write_text(json.dumps({"vae": "a/wan"}))
    with pytest.raises(WeightsMissing, match="names no 'transformer'"):
        read_folder(own)


def test_configuration(folder: Path) -> None:
    assert parse_config(SMALL.to_json()) == SMALL
    assert parse_config("{}") == PaperConfig()
    for text in ('{"depth": 3}', '{"fte_at": "frame"}', '{"sigma": 0}', '{"context": 3}', '{"tile": 100}'):
        with pytest.raises(ValueError, match=r"layout|(fte_at|sigma|context|tile) is"):
            parse_config(text)


# ---- the empty prompt --------------------------------------------------------------------------------------


def test_a_prompt_of_zeros_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="--stage prompt"):
        read_prompt(tmp_path)
    for tensors in (
        {"embedding": torch.zeros(5, 24)},
        {"other": torch.ones(5, 24)},
        {"embedding": torch.ones(5)},
    ):
        save_whole(tensors, tmp_path / PROMPT, {})
        with pytest.raises(WeightsMissing, match="zeros"):
            read_prompt(tmp_path)


def test_the_prompt_is_made_by_the_text_encoder(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    tokenizers: Any = import_module("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, "<unk>"))
    words.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    saved.save_pretrained(tmp_path / "tokenizer")
    sizes = {"vocab_size": 8, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    encoder = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes)).eval()
    encoder.save_pretrained(tmp_path / "text_encoder")
    write_prompt(tmp_path, tokens=6)
    made = read_prompt(tmp_path)["embedding"]
    with torch.no_grad():
        wanted = encoder(torch.tensor([[1]])).last_hidden_state[0]
    assert made.shape == (6, 24)
    assert torch.allclose(made[:1], wanted, atol=1e-6)
    assert not made[1:].any()
    shutil.rmtree(tmp_path / "text_encoder")
    with pytest.raises(WeightsMissing, match="cannot read the text encoder"):
        write_prompt(tmp_path)


# ---- the generator -----------------------------------------------------------------------------------------

CLIPPED = torch.rand(1, CLIP, 3, 32, 32, generator=torch.Generator().manual_seed(0))
QUALITY = torch.tensor([30])


def types_of(count: int) -> Tensor:
    return torch.tensor([n % 3 != 1 for n in range(count)])


@torch.no_grad()
def test_one_step(base: Path) -> None:
    """x0 = x_s - sigma v(x_s, 1000 sigma) in the latents' published units, by the library's own modules."""
    generator = generator_of(base, replace(SMALL, sigma=0.4)).eval()
    vae, dit = generator.vae, generator.dit
    mean, deviation = (
        torch.tensor(vae.config[n]).view(1, 16, 1, 1, 1) for n in ("latents_mean", "latents_std")
    )
    latents = vae.encode(2 * CLIPPED.transpose(1, 2) - 1).latent_dist.mode()
    x_s = (latents - mean) / deviation
    prompt = read_prompt(base)["embedding"][None]
    v = dit(x_s, torch.tensor([400.0]), prompt).sample
    wanted = vae.decode((x_s - 0.4 * v) * deviation + mean).sample.transpose(1, 2) / 2 + 0.5
    out = generator(CLIPPED, types_of(CLIP), QUALITY)
    assert out.picture.shape == CLIPPED.shape
    assert torch.allclose(out.picture, wanted, atol=1e-5)
    assert not torch.allclose(out.picture, generator.decoded(x_s), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("frames", [21, 33])
def test_longer_clips(base: Path, frames: int) -> None:
    clip = CLIPPED[:, :1, :, :16, :16].expand(-1, frames, -1, -1, -1)
    generator = generator_of(base).eval()
    assert generator.encoded(clip).shape == (1, 16, 1 + (frames - 1) // 4, 2, 2)
    assert generator(clip, types_of(frames), QUALITY).picture.shape == clip.shape


@torch.no_grad()
@pytest.mark.parametrize("place", ["pixel", "latent"])
def test_types_are_seen_once_learned(base: Path, place: Any) -> None:
    generator = generator_of(base, replace(SMALL, fte_at=place)).eval()
    one, other = types_of(CLIP), types_of(CLIP).roll(1)
    assert torch.equal(generator.encoded(CLIPPED, one), generator.encoded(CLIPPED))
    generator.types.out.weight.normal_(std=0.1)
    moved = generator.encoded(CLIPPED, one) - generator.encoded(CLIPPED, other)
    assert moved.abs().max() > 1e-3
    assert (moved.std((-2, -1)).max() < 1e-4) == (place == "latent")
    shown = generator(CLIPPED, one, QUALITY).picture - generator(CLIPPED, other, QUALITY).picture
    assert shown.abs().max() > 1e-4
    plain = generator_of(base, replace(SMALL, fte=False))
    assert not any("types" in name for name in own_names(plain))


@torch.no_grad()
def test_each_latent_sees_the_types_of_its_frames() -> None:
    types = FrameTypes("latent", 16)
    types.out.weight.normal_()
    is_mv = types_of(CLIP)
    before = types(is_mv)
    assert before.shape == (3, 16)
    for frame, latent in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        changed = is_mv.clone()
        changed[frame] ^= True
        differs = (types(changed) != before).any(1)
        assert differs.tolist() == [n == latent for n in range(3)]


@torch.no_grad()
def test_adapters_live_and_merged(folder: Path, base: Path) -> None:
    live = save_own(folder)
    tensors = load_file(folder / OWN)
    assert any("lora_A" in name for name in tensors)
    merged = load_generator(read_folder(folder))
    assert not any("lora" in name for name in merged.state_dict())
    published = generator_of(base)
    one, other, none = (g(CLIPPED, types_of(CLIP), QUALITY).picture for g in (live, merged, published))
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, none, atol=1e-4)


@torch.no_grad()
def test_a_whole_transformer_or_none_of_it(base: Path, tmp_path: Path) -> None:
    for dit, encoder in (("full", "published"), ("published", "trained")):
        config = parse_config(json.dumps({"dit": dit, "encoder": encoder, "precision": "bfloat16"}))
        folder = tmp_path / dit
        shutil.copytree(base, folder)
        trained = save_own(folder, config)
        names = load_file(folder / OWN).keys()
        assert any(n.startswith("generator.dit.") for n in names) == (dit == "full")
        assert any(n.startswith("generator.vae.encoder.") for n in names) == (encoder == "trained")
        assert not any(".vae.decoder." in n or "lora" in n for n in names)
        loaded = load_generator(read_folder(folder))
        assert loaded.dit.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
        assert loaded.dit.scale_shift_table.dtype == torch.float32
        one, other = (g(CLIPPED, types_of(CLIP), QUALITY).picture for g in (trained, loaded))
        assert torch.allclose(one, other, atol=0.02)


@torch.no_grad()
def test_a_piece_sees_the_end_of_the_one_before(base: Path) -> None:
    generator = generator_of(base).eval()
    carry = generator(CLIPPED, types_of(CLIP), QUALITY).carry
    assert carry is not None
    assert torch.equal(carry.clip, CLIPPED[:, -4:])
    assert torch.equal(carry.is_mv, types_of(CLIP)[-4:])
    second = CLIPPED.flip(1)
    alone, seen = (generator(second, types_of(CLIP), QUALITY, before).picture for before in (None, carry))
    both = torch.cat([CLIPPED[:, -4:], second], 1)
    whole = generator(both, torch.cat([types_of(CLIP)[-4:], types_of(CLIP)]), QUALITY).picture
    assert torch.equal(seen, whole[:, 4:])
    some = generator(second, types_of(CLIP), QUALITY, carry, [0, 5]).picture
    assert torch.equal(some, seen[:, [0, 5]])
    assert not torch.allclose(seen, alone, atol=1e-3)
    none = generator_of(base, replace(SMALL, context=0))
    assert none(second, types_of(CLIP), QUALITY).carry is None


@torch.no_grad()
def test_tiles_are_about_the_whole(base: Path) -> None:
    clip = torch.rand(1, CLIP, 3, 96, 80)
    whole, tiled = (generator_of(base, replace(SMALL, tile=tile)).for_rendering() for tile in (0, 64))
    latents = whole.encoded(clip)
    other = tiled.encoded(clip)
    assert other.shape == latents.shape
    assert torch.allclose(other[..., :4, :4], latents[..., :4, :4], atol=0.1)
    assert not torch.equal(other, latents)
    assert tiled.decoded(latents).shape == clip.shape


# ---- sizes -------------------------------------------------------------------------------------------------


def test_every_part_has_the_published_number_of_parameters() -> None:
    counted = sizes.parameters()
    for part, millions in sizes.PUBLISHED.items():
        assert counted[part] / 1e6 == pytest.approx(millions, rel=0.01), part
    full = sizes.parameters(PaperConfig(dit="full", fte_at="latent"))
    assert full["LoRA"] == 0
    assert full["DiT with embedders"] == counted["DiT with embedders"]


# ---- training ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_records(tmp_path_factory.mktemp("records"))


def save_records(folder: Path) -> Path:
    save_file(record_of(21)._asdict(), folder / "00000.safetensors")
    return folder


def task(base: Path, records: Path, stage: Stage) -> PaperTask:
    frames = 18 if stage == "joint" else 9
    bank = DiffsitBank(records, frames=frames, crop=64)
    torch.manual_seed(2)
    return PaperTask(stage, PaperRecipe(), generator_of(base), bank)


@pytest.mark.parametrize("stage", ["latent", "pixel", "joint"])
def test_steps_lower_the_loss(base: Path, records: Path, stage: Stage) -> None:
    run = task(base, records, stage)
    draw = run.bank.batch(1, np.random.default_rng(0))
    frozen = {n: p.clone() for n, p in run.generator.named_parameters() if n not in own_names(run.generator)}
    for group in run.optimizer.param_groups:
        group["lr"] = 5e-4
    losses = list[float]()
    for _ in range(6):
        run.random = np.random.default_rng(1)  # else other frames are judged
        losses.append(run.step(draw, 0.0)["loss"])
    assert losses[-1] < 0.99 * losses[0]
    assert frozen
    assert all(torch.equal(p, run.generator.get_parameter(n)) for n, p in frozen.items())
    learned = {n for n, p in run.generator.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("lora_B" in n for n in learned)
    assert {"types.out.weight", "vae.encoder.conv_in.weight"} <= learned


def test_a_joint_run_sees_the_carry(base: Path, records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of its clips are second pieces, behind what a decoder would know there."""
    run, seen = task(base, records, "joint"), list[Any]()
    clip = run.bank.cut(run.bank.batch(1, np.random.default_rng(0)))
    inner = run.generator.forward

    def forward(*args: Any) -> Any:
        seen.append(args)
        return inner(*args)

    monkeypatch.setattr(run.generator, "forward", forward)
    with torch.no_grad():
        for _ in range(6):
            run.terms(clip)
    first, second = ([a for a in seen if (a[3] is None) == is_first] for is_first in (True, False))
    assert first
    assert second
    assert torch.equal(first[0][0], clip.picture[:, :9])
    assert torch.equal(second[0][0], clip.picture[:, 9:])
    assert torch.equal(second[0][3].clip, clip.picture[:, 5:9])
    assert torch.equal(second[0][3].is_mv, clip.is_mv[5:9])


@pytest.mark.slow
def test_a_task_resumes(base: Path, records: Path) -> None:
    first: Task = task(base, records, "joint")
    second: Task = task(base, records, "joint")
    draw = torch.zeros(1, 4, dtype=torch.int64)
    first.step(draw, 0.0)
    second.load_state(first.state())
    assert first.step(draw, 0.1) == second.step(draw, 0.1)


def test_stages_by_the_command_line(base: Path, records: Path, tmp_path: Path) -> None:
    common = ["--preset", "paper", "--base", str(base), "--records", str(records), "--device", "cpu"]
    common += ["--config", SMALL.to_json(), "--batch", "1", "--crop", "64"]
    init: list[str] = []
    for stage in ("latent", "pixel", "joint"):
        out = tmp_path / stage
        training.run("diffsit", [*common, "--stage", stage, "--steps", "1", "--out", str(out), *init])
        init = ["--init", str(out / "checkpoint.pt")]
        assert len((out / "log.jsonl").read_text().splitlines()) == 1
    target = tmp_path / "folder"
    shutil.copytree(base, target)
    training.run("diffsit", [*common, "--stage", "export", "--out", str(target), *init])
    assert isinstance(create(weights=target), DiffSit)


def test_training_says_what_it_needs(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--preset", "paper", "--base", str(tmp_path)]
    given = ["--records", str(tmp_path)]
    for stage, extra, wanted in (
        ("latent", [], "needs --records FOLDER"),
        ("joint", given, "needs --init CHECKPOINT"),
        ("latent", [*given, "--stem", "{}"], "with --stem needs --init CHECKPOINT"),
    ):
        with pytest.raises(SystemExit):
            training.run("diffsit", [*common, "--stage", stage, "--steps", "1", *extra])
        assert wanted in capsys.readouterr().err
    with pytest.raises(WeightsMissing, match="--stage prompt"):
        training.run("diffsit", [*common, "--stage", "latent", "--steps", "1", "--records", str(tmp_path)])
    with pytest.raises(WeightsMissing, match="cannot read the text encoder"):
        training.run("diffsit", [*common, "--stage", "prompt"])
