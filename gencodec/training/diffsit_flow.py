"""The second stage of `diffsit`'s generator: a rectified flow on the latents of clean clips.

It gives the transformer a prior of how clips look, which in the paper comes with the base model. Liu et al.
2022 (arXiv 2209.03003), the velocity predicted; times as in Esser et al. 2024 (arXiv 2403.03206, section
3.1), about that of the one step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencodec.methods.diffsit.generator import GeneratorConfig
from gencodec.nn.precision import half_precision
from gencodec.training.diffsit_stage import Stage


@dataclass(frozen=True, slots=True)
class FlowRecipe:
    """How fast it learns, and on how much."""

    learning_rate: float = 6e-4
    centre: float = -0.6  # of the times' logits: 0.35, which the one step is at
    batch: int = 16
    crop: int = 128
    frames: int = 9


class FlowTask(Stage):
    """Trains the transformer alone; batches are clips (B,T,3,H,W) in [0,1].

    Raises ValueError for a generator without one.
    """

    def __init__(self, recipe: FlowRecipe, config: GeneratorConfig, device: torch.device, seed: int) -> None:
        super().__init__(config, recipe.learning_rate, device, seed)
        if not config.dit:
            raise ValueError("a generator without a transformer has no flow to train: leave this stage out")
        self.recipe = recipe
        self.learn([((p for n, p in self.model.dit.named_parameters() if "quality" not in n), 1.0)])

    def step(self, clips: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step; returns what the log shows."""
        self.model.train()
        with half_precision(self.device):
            with torch.no_grad():
                latents = self.model.encoded(clips)
            t = (torch.randn(len(clips), device=self.device) + self.recipe.centre).sigmoid()
            share = t[:, None, None, None, None]
            noise = torch.randn_like(latents)
            velocity, _ = self.model.dit((1 - share) * latents + share * noise, 1000 * t, None)
        return self.descend({"flow": (velocity - (noise - latents)).square().mean()})
