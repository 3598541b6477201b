"""Fused kernels against their twins on random inputs, bit for bit, in Triton's interpreter on the CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from gencodec.sampler import cuda
from gencodec.sampler.cuda import weighted_sum, weighted_sum_ref
from gencodec.sampler.noise import Noise

NO_GPU = not torch.cuda.is_available() and os.environ.get("GENCODEC_REQUIRE_GPU") != "1"
COMPARE = """
import sys
import torch
from gencodec.sampler import kernels
from gencodec.sampler.cuda import weighted_sum_ref
from gencodec.sampler.noise import Noise, normals_ref

device = torch.device(sys.argv[1])
TWINS = [
    (lambda i: kernels.weighted_sum(terms(i, 2)), lambda i: weighted_sum_ref(*terms(i, 2))),
    (lambda i: kernels.weighted_sum(terms(i, 3)), lambda i: weighted_sum_ref(*terms(i, 3))),
    (lambda i: kernels.normals(*draw(i)), lambda i: normals_ref(*draw(i))),
]
SHAPES = [(1,), (1024,), (3, 7, 61), (2, 3, 40, 30)]

def terms(i, count):
    noise = Noise(i)
    tensors = [noise.normal(SHAPES[i], step=k).to(device) * 10.0 ** (i - k) for k in range(count)]
    return tuple(zip(noise.normal((count,), step=9).tolist(), tensors))

def draw(i):
    return [1, 8, 8191, 20001][i], (i, 2**32 - 1 - i, 1), (2**32 - 1, i), device

for fused, reference in TWINS:
    for i in range(len(SHAPES)):
        assert torch.equal(fused(i), reference(i)), (fused, i)
assert kernels.repeats_twins(device)
print("equal")
"""


def _compare(device, **env):
    command = [sys.executable, "-c", COMPARE, device]
    done = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


def test_kernels_equal_their_twins_in_the_interpreter():
    pytest.importorskip("triton")
    _compare("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs CUDA")
def test_kernels_equal_their_twins_on_cuda():
    _compare("cuda")
    assert cuda.kernels(torch.device("cuda")) is not None


def test_a_device_without_kernels_falls_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "gencodec.sampler.kernels", None)  # as if Triton could not be imported
    cuda.kernels.cache_clear()
    try:
        assert cuda.kernels(torch.device("cpu")) is None
    finally:
        cuda.kernels.cache_clear()


def test_weighted_sum_rounds_every_product_by_itself():
    x, y, z = (Noise(0).normal((1000,), step=k) for k in range(3))
    a, b, c = 0.3, -1.7, 2.9
    expected = np.float32(a) * x.numpy() + np.float32(b) * y.numpy() + np.float32(c) * z.numpy()
    np.testing.assert_array_equal(weighted_sum((a, x), (b, y), (c, z)).numpy(), expected)
    assert torch.equal(weighted_sum((a, x), (b, y)), weighted_sum_ref((a, x), (b, y)))


def test_accelerate_is_the_identity_without_cuda():
    def denoise(x, sigma):
        return x

    assert cuda.accelerate(denoise, torch.zeros(1)) is denoise


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs CUDA")
def test_a_captured_denoiser_repeats_the_eager_one():
    weight = Noise(0).normal((4, 3, 3, 3), step=0, device="cuda")
    back = Noise(0).normal((3, 4, 3, 3), step=1, device="cuda")

    def denoise(x, sigma):
        hidden = torch.nn.functional.conv2d(x / sigma, weight, padding=1).tanh()
        return torch.nn.functional.conv2d(hidden, back, padding=1)

    x = Noise(1).normal((2, 3, 16, 16), step=0, device="cuda")
    fast = cuda.accelerate(denoise, x)
    for value in (0.5, 2.0):
        sigma = torch.tensor(value, device="cuda")
        torch.testing.assert_close(fast(x * value, sigma), denoise(x * value, sigma))
    with pytest.raises(ValueError, match="captured for shape"):
        fast(x[:1], sigma)
