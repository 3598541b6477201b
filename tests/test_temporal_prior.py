"""The integer recurrent temporal prior: equal bits however it is computed, and bounded for ever."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gencodec.entropy.staged import Stage, StagedPrior, predict_all
from gencodec.entropy.temporal import TemporalState, moved_along
from gencodec.nn.exact import ACT_MAX, ACT_STEP, Way, convert, exact_layers

CHANNELS = 8


def prior() -> TemporalState:
    torch.manual_seed(0)
    net = TemporalState(key_channels=6, y_channels=5, channels=CHANNELS)
    convert(net)
    return net.eval()


def latents(count: int, channels: int, scale: float) -> Tensor:
    """Integers on the grid of means, (count,channels,7,9)."""
    drawn = torch.randn(4, channels, 7, 9, generator=torch.Generator().manual_seed(channels))
    return (drawn[:count] * scale * 8).round() / 8


def run(net: TemporalState, batch: int, scale: float = 6.0) -> Tensor:
    state = net.begin(latents(batch, 6, scale))
    for step in range(40):
        state = net.update(state, latents(batch, 5, scale).roll(step, 2))
    return state


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.3, 6.0, 4000.0])
def test_the_state_stays_on_its_grid_and_within_its_range(scale: float) -> None:
    state = run(prior(), 2, scale)
    assert torch.equal(state / ACT_STEP, (state / ACT_STEP).round())
    assert state.abs().max() <= ACT_MAX


@torch.no_grad()
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", ["single", "double"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_bits_over_threads_ways_layouts_and_batches(
    threads: int, way: Way, layout: torch.memory_format
) -> None:
    expected = run(prior(), 1)
    net = prior().to(memory_format=layout)
    for layer in exact_layers(net):
        layer.way = way
    torch.set_num_threads(threads)
    found = run(net, 4)
    assert torch.equal(found[:1], expected)


@torch.no_grad()
def test_it_remembers_and_forgets() -> None:
    net = prior()
    zero = torch.zeros(1, 5, 7, 9)
    a, b = (net.begin(latents(1, 6, s)) for s in (1.0, 5.0))
    assert not torch.equal(a, b)
    assert not torch.equal(net.update(a, zero), net.update(b, zero))


def test_the_state_moves_with_the_blocks() -> None:
    state = torch.arange(12.0).reshape(1, 1, 3, 4)
    motion = torch.zeros(1, 2, 3, 4)
    motion[:, 0] = 32  # two blocks of 16 steps to the right
    motion[:, 1, 0] = -20  # and one up, where there is nothing
    assert moved_along(state, motion, 16)[0, 0].tolist() == [[2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]
    motion[:, 0], motion[:, 1] = -8, 7  # half a block counts as none to the left, as less than one down
    assert torch.equal(moved_along(state, motion, 16), state)
    motion[:, 0], motion[:, 1] = 8, -9
    assert moved_along(state, motion, 16)[0, 0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]


@torch.no_grad()
def test_equalising_changes_the_range_and_nothing_else() -> None:
    torch.manual_seed(1)
    stages = [Stage(group, 1, pair) for group in (0, 1) for pair in ((0, 1), (2, 3))]
    latent = StagedPrior([[0, 1], [2, 3, 4]], (16, 16), stages, centred=True, extra_channels=CHANNELS)
    net, quality, y = TemporalState(6, 5, CHANNELS), torch.tensor([20, 50]), latents(2, 5, 2.0)

    def state() -> Tensor:
        return net.update(net.begin(latents(2, 6, 0.3)), latents(2, 5, 0.3))

    def indices() -> Tensor:
        return torch.cat([index for _, index in predict_all(latent, y, quality, state())], 1)

    before, small = indices(), state()
    net.equalise(small, [latent])
    assert torch.allclose(indices(), before, atol=1e-3)
    assert state().abs().max() > 2 * small.abs().max()
