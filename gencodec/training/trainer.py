"""The loop around a task: budget, learning rate, EMA, checkpoints, a JSON-lines log.

A run that stopped after a checkpoint and was resumed ends with the same weights as one that was not, bit for
bit on one machine, if its budget is in steps: a checkpoint holds the state of every generator.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Task(Protocol):
    """What is trained: owns the networks, the optimizers and one step."""

    rescaled: bool  # the networks compute the same from other weights: averages begin anew

    @property
    def model(self) -> nn.Module: ...  # noqa: D102
    @property
    def optimizer(self) -> torch.optim.Optimizer: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def learning_rate(self, progress: float) -> float:
        """Of groups with a "scale" of 1, at `progress` in [0,1]."""
        ...

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step; returns what the log shows."""
        ...

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


class Source(Protocol):
    """Where batches come from."""

    def next(self) -> Tensor:
        """The next batch, on the task's device."""
        ...

    def state(self) -> dict[str, Any]:
        """Where in the random sequence of batches it is."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: so many steps, so many minutes of training, or both; None is no limit."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is spent, 0..1."""
        of_steps = step / self.steps if self.steps is not None else 0.0
        of_minutes = seconds / 60 / self.minutes if self.minutes is not None else 0.0
        return min(1.0, max(of_steps, of_minutes))


@dataclass
class Trainer:
    """Runs a task until its budget is spent, or until this call's `slice` of it is."""

    task: Task
    source: Source
    folder: Path
    budget: Budget
    slice: Budget = field(default_factory=Budget)
    ema_decay: float = 0.998
    save_every_seconds: float = 120.0
    step: int = 0
    seconds: float = 0.0
    ema: dict[str, Tensor] = field(default_factory=dict)
    ema_from: int = 0  # the step at which averaging began

    def run(self) -> None:
        """Train; saves at the end and every two minutes. Resumes where `folder` has a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        first, before = self.step, self.seconds
        saved = time.monotonic()
        while (progress := self.budget.progress(self.step, self.seconds)) < 1:
            if self.slice.progress(self.step - first, self.seconds - before) >= 1:
                break
            self._one_step(progress)
            if time.monotonic() - saved >= self.save_every_seconds:
                self._save()
                saved = time.monotonic()
        self._save()

    def _one_step(self, progress: float) -> None:
        start = time.monotonic()
        for group in self.task.optimizer.param_groups:
            group["lr"] = self.task.learning_rate(progress) * warm_up(self.step) * group["scale"]
        x = self.source.next()
        record = self.task.step(x, progress)
        self._update_ema()
        self.step += 1
        seconds = time.monotonic() - start
        self.seconds += seconds
        self._log(record | {"pictures_per_second": len(x) / max(seconds, 1e-9)}, progress)

    @torch.no_grad()
    def _update_ema(self) -> None:
        if self.task.rescaled:  # what was averaged until now is on other scales
            self.ema, self.ema_from, self.task.rescaled = {}, self.step, False
        count = self.step - self.ema_from
        decay = min(self.ema_decay, (1 + count) / (10 + count))
        averages, values = [], []
        for name, value in self.task.model.state_dict().items():
            if name.endswith("exponent") or name not in self.ema:
                self.ema[name] = value.clone()  # grids are not averaged
            else:
                averages.append(self.ema[name])
                values.append(value)
        if averages:
            torch._foreach_lerp_(averages, values, 1 - decay)

    def _log(self, record: dict[str, float], progress: float) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 3), "progress": round(progress, 4)}
        line.update({k: round(v, 5) for k, v in record.items()})
        with (self.folder / "log.jsonl").open("a") as f:
            f.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "task": self.task.state(),
            "step": self.step,
            "seconds": self.seconds,
            "ema": self.ema,
            "ema_from": self.ema_from,
            "source": self.source.state(),
            "torch_generator": torch.get_rng_state(),
        }
        if self.task.device.type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state(self.task.device)
        temporary = self.folder / "checkpoint.tmp"
        with temporary.open("wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(temporary, self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = load_checkpoint(path)
        self.task.load_state(state["task"])
        device = self.task.device
        self.step, self.seconds = state["step"], state["seconds"]
        self.ema_from = state.get("ema_from", 0)
        self.ema = {name: value.to(device) for name, value in state["ema"].items()}
        if "source" in state:  # absent in the first layout, whose runs go on with other random numbers
            self.source.load_state(state["source"])
            torch.set_rng_state(state["torch_generator"])
        if device.type == "cuda" and "cuda_generator" in state:
            torch.cuda.set_rng_state(state["cuda_generator"], device)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU; nothing in the file is run."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def warm_up(step: int, steps: int = 50) -> float:
    """Factor on the learning rate in the first steps."""
    return min(1.0, (step + 1) / steps)
