"""The published networks of `extreme`: sizes to the last parameter, checkpoints in their public layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_clip
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from gencodec import api, cli_weights
from gencodec.codec import VideoInfo, WeightsMissing
from gencodec.methods.extreme.codec import Extreme
from gencodec.methods.extreme.events import KEY
from gencodec.methods.extreme.paper import mcvd
from gencodec.methods.extreme.paper.elic_import import new_names
from gencodec.methods.extreme.paper.mcvd import CITYSCAPES, SMMNIST, McvdConfig, McvdUNet
from gencodec.methods.extreme.paper.mcvd_import import from_checkpoint, read_config
from gencodec.methods.extreme.paper.mcvd_predictor import McvdPredictor
from gencodec.methods.extreme.past import Past
from gencodec.methods.extreme.predictor import Sampler
from gencodec.methods.extreme.settings import REFERENCE
from gencodec.rate import ConstantQuality
from gencodec.sampler.noise import Noise
from gencodec.weights import load_file

SMALL = McvdConfig(32, 1, 2, 5, 16, (1, 2, 3), attention_at=(16, 8), head_width=8)


# ---- MCVD ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters", "giga_flop"),
    [(CITYSCAPES, 262_133_775, 345.8), (SMMNIST, 27_941_765, 19.8)],
    ids=["cityscapes", "smmnist"],
)
def test_published_sizes(config: McvdConfig, parameters: int, giga_flop: float) -> None:
    c = config
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = McvdUNet(c)
        new, old = (torch.empty(1, n * c.channels, c.size, c.size) for n in (c.predicted, c.past))
        assert model(new, old, torch.empty(1)).shape == new.shape
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert counter.get_total_flops() / 1e9 == pytest.approx(giga_flop, rel=0.005)


def test_modules_stand_where_the_checkpoints_have_them() -> None:
    """The table of the method's facts: number in the list -> what it is."""
    with torch.device("meta"):
        modules = list(McvdUNet(CITYSCAPES).in_order())
    attention = {i for i, m in enumerate(modules) if isinstance(m, mcvd.SelfAttention)}
    assert attention == {10, 12, 15, 17, 20, 22, 24, 29, 34, 39}
    assert {i for i, m in enumerate(modules) if getattr(m, "resample", "")} == {5, 8, 13, 18, 30, 35, 40, 44}
    widths = {i: m.conv0.in_channels for i, m in enumerate(modules) if isinstance(m, mcvd.Block)}
    assert [widths[i] for i in (26, 27, 28)] == [1536, 1536, 1344]
    assert len(modules) == 50


def test_resampling_is_the_filter() -> None:
    x = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    line = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8
    padded = functional.pad(x, (1, 1, 1, 1))
    reduced = (padded.unfold(3, 4, 2) * line).sum(-1).unfold(2, 4, 2)
    assert torch.allclose(mcvd.halved(x), (reduced * line).sum(-1))
    flat = mcvd.doubled(torch.ones(1, 1, 6, 6))
    assert flat.shape == (1, 1, 12, 12)
    assert torch.allclose(flat[..., 2:-2, 2:-2], torch.ones(1, 1, 8, 8))


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer, x = mcvd.SelfAttention(16, 8), torch.rand(2, 16, 4, 4)
    h = functional.group_norm(x, 4, layer.norm.weight, layer.norm.bias, 1e-6)
    q, k, v = (f(h).reshape(4, 8, 16) for f in (layer.query, layer.key, layer.value))
    weights = (torch.einsum("bci,bcj->bij", q, k) * 8**-0.5).softmax(-1)
    seen = torch.einsum("bij,bcj->bci", weights, v).reshape(2, 16, 4, 4)
    expected = (x + layer.out(seen)) / 2**0.5
    assert torch.allclose(layer(x, torch.zeros(2, 1)), expected, atol=1e-6)


def published(model: McvdUNet, *, old: bool = False) -> list[Any]:
    """A checkpoint as MCVD saves it, names and shapes written from its facts."""
    averaged: dict[str, Tensor] = {}

    def put(number: int, name: str, module: nn.Module) -> None:
        for kind, p in module.named_parameters():
            averaged[f"unet.all_modules.{number}.{name}{kind}"] = p.detach().clone()

    modules = list(model.in_order())
    for i, module in enumerate(modules):
        if isinstance(module, mcvd.Block):
            put(i, "actnorm0.Dense_0.", module.norm0.dense)
            put(i, "actnorm1.Dense_0.", module.norm1.dense)
            put(i, "Conv_0.", module.conv0)
            put(i, "Conv_1.", module.conv1)
            put(i, "Conv_2.", module.shortcut)
        elif isinstance(module, mcvd.SelfAttention):
            put(i, "GroupNorm_0.", module.norm)
            for k, part in enumerate((module.query, module.key, module.value, module.out)):
                averaged[f"unet.all_modules.{i}.NIN_{k}.W"] = part.weight.detach()[:, :, 0, 0].t().clone()
                averaged[f"unet.all_modules.{i}.NIN_{k}.b"] = part.bias.detach().clone()  # type: ignore[union-attr]
        else:
            put(i, "Norm_0." if i == len(modules) - 2 and not old else "", module)
    wrapped = {f"module.{name}": torch.zeros_like(t) for name, t in averaged.items()}
    return [wrapped | {"module.betas": torch.ones(9)}, {"state": {}, "param_groups": []}, 1, 2, averaged]


CONFIG = """
data: !!python/object:argparse.Namespace
  image_size: 32
  channels: 1
  num_frames: 5
  num_frames_cond: 2
  num_frames_future: 0
model: !!python/object:argparse.Namespace
  arch: unetmore
  ngf: 16
  ch_mult: !!python/tuple [1, 2, 3]
  num_res_blocks: 2
  attn_resolutions: [16, 8]
  n_head_channels: 8
  spade: false
"""


@pytest.mark.parametrize("old", [False, True])
def test_mcvd_comes_in(tmp_path: Path, old: bool) -> None:
    torch.manual_seed(0)
    model = McvdUNet(SMALL)
    torch.save(published(model, old=old), tmp_path / "checkpoint.pt")
    (tmp_path / "config.yml").write_text(CONFIG)
    cli_weights.import_weights(["mcvd", str(tmp_path / "checkpoint.pt")], None)
    tensors, metadata = load_file(tmp_path / "checkpoint.safetensors")
    found = json.loads(metadata["config"])
    assert McvdConfig(**(found | {k: tuple(v) for k, v in found.items() if isinstance(v, list)})) == SMALL
    again = McvdUNet(SMALL)
    again.load_state_dict(dict(tensors))
    inputs = torch.rand(1, 5, 32, 32), torch.rand(1, 2, 32, 32), torch.tensor([500])
    assert torch.equal(again(*inputs), model(*inputs))


def test_all_that_is_wrong_is_listed() -> None:
    checkpoint = published(McvdUNet(SMALL))
    averaged = checkpoint[-1]
    del averaged["unet.all_modules.0.weight"]
    averaged["unet.all_modules.2.bias"] = torch.zeros(3)
    averaged["unet.sigmas"] = torch.zeros(3)
    with pytest.raises(WeightsMissing) as caught:
        from_checkpoint(checkpoint, SMALL)
    for problem in ("no tensor unet.all_modules.0.weight", "(3,), not (16,)", "unet.sigmas is not of"):
        assert problem in str(caught.value)
    with pytest.raises(WeightsMissing, match="list of five"):
        from_checkpoint(checkpoint[:4], SMALL)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "a: {", "data: {}\nmodel: {}", CONFIG.replace("spade: false", "spade: true")]
)
def test_another_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(WeightsMissing, match="MCVD"):
        read_config(tmp_path / "config.yml")


def test_a_configuration_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(WeightsMissing):
        read_config(tmp_path / "config.yml")
    assert not (tmp_path / "made").exists()


# ---- ELIC ------------------------------------------------------------------------------------------------

CHANGED = {
    "latent_codec.hyper.entropy_bottleneck.matrices.": "entropy_bottleneck._matrix",
    "latent_codec.hyper.entropy_bottleneck.biases.": "entropy_bottleneck._bias",
    "latent_codec.hyper.entropy_bottleneck.factors.": "entropy_bottleneck._factor",
    "latent_codec.hyper.": "",
}


def as_reference(name: str) -> str:
    """The reference's name of a tensor of compressai's model."""
    for new, old in CHANGED.items():
        if name.startswith(new):
            return old + name.removeprefix(new)
    head, _, rest = name.removeprefix("latent_codec.y.").partition(".")
    if head == "channel_context":
        return f"cc_transforms.{int(rest[1]) - 1}{rest[2:]}"
    if head != "latent_codec":
        return name
    number, rest = rest[1], rest[3:]
    if rest.startswith("y.gaussian"):
        return rest[2:]
    part, _, rest = rest.partition(".")
    return f"{ {'entropy_parameters': 'ParamAggregation'}.get(part, part) }.{number}.{rest}"


@pytest.mark.slow
def test_elic_comes_in(tmp_path: Path) -> None:
    models = pytest.importorskip("compressai.models.sensetime")
    model = models.Elic2022Chandelier()
    assert sum(p.numel() for p in model.parameters()) == 33_792_771
    model.update()
    torch.save({as_reference(n): t for n, t in model.state_dict().items()}, tmp_path / "4.pth.tar")
    cli_weights.import_weights(["elic", str(tmp_path / "4.pth.tar"), str(tmp_path / "4.safetensors")], None)
    with safe_open(tmp_path / "4.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    again = models.Elic2022Chandelier()
    again.load_state_dict(tensors)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        a, b = model.eval()(x), again.eval()(x)
    assert torch.equal(a["x_hat"], b["x_hat"])
    assert all(torch.equal(a["likelihoods"][k], b["likelihoods"][k]) for k in a["likelihoods"])
    torch.save({"g_a.0.weight": torch.zeros(3), "head.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(WeightsMissing, match=r"head\.weight is not of this model"):
        cli_weights.import_weights(["elic", str(tmp_path / "x.pth")], None)


def test_elic_names() -> None:
    assert new_names("cc_transforms.0.2.weight") == ["latent_codec.y.channel_context.y1.2.weight"]
    assert len(new_names("gaussian_conditional._offset")) == 5
    assert new_names("module.g_a.0.weight") == []


# ---- MCVD as a predictor ---------------------------------------------------------------------------------


def lively(config: McvdConfig = SMALL) -> McvdUNet:
    torch.manual_seed(0)
    net = McvdUNet(config)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    return net


def reference(net: McvdUNet, past: Tensor, draw: Callable[[int], Tensor], steps: int, quirks: bool) -> Tensor:
    """The sampler of the facts page, in its own terms: label 0 is the noisiest, alphas rise."""
    betas = torch.linspace(0.02, 1e-4, 1000, dtype=torch.float64)
    alphas = (1 - betas).flip(0).cumprod(0).flip(0)
    labels = torch.arange(0, 1000, 1000 // steps)
    alpha, before = alphas[labels], torch.cat([alphas[labels][1:], torch.ones(1, dtype=torch.float64)])
    x = draw(0)
    for i, label in enumerate(labels):
        a, b = float(alpha[i]), float(before[i])
        beta = 1 - a / b
        noise = net(x, past, torch.full((len(x),), float(label)))
        clean = ((x - (1 - a) ** 0.5 * noise) / a**0.5).clamp(-1, 1)
        x = b**0.5 * beta / (1 - a) * clean + (1 - beta) ** 0.5 * (1 - b) / (1 - a) * x
        if i + 1 < len(labels):
            x = x + ((1 - b) / (1 - a) * beta) ** 0.5 * draw(i + 1)
    if quirks:
        x = x - (1 - float(alpha[-1])) ** 0.5 * net(x, past, torch.full((len(x),), 99.0))
    return x


@pytest.mark.parametrize("quirks", [False, True])
def test_it_samples_as_the_reference_does(quirks: bool) -> None:
    net, noise = lively(), Noise(4, 0)
    frames = make_clip(2, 32, 32)
    shown = McvdPredictor(net, 20, quirks=quirks)(Past(frames[0], tuple(frames)), noise, 3, [0, 2])
    past = (frames.float().mean(1)[None] / 127.5 - 1).expand(2, -1, -1, -1)
    draw = noise.steps((5, 32, 32), candidates=[0, 2], chunk=3)
    with torch.no_grad():
        wanted = reference(net, past, draw, 20, quirks)
    wanted = ((wanted.clamp(-1, 1) + 1) * 127.5).round()
    assert shown.shape == (2, 5, 3, 32, 32)
    away = (shown[:, :, 0].float() - wanted).abs()
    assert away.max() <= 2
    assert away.mean() < 0.1
    assert wanted.std() > 10


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_cheaper_samplers(sampler: Sampler) -> None:
    """Of other sizes too; one past frame is taken twice."""
    frame = make_clip(1, 44, 36)[0]
    predictor = McvdPredictor(lively(), 4, sampler)
    shown = predictor(Past.of_key(frame), Noise(0, 0), 0, [0])
    assert shown.shape == (1, 5, 3, 36, 44)
    assert torch.equal(shown, predictor(Past(frame, (frame, frame)), Noise(0, 0), 0, [0]))


# ---- the paper preset ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint in the public layout, imported by the command that users have."""
    config = McvdConfig(32, 3, 2, 5, 16, (1, 2, 3), attention_at=(16, 8), head_width=8)
    torch.save(published(lively(config)), tmp_path / "checkpoint.pt")
    (tmp_path / "config.yml").write_text(CONFIG.replace("channels: 1", "channels: 3"))
    cli_weights.import_weights(
        ["mcvd", str(tmp_path / "checkpoint.pt"), str(tmp_path / "mcvd.safetensors")], None
    )
    return tmp_path


def test_the_reference_is_a_named_setting(folder: Path) -> None:
    """Two fresh key frames, DDPM, quirks; five frames at once from the last two. Fewer steps, to be quick."""
    options = REFERENCE | {"steps": 4, "threshold": 6.0}
    codec = api.create("extreme", preset="paper", weights=folder, device="cpu", **options)
    frames = list(make_clip(12, 48, 40))
    info = VideoInfo(48, 40, Fraction(25))
    seen: list[Tensor] = []
    packets = list(codec.encode(frames, info, ConstantQuality(30), on_recon=seen.append))
    assert isinstance(codec, Extreme)
    assert [e.kept for e in codec.events_of(packets[0], info)] == [KEY, 5, 5]
    shown = list(codec.decode(packets, info))
    assert all(torch.equal(a, b) for a, b in zip(seen, shown, strict=True))
    again = api.create("extreme", preset="paper", weights=folder, device="cpu", **options)
    assert again.weights_id == codec.weights_id


def test_its_files(folder: Path, tmp_path: Path) -> None:
    """A file made with it says so, and decodes where the folder is given."""
    codec = api.create("extreme", preset="paper", weights=folder, device="cpu", steps=2)
    api.encode(make_clip(7, 48, 40), tmp_path / "a.gcv", codec=codec, quality=30)
    assert len(list(api.decode(tmp_path / "a.gcv", weights=folder, device="cpu"))) == 7
    with pytest.raises(WeightsMissing, match="folder"):
        api.decode(tmp_path / "a.gcv", device="cpu")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    for path, said in ((None, "give a folder"), (tmp_path, "mcvd.safetensors")):
        with pytest.raises(WeightsMissing, match=said):
            api.create("extreme", preset="paper", weights=path, device="cpu")


def test_samplers_of_the_other_preset_are_refused() -> None:
    with pytest.raises(WeightsMissing, match="paper preset"):
        api.create("extreme", sampler="ddpm", device="cpu")
