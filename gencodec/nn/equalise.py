"""Fills the range of activations before a network is converted to integers; see `exact`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencodec.nn.exact import ACT_MAX, ExactConv2d

MARGIN = 1.5  # room that is left for activations larger than any of the sample


@dataclass(frozen=True)
class Link:
    """A producer whose channels may be rescaled because everyone who reads them is known.

    `output` is the module whose output the consumers read (a pixel shuffle around the producer, or the
    producer itself); the producer's channels are the first ones of each consumer's input. `tables` are added
    to the producer's bias.
    """

    output: nn.Module
    producer: ExactConv2d
    consumers: Sequence[ExactConv2d]
    tables: Sequence[Tensor] = ()  # (rows,channels)


@torch.no_grad()
def equalise(links: Sequence[Link], run: Callable[[], object]) -> None:
    """Scale channels by powers of two so that activations fill ±ACT_MAX; what the network computes stays the
    same.

    `run` passes calibration data through the network, still in float. The 99.95th percentile of each channel
    is brought just below the clamp. Leaky ReLU is positively homogeneous, so that a factor moves through it.
    """
    seen: dict[nn.Module, Tensor] = {}
    hooks = [link.output.register_forward_hook(lambda m, _, out: seen.__setitem__(m, out)) for link in links]
    run()
    for hook in hooks:
        hook.remove()
    factors = {link.output: headroom(seen[link.output]) for link in links}
    for link in links:
        factor = factors[link.output]  # (C,)
        spread = factor.repeat_interleave(
            len(link.producer.bias) // len(factor)
        )  # a pixel shuffle takes 4 for 1
        link.producer.weight.mul_(spread[:, None, None, None])
        for values in (link.producer.bias, *link.tables):
            values.mul_(spread)
        for consumer in link.consumers:
            consumer.weight[:, : len(factor)].div_(factor[None, :, None, None])


def headroom(x: Tensor) -> Tensor:
    """Power of two per channel (C,) that brings x (B,C,H,W) just below the clamp."""
    top = torch.quantile(_sample(x.abs().transpose(0, 1).flatten(1)), 0.9995, dim=1).clamp_min(1e-3)
    return torch.exp2(torch.floor(torch.log2(ACT_MAX / (MARGIN * top))).clamp(-8, 8))


def _sample(x: Tensor, most: int = 100_000) -> Tensor:
    """At most `most` columns of x (C,N), evenly spaced: torch.quantile has a size limit."""
    return x[:, :: max(1, x.shape[1] // most)].float()
