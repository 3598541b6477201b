"""The generator of `s2vc`: how it begins, what each switch of the paper's ablations does, its attention."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from golden.regenerate import clip

from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.features import FeatureBuffer
from gencodec.methods.s2vc.generator import Generator, GeneratorConfig, Memory, Rendered
from gencodec.methods.s2vc.model import CodedFrame
from gencodec.methods.s2vc.semantic import SemanticHead
from gencodec.nn.attention import Attention, CrossAttention, FeedForward
from gencodec.nn.state import config_from, load_float
from gencodec.weights import load_named

SMALL = GeneratorConfig(features=12, content=16, widths=(8, 12, 16), tokens=8)
QUALITY = torch.tensor([40])
INTRA = "intra-tiny-9"


def generator(config: GeneratorConfig = SMALL) -> Generator:
    torch.manual_seed(0)
    return Generator(config).eval()


def awake(module: Any, scale: float = 0.05) -> Any:
    """The same with what begins at zero set to something: every path shows in the output."""
    drawn = torch.Generator().manual_seed(1)
    for p in module.parameters():
        if not p.detach().any():
            p.data.add_(scale * torch.randn(p.shape, generator=drawn))
    return module


def coded(seed: int, height: int = 48, width: int = 80, batch: int = 1) -> CodedFrame:
    """What a coding loop may leave of a frame."""
    drawn = torch.Generator().manual_seed(seed)
    h, w = height // 16, width // 16
    return CodedFrame(
        torch.rand(batch, 3, height, width, generator=drawn),
        torch.randn(batch, 192, h, w, generator=drawn),
        4 * torch.randn(batch, 2, h, w, generator=drawn),
    )


@torch.no_grad()
def two(net: Generator, **of_memory: Any) -> Rendered:
    """The second of two frames, with other fields of the first one's memory where they are given."""
    memory = net(coded(0), QUALITY).memory
    return net(coded(1), QUALITY, memory._replace(**of_memory))


# ---- how it begins -----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("quality", [22, 40, 63])
def test_a_key_frame_begins_as_intras_repair(quality: int) -> None:
    tensors, q = load_named(INTRA)[0], torch.tensor([quality])
    transforms = IntraModel.frozen(tensors).transforms
    x = clip(1, 64, 96).float() / 255
    gain = torch.exp2(transforms.log2_gain(q))[:, :, None, None]
    scaled = transforms.to_latents(x, q).round() / gain
    picture = transforms.synthesis.linear(scaled) / 4 + 0.5
    net, prefix = generator(GeneratorConfig(repair_blocks=(6, 3))), "transforms.synthesis."
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    load_float(net.decoder, own, skip=())
    net.analysis.weight.copy_(tensors["transforms.analysis.weight"])
    rendered = net(CodedFrame(picture, scaled, torch.zeros_like(scaled[:, :2])), q).picture
    expected = transforms.synthesis(scaled, q, picture)
    missing, repair = (rendered - expected).abs(), (expected - picture).abs()
    assert missing.max() < 0.02  # the transform and its inverse are in half precision, each rounded
    assert missing.mean() < 0.1 * repair.mean()  # wired otherwise, it would be all of it


@torch.no_grad()
def test_what_comes_before_makes_no_difference_until_trained() -> None:
    net = generator()
    alone = net(coded(1), QUALITY).picture
    assert torch.equal(two(net).picture, alone)
    awake(net.unet.leave)
    assert not torch.equal(net(coded(1), QUALITY).picture, alone)


@torch.no_grad()
def test_fusion_is_nothing_until_trained() -> None:
    net = generator()
    awake(net.unet.leave)
    levels = [torch.zeros(1, c, n, m) for c, n, m in ((8, 8, 12), (12, 4, 6))]
    assert torch.equal(two(net).picture, two(net, levels=levels).picture)
    awake(net.unet.fusions)
    assert not torch.equal(two(net).picture, two(net, levels=levels).picture)


@torch.no_grad()
def test_the_diffusion_buffer_holds_what_was_there_before_fusing() -> None:
    """The coarser level follows the finer one, which was fused; the finest is this frame's alone."""
    net = awake(generator())
    first = net(coded(0), QUALITY).memory
    other = first._replace(levels=[level + 1 for level in first.levels])
    a, b = (net(coded(1), QUALITY, memory).memory.levels for memory in (first, other))
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[1], b[1])


# ---- switches ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    ("semantics", "count", "sees_now", "sees_before"),
    [
        ("paired", 6, True, True),
        ("single", 6, True, False),
        ("fixed", 1, False, False),
        ("none", 1, False, False),
    ],
)
def test_tokens(semantics: Any, count: int, sees_now: bool, sees_before: bool) -> None:
    torch.manual_seed(0)
    head = SemanticHead(12, 8, semantics).eval()
    now, before, other = torch.randn(3, 2, 12, 14, 18)  # features of 112x144: 2x3 squares of 64 pixels
    tokens = head(now, before)
    assert tokens.shape == (2, count, 8)
    assert torch.equal(head(other, before), tokens) is not sees_now
    assert torch.equal(head(now, other), tokens) is not sees_before
    assert bool(tokens.any()) is (semantics != "none")


@torch.no_grad()
@pytest.mark.parametrize("semantics", ["paired", "single", "fixed", "none"])
def test_tokens_reach_the_picture(semantics: Any) -> None:
    net = awake(generator(replace(SMALL, semantics=semantics)))
    frame, memory = coded(1), net(coded(0), QUALITY).memory
    features = net.remember(frame, memory)
    tokens = net.semantics(features, memory.features)
    pictures = [net.render(frame, QUALITY, features, t, memory).picture for t in (tokens, tokens + 1)]
    assert not torch.equal(*pictures)
    assert torch.equal(pictures[0], net(frame, QUALITY, memory).picture)


@torch.no_grad()
def test_without_temporal_guidance_nothing_is_fused() -> None:
    net = awake(generator(replace(SMALL, temporal=False)))
    assert len(net.unet.fusions) == 0
    levels = [torch.zeros(1, c, n, m) for c, n, m in ((8, 8, 12), (12, 4, 6))]
    assert torch.equal(two(net).picture, two(net, levels=levels).picture)
    assert not torch.equal(two(net).picture, two(net, features=torch.zeros(1, 12, 6, 10)).picture)


@torch.no_grad()
def test_without_the_unet_it_is_a_plain_decoder() -> None:
    net = awake(generator(replace(SMALL, unet=False)))
    assert {name for name, _ in net.named_children()} == {"analysis", "decoder"}
    frame = coded(1)
    first = net(frame, QUALITY)
    assert (first.tokens.numel(), first.memory.levels) == (0, [])
    other = frame._replace(scaled=torch.zeros_like(frame.scaled))
    assert torch.equal(net(other, QUALITY, first.memory).picture, first.picture)


@pytest.mark.parametrize(
    "change",
    [{}, {"temporal": False}, {"unet": False}, *({"semantics": s} for s in ("single", "fixed", "none"))],
    ids=str,
)
def test_every_switch_trains(change: dict[str, Any]) -> None:
    """All that a switch leaves has a gradient in a clip of two frames; what it takes is not there."""
    net = awake(generator(replace(SMALL, **change))).train()
    memory = net(coded(0, 64, 64), QUALITY).memory
    net(coded(1, 64, 64), QUALITY, memory).picture.square().mean().backward()
    unused = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {name for name in unused if not name.startswith(("semantics.", "unet."))}
    asleep = {name for name in unused if "attention" not in name}  # one token alone needs no queries
    assert not asleep, asleep


def test_gradients_flow_through_time() -> None:
    net = awake(generator())
    first = net(coded(0), QUALITY)
    kept = [first.memory.features, *first.memory.levels]
    net(coded(1), QUALITY, first.memory).picture.sum().backward(inputs=kept)
    assert all(values.grad is not None and values.grad.any() for values in kept)


@torch.no_grad()
def test_features_do_not_grow_as_they_run_around() -> None:
    torch.manual_seed(0)
    buffer, frame = awake(FeatureBuffer(12)), coded(0)
    features, sizes = None, []
    for _ in range(60):
        features = buffer(frame.picture, frame.scaled, features, frame.flow)
        sizes.append(float(features.abs().max()))
    assert max(sizes[30:]) < 1.5 * max(sizes[:5])


# ---- shapes ------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (16, 48), (48, 80), (112, 80), (80, 144)])
def test_any_number_of_blocks(size: tuple[int, int]) -> None:
    """Sides are multiples of 16; those of features, of 2, and not of what the U-Net or the tokens halve."""
    net = awake(generator())
    memory: Memory | None = None
    for seed in range(3):
        out = net(coded(seed, *size), QUALITY, memory)
        memory = out.memory
        assert out.picture.shape == (1, 3, *size)
        assert memory.features.shape == (1, 12, size[0] // 8, size[1] // 8)
        assert out.tokens.shape == (1, -(-size[0] // 64) * -(-size[1] // 64), 8)
        assert out.picture.isfinite().all()


@torch.no_grad()
def test_a_batch_is_its_members() -> None:
    net, quality = awake(generator()), torch.tensor([5, 60])
    frames = [coded(seed, batch=2) for seed in range(2)]
    out = net(frames[1], quality, net(frames[0], quality).memory)
    for i in range(2):
        one = [CodedFrame(*(values[i : i + 1] for values in frame)) for frame in frames]
        q = quality[i : i + 1]
        alone = net(one[1], q, net(one[0], q).memory)
        assert torch.allclose(out.picture[i : i + 1], alone.picture, atol=1e-4)


def test_the_configuration_of_a_weights_file() -> None:
    assert config_from(GeneratorConfig, "{}") == GeneratorConfig()
    text = '{"widths": [8, 12, 16], "features": 12, "content": 16, "tokens": 8}'
    assert config_from(GeneratorConfig, text) == SMALL
    for wrong in ('{"depth": 3}', "[1]", "{"):
        with pytest.raises(ValueError):  # noqa: PT011 - of two origins
            config_from(GeneratorConfig, wrong)


# ---- attention ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_attention_begins_as_the_identity() -> None:
    x, tokens = torch.randn(2, 5, 16), torch.randn(2, 3, 8)
    assert torch.equal(Attention(16, 8)(x, tokens), x)
    picture = torch.randn(2, 16, 3, 5)
    assert torch.equal(CrossAttention(16, 8)(picture, tokens), picture)


@torch.no_grad()
def test_attention_is_a_softmax_over_tokens() -> None:
    torch.manual_seed(0)
    heads, width = 4, 4  # channels of each head
    net = awake(Attention(heads * width, 8, heads), 0.5)
    x, tokens = torch.randn(2, 5, heads * width), torch.randn(2, 3, 8)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    normal = (x - mean) / (variance + 1e-5).sqrt() * net.norm.weight + net.norm.bias
    q = normal @ net.to_q.weight.T
    k, v = (tokens @ net.to_kv.weight.T).chunk(2, -1)
    parts = []
    for start, stop in pairwise(range(0, heads * width + 1, width)):
        scores = q[..., start:stop] @ k[..., start:stop].transpose(1, 2) / width**0.5  # (B,5,3)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        parts.append(weights @ v[..., start:stop])
    expected = x + torch.cat(parts, -1) @ net.out.weight.T + net.out.bias
    assert torch.allclose(net(x, tokens), expected, atol=1e-5)


@torch.no_grad()
def test_cross_attention_looks_from_every_place() -> None:
    torch.manual_seed(0)
    net, picture, tokens = awake(CrossAttention(16, 8), 0.5), torch.randn(1, 16, 3, 5), torch.randn(1, 4, 8)
    out = net(picture, tokens)
    for row, column in ((0, 0), (2, 1)):
        place = picture[:, :, row, column][:, None]
        assert torch.allclose(out[:, :, row, column], net.attention(place, tokens)[:, 0], atol=1e-5)


def test_heads_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="4 heads"):
        Attention(18, 8)


@torch.no_grad()
def test_feed_forward_mixes_channels_of_each_token_alone() -> None:
    net, x = FeedForward(8), torch.randn(1, 3, 8)
    other = x.clone()
    other[:, 1] += 1
    changed = (net(x) != net(other)).any(-1)
    assert changed.tolist() == [[False, True, False]]
