"""A patch discriminator for the adversarial finish; not shipped."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Real or decoded? One logit for each patch of about 40 pixels (Isola et al. 2017, arXiv 1611.07004)."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        channels = (12, *widths)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(channels)
        )
        self.last = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> logits (B,1,H/16,W/16)."""
        x = F.pixel_unshuffle(x * 2 - 1, 2)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.last(x)


def discriminator_loss(net: PatchDiscriminator, real: Tensor, decoded: Tensor) -> Tensor:
    """Hinge loss; `decoded` is detached here."""
    return F.relu(1 - net(real)).mean() + F.relu(1 + net(decoded.detach())).mean()


def generator_loss(net: PatchDiscriminator, decoded: Tensor) -> Tensor:
    """What the synthesis minimises to be taken for real, per picture (B,)."""
    return -net(decoded).mean((1, 2, 3))
