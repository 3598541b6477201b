"""The generative half of `diffsit`: shapes, causality, what is carried on, and what each switch leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gencodec.methods.diffsit.autoencoder import grouped
from gencodec.methods.diffsit.dit import ClipTransformer, attention, rotated, rotations
from gencodec.methods.diffsit.generator import Carry, ClipGenerator, GeneratorConfig
from gencodec.nn.state import export_float, load_float

SMALL = GeneratorConfig(
    width=16, wide=16, latents=8, detail=8, detail_blocks=1, channels=32, blocks=2, heads=2, hidden=48
)
SWITCHES: list[dict[str, Any]] = [
    {},
    {"fte": False},
    {"fte_at": "latent"},
    {"dit": False},
    {"decoder": "frozen"},
    {"decoder": "frozen", "fte_at": "latent"},
]


def make(awake: bool = True, **switches: Any) -> ClipGenerator:
    """A small generator; `awake`: what begins at zero does something."""
    torch.manual_seed(0)
    model = ClipGenerator(replace(SMALL, **switches)).eval()
    if awake:
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return model


def types(count: int) -> Tensor:
    return torch.tensor([t % 3 != 1 for t in range(count)])


def clips(batch: int, count: int, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(batch, count, 3, height, width, generator=torch.Generator().manual_seed(count))


def quality(*values: int) -> Tensor:
    return torch.tensor(values)


@torch.no_grad()
@pytest.mark.parametrize("count", [9, 21, 33])
@pytest.mark.parametrize(("height", "width"), [(48, 16), (32, 80)])
def test_shapes(count: int, height: int, width: int) -> None:
    """Sides are multiples of 16, not of 32."""
    model = make()
    clip = clips(2, count, height, width)
    out = model(clip, types(count), quality(3, 60))
    assert out.picture.shape == clip.shape
    assert out.carry.features.shape == (2, 3, height // 8, width // 8, SMALL.width)
    assert out.carry.group.shape == (2, height // 8, width // 8, SMALL.wide)
    assert out.carry.frame.shape == (2, height // 8, width // 8, SMALL.width)
    assert len(out.carry.keys) == SMALL.blocks
    latents = model.encoded(clip)
    assert latents.shape == (2, 1 + (count - 1) // 4, height // 8, width // 8, SMALL.latents)
    assert model.decoded(latents).shape == clip.shape


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES)
def test_begins_as_what_stem_decoded(switches: dict[str, Any]) -> None:
    clip = clips(1, 9)
    assert torch.equal(make(awake=False, **switches)(clip, types(9), quality(30)).picture, clip)
    assert not torch.equal(make(**switches)(clip, types(9), quality(30)).picture, clip)


def test_a_clip_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 8"):
        make()(clips(1, 8), types(8), quality(30))
    with pytest.raises(ValueError, match="heads"):
        ClipTransformer(8, 40, 1, 2, 16)


@torch.no_grad()
@pytest.mark.parametrize("at", ["pixel", "latent"])
def test_frame_types_matter_once_they_are_learned(at: Any) -> None:
    clip, every = clips(1, 9), types(9)
    asleep, model = make(awake=False, fte_at=at), make(fte_at=at)
    torch.nn.init.normal_(asleep.head.last.weight)
    same, other = (asleep(clip, kind, quality(30)).picture for kind in (every, ~every))
    assert torch.allclose(same, other)
    same, other = (model(clip, kind, quality(30)).picture for kind in (every, ~every))
    assert not torch.allclose(same, other)
    moved = _without_strength(model, clip, every) - _without_strength(model, clip, ~every)
    assert (moved.abs().amax((0, 2, 3, 4)) > 0).all()


def _without_strength(model: ClipGenerator, clip: Tensor, is_mv: Tensor) -> Tensor:
    torch.nn.init.zeros_(model.log2_strength.anchors)
    picture: Tensor = model(clip, is_mv, quality(30)).picture
    return picture


@torch.no_grad()
def test_strength_is_that_of_type_and_quality() -> None:
    clip, model = clips(2, 9), make(fte=False)
    torch.nn.init.zeros_(model.log2_strength.anchors)
    whole = model(clip, types(9), quality(0, 63)).picture - clip
    model.log2_strength.anchors[-1] = torch.tensor([-1.0, -2.0])  # at quality 63
    less = model(clip, types(9), quality(0, 63)).picture - clip
    assert torch.allclose(less[0], whole[0], atol=1e-6)
    assert torch.allclose(less[1, 1::3], whole[1, 1::3] / 2, atol=1e-6)
    assert torch.allclose(less[1, ::3], whole[1, ::3] / 4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES)
def test_later_frames_change_no_earlier_ones(switches: dict[str, Any]) -> None:
    """Groups of 1, 4, 4, ... frames: frame 5 is the first of the third."""
    model = make(**switches)
    clip = clips(1, 13)
    other = clip.clone()
    other[:, 5:] = 1 - other[:, 5:]
    before, after = (model(x, types(13), quality(30)).picture for x in (clip, other))
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert (before[:, 5:] - after[:, 5:]).abs().amin((0, 2, 3, 4)).max() > 0
    latents = [model.encoded(x) for x in (clip, other)]
    assert torch.allclose(latents[0][:, :2], latents[1][:, :2], atol=1e-5)
    assert not torch.allclose(latents[0][:, 2], latents[1][:, 2], atol=1e-3)


@pytest.mark.parametrize("switches", SWITCHES)
def test_a_piece_sees_the_one_before(switches: dict[str, Any]) -> None:
    model = make(**switches)
    first, second = clips(1, 9).requires_grad_(), clips(1, 21)
    carry = model(first, types(9), quality(30)).carry
    behind = model(second, types(21), quality(30), carry).picture
    anew = model(second, types(21), quality(30)).picture
    assert not torch.allclose(behind, anew, atol=1e-4)
    behind.square().mean().backward()
    assert first.grad is not None
    assert (first.grad.abs().amax((0, 2, 3, 4))[-3:] > 0).all(), "the last frames before the seam"
    apart: Carry = carry.detached()
    assert not any(t.requires_grad for t in (apart.features, apart.group, apart.frame))
    again = model(second, types(21), quality(30), apart).picture
    assert torch.equal(again, behind)


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES)
def test_a_batch_is_its_members(switches: dict[str, Any]) -> None:
    model = make(**switches)
    clip, q = clips(2, 9), quality(5, 50)
    carries = [model(clip[i : i + 1].flip(1), types(9), q[i : i + 1]).carry for i in range(2)]
    whole = model(clip, types(9), q, model(clip.flip(1), types(9), q).carry).picture
    for i in range(2):
        alone = model(clip[i : i + 1], types(9), q[i : i + 1], carries[i]).picture
        assert torch.allclose(whole[i], alone[0], atol=1e-5)


@pytest.mark.parametrize("switches", SWITCHES)
def test_frame_after_frame_is_as_all_at_once(switches: dict[str, Any]) -> None:
    """Without gradients maps are worked on one by one, and attention is fused."""
    model = make(**switches)
    clip, q = clips(2, 9), quality(5, 50)
    whole = model(clip, types(9), q).picture
    with torch.no_grad():
        assert torch.allclose(model(clip, types(9), q).picture, whole, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES)
def test_some_frames_are_shown_as_among_all(switches: dict[str, Any]) -> None:
    model = make(**switches)
    clip, q = clips(2, 9), quality(5, 50)
    carry = model(clip.flip(1), types(9), q).carry
    whole, some = (model(clip, types(9), q, carry, only) for only in (None, [0, 4, 8]))
    assert torch.equal(some.picture, whole.picture[:, [0, 4, 8]])
    assert torch.equal(some.carry.frame, whole.carry.frame)
    assert torch.equal(some.carry.group, whole.carry.group)


@pytest.mark.parametrize("switches", SWITCHES)
def test_every_parameter_is_used(switches: dict[str, Any]) -> None:
    model = make(**switches)
    model(clips(2, 9), types(9), torch.tensor([0, 40])).picture.square().mean().backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    if switches.get("decoder") == "frozen":  # what is added to both decodings alike cancels
        silent = {n for n in silent if not (n.startswith("head.") and n.endswith(".bias"))}
    assert silent == set()


@torch.no_grad()
def test_positions_are_relative_and_fit_any_size() -> None:
    """Attention depends on how far places are from one another, at any size of the picture."""
    turns = rotations(32, 5, 11, 7, torch.device("cpu"))
    assert turns.shape == (5, 77, 16, 2)
    assert torch.equal(
        turns[:2].unflatten(1, (11, 7))[:, :3, :4], rotations(32, 2, 3, 4, turns.device).unflatten(1, (3, 4))
    )
    q, k = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    grid = turns.unflatten(1, (11, 7))
    near = (rotated(q, grid[1, 2, 3]) * rotated(k, grid[0, 4, 1])).sum()
    far = (rotated(q, grid[4, 8, 6]) * rotated(k, grid[3, 10, 4])).sum()
    assert near == pytest.approx(float(far), abs=1e-4)
    for i in range(1, 4):
        other = (rotated(q, grid[1, 2, 3]) * rotated(k, grid[0, 4, 1 + i])).sum()
        assert abs(other - near) > 1e-3


def test_both_forms_of_attention_agree() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    written = attention(q, k, v)
    with torch.no_grad():
        assert torch.allclose(attention(q, k, v), written, atol=1e-6)


def test_groups_of_frames() -> None:
    frames = torch.arange(9.0).view(1, 9, 1, 1, 1)
    groups = grouped(frames, torch.full((1, 3, 1, 1, 1), -1.0))
    assert groups.flatten().tolist() == [-1, -1, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8]


@torch.no_grad()
def test_weights_in_int8_show_nearly_the_same() -> None:
    model = make()
    tensors = export_float(model, skip=(), int8=True)
    other = make(awake=False)
    load_float(other, tensors, skip=())
    clip = clips(1, 9)
    repairs = [m(clip, types(9), quality(30)).picture - clip for m in (model, other)]
    assert (repairs[0] - repairs[1]).square().mean() < 0.02 * repairs[0].square().mean()


def test_the_tiny_preset_has_twelve_million_parameters() -> None:
    with torch.device("meta"):
        sizes = {dit: sum(p.numel() for p in _parts(dit)) / 1e6 for dit in (True, False)}
    assert sizes[True] == pytest.approx(11.9, abs=0.2)
    assert sizes[False] == pytest.approx(sizes[True], rel=0.05)


def _parts(dit: bool) -> Any:
    return ClipGenerator(GeneratorConfig(dit=dit)).parameters()
