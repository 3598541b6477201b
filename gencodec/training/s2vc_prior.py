"""The prior of `s2vc` on recorded groups of pictures: long ones, with a burn-in of the temporal state.

A window begins anywhere in a recorded GOP: the state is run up to it without gradients, then the window's
rate trains all exact networks through time. First in float, then as integers. Clips are turned round, for the
networks learn few of them by heart (docs/decisions.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.s2vc.model import CodingLoop, level_of
from gencodec.nn.equalise import equalise
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.motion import BLOCK
from gencodec.nn.state import thaw_tables
from gencodec.training.mirrors import drawn_mirror, mirrored
from gencodec.training.s2vc_record import Record, RecordBank, stacked


@dataclass(frozen=True, slots=True)
class PriorRecipe:
    """How long a window is, and how fast it learns."""

    window: int = 4  # frames with gradients
    exact_from: float = 0.3  # share of the budget; 1 and more: in float to the end (an ablation)
    temporal: bool = True  # False: nothing is known of earlier frames (an ablation)
    learning_rate: float = 2e-3
    batch: int = 4


class PriorTask:
    """State and one step of the training; see `trainer.Task`. Batches are draws of a `RecordBank`.

    Raises ValueError unless the bank's windows are whole records, for ages count from the key frame, and all
    longer than the window.
    """

    def __init__(self, recipe: PriorRecipe, loop: CodingLoop, bank: RecordBank, device: torch.device) -> None:
        if any(shape[0] != (bank.window or shape[0]) for shape in bank.shapes):
            raise ValueError(
                f"the prior needs whole records, not windows of {bank.window} frames: see --frames"
            )
        if (shortest := min(shape[0] for shape in bank.shapes)) <= recipe.window:
            raise ValueError(
                f"a window of {recipe.window} frames behind a key frame needs records of "
                f"{recipe.window + 1} or more, one has {shortest}: take a smaller window in --recipe"
            )
        self.recipe, self.device, self.bank = recipe, device, bank
        self.model = loop.to(device)
        groups = [{"params": [*self.model.parameters()], "scale": 1.0}]
        self.optimizer = torch.optim.Adam(groups, recipe.learning_rate, betas=(0.9, 0.99))
        self.exact = self.calibrated = self.rescaled = False

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another run, and its integers where this one is to have them."""
        self.model.load_state_dict(checkpoint["ema"])
        self.calibrated = True
        self.exact = bool(checkpoint["task"]["exact"]) and self.recipe.exact_from < 1
        for layer in exact_layers(self.model):
            layer.exact = self.exact

    def begin_from_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin at the integers of a weights file. Raises ValueError for those of another layout."""
        self.model.load_weights(tensors)
        thaw_tables(self.model)
        self.exact = self.calibrated = True

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 1 %."""
        return self.recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, draws: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on whole recorded clips; returns what the log shows."""
        clip = stacked(self.bank.cut(draws, self.device, with_pictures=False))
        clip = mirrored(clip, drawn_mirror(np.random.default_rng(draws.flatten().tolist())))
        first = int(draws.sum()) % (clip.symbols.shape[1] - self.recipe.window + 1)
        if not self.calibrated:
            self._calibrate(clip)
        if progress >= self.recipe.exact_from and not self.exact:
            self.make_exact(clip)
        self.model.train()
        bits = self.rates(clip, first, self.recipe.window)[0] / self._pixels(clip)  # (B,)
        loss = (bits / (bits.detach() + 1e-4)).mean()  # a percent weighs the same at every quality
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.exact:
            project(self.model)
        saturation = max(layer.saturation for layer in exact_layers(self.model)) if self.exact else 0.0
        return {"bpp": bits.mean().item(), "log2": bits.log2().mean().item(), "saturation": saturation}

    def rates(self, clip: Record, first: int, window: int) -> tuple[Tensor, list[Tensor]]:
        """Bits (B,) of the residual over `window` frames behind the first `first` predicted ones; states."""
        model, state = self.model, self.model.temporal.begin(clip.key_y_hat[:, 0])
        states, seen = [], []
        for t in range(first + window):
            with torch.set_grad_enabled(torch.is_grad_enabled() and t >= first):
                moved = model.moved(state, clip.motion[:, t])
                seen.append(moved if self.recipe.temporal else torch.zeros_like(moved))
                state = model.temporal.update(seen[-1], clip.symbols[:, t])
                states.append(state)
        times = range(first, first + window)  # in one batch: nothing of one frame's tables feeds the next
        level = torch.cat([levels(clip, t + 1) for t in times])
        estimate = model.latents(_flat(clip.symbols, first, window), level, torch.cat(seen[first:]))
        return estimate.bits.unflatten(0, (window, -1)).sum(0), states

    @torch.no_grad()
    def make_exact(self, clip: Record) -> None:
        """Equalise the entropy networks on `clip`, convert them to integers."""
        frames = min(8, clip.symbols.shape[1])
        equalise(self.model.latents.prior.links(), lambda: self._all_frames_at_once(clip, frames))
        states = torch.cat(self.rates(clip, 0, frames)[1])
        self.model.temporal.equalise(states, [self.model.latents.prior])
        convert(self.model)
        self.exact = self.rescaled = True

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "exact": self.exact,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.exact, self.calibrated = bool(state["exact"]), True
        for layer in exact_layers(self.model):
            layer.exact = self.exact

    @torch.no_grad()
    def _all_frames_at_once(self, clip: Record, frames: int) -> None:
        states = [self.model.temporal.begin(clip.key_y_hat[:, 0]), *self.rates(clip, 0, frames - 1)[1]]
        moved = torch.cat([self.model.moved(states[t], clip.motion[:, t]) for t in range(frames)])
        level = torch.cat([levels(clip, t + 1) for t in range(frames)])
        self.model.latents(_flat(clip.symbols, 0, frames), level, moved)

    def _calibrate(self, clip: Record) -> None:
        self.model.latents.calibrate(clip.symbols[:, 0], levels(clip, 1))
        self.calibrated = True

    def _pixels(self, clip: Record) -> int:
        return BLOCK * BLOCK * clip.symbols.shape[-1] * clip.symbols.shape[-2] * self.recipe.window


def _flat(of: Tensor, first: int, count: int) -> Tensor:
    """Frames `first` and so on of (B,T,...) as one batch (count B,...), the clips' first frames first."""
    return of[:, first : first + count].transpose(0, 1).flatten(0, 1)


def levels(clip: Record, age: int) -> Tensor:
    """`level_of` for a batch of records, (B,)."""
    pairs = zip(clip.quality.tolist(), clip.cycle.tolist(), strict=True)
    return torch.tensor(
        [level_of(quality, age, cycle) for quality, cycle in pairs], device=clip.quality.device
    )
