"""What the predictor sees in training, and what should follow.

Coded frames (`extreme_record`), and with them, half of the time, a first chunk of the predictor's own:
encoder and decoder go on from what was generated, faults and all. Or clean clips, of digits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.extreme.motion import moved_on
from gencodec.methods.extreme.network import PredictorNet, Seen
from gencodec.methods.extreme.predictor import denoiser, signed_pictures
from gencodec.sampler.samplers import sample_euler
from gencodec.sampler.schedule import flow_shifted
from gencodec.training.extreme_record import AnchorBank

ALONE = 0.25  # share of clips that see one past frame, where two are at hand
SECOND = 0.5  # share of batches behind frames of the predictor's own
STEPS = 1  # of the sampler, for these


class CodedExamples:
    """See `extreme.Examples`; batches are rows of an `AnchorBank`."""

    def __init__(self, bank: AnchorBank, device: torch.device) -> None:
        self.bank, self.device = bank, device

    def __call__(
        self, batch: Tensor, net: PredictorNet, generator: np.random.Generator
    ) -> tuple[Seen, Tensor]:
        """See `extreme.Examples`."""
        records = self.bank.read(batch.cpu())
        anchor, ahead = (_signed(t.to(self.device)) for t in (records.anchor, records.ahead))
        velocity, known = records.velocity.to(self.device), records.known.to(self.device)
        count = net.config.predicted
        seen = _seen(anchor, anchor, velocity, known, 0, count)
        since = 0
        if generator.random() < SECOND:
            since = int(generator.integers(1, count + 1))
            own = self._generated(net, seen)[:, since - 1]
            seen = _seen(anchor, own, velocity, known, since, count)
        return seen, ahead[:, since : since + count].flatten(1, 2)

    @torch.no_grad()
    def _generated(self, net: PredictorNet, seen: Seen) -> Tensor:
        """A chunk (B,predicted,3,H,W) in [-1,1], rounded as it is shown."""
        noise = torch.randn(
            len(seen.past), 3 * net.config.predicted, *seen.past.shape[2:], device=self.device
        )
        x = sample_euler(denoiser(net, seen), noise, flow_shifted(STEPS))
        shown = signed_pictures(x, seen, net.config).clamp(-1, 1)
        return ((127.5 * (shown + 1)).round() / 127.5 - 1).unflatten(1, (-1, 3))


class CleanExamples:
    """See `extreme.Examples`; batches are clips (B,past+predicted,C,H,W) in [0,1], of which some see less."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(
        self, batch: Tensor, net: PredictorNet, generator: np.random.Generator
    ) -> tuple[Seen, Tensor]:
        """See `extreme.Examples`."""
        count = net.config.past
        x = 2 * (255 * batch).round() / 255 - 1
        past = x[:, :count]
        alone = torch.from_numpy(generator.random(len(x)) < ALONE).to(self.device)
        past = torch.where(alone[:, None, None, None, None], past[:, -1:], past)
        known = torch.where(alone, 1, count)
        return Seen(past.flatten(1, 2), None, known, torch.zeros_like(known)), x[:, count:].flatten(1, 2)


def _seen(anchor: Tensor, last: Tensor, velocity: Tensor, known: Tensor, since: int, count: int) -> Seen:
    ahead = since + 1 + torch.arange(count, device=anchor.device, dtype=torch.float32)
    moved = moved_on(anchor, velocity, ahead.expand(len(anchor), -1)).flatten(1, 2)
    past = torch.cat([anchor, last], 1)
    return Seen(past, moved, known, torch.full_like(known, since))


def _signed(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1
