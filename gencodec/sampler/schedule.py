"""Noise schedules: functions that return falling sigmas, ending in 0, for the samplers.

A schedule of n steps has n + 1 values: sigmas[i] is the noise level before step i, sigmas[n] = 0 the clean
end. All are computed in float64 and returned as float32 on the CPU. `alpha_bar` (T,) is the signal power of a
network that was trained with discrete timesteps 0 .. T-1, in float64; its noise level is sigma = sqrt((1 -
alpha_bar) / alpha_bar).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def karras(num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Even steps in sigma^(1/rho): Karras et al. 2022, https://arxiv.org/abs/2206.00364, equation 5.

    Raises ValueError unless num_steps >= 1 and 0 < sigma_min < sigma_max.
    """
    _check_steps(num_steps)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min = }, {sigma_max = }")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _with_zero(torch.linspace(high, low, num_steps, dtype=torch.float64) ** rho)


def flow_shifted(num_steps: int, shift: float = 1.0) -> Tensor:
    """Flow-matching times from 1 down to 0, even but for a shift towards noise for large pictures.

    t = shift s / (1 + (shift - 1) s) for even s: Esser et al. 2024, https://arxiv.org/abs/2403.03206,
    equation 23. For the flow samplers (see denoiser.from_flow) t is the sigma. Raises ValueError unless both
    are positive.
    """
    _check_steps(num_steps)
    if not shift > 0:
        raise ValueError(f"{shift = } must be positive")
    s = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    return (shift * s / (1 + (shift - 1) * s)).float()


def ddpm_alpha_bar(
    num_timesteps: int = 1000,
    *,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    kind: Literal["linear", "scaled_linear"] = "linear",
) -> Tensor:
    """alpha_bar (T,) in float64 of betas that rise evenly (DDPM), or whose roots do (Stable Diffusion)."""
    if kind not in ("linear", "scaled_linear"):
        raise ValueError(f"{kind = } is neither 'linear' nor 'scaled_linear'")
    power = 1 if kind == "linear" else 2
    start, end = beta_start ** (1 / power), beta_end ** (1 / power)
    betas = torch.linspace(start, end, num_timesteps, dtype=torch.float64) ** power
    return (1 - betas).cumprod(0)


def cosine_alpha_bar(num_timesteps: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """alpha_bar (T,) in float64: Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672, equation 17."""
    t = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    f = torch.cos((t + offset) / (1 + offset) * (math.pi / 2)).square()
    betas = (1 - f[1:] / f[:-1]).clamp(max=max_beta)
    return (1 - betas).cumprod(0)


def to_sigma(alpha_bar: Tensor) -> Tensor:
    """The noise level, relative to the signal, of signal power `alpha_bar`; float64 in, float64 out."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def spaced_timesteps(
    num_timesteps: int, num_steps: int, spacing: Literal["leading", "trailing", "linspace"] = "leading"
) -> Tensor:
    """Choose `num_steps` of the timesteps 0 .. num_timesteps-1, falling: int64 (num_steps,).

    "leading" ends at 0 and starts below the noisiest (DDPM subsampled, MCVD), "trailing" starts at the
    noisiest, "linspace" has both ends: Lin et al. 2024, https://arxiv.org/abs/2305.08891, table 2. Raises
    ValueError.
    """
    _check_steps(num_steps)
    if num_steps > num_timesteps:
        raise ValueError(f"{num_steps = } is more than {num_timesteps = }")
    i = torch.arange(num_steps, dtype=torch.float64)
    if spacing == "leading":
        return (i.long() * (num_timesteps // num_steps)).flip(0)
    if spacing == "trailing":
        return (num_timesteps - i * (num_timesteps / num_steps)).round().long() - 1
    if spacing == "linspace":
        return torch.linspace(num_timesteps - 1, 0, num_steps, dtype=torch.float64).round().long()
    raise ValueError(f"{spacing = } is none of 'leading', 'trailing', 'linspace'")


def discrete(alpha_bar: Tensor, timesteps: Tensor) -> Tensor:
    """Sigmas of a network's own timesteps, in the order given, and 0 at the end."""
    return _with_zero(to_sigma(alpha_bar.double())[timesteps])


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"{num_steps = } must be at least 1")


def _with_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
