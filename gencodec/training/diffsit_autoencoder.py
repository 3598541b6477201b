"""The first stage of `diffsit`'s generator: the video autoencoder, on clean clips.

L1, LPIPS-Alex of some frames, and L1 of what changes from frame to frame. Latents meet some noise on their
way to the decoder, so that it shows near latents alike, and their mean and deviation are measured for the
stages behind. Source of the loss: the project's own choice, the paper's autoencoder comes trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencodec.methods.diffsit.generator import GeneratorConfig
from gencodec.metrics.lpips import Lpips
from gencodec.nn.precision import half_precision
from gencodec.training.diffsit_stage import Stage, some_frames
from gencodec.training.patches import SHIFTS, random_window


@dataclass(frozen=True, slots=True)
class AutoencoderRecipe:
    """What the losses weigh, and how fast it learns."""

    l1: float = 2.0
    alex: float = 1.0
    change: float = 1.0
    noise: float = 0.1  # on latents, in their deviations
    measured: float = 0.02  # share of a batch in mean and deviation
    learning_rate: float = 6e-4
    batch: int = 8
    crop: int = 128
    frames: int = 9
    judged: int = 1  # frames of each clip that LPIPS sees


class AutoencoderTask(Stage):
    """Trains encoder, decoder and head; batches are clips (B,T,3,H,W) in [0,1]."""

    def __init__(
        self, recipe: AutoencoderRecipe, config: GeneratorConfig, device: torch.device, seed: int
    ) -> None:
        super().__init__(config, recipe.learning_rate, device, seed)
        self.recipe = recipe
        self.lpips = Lpips.load(device).requires_grad_(False)
        model = self.model
        torch.nn.init.kaiming_normal_(model.head.last.weight, nonlinearity="linear")  # undoes `begin`
        parts = (model.encoder, model.decoder, model.head)
        self.learn([((p for part in parts for p in part.parameters()), 1.0)])

    def step(self, clips: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step; returns what the log shows."""
        self.model.train()
        r = self.recipe
        with half_precision(self.device):
            latents = self.model.encoded(clips)
            shown = self.model.decoded(latents + r.noise * torch.randn_like(latents))
            judged = random_window(
                some_frames([shown, clips], r.judged, self.random), clips.shape[-1] - SHIFTS, self.random
            )
            alex = self.lpips.distance(*judged).mean()
        change = shown.diff(dim=1) - clips.diff(dim=1)
        terms = {
            "l1": r.l1 * (shown - clips).abs().mean(),
            "alex": r.alex * alex,
            "change": r.change * change.abs().mean(),
        }
        log = self.descend(terms)
        self.model.encoder.measure(latents, max(r.measured, 1 / self.steps))
        return log
