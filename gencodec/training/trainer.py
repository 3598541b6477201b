"""The loop around a task: budget, learning rate, EMA, checkpoints that a killed run goes on from, a JSON-lines log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Task(Protocol):
    """What is trained: owns the networks, the optimizers and one step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step; returns what the log shows."""
        ...

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


@dataclass
class Budget:
    """How long to train: so many steps, so many minutes of training time, or whichever ends first."""

    steps: int | None
    minutes: float | None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is spent, 0..1."""
        shares = [step / self.steps if self.steps else 0.0, seconds / 60 / self.minutes if self.minutes else 0.0]
        return min(1.0, max(shares))


@dataclass
class Trainer:
    """Runs a task until its budget is spent."""

    task: Task
    next_batch: Callable[[], Tensor]
    folder: Path
    budget: Budget
    learning_rate: float
    ema_decay: float = 0.998
    save_every_seconds: float = 120.0
    step: int = 0
    seconds: float = 0.0
    ema: dict[str, Tensor] = field(default_factory=dict)

    def run(self) -> None:
        """Train; saves at the end and every two minutes. Resumes where `folder` has a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        saved = time.monotonic()
        while (progress := self.budget.progress(self.step, self.seconds)) < 1:
            start = time.monotonic()
            for group in self.task.optimizer.param_groups:
                group["lr"] = self.learning_rate * learning_rate_factor(self.step, progress)
            record = self.task.step(self.next_batch(), progress)
            self._update_ema()
            self.step += 1
            self.seconds += time.monotonic() - start
            self._log(record, progress)
            if time.monotonic() - saved > self.save_every_seconds:
                self._save()
                saved = time.monotonic()
        self._save()

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.task.model.state_dict().items():
            if name.endswith("exponent") or name not in self.ema:
                self.ema[name] = value.clone()  # grids are not averaged
            else:
                self.ema[name].lerp_(value, 1 - decay)

    def _log(self, record: dict[str, float], progress: float) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 3), "progress": round(progress, 4)}
        line.update({k: round(v, 5) for k, v in record.items()})
        with (self.folder / "log.jsonl").open("a") as f:
            f.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {"task": self.task.state(), "step": self.step, "seconds": self.seconds, "ema": self.ema}
        temporary = self.folder / "checkpoint.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=False)  # our own file: holds a numpy generator's state
        self.task.load_state(state["task"])
        self.step, self.seconds, self.ema = state["step"], state["seconds"], state["ema"]


def learning_rate_factor(step: int, progress: float, warmup: int = 50) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak at the end of the budget."""
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
