"""Block motion: it finds what moved, prefers what neighbours found, and leaves still pictures alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencodec.nn.block_search import ROUNDS, _bits, _smoothed, at_steps, block_errors, block_motion
from gencodec.nn.motion import BLOCK, NEAR, compensate, doubled, looked_up

LITTLE = torch.tensor([0.0002])


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Blurred noise, (1,3,height,width) in [0,1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 5, 1, 2)


@pytest.mark.parametrize("shift", [(0, 0), (6, -4), (-13, 7), (20, 20), (-36, 8)])
def test_finds_a_shift_of_whole_pixels(shift: tuple[int, int]) -> None:
    x, y = shift
    before = texture(160, 192)
    after = before.roll((-y, -x), (2, 3))  # what is at p was at p + shift
    flow = block_motion(before, after, LITTLE)
    assert flow.shape == (1, 2, 160 // BLOCK, 192 // BLOCK)
    inner = flow[0, :, 3:-3, 3:-3].flatten(1)
    assert inner.median(1).values.tolist() == [x, y]
    moved = compensate(before, flow)[..., 48:-48, 48:-48]
    assert (moved - after[..., 48:-48, 48:-48]).abs().mean() < 0.01


@pytest.mark.parametrize("shift", [(-90, 6), (70, -64)])
def test_finds_what_moves_far(shift: tuple[int, int]) -> None:
    """The left half moves far, the right half a little: each block takes what fits."""
    before = texture(256, 448)
    far, near = (before.roll((-y, -x), (2, 3)) for x, y in (shift, (3, -2)))
    after = torch.cat([far[..., :224], near[..., 224:]], 3)
    flow = block_motion(before, after, LITTLE)
    left, right = (flow[0, :, 5:-5, columns].flatten(1) for columns in (slice(6, 12), slice(16, 26)))
    for found, expected in ((left, shift), (right, (3, -2))):
        assert (found.t() == torch.tensor(expected)).all(1).float().mean() > 0.9


def test_smoothing_is_what_its_formula_says() -> None:
    """Block by block, in plain loops: what is cheapest beside the median of its neighbours."""
    line = 4 * torch.arange(-2, 3).float()
    costs = torch.rand(1, 5, 5, 3, 4, generator=torch.Generator().manual_seed(3))
    price = torch.full((1, 1, 1, 1), 0.1)
    flow = torch.zeros(1, 2, 3, 4)
    for turn in range(ROUNDS + 1):
        near = nn.functional.pad(flow, (1, 1, 1, 1), mode="replicate") if turn else None
        for row, column in np.ndindex(3, 4):
            middle = torch.zeros(2)
            if near is not None:
                middle = near[0, :, row : row + 3, column : column + 3].flatten(1).median(1).values
            found = {}
            for y, x in np.ndindex(5, 5):
                vector = torch.stack([line[x], line[y]])
                bits = _bits((middle - vector)[None])
                found[float(costs[0, y, x, row, column] + price * bits)] = vector
            flow[0, :, row, column] = found[min(found)]
    assert torch.equal(_smoothed(costs, line, price), flow)


def test_finds_half_pixels() -> None:
    before = texture(96, 96)
    after = (before + before.roll(-1, 3)) / 2
    flow = block_motion(before, after, LITTLE)[0, :, 1:-1, 1:-1].flatten(1)
    assert flow.median(1).values.tolist() == [0.5, 0]


def test_whole_pixels_are_asked_for_by_the_finest_step() -> None:
    before = texture(96, 96)
    after = (before + before.roll(-1, 3)) / 2
    flow = block_motion(before, after, LITTLE, finest=1)
    assert torch.equal(flow, flow.round())


def test_a_still_noisy_picture_has_no_motion() -> None:
    before = texture(96, 96)
    noise = 0.02 * torch.randn(before.shape, generator=torch.Generator().manual_seed(1))
    assert block_motion(before, before + noise, torch.tensor([0.005])).abs().max() == 0


def test_a_higher_price_makes_fields_smoother() -> None:
    before, after = texture(128, 128), texture(128, 128, 1)  # nothing to find
    cheap, dear = (block_motion(before, after, torch.tensor([p])) for p in (0.0001, 0.01))
    assert dear.diff(dim=3).abs().sum() < 0.5 * cheap.diff(dim=3).abs().sum()


def test_a_batch_is_its_members() -> None:
    pairs = [(texture(64, 64, seed), texture(64, 64, seed + 1)) for seed in (0, 5)]
    before, after = (torch.cat(pictures) for pictures in zip(*pairs, strict=True))
    together = block_motion(before, after, torch.tensor([0.0005, 0.005]))
    for i, (pair, price) in enumerate(zip(pairs, (0.0005, 0.005), strict=True)):
        alone = block_motion(pair[0], pair[1], torch.tensor([price]))
        assert torch.equal(together[i : i + 1], alone)


def block_errors_ref(old: Tensor, new: Tensor, motion: Tensor, steps: int) -> Tensor:
    """Every pixel is looked up by itself, every block under its window of two blocks."""
    shift = motion.long().repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    missed = (looked_up(at_steps(old, steps), shift, steps) - new).abs()
    cells = nn.functional.avg_pool2d(missed, 4)
    line = torch.tensor([1.0, 3, 5, 7, 7, 5, 3, 1])
    padded = nn.functional.pad(cells, (2, 2, 2, 2), mode="replicate")
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    return nn.functional.conv2d(padded, window, stride=4)[:, 0]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("reach", [3, 300])
def test_blocks_are_looked_up_whole(steps: int, reach: int) -> None:
    """Also where motion leads out of the picture, and for several motions of each pair."""
    old, new = (torch.cat([texture(48, 80, seed), texture(48, 80, seed + 1)])[:, :1] for seed in (0, 2))
    chance = torch.Generator().manual_seed(reach)
    motion = torch.randint(-reach, reach + 1, (6, 2, 3, 5), generator=chance)
    found = block_errors(at_steps(old, steps), new, motion.float(), steps)
    expected = block_errors_ref(old.repeat_interleave(3, 0), new.repeat_interleave(3, 0), motion, steps)
    torch.testing.assert_close(found, expected)


def compensated_ref(picture: Tensor, flow: Tensor) -> Tensor:
    """Each pixel by itself: the motions of four blocks, bilinear weights, half pixels by the filter."""
    fine, spare = doubled(picture)[0], 2 if (flow == flow.round()).all() else 1
    _, _, rows, columns = flow.shape
    out = torch.zeros_like(picture[0])
    for y in range(picture.shape[2]):
        for x in range(picture.shape[3]):
            down, right = (y + 0.5) / BLOCK - 0.5, (x + 0.5) / BLOCK - 0.5
            for r in (int(down // 1), int(down // 1) + 1):
                for c in (int(right // 1), int(right // 1) + 1):
                    weight = (1 - abs(down - r)) * (1 - abs(right - c))
                    block = flow[0, :, min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)]
                    own = flow[0, :, y // BLOCK, x // BLOCK]
                    block = own if (block - own).abs().max() <= NEAR else block
                    place = [
                        min(max(round(2 * (at + by)), 0), 2 * size - spare)
                        for at, by, size in zip(
                            (y, x), block.flip(0).tolist(), picture.shape[2:], strict=True
                        )
                    ]
                    out[:, y, x] += weight * fine[:, place[0], place[1]]
    return out[None]


@pytest.mark.parametrize("reach", [2, 9])
@pytest.mark.parametrize("steps", [1, 2])
def test_compensation_is_what_the_reference_gives(steps: int, reach: int) -> None:
    picture = texture(32, 48)
    flow = torch.randint(-reach, reach + 1, (1, 2, 2, 3), generator=torch.Generator().manual_seed(3)) / steps
    assert torch.allclose(compensate(picture, flow), compensated_ref(picture, flow), atol=1e-6)


def test_doubling_keeps_the_pixels_and_a_constant() -> None:
    picture = texture(16, 24)
    assert torch.equal(doubled(picture)[..., ::2, ::2], picture)
    assert torch.allclose(doubled(torch.full((1, 3, 8, 8), 0.7)), torch.tensor(0.7), atol=1e-6)


def test_still_blocks_leave_the_picture_as_it_is() -> None:
    picture = texture(32, 32)
    assert torch.allclose(compensate(picture, torch.zeros(1, 2, 2, 2)), picture, atol=1e-5)
