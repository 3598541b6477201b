"""Counter-based noise: the same bits on every device, for any batch size, thread count or order of drawing.

Philox 4x32-10 (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405) turns a key and a counter into
128 bits:

    key     = (seed, first frame of the GOP)
    counter = (place, step, candidate, chunk)      place = index of a block of eight normals

Each 32-bit word, lower half first, gives two indices into a stored table of 2^16 normal quantiles, the one of
probability (i + 1/2) / 2^16 for index i: exact, without a device's own log or cos. So |z| <= 4.325, which a
normal exceeds once in 65,536 draws; the variance is 1 - 2.0e-5, the kurtosis 2.9992.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gencodec.sampler import cuda
from gencodec.weights import load_named

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1
ROUNDS = 10
MASK = 0xFFFFFFFF
NORMALS_PER_BLOCK = 8

Words = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Noise:
    """The normals of one GOP.

    `seed` and `first_frame` are 0 .. 2^32-1, as are the counters; else ValueError.
    """

    seed: int
    first_frame: int = 0

    def __post_init__(self) -> None:
        _check_words(seed=self.seed, first_frame=self.first_frame)

    def normal(
        self,
        shape: Sequence[int],
        *,
        step: int,
        candidate: int = 0,
        chunk: int = 0,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Standard normals, float32, `shape` filled row by row: a longer draw begins with a shorter one."""
        _check_words(step=step, candidate=candidate, chunk=chunk)
        device, count = torch.device(device), math.prod(shape)
        counter, key = (step, candidate, chunk), (self.seed, self.first_frame)
        fused = cuda.kernels(device) if device.type == "cuda" else None
        draw = fused.normals if fused else normals_ref
        return draw(count, counter, key, device).view(*shape)

    def steps(
        self,
        shape: Sequence[int],
        *,
        candidates: Sequence[int] = (0,),
        chunk: int = 0,
        device: torch.device | str = "cpu",
    ) -> Callable[[int], Tensor]:
        """`draw(step)` for the samplers: (len(candidates), *shape), each candidate as if drawn alone."""

        def draw(step: int) -> Tensor:
            parts = [
                self.normal(shape, step=step, candidate=c, chunk=chunk, device=device) for c in candidates
            ]
            return torch.stack(parts)

        return draw


def normals_ref(
    count: int, counter: tuple[int, int, int], key: tuple[int, int], device: torch.device
) -> Tensor:
    """The first `count` normals, (count,), of (step, candidate, chunk): the fused kernel's twin."""
    place = torch.arange(-(-count // NORMALS_PER_BLOCK), device=device)  # int64
    step, candidate, chunk = (torch.full_like(place, word) for word in counter)
    words = torch.stack(philox((place, step, candidate, chunk), key), dim=1)  # (blocks,4)
    indices = torch.stack([words & 0xFFFF, words >> 16], dim=2).flatten()[:count]
    return normal_table(device)[indices]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox 4x32-10 on 32-bit words in int64 tensors; everything stays below 2^49, so nothing wraps."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def philox_ref(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """The NumPy twin of `philox` and its specification: uint64 (4,N) -> (4,N), by whole 64-bit products."""
    c0, c1, c2, c3 = counter.astype(np.uint64)
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ np.uint64(k0), b & MASK, (a >> 32) ^ c3 ^ np.uint64(k1), a & MASK
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return np.stack([c0, c1, c2, c3])


@functools.cache
def normal_table(device: torch.device) -> Tensor:
    """The 2^16 quantiles, float32, rising.

    Only the positive half is stored. Raises WeightsMissing if it is altered.
    """
    upper = load_named("normal-quantiles-1")[0]["upper"]
    return torch.cat([-upper.flip(0), upper]).to(device)


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of a 64-bit product, b taken in halves of 16 bits."""
    low, middle = a * (b & 0xFFFF), a * (b >> 16)
    middle = middle + (low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | (low & 0xFFFF)


def _check_words(**words: int) -> None:
    for name, word in words.items():
        if not 0 <= word <= MASK:
            raise ValueError(f"{name} must be 0 .. 2^32-1, not {word}")
