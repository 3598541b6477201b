"""A critic on frozen features, for the adversarial phase; not shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

MAPS = 4  # the deepest map of a small window has too few places


class ProjectedCritic(nn.Module):
    """Real or decoded? One small head on each of the first maps of a frozen backbone.

    Sees texture from the first step on, where a critic of its own must first learn to; the maps are computed
    for the perceptual loss anyway. Sauer et al. 2021 (Projected GANs, arXiv 2111.01007), without their random
    mixing of maps.
    """

    def __init__(self, channels: Sequence[int], width: int = 48) -> None:
        super().__init__()
        self.heads = nn.ModuleList(self._head(c, width) for c in channels[:MAPS])

    @staticmethod
    def _head(channels: int, width: int) -> nn.Module:
        return nn.Sequential(
            spectral_norm(nn.Conv2d(channels, width, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 1, 1)),
        )

    def forward(self, maps: Sequence[Tensor], scales: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B,C,H',W') and what to divide each by -> one map of logits (B,1,H',W') for each."""
        return [head(m / scale) for head, m, scale in zip(self.heads, maps[:MAPS], scales, strict=True)]


def map_scales(real: Sequence[Tensor]) -> list[Tensor]:
    """Root mean square of each real map, so that every head sees values near one."""
    return [m.detach().square().mean().sqrt() + 1e-6 for m in real[:MAPS]]


def critic_loss(critic: ProjectedCritic, decoded: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Hinge loss over places and heads; the maps are detached here."""
    scales = map_scales(real)
    on_real = critic([m.detach() for m in real], scales)
    on_decoded = critic([m.detach() for m in decoded], scales)
    losses = [F.relu(1 - r).mean() + F.relu(1 + d).mean() for r, d in zip(on_real, on_decoded, strict=True)]
    return torch.stack(losses).mean()


def generator_loss(critic: ProjectedCritic, decoded: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """What the synthesis minimises to be taken for real, per picture (B,)."""
    logits = critic(decoded, map_scales(real))
    return -torch.stack([v.mean((1, 2, 3)) for v in logits]).mean(0)
