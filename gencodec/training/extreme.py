"""The predictor of `extreme`: a rectified flow over what the next frames add to the last one.

Two phases. First the flow: Liu et al. 2022 (arXiv 2209.03003), the clean residuals predicted and the loss
that of the velocity, as in Li and He 2025 (arXiv 2511.13720); times as in Esser et al. 2024 (2403.03206,
section 3.1). Then, from `perceptual_from` on, what a few steps of the sampler arrive at is compared with the
source by LPIPS-Alex, which is what encoders judge it by; one step among them, at random, is learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.extreme.network import RESIDUAL, PredictorConfig, PredictorNet, Seen
from gencodec.methods.extreme.predictor import denoiser, signed_pictures
from gencodec.metrics.lpips import Lpips
from gencodec.nn.precision import half_precision
from gencodec.sampler.samplers import sample_euler
from gencodec.sampler.schedule import flow_shifted

EARLIEST = 0.05  # of the velocity's loss: times below weigh as this one
JUDGED = 2  # frames of each clip that LPIPS sees, which takes longer than the network
LOGGED = 20  # steps between comparisons with the last frame


@dataclass(frozen=True, slots=True)
class PredictorRecipe:
    """How fast it learns, and from when on by LPIPS."""

    perceptual_from: float = 1.0  # of the budget; 1: never
    pixels: float = 0.5  # weight of the mean absolute error beside LPIPS, pictures in [-1,1]
    steps: int = 2  # of the sampler, in the second phase
    learning_rate: float = 3e-4
    batch: int = 8
    crop: int = 128


class Examples(Protocol):
    """Turns a batch of the source into what is seen and what should follow."""

    def __call__(
        self, batch: Tensor, net: PredictorNet, generator: np.random.Generator
    ) -> tuple[Seen, Tensor]:
        """What is seen, and the next frames (B,predicted*C,H,W) in [-1,1]."""
        ...


class PredictorTask:
    """State and one step of the training; see `trainer.Task`."""

    def __init__(
        self,
        recipe: PredictorRecipe,
        config: PredictorConfig,
        examples: Examples,
        device: torch.device,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device, self.examples = recipe, device, examples
        self.random = np.random.default_rng(seed)
        self.model = PredictorNet(config).to(device).to(memory_format=torch.channels_last)
        self.lpips = Lpips.load(device) if recipe.perceptual_from < 1 else None
        group = {"params": list(self.model.parameters()), "scale": 1.0}
        self.optimizer = torch.optim.AdamW([group], recipe.learning_rate, weight_decay=0.0, fused=True)
        self.rescaled = False
        self.count = 0  # perceptual steps so far

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on a batch of the source; returns what the log shows."""
        self.model.train()
        with half_precision(self.device):
            seen, target = self.examples(x, self.model, self.random)
            if progress < self.recipe.perceptual_from:
                loss, figures = self.flow_loss(seen, target), dict[str, float]()
            else:
                loss, figures = self.perceptual_loss(seen, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss.item()} | figures

    def flow_loss(self, seen: Seen, target: Tensor) -> Tensor:
        """Mean squared error of the velocity, noise - residuals."""
        residuals = (target - signed_pictures(torch.zeros_like(target), seen, self.model.config)) / RESIDUAL
        t = torch.randn(len(target), device=self.device).sigmoid()[:, None, None, None]
        noisy = (1 - t) * residuals + t * torch.randn_like(residuals)
        clean = self.model(noisy, seen, 1000 * t.flatten()).float()
        return ((clean - residuals) / t.clamp_min(EARLIEST)).square().mean()

    def perceptual_loss(self, seen: Seen, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        """LPIPS-Alex of what some step of the sampler takes for clean, and its error in pixels."""
        assert self.lpips is not None
        sigmas = flow_shifted(self.recipe.steps)
        last = int(self.random.integers(self.recipe.steps))
        x = torch.randn_like(target)
        denoise = denoiser(self.model, seen)
        if last:
            with torch.no_grad():
                x = sample_euler(denoise, x, sigmas[: last + 1])
        clean = denoise(x, sigmas[last].to(self.device)).float()
        shown = signed_pictures(clean, seen, self.model.config).clamp(-1, 1)
        chosen = torch.from_numpy(self.random.permutation(self.model.config.predicted)[:JUDGED])
        wanted, got = (_frames(x.unflatten(1, (-1, 3))[:, chosen]) for x in (target, shown))
        away = self.lpips.distance(got, wanted).mean()
        error = (shown - target).abs().mean()
        figures = {"lpips": away.item(), "error": error.item()}
        if self.count % LOGGED == 0:
            held = _frames(seen.past[:, None, -3:].expand(-1, len(chosen), -1, -1, -1))
            figures["of_last_frame"] = away.item() / float(self._held(held, wanted))
        self.count += 1
        return away + self.recipe.pixels * error, figures

    @torch.no_grad()
    def _held(self, last: Tensor, wanted: Tensor) -> Tensor:
        """LPIPS-Alex of the last frame, had it been shown instead."""
        assert self.lpips is not None
        return self.lpips.distance(last, wanted).mean()

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "count": self.count,
            "config": asdict(self.model.config),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.begin_from(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]
        self.count = state["count"]

    def begin_from(self, state: Mapping[str, Any]) -> None:
        """Take over the network of another run alone."""
        self.model.load_state_dict(state["model"])


def _frames(x: Tensor) -> Tensor:
    """(B,n,3,H,W) in [-1,1] as pictures (B*n,3,H,W) in [0,1]."""
    return (x.flatten(0, 1) + 1) / 2
