"""Symbols that look better at the same rate: what an encoder may choose, for no decoder knows.

Rounding takes the symbol next to each latent, which is best for the squared error. Here a few steps of
gradient descent move latents first, to make less of

    LPIPS-Alex(picture, x)  +  price x bits a pixel  +  FIDELITY x squared error

and rounding then falls to the side that pays: a coefficient that nobody sees is dropped, one that makes the
texture is kept. The picture is what the decoder makes of the rounded latents (straight-through gradients),
bits are those of the tables that the prior chose for plain rounding. Each step looks at both pictures in
another way, shifted, mirrored, scaled, with colours swapped: descent on one unmoved network finds what only
that network sees, and other distances become worse (docs/decisions.md). Every second step leaves the last
maps out, which count twice in the others. Encoders only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.entropy.latents import LatentCoder
from gencodec.entropy.tables import CdfTables
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.layers import rounded

STEPS = 10
RATE = 0.042  # of the first step, in quantisation steps; it falls to a fifth
DAMPING = 1.0  # latents whose gradient is small against this many deviations of all move less
FIDELITY = 3.0  # of the squared error of pictures in [0, 1]
LARGEST = 24  # of symbols, beyond which a step costs what the last one did
DEEP = (2.0, 0.0)  # what the distance's last maps count in one step and the next
SHIFT, SCALES = 12, (1.0, 1.0, 0.75, 1.25)  # of what the distance sees: pixels at most, and sizes

PictureOf = Callable[[Tensor], Tensor]  # y_hat (1,C,h,w) -> picture (1,3,H,W), in [0,1] once clamped


class Wish(NamedTuple):
    """What is coded: y (1,C,h,w) in quantisation steps, for x (1,3,H,W) in [0,1], of which decoders make
    `picture_of`; `price` of a bit a pixel, in LPIPS; from which fraction on magnitudes are rounded up.
    """

    y: Tensor
    x: Tensor
    picture_of: PictureOf
    price: float
    dead_zone: float = 0.5


class PerceptualQuantiser:
    """Chooses symbols for one latent coder, on the device of the frozen `lpips`."""

    def __init__(self, coder: LatentCoder, lpips: LpipsLoss) -> None:
        self.coder, self.lpips = coder, lpips
        self.costs = costs_of(coder.tables).to(lpips.heads[0].device)
        self.live_from = coder.tables.skip  # tables below code nothing

    def __call__(self, wish: Wish, quality: int, extra: Tensor | None = None) -> Tensor:
        """What (1,C,h,w) to code in place of y; `quality` and `extra` as in `LatentCoder.encode`.

        Symbols themselves where the prior has no means. With means, latents that the coder rounds turn by
        turn: a mean follows from what was coded before, and a symbol that was chosen beside another mean
        would be off by as much as they differ. Not to be called in inference mode, whose tensors have no
        gradients.
        """
        centred = self.coder.model.prior.centred
        start = rounded(wish.y, wish.dead_zone) if centred else wish.y
        mean, index = (t.clone() for t in self.coder.expected(start, quality, extra))
        live = index >= self.live_from
        with torch.enable_grad():
            moved = self._descend(wish, mean, index, live)
        return torch.where(live, rounded(moved, wish.dead_zone), 0) if centred else moved + mean

    def _descend(self, wish: Wish, mean: Tensor, index: Tensor, live: Tensor) -> Tensor:
        """Latents less their means, after all steps."""
        v = (wish.y - mean).requires_grad_()
        optimizer = torch.optim.Adam([v], RATE, betas=(0.8, 0.95))
        group, chance = optimizer.param_groups[0], np.random.default_rng(0)
        for step in range(STEPS):
            symbols = (v + (rounded(v, wish.dead_zone) - v).detach()) * live
            view = View.drawn(chance, *wish.x.shape[2:])
            loss = self._loss(wish, symbols, mean, index, view, DEEP[step % len(DEEP)])
            optimizer.zero_grad()
            loss.backward()
            if step == 0 and v.grad is not None:
                group["eps"] = DAMPING * float(v.grad.square().mean().sqrt()) + 1e-12
            optimizer.step()
            group["lr"] = RATE * (1 - 0.8 * (step + 1) / STEPS)
        return v.detach()

    def _loss(
        self, wish: Wish, symbols: Tensor, mean: Tensor, index: Tensor, view: View, deep: float
    ) -> Tensor:
        picture = wish.picture_of(symbols + mean).clamp(0, 1)
        bits = bits_of(symbols, index, self.costs) / wish.x[0, 0].numel()
        error = (picture - wish.x).square().mean()
        distance = self.lpips(view.of(picture), view.of(wish.x), deep).sum()
        return distance + wish.price * bits + FIDELITY * error


def costs_of(tables: CdfTables) -> Tensor:
    """Bits of the magnitudes 0..LARGEST in every table, (num_tables,LARGEST+1), the mean of both signs."""
    magnitudes, index = np.arange(LARGEST + 1), np.arange(tables.num_tables)[:, None]
    both = tables.bits(magnitudes, index) + tables.bits(-magnitudes, index)
    return torch.from_numpy(both / 2).float()


def bits_of(symbols: Tensor, index: Tensor, costs: Tensor) -> Tensor:
    """Bits of all symbols, whole numbers in float, under tables `index`: their sum.

    Its gradient is what the step costs that leads away from zero.
    """
    size = symbols.abs()
    below = size.detach().clamp(max=LARGEST - 1).long()
    at = costs[index, below]
    return (at + (costs[index, below + 1] - at) * (size - below)).sum()


class View(NamedTuple):
    """A way to look at a picture; chosen by chance."""

    down: int
    right: int
    colours: list[int]
    is_mirrored: bool
    scale: float

    @classmethod
    def drawn(cls, chance: np.random.Generator, height: int, width: int) -> View:
        """For pictures of that size."""
        down, right = (int(chance.integers(min(SHIFT, size))) for size in (height, width))
        colours = [int(n) for n in chance.permutation(3)]
        return cls(down, right, colours, bool(chance.integers(2)), float(chance.choice(SCALES)))

    def of(self, picture: Tensor) -> Tensor:
        """What is seen of picture (1,3,H,W)."""
        seen = picture[:, :, self.down :, self.right :]
        planes = seen.unbind(1)  # on its way back one copy; slices would be three
        seen = torch.stack([planes[c] for c in self.colours], 1)
        seen = seen.flip(3) if self.is_mirrored else seen
        if self.scale == 1:
            return seen
        return F.interpolate(seen, scale_factor=self.scale, mode="bilinear")
