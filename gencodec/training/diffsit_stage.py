"""What the stages of `diffsit`'s generator share: one network, of which each trains its part."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gencodec.methods.diffsit.generator import PREFIX, ClipGenerator, GeneratorConfig
from gencodec.nn.state import load_float, thaw_tables


class Stage(ABC):
    """State and the optimizer's part of a step; see `trainer.Task`. `parts` are the modules that learn."""

    def __init__(self, config: GeneratorConfig, rate: float, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.device, self.rate = device, rate
        self.random = np.random.default_rng(seed)
        self.model = ClipGenerator(config).to(device).to(memory_format=torch.channels_last)
        self.steps = 0
        self.rescaled = False

    def learn(self, groups: Iterable[tuple[Iterable[nn.Parameter], float]]) -> None:
        """Train only these parameters, each group at so much of the learning rate."""
        self.model.requires_grad_(False)
        listed: list[dict[str, Any]] = [
            {"params": list(parameters), "scale": scale} for parameters, scale in groups
        ]
        for parameter in (p for group in listed for p in group["params"]):
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.Adam(listed, self.rate, betas=(0.9, 0.99), fused=True)

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    @abstractmethod
    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step; each stage has its own."""

    def descend(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """One step down the sum of `terms`; gives them for the log."""
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        self.steps += 1
        return {"loss": loss.item()} | {name: value.item() for name, value in terms.items()}

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another stage or run where names and shapes agree."""
        state = self.model.state_dict()
        fitting = {n: t for n, t in checkpoint["ema"].items() if n in state and t.shape == state[n].shape}
        self.model.load_state_dict(state | fitting)

    def begin_from_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the generator of a weights file. Raises ValueError for one of another layout."""
        own = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
        load_float(self.model, own, skip=())
        thaw_tables(self.model)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "config": asdict(self.model.config),
            "steps": self.steps,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]
        self.steps = state["steps"]


def some_frames(clips: Iterable[Tensor], count: int, random: np.random.Generator) -> list[Tensor]:
    """The same `count` frames of all clips (B,T,3,H,W), drawn for each member: (B*count,3,H,W) each."""
    clips = list(clips)
    batch, frames = clips[0].shape[:2]
    chosen = np.stack([random.permutation(frames)[:count] for _ in range(batch)])
    rows, columns = np.arange(batch).repeat(chosen.shape[1]), chosen.flatten()
    return [clip[rows.tolist(), columns.tolist()] for clip in clips]
