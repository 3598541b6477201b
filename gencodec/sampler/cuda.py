"""What makes sampling fast on CUDA and changes nothing elsewhere: captured graphs and fused kernels.

Every fused kernel (kernels.py, Triton) has a twin in plain torch, which is its specification and runs on
every other device: `weighted_sum_ref` here, `normals_ref` in noise.py. They agree bit for bit, and a device
on which a small trial says otherwise, or where Triton or its compiler is missing, uses the twins.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TypeAlias

import torch
from torch import Tensor

from gencodec.sampler.denoiser import Denoise

Term: TypeAlias = tuple[float, Tensor]
"""A weight, rounded to float32, and a float32 tensor."""


def accelerate(denoise: Denoise, like: Tensor, *, compile: bool = False) -> Denoise:
    """`denoise` as one captured CUDA graph for inputs shaped like `like`; itself on other devices.

    The graph has memory of its own for as long as the result lives, computes no gradients, and reads what
    `denoise` closes over (conditions) from the addresses of the capture: to change a condition, copy into its
    tensor. With `compile`, torch.compile fuses first, which takes a minute. The result raises ValueError for
    another shape.
    """
    if like.device.type != "cuda":
        return denoise
    function = torch.compile(denoise) if compile else denoise
    x, sigma = torch.zeros_like(like, dtype=torch.float32), torch.ones((), device=like.device)
    side = torch.cuda.Stream(like.device)
    side.wait_stream(torch.cuda.current_stream(like.device))
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):  # lets libraries choose their kernels and caches fill before the capture
            function(x, sigma)
    torch.cuda.current_stream(like.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        x0 = function(x, sigma)

    def replay(new_x: Tensor, new_sigma: Tensor) -> Tensor:
        if new_x.shape != x.shape:
            raise ValueError(f"captured for shape {tuple(x.shape)}, called with {tuple(new_x.shape)}")
        x.copy_(new_x)
        sigma.copy_(new_sigma)
        graph.replay()
        return x0.clone()

    return replay


def weighted_sum(*terms: Term) -> Tensor:
    """a x + b y, or a x + b y + c z, in float32 from left to right, without fused multiply-adds.

    What all samplers update with. One kernel on CUDA, unless a gradient is wanted; the twin elsewhere.
    """
    tensors = [tensor for _, tensor in terms]
    first = tensors[0]
    plain = all(t.dtype == torch.float32 and t.shape == first.shape for t in tensors)
    wants_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if first.is_cuda and plain and not wants_grad and (fused := kernels(first.device)):
        return fused.weighted_sum(terms)
    return weighted_sum_ref(*terms)


def weighted_sum_ref(*terms: Term) -> Tensor:
    """The twin of the fused kernel: each product and each sum is rounded by itself, on every device."""
    (weight, tensor), *rest = terms
    total = weight * tensor
    for weight, tensor in rest:
        total = total + weight * tensor
    return total


@functools.cache
def kernels(device: torch.device) -> ModuleType | None:
    """The module of fused kernels if they repeat the twins' bits on `device` in a trial, else None."""
    try:
        from gencodec.sampler import kernels as fused

        return fused if fused.repeats_twins(device) else None
    except Exception:  # Triton, its compiler or a capability of the device is missing: the twins do the same
        return None
