"""Triton kernels for the sampler's element-wise work; imported only where they run. Their twins specify them.

Multiply-adds are not fused (`enable_fp_fusion=False`), so that the bits are those of the twins.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gencodec.sampler.cuda import Term, weighted_sum_ref
from gencodec.sampler.noise import NORMALS_PER_BLOCK, normal_table, normals_ref

BLOCK = 1024


@triton.jit
def _sum_kernel(  # noqa: PLR0913 - a kernel's arguments
    out: Any,
    x: Any,
    y: Any,
    z: Any,
    a: float,
    b: float,
    c: float,
    n: int,
    three: tl.constexpr,
    size: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    inside = at < n
    total = a * tl.load(x + at, mask=inside) + b * tl.load(y + at, mask=inside)
    if three:
        total = total + c * tl.load(z + at, mask=inside)
    tl.store(out + at, total, mask=inside)


def weighted_sum(terms: tuple[Term, ...]) -> Tensor:
    """The fused form of `cuda.weighted_sum_ref` for two or three float32 tensors of one shape and device."""
    x, y, *rest = [tensor.contiguous() for _, tensor in terms]
    a, b, *c = [weight for weight, _ in terms]
    out = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), BLOCK),)
    z, last = (rest[0], c[0]) if rest else (x, 0.0)
    weights = float(a), float(b), float(last)
    _sum_kernel[grid](out, x, y, z, *weights, x.numel(), bool(rest), BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def _multiply(a: Any, b: tl.constexpr) -> Any:
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


@triton.jit
def _normals_kernel(  # noqa: PLR0913 - a kernel's arguments
    out: Any,
    table: Any,
    key0: int,
    key1: int,
    step: int,
    candidate: int,
    chunk: int,
    n: int,
    size: tl.constexpr,
) -> None:
    c0 = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    at = c0 * 8
    zero = c0 * 0  # makes int64 of arguments, whatever width they arrive in
    c1, c2, c3, k0, k1 = zero + step, zero + candidate, zero + chunk, zero + key0, zero + key1
    for _ in tl.static_range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    _store_pair(out, table, at, c0, n)
    _store_pair(out, table, at + 2, c1, n)
    _store_pair(out, table, at + 4, c2, n)
    _store_pair(out, table, at + 6, c3, n)


@triton.jit
def _store_pair(out: Any, table: Any, at: Any, word: Any, n: int) -> None:
    tl.store(out + at, tl.load(table + (word & 0xFFFF)), mask=at < n)
    tl.store(out + at + 1, tl.load(table + (word >> 16)), mask=at + 1 < n)


def normals(count: int, counter: tuple[int, int, int], key: tuple[int, int], device: torch.device) -> Tensor:
    """The fused form of `noise.normals_ref`: Philox and the table in one kernel."""
    out = torch.empty(count, device=device)
    table = normal_table(device)
    grid = (triton.cdiv(count, BLOCK * NORMALS_PER_BLOCK),)
    _normals_kernel[grid](out, table, *key, *counter, count, BLOCK)
    return out


def repeats_twins(device: torch.device) -> bool:
    """Run every kernel once and compare it with its twin, bit for bit."""
    counter, key = (3, 2**32 - 1, 1), (2**32 - 1, 7)
    drawn = normals(6001, counter, key, device)
    if not torch.equal(drawn, normals_ref(6001, counter, key, device)):
        return False
    x, y, z = drawn[:6000].view(3, 2000)
    cases = [((0.3, x), (0.7, y)), ((0.3, x), (-1.7, y), (2.9, z))]
    return all(torch.equal(weighted_sum(terms), weighted_sum_ref(*terms)) for terms in cases)
