"""The paper preset of `diffsit`: the stages of its generator, each a task for the trainer.

    latent    encoder, transformer and embedding: squared error of x0 to the published latents of the source
    pixel     the same parts: squared error and LPIPS of what the frozen decoder makes of x0
    joint     the same parts, on two pieces in a row as a decoder has them: L1, LPIPS, and L1 of what changes
STEM is the shipped one and learns nothing, so that no bits are weighed here. Batches are draws of records,
made by `gencodec train diffsit --stage record`. Sources: Diff-SIT (arXiv 2603.18501), whose own weights of
losses are not known; the first two stages are as in DOVE (arXiv 2505.16239), of the same group.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gencodec.methods.diffsit.paper.generator import Carry, PaperGenerator, own_names
from gencodec.nn.precision import half_precision
from gencodec.training.diffsit_joint import Bank, Clips
from gencodec.training.diffsit_stage import some_frames
from gencodec.training.perceptual import PerceptualLoss

Stage = Literal["latent", "pixel", "joint"]


@dataclass(frozen=True, slots=True)
class PaperRecipe:
    """What the losses weigh, and how fast it learns."""

    latent: float = 1.0  # of the squared error of x0
    mse: float = 50.0  # of pictures in [0,1]
    lpips: float = 1.0
    l1: float = 0.5
    change: float = 1.0  # of L1 of frames' differences
    judged: int = 3  # frames of each clip that LPIPS sees
    learning_rate: float = 1e-4  # of a whole transformer a tenth is enough
    frames: int = 9  # of a piece


class Trained(nn.Module):
    """What is this project's of a generator."""

    def __init__(self, generator: PaperGenerator) -> None:
        super().__init__()
        parameters = dict(generator.named_parameters())
        self.own = nn.ParameterDict({n.replace(".", "/"): parameters[n] for n in own_names(generator)})


class PaperTask:
    """State and one step of a stage; see `trainer.Task`. Batches are draws of `bank`."""

    def __init__(
        self,
        stage: Stage,
        recipe: PaperRecipe,
        generator: PaperGenerator,
        bank: Bank,
        *,
        vgg: str | None = None,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.stage, self.recipe, self.bank, self.rescaled = stage, recipe, bank, False
        self.random = np.random.default_rng(seed)
        self.generator = generator.requires_grad_(False)
        self.device = generator.mean.device
        self.teacher = copy.deepcopy(generator)  # before anything is learned: the published encoder
        self.teacher.vae.decoder = self.teacher.dit = None
        self.model = Trained(generator)
        self.model.requires_grad_(True)
        self.generator.dit.enable_gradient_checkpointing()
        self.perceptual = PerceptualLoss(vgg).to(self.device).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(), recipe.learning_rate, weight_decay=0.0)

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another run."""
        self.model.load_state_dict(checkpoint["ema"])

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on draws x; returns what the log shows."""
        self.generator.train()
        terms = self.terms(self.bank.cut(x, self.device))
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}

    def terms(self, clip: Clips) -> dict[str, Tensor]:
        """The parts of the stage's loss on a window of records."""
        r, first = self.recipe, slice(self.recipe.frames)
        with half_precision(self.device):
            if self.stage == "joint":
                return self._two_pieces(clip)
            x0 = self.generator.denoised(self.generator.encoded(clip.picture[:, first], clip.is_mv[first]))
            if self.stage == "latent":
                with torch.no_grad():
                    target = self.teacher.encoded(clip.x[:, first])
                return {"latent": r.latent * (x0 - target).square().mean()}
            shown, x = self.generator.decoded(x0), clip.x[:, first]
            return {"mse": r.mse * (shown - x).square().mean(), "lpips": self._lpips(shown, x)}

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]

    def _two_pieces(self, clip: Clips) -> dict[str, Tensor]:
        """The first piece of a window, or the second behind what the first leaves, each half of the time."""
        r, n, before = self.recipe, self.recipe.frames, None
        own = slice(n)
        if self.random.random() < 0.5 and clip.x.shape[1] >= 2 * n:
            own = slice(n, 2 * n)
            if seen := self.generator.config.context:
                before = Carry(clip.picture[:, n - seen : n], clip.is_mv[n - seen : n])
        out = self.generator(clip.picture[:, own], clip.is_mv[own], clip.quality, before)
        shown, x = out.picture, clip.x[:, own]
        return {
            "l1": r.l1 * (shown - x).abs().mean(),
            "lpips": self._lpips(shown, x),
            "change": r.change * (shown.diff(dim=1) - x.diff(dim=1)).abs().mean(),
        }

    def _lpips(self, shown: Tensor, x: Tensor) -> Tensor:
        judged = some_frames([shown, x], self.recipe.judged, self.random)
        return self.recipe.lpips * self.perceptual(*judged).lpips.mean()

    def _groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "scale": 1.0}]
