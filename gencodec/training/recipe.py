"""How `intra` is trained: weights of the losses, phases, learning rates, sizes. See `training.intra`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

PRIOR = ("rate", "exact")  # phases of the first part
PHASES = (*PRIOR, "repair", "perceptual", "adversarial")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the losses weigh, when a phase begins (share of the budget), and how fast it learns."""

    lambda_min: float = 0.1  # rates weigh 1 / lambda, log-spaced over the quality
    lambda_max: float = 1.5
    l1: float = 0.5
    alex: float = 2.0  # LPIPS-Alex
    lpips: float = 1.0  # on VGG16; this and the next two in `deep` of a step's updates
    dists: float = 2.0
    adversarial: float = 0.1
    fine: float = 4.0  # what the other losses of quality 63 weigh against those of 0, which are larger
    exact_from: float = 0.1
    repair_from: float = 0.2
    perceptual_from: float = 0.25
    adversarial_from: float = 0.7
    prior_rate: float = 1.5e-3  # learning rates at their peak
    repair_rate: float = 1e-3
    perceptual_rate: float = 4e-4
    batch: int = 8
    crop: int = 256  # of smaller ones too many blocks lie at the border
    patch: int = 6  # latents a side of what the synthesis decodes; perceptual windows are 2 smaller
    repairs: int = 24  # patches an update in `repair` ...
    windows: int = 6  # ... and in the phases after it
    updates: int = 4  # of the synthesis in a step, on other patches of its pictures
    deep: int = 1  # of these with VGG16 and the critic, which cost three times what all else does

    def phases(self) -> dict[str, tuple[float, float]]:
        """Where each phase starts and stops."""
        starts = [0.0, self.exact_from, self.repair_from, self.perceptual_from, self.adversarial_from, 1.0]
        return dict(zip(PHASES, pairwise(starts), strict=True))

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 1 % for the prior, for the repair, and for what follows."""
        parts = [
            (0.0, self.repair_from, self.prior_rate),
            (self.repair_from, self.perceptual_from, self.repair_rate),
            (self.perceptual_from, 1.0, self.perceptual_rate),
        ]
        start, stop, peak = [part for part in parts if progress >= part[0] and part[0] < part[1]][-1]
        share = min(1.0, (progress - start) / (stop - start))
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    def with_shares(self, shares: Sequence[float]) -> Recipe:
        """The same with other lengths of its phases, relative to one another; a phase of 0 is left out.

        Raises ValueError unless there is one for each phase, none negative and not all 0.
        """
        if len(shares) != len(PHASES) or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"shares are {len(PHASES)} numbers of at least 0: {', '.join(PHASES)}")
        starts = [sum(shares[:i]) / sum(shares) for i in range(1, len(PHASES))]
        changes: dict[str, Any] = {f"{name}_from": at for name, at in zip(PHASES[1:], starts, strict=True)}
        return replace(self, **changes)


# Going on from shipped weights: exact from the first step, both parts again at lower rates, DISTS at more.
CONTINUE = Recipe(
    exact_from=0.0, repair_from=0.2, perceptual_from=0.2, adversarial_from=0.7,
    prior_rate=5e-4, repair_rate=3e-4, perceptual_rate=4e-4, dists=3.0,
)  # fmt: skip
