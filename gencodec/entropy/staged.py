"""The prior of the tiny presets: coefficients from low to high frequencies, each group from coarse to fine
places.

    y ─► means of few blocks ─► ... ─► means of all ─► next frequencies, by places ─► ... ─► y_hat
         each stage: a network over all that is known, its own group at other places too ─► mean, index

Hyper-latents would have to be paid for before the first symbol; here what is coded first, the lowest
frequencies of few blocks, says what they would. y_hat of a key frame lies on a grid of 1/8: an integer symbol
plus a mean. Residuals of a prediction have means of zero: their networks look at magnitudes, which say where
more is to be expected and from which others would first have to make them, and at `extra`, integer planes of
earlier frames.

Sources: groups of channels of growing size by checkerboards, He et al. 2022 (ELIC, arXiv 2203.10886, section
3); gains for variable rate, Cui et al. 2021 (arXiv 2003.02012).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from gencodec.entropy.means import MeanScale
from gencodec.entropy.prior import ContextNet, base_index, round_index
from gencodec.entropy.scales import SKIPPED_SCALES
from gencodec.entropy.turns import Turn, places
from gencodec.nn.equalise import Link
from gencodec.nn.exact import ExactConv2d, to_activation
from gencodec.nn.exact_io import export_exact, load_exact
from gencodec.nn.layers import compand
from gencodec.nn.quality import QualityTable


class Stage(NamedTuple):
    """Which of y is coded at once: the channels of `group`, on every `step`-th row and column, where
    `turns.places` of that grid is one of `at`.
    """

    group: int
    step: int
    at: tuple[int, ...]


class StagedPrior(nn.Module):
    """Means and scale indices of y in stages.

    `groups`: the channels of each group, every channel in one of them, in the order of coding; `widths`: of
    the networks of its stages; `stages`: group by group, every place of each once. `centred`: all means are
    zero.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        widths: Sequence[int],
        stages: Sequence[Stage],
        *,
        centred: bool = False,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.centred, self.extra_channels = centred, extra_channels
        self.groups, self.stages = [torch.tensor(group) for group in groups], tuple(stages)
        self.y_channels = sum(len(group) for group in groups)
        self.register_buffer("order", torch.cat(self.groups), persistent=False)  # moves with the networks
        self.seen = list(accumulate(len(group) for group in groups))  # channels up to each group
        sums = 1 if centred else 2  # a head's, for each channel
        self.nets = nn.ModuleList(
            ContextNet(extra_channels + self.seen[g], widths[g], sums * len(groups[g]))
            for g, _, _ in self.stages
        )
        if centred:
            return
        self.means = MeanScale()
        # Means begin near zero and move slowly: small latents round to zero best with a mean of zero, and the
        # noise of training costs more there than a mean gives.
        with torch.no_grad():
            for head in self.heads():
                head.weight[: len(head.weight) // 2].mul_(0.05)

    def turns(self, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Turn, ...]:
        """The stages over y of that size."""
        return tuple(self._turn(stage, height, width, device) for stage in self.stages)

    def predict(
        self, turn: int, y_known: Tensor, quality: Tensor, extra: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and unrounded scale index (B,n,h,w) of stage `turn`, given y_hat of those before.

        y_known (B,y_channels,H,W) is zero where nothing is known yet; `extra` (B,extra_channels,H,W).
        """
        group, step, _ = self.stages[turn]
        seen = self.get_buffer("order")[: self.seen[group]]
        known = to_activation(compand(y_known[:, seen, ::step, ::step]))
        if self.centred:
            known = known.abs()
        if extra is not None:
            known = torch.cat([extra[..., ::step, ::step], known], 1)
        sums = self.nets[turn](known, quality)
        if self.centred:
            return torch.zeros_like(sums), 4 * sums + base_index(quality)
        mean, index = sums.chunk(2, 1)
        index = 4 * index + base_index(quality)
        return self.means(mean, quality, round_index(index) < SKIPPED_SCALES), index

    def heads(self) -> list[ExactConv2d]:
        """The last layer of each stage."""
        return [net.conv_out for net in self._nets()]

    @torch.no_grad()
    def begin_at(self, index: Tensor, quality: Tensor) -> None:
        """Let the scales begin at `index` (B,y_channels), and depend on little else yet."""
        bias = ((index - base_index(quality)[:, :, 0, 0]) / 4).mean(0)
        for head, stage in zip(self.heads(), self.stages, strict=True):
            own = self.groups[stage.group]
            head.weight[-len(own) :] *= 0.1
            head.bias[-len(own) :] = bias[own]

    def tables(self) -> list[tuple[QualityTable, ExactConv2d]]:
        """Each quality table with the layer to whose bias its rows are added."""
        return [(net.quality, net.conv_in) for net in self._nets()]

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """What a weights file holds of it. Raises ValueError while a layer is in float."""
        tensors = export_exact(self, self.tables(), prefix)
        return tensors if self.centred else tensors | self.means.to_tensors(f"{prefix}means")

    def load(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Take all of it from a weights file. Raises ValueError for another layout."""
        load_exact(self, self.tables(), tensors, prefix)
        if not self.centred:
            self.means.load(tensors, f"{prefix}means")

    def links(self) -> list[Link]:
        """The chains of layers, for `equalise`."""
        return [link for net in self._nets() for link in net.links()]

    @torch.no_grad()
    def rescale_extra(self, factor: Tensor) -> None:
        """Take an `extra` that is `factor` (extra_channels,) times what it was; compute the same."""
        for net in self._nets():
            net.conv_in.weight[:, : self.extra_channels].div_(factor[:, None, None])

    def _turn(self, stage: Stage, height: int, width: int, device: torch.device | str) -> Turn:
        size = (-(-height // stage.step), -(-width // stage.step))
        mask = torch.isin(places(*size, device), torch.tensor(stage.at, device=device))
        channels = self.groups[stage.group].to(device)
        return Turn(channels, stage.step, mask.expand(len(channels), -1, -1))

    def _nets(self) -> Iterator[ContextNet]:
        return cast("Iterator[ContextNet]", iter(self.nets))


def predict_all(
    prior: StagedPrior, y_hat: Tensor, quality: Tensor, extra: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """`predict` of every turn where all of y_hat (B,C,H,W) is given: what devices are held to."""
    known, found = torch.zeros_like(y_hat), []
    for number, turn in enumerate(prior.turns(y_hat.shape[2], y_hat.shape[3], y_hat.device)):
        found.append(prior.predict(number, known, quality, extra))
        turn.put(known, turn.of(y_hat))
    return found
