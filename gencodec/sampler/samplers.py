"""Samplers: functions from noise to data. The denoiser is a convention, randomness is an argument.

    x = sigmas[0] * draw(0)                      normals of step 0: see noise.Noise.steps
    x0 = sample_dpmpp_2m(denoise, x, sigmas)     from sigmas[0] down to sigmas[-1], usually 0

`x` has any shape and becomes float32; `sigmas` falls (see schedule). Every update is a weighted sum of x, the
newest x0 and one more tensor, with weights computed in float64 from the sigmas alone: see cuda.weighted_sum.
With sigmas (n+1,) a sampler calls `denoise` n times, Heun 2 n - 1. All raise ValueError for sigmas that do
not fall.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from torch import Tensor

from gencodec.sampler.cuda import weighted_sum
from gencodec.sampler.denoiser import Denoise

Draw: TypeAlias = Callable[[int], Tensor]
"""`draw(step)`: normals of x's shape. Step 0 is the start; step i + 1 is for the update from sigmas[i]."""


def sample_one_step(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """The denoiser's estimate at sigmas[0]; what distilled and one-step generators are made for.

    Both forms of x.
    """
    _, sigma, _, _ = next(_steps(sigmas, x))
    return denoise(x.float(), sigma).float()


def sample_euler(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """First-order steps along dx/dsigma = (x - x0) / sigma: Karras et al. 2022, equation 3.

    Both forms of x.
    """
    x = x.float()
    for _, sigma, now, following in _steps(sigmas, x):
        x0 = denoise(x, sigma).float()
        ratio = following / now
        x = weighted_sum((ratio, x), (1 - ratio, x0))
    return x


def sample_heun(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Second-order steps, Euler at the end: Karras et al. 2022, algorithm 1 without churn. Both forms of x.

    https://arxiv.org/abs/2206.00364. With r = sigma'/sigma and the slopes d = (x - x0)/sigma at both ends,
    x + (sigma' - sigma) (d + d') / 2  =  r x + (1 - r) ((2 - 1/r) x0 + (1/r) x0') / 2.
    """
    x = x.float()
    sigmas = sigmas.to(x.device)
    for i, sigma, now, following in _steps(sigmas, x):
        x0 = denoise(x, sigma).float()
        ratio = following / now
        euler = weighted_sum((ratio, x), (1 - ratio, x0))
        if following == 0:
            return euler
        x0_ahead = denoise(euler, sigmas[i + 1].float()).float()
        slope = (1 - ratio) / (2 * ratio)
        x = weighted_sum((ratio, x), (1 - ratio - slope, x0), (slope, x0_ahead))
    return x


def sample_ddim(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, eta: float = 0.0, noise: Draw | None = None
) -> Tensor:
    """DDIM: Song et al. 2021, https://arxiv.org/abs/2010.02502, equation 12. x is variance exploding (VE).

    Without `eta` it is deterministic, equals Euler and fits both forms of x; `eta` in (0, 1] adds noise, up
    to that of DDPM. The noise that x implies is re-derived from a clipped x0. Raises ValueError for eta
    without noise.
    """
    if not 0 <= eta <= 1 or (eta > 0 and noise is None):
        raise ValueError(f"need 0 <= eta <= 1, and noise where eta > 0; got {eta = }, {noise = }")
    x = x.float()
    for i, sigma, now, following in _steps(sigmas, x):
        x0 = denoise(x, sigma).float()
        up = eta * following * math.sqrt(1 - (following / now) ** 2)  # the new noise's deviation
        ratio = math.sqrt(following**2 - up**2) / now
        if noise is None or up == 0:
            x = weighted_sum((ratio, x), (1 - ratio, x0))
        else:
            x = weighted_sum((ratio, x), (1 - ratio, x0), (up, noise(i + 1)))
    return x


def sample_ddpm(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Draw) -> Tensor:
    """Ancestral sampling: Ho et al. 2020, https://arxiv.org/abs/2006.11239, equations 6, 7. VE only.

    Their posterior in terms of sigma: mean x0 + (sigma'/sigma)^2 (x - x0), variance sigma'^2 (1 -
    (sigma'/sigma)^2), the smaller of the two variances that they discuss. No noise enters the step that ends
    at 0.
    """
    x = x.float()
    for i, sigma, now, following in _steps(sigmas, x):
        x0 = denoise(x, sigma).float()
        ratio = (following / now) ** 2
        if following == 0:
            x = weighted_sum((ratio, x), (1 - ratio, x0))
        else:
            x = weighted_sum((ratio, x), (1 - ratio, x0), (following * math.sqrt(1 - ratio), noise(i + 1)))
    return x


def sample_dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M): Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2. VE only.

    Second order from the previous step's x0, one call of `denoise` a step. The first step, and one that ends
    at 0, are of first order: the latter's step in log sigma is infinite.
    """
    x = x.float()
    previous_x0, previous_h = None, 0.0
    for _, sigma, now, following in _steps(sigmas, x):
        x0 = denoise(x, sigma).float()
        ratio = following / now
        if previous_x0 is None or following == 0:
            x = weighted_sum((ratio, x), (1 - ratio, x0))
        else:
            extra = (1 - ratio) * math.log(1 / ratio) / (2 * previous_h)
            x = weighted_sum((ratio, x), (1 - ratio + extra, x0), (-extra, previous_x0))
        previous_x0, previous_h = x0, math.log(now / following) if following else math.inf
    return x


def _steps(sigmas: Tensor, x: Tensor) -> Iterator[tuple[int, Tensor, float, float]]:
    """Yield (step, sigma as a scalar tensor on x's device, sigma, next sigma). Raises ValueError."""
    values = sigmas.tolist()
    if sigmas.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"sigmas must have one dimension and two values at least, not shape {tuple(sigmas.shape)}"
        )
    if values[-1] < 0 or any(not a > b for a, b in itertools.pairwise(values)):
        raise ValueError(f"sigmas must fall, down to 0 or more: {values}")
    on_device = sigmas.to(x.device).float()
    for i, (now, following) in enumerate(itertools.pairwise(values)):
        yield i, on_device[i], now, following
