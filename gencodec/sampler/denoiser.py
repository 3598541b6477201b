"""The denoiser convention, `denoise(x, sigma) -> x0`, and wrappers that bring every kind of network under it.

`x` is a float32 tensor of any shape, `sigma` a float32 scalar tensor on its device, `x0` the estimate of the
clean x. Two forms of x occur, and a wrapper states which one it is for:

    variance exploding   x = x0 + sigma noise              sigma >= 0       from_eps, from_v, from_x0
    flow                 x = (1 - sigma) x0 + sigma noise  sigma in [0, 1]  from_flow

Every sampler takes the first; Euler, Heun, one step, and DDIM without eta take both.
Networks of the first kind were trained on the variance-preserving input x / sqrt(1 + sigma^2) and take a
timestep. A condition is bound beforehand: `from_eps(lambda x, t: network(x, t, condition), alpha_bar)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gencodec.sampler.schedule import to_sigma

Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Network: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`network(x, timestep)`: x (N,...), timestep float32 (N,); returns a tensor like x."""


def from_eps(network: Network, alpha_bar: Tensor, *, clip: float | None = None) -> Denoise:
    """For a network that predicts the noise. x is variance exploding. `clip` bounds |x0|; None: unbounded."""

    def predict(x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        return x - sigma * output

    return _wrap(network, alpha_bar, clip, predict)


def from_v(network: Network, alpha_bar: Tensor, *, clip: float | None = None) -> Denoise:
    """For a network of v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0. x is variance exploding.

    Salimans and Ho 2022, https://arxiv.org/abs/2202.00512, appendix D. `clip` bounds |x0|.
    """

    def predict(x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        power = 1 + sigma * sigma  # 1 / alpha_bar
        return x / power - output * sigma / power.sqrt()

    return _wrap(network, alpha_bar, clip, predict)


def from_x0(network: Network, alpha_bar: Tensor, *, clip: float | None = None) -> Denoise:
    """For a network that predicts the clean x0 itself. x is variance exploding. `clip` bounds |x0|."""

    def predict(x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        return output

    return _wrap(network, alpha_bar, clip, predict)


def from_flow(network: Network, *, num_timesteps: float = 1000.0, clip: float | None = None) -> Denoise:
    """For a network of the velocity v = noise - x0, at timestep `num_timesteps` sigma. x is of flow form.

    Lipman et al. 2023, https://arxiv.org/abs/2210.02747, with the time that counts from data to noise.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        v = network(x, _per_sample(sigma * num_timesteps, x)).to(x.dtype)
        return _clip(x - sigma * v, clip)

    return denoise


def to_timestep(sigma: Tensor, table: Tensor) -> Tensor:
    """The timestep at which a network with the rising float32 `table` of sigmas (T,) has noise `sigma`.

    A float32 scalar in 0 .. T-1: exact at the table's own values, linear in log sigma between them.
    """
    high = torch.searchsorted(table, sigma).clamp(1, len(table) - 1)
    below, above = table[high - 1], table[high]
    fraction = (sigma / below).log() / (above / below).log()
    return high - 1 + fraction.clamp(0, 1)


def _wrap(
    network: Network,
    alpha_bar: Tensor,
    clip: float | None,
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Denoise:
    tables = {}  # one a device, so that a captured graph holds no copy from the host

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if x.device not in tables:
            tables[x.device] = to_sigma(alpha_bar.double()).float().to(x.device)
        timestep = _per_sample(to_timestep(sigma, tables[x.device]), x)
        output = network(x / (1 + sigma * sigma).sqrt(), timestep).to(x.dtype)
        return _clip(predict(x, sigma, output), clip)

    return denoise


def _per_sample(timestep: Tensor, x: Tensor) -> Tensor:
    return timestep.to(x.device, torch.float32).expand(x.shape[0])


def _clip(x0: Tensor, clip: float | None) -> Tensor:
    return x0 if clip is None else x0.clamp(-clip, clip)
