"""The predictor of `extreme`: a rectified flow over what the next frames add to the last one.

Past frames are what a decoder will have: now and then as `intra` codes them, with a little noise for the
predictor's own faults, and sometimes only one of them, as behind a key frame. Liu et al. 2022 (arXiv
2209.03003); times are drawn as in Esser et al. 2024 (arXiv 2403.03206), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.methods.extreme.predictor import RESIDUAL
from gencodec.methods.intra.model import IntraModel
from gencodec.nn.quality import NUM_QUALITIES


@dataclass(frozen=True, slots=True)
class PredictorRecipe:
    """How past frames are degraded, and how fast it learns."""

    coded: float = 0.5  # share of clips whose past frames are as `intra` codes them
    noisy: float = 0.5  # share with noise on the past, of a deviation up to ...
    noise: float = 0.05  # ... of [-1,1]
    alone: float = 0.25  # share that sees only one past frame
    learning_rate: float = 3e-4
    batch: int = 4
    crop: int = 128


class PredictorTask:
    """State and one step of the training; see `trainer.Task`. Batches are clips (B,past+predicted,C,H,W)."""

    def __init__(
        self,
        recipe: PredictorRecipe,
        config: PredictorConfig,
        intra: IntraModel | None,
        device: torch.device,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device, self.intra = recipe, device, intra
        self.random = np.random.default_rng(seed)
        self.model = PredictorNet(config).to(device).to(memory_format=torch.channels_last)
        group = {"params": list(self.model.parameters()), "scale": 1.0}
        fused = device.type == "cuda"
        self.optimizer = torch.optim.AdamW([group], recipe.learning_rate, weight_decay=0.0, fused=fused)
        self.rescaled = False

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on clips in [0,1]; returns what the log shows."""
        self.model.train()
        loss = self.loss(x)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss.item()}

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error of the velocity, noise - residuals."""
        c = self.model.config
        past, known = self.degraded(x[:, : c.past])
        last = past[:, -c.channels :].repeat(1, c.predicted, 1, 1)
        residuals = (2 * x[:, c.past :].flatten(1, 2) - 1 - last) / RESIDUAL
        noise = torch.randn(residuals.shape, device=self.device)
        t = torch.randn(len(x), device=self.device).sigmoid()[:, None, None, None]
        noisy = (1 - t) * residuals + t * noise
        velocity = self.model(noisy, past, 1000 * t.flatten(), known)
        return F.mse_loss(velocity, noise - residuals)

    @torch.no_grad()
    def degraded(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Past frames (B,past,C,H,W) in [0,1] as a decoder may have them, and how many it has, (B,)."""
        r, count = self.recipe, past.shape[1]
        frames = past
        if self.intra is not None and self.random.random() < r.coded:
            frames = self._coded(past)
        if self.random.random() < r.noisy:
            deviation = r.noise * float(self.random.random())
            frames = (frames + deviation / 2 * torch.randn(frames.shape, device=self.device)).clamp(0, 1)
        frames = (frames * 255).round() / 255  # both sides see uint8
        alone = torch.from_numpy(self.random.random(len(past)) < r.alone).to(self.device)
        oldest = torch.where(alone[:, None, None, None, None], frames[:, -1:], frames)
        known = torch.where(alone, 1, count)
        return 2 * oldest.flatten(1, 2) - 1, known

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "config": asdict(self.model.config),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.device.type == "cuda"  # the checkpoint may come from another device
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]

    def _coded(self, past: Tensor) -> Tensor:
        """As key frames of one random quality."""
        assert self.intra is not None
        x = past.flatten(0, 1)
        quality = torch.full((len(x),), int(self.random.integers(NUM_QUALITIES)), device=self.device)
        y_hat = self.intra.latents(self.intra.transforms.to_latents(x, quality).float(), quality).y_hat
        return self.intra.transforms.to_picture(y_hat, quality).clamp(0, 1).view(past.shape)
