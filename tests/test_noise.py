"""Noise: Random123's known answers, the same bits however it is drawn, and the statistics of a normal."""

import os
import statistics
from typing import Any

import numpy as np
import pytest
import torch

from gencodec.sampler.noise import Noise, normal_table, normals_ref, philox, philox_ref

GOLDEN = [0.33730682730674744, -0.645362913608551, -0.869400143623352, 0.9009215831756592]
CPU = torch.device("cpu")
NO_GPU = not torch.cuda.is_available() and os.environ.get("GENCODEC_REQUIRE_GPU") != "1"
ONES = 2**32 - 1

KNOWN = [  # counter, key, result: philox4x32-10 of Random123's known-answer file
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ONES,) * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, expected):
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    words = philox((c0, c1, c2, c3), key)
    assert " ".join(f"{int(word):08x}" for word in words) == expected
    reference = philox_ref(np.array(counter, dtype=np.uint64)[:, None], key)
    assert " ".join(f"{int(word):08x}" for word in reference[:, 0]) == expected


def test_philox_equals_its_numpy_twin_on_random_words():
    rng = np.random.default_rng(0)
    counter = rng.integers(0, 2**32, (4, 1000), dtype=np.uint64)
    key = (int(rng.integers(2**32)), int(rng.integers(2**32)))
    c0, c1, c2, c3 = (torch.from_numpy(row.astype(np.int64)) for row in counter)
    words = philox((c0, c1, c2, c3), key)
    np.testing.assert_array_equal(torch.stack(words).numpy().astype(np.uint64), philox_ref(counter, key))


def test_table_holds_the_normal_quantiles():
    table = normal_table(CPU)
    normal = statistics.NormalDist()
    for i in (0, 1, 1000, 32767, 32768, 50000, 65535):
        assert table[i].item() == pytest.approx(normal.inv_cdf((i + 0.5) / 65536), rel=1e-7, abs=1e-12)
    assert torch.equal(table, -table.flip(0))
    assert (table.diff() > 0).all()
    assert table.max() < 4.325


def test_normals_follow_the_stated_word_order():
    block = philox_ref(np.array([[1], [5], [2], [3]], dtype=np.uint64), (11, 30))[:, 0]
    indices = [int(half) for word in block for half in (word & np.uint64(0xFFFF), word >> np.uint64(16))]
    drawn = Noise(11, 30).normal((16,), step=5, candidate=2, chunk=3)
    assert torch.equal(drawn[8:], normal_table(CPU)[indices])


def test_golden_normals():
    drawn = Noise(seed=1, first_frame=2).normal((4,), step=3, candidate=4, chunk=5)
    assert drawn.dtype == torch.float32
    assert drawn.tolist() == GOLDEN


def test_longer_draws_begin_with_shorter_ones():
    noise = Noise(7)
    long = noise.normal((5, 1001), step=0).flatten()
    for count in (0, 1, 7, 8, 9, 1000):
        assert torch.equal(noise.normal((count,), step=0), long[:count])


def test_same_bits_for_any_number_of_threads():
    before = torch.get_num_threads()
    try:
        drawn = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(Noise(3, 64).normal((3, 200, 200), step=9))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_candidates_draw_as_if_alone():
    noise = Noise(3)
    together = noise.steps((2, 10), candidates=(4, 0), chunk=6)(2)
    assert together.shape == (2, 2, 10)
    assert torch.equal(together[0], noise.normal((2, 10), step=2, candidate=4, chunk=6))
    assert torch.equal(together[1], noise.normal((2, 10), step=2, candidate=0, chunk=6))


def test_moments_are_those_of_a_normal():
    x = Noise(0).normal((400_000,), step=0).double()
    assert abs(x.mean()) < 5 / 400_000**0.5
    assert x.var().item() == pytest.approx(1, abs=5 * (2 / 400_000) ** 0.5)
    assert ((x**4).mean() / x.var() ** 2).item() == pytest.approx(3, abs=5 * (24 / 400_000) ** 0.5)
    assert (x[1:] * x[:-1]).mean().item() == pytest.approx(0, abs=5 / 400_000**0.5)


def test_counters_and_keys_are_independent():
    base = {"seed": 1, "first_frame": 1, "step": 1, "candidate": 1, "chunk": 1}
    variants = [base] + [base | {name: 2} for name in base]
    drawn = torch.stack([_draw(**variant) for variant in variants])
    correlations = torch.corrcoef(drawn.double()).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / 50_000**0.5


def _draw(seed, first_frame, **counter):
    return Noise(seed, first_frame).normal((50_000,), **counter)


@pytest.mark.parametrize("name", ["step", "candidate", "chunk"])
def test_counters_outside_32_bits_are_refused(name):
    counter: dict[str, Any] = {"step": 0, name: 2**32}
    with pytest.raises(ValueError, match=name + r" must be .* not 4294967296"):
        Noise(0).normal((1,), **counter)


def test_keys_outside_32_bits_are_refused():
    with pytest.raises(ValueError, match=r"seed must be .* not -1"):
        Noise(-1)
    with pytest.raises(ValueError, match="first_frame"):
        Noise(0, 2**32)
    assert Noise(ONES, ONES).normal((1,), step=ONES).isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs CUDA")
def test_same_bits_on_cuda():
    for shape in [(8,), (3, 65, 67)]:
        expected = normals_ref(torch.Size(shape).numel(), (4, 1, 2), (5, 6), CPU).view(shape)
        drawn = Noise(5, 6).normal(shape, step=4, candidate=1, chunk=2, device="cuda")
        twin = normals_ref(torch.Size(shape).numel(), (4, 1, 2), (5, 6), torch.device("cuda")).view(shape)
        assert torch.equal(drawn.cpu(), expected)
        assert torch.equal(twin.cpu(), expected)
