"""The paper preset of `diffsit`: the stages of its generator, each a task for the trainer.

    latent    encoder, transformer and embedding: squared error of x0 to the published latents of the source
    pixel     the same parts: squared error and LPIPS of what the frozen decoder makes of x0
    joint     the same parts, on two pieces in a row as a decoder has them: L1, LPIPS, and L1 of what changes;
              with a learned STEM that, too: + lambda x bits a pixel + squared error of what it decodes
The shipped STEM learns nothing. Batches are draws of records, made by `gencodec train diffsit --stage
record`; a learned STEM (`diffsit_stem`) decodes their sources anew. Sources: Diff-SIT (arXiv 2603.18501),
whose weights of losses are not known but for lambda; the first two stages are as in DOVE (arXiv 2505.16239),
of the same group, the alignment is SODEC's.
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
from gencodec.nn.exact import project
from gencodec.nn.precision import half_precision
from gencodec.nn.quality import log_spaced
from gencodec.training.diffsit_joint import Bank, Clips
from gencodec.training.diffsit_stage import some_frames
from gencodec.training.diffsit_stem import StemTraining, groups_of_stem
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
    lambda_min: float = 8.0  # of bits a pixel in the joint loss, at quality 0: the paper's largest, or above
    lambda_max: float = 0.5
    aligned: float = 20.0  # of the squared error of what STEM decodes, in the joint loss
    judged: int = 3  # frames of each clip that LPIPS sees
    learning_rate: float = 1e-4  # of a whole transformer a tenth is enough
    frames: int = 9  # of a piece


class Trained(nn.Module):
    """What is this project's of a generator, and the learned STEM."""

    def __init__(self, generator: PaperGenerator, stem: StemTraining | None) -> None:
        super().__init__()
        if stem is not None:
            self.stem = stem.model
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
        stem: StemTraining | None = None,
        vgg: str | None = None,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.stage, self.recipe, self.bank, self.stem, self.rescaled = stage, recipe, bank, stem, False
        self.random = np.random.default_rng(seed)
        self.generator = generator.requires_grad_(False)
        self.device = generator.mean.device
        self.teacher = copy.deepcopy(generator)  # before anything is learned: the published encoder
        self.teacher.vae.decoder = self.teacher.dit = None
        self.model = Trained(generator, stem)
        self.model.own.requires_grad_(True)
        self.generator.dit.enable_gradient_checkpointing()
        self.perceptual = PerceptualLoss(vgg).to(self.device).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(), recipe.learning_rate, weight_decay=0.0)

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another run; of a run of `stem` STEM alone."""
        known = checkpoint["ema"]
        if any(name.startswith("own.") for name in known):
            self.model.load_state_dict(known)
        else:
            self.model.load_state_dict(self.model.state_dict() | known)
        self._set_exact(checkpoint["task"])

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
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        if self.stem is not None and self.stem.exact:
            project(self.stem.model)
        return {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}

    def terms(self, clip: Clips) -> dict[str, Tensor]:
        """The parts of the stage's loss on a window of records."""
        r, first = self.recipe, slice(self.recipe.frames)
        picture, of_stem = self._decoded(clip)
        with half_precision(self.device):
            if self.stage == "joint":
                return self._two_pieces(clip, picture) | of_stem
            x0 = self.generator.denoised(self.generator.encoded(picture[:, first], clip.is_mv[first]))
            if self.stage == "latent":
                with torch.no_grad():
                    target = self.teacher.encoded(clip.x[:, first])
                return {"latent": r.latent * (x0 - target).square().mean()}
            shown, x = self.generator.decoded(x0), clip.x[:, first]
            return {"mse": r.mse * (shown - x).square().mean(), "lpips": self._lpips(shown, x)}

    def _decoded(self, clip: Clips) -> tuple[Tensor, dict[str, Tensor]]:
        """What STEM makes of a window, and the terms of a joint run that are of it, in float32."""
        if self.stem is None:
            return clip.picture, {}
        r, weight = self.recipe, log_spaced(clip.quality, self.recipe.lambda_min, self.recipe.lambda_max)
        with torch.set_grad_enabled(self.stage == "joint" and torch.is_grad_enabled()):
            coded = self.stem.code(clip.x, clip.quality)
        rate = (weight * coded.bpp).mean()
        return coded.pictures, {
            "rate": rate,
            "aligned": r.aligned * (coded.pictures - clip.x).square().mean(),
        }

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "exact": self.stem is not None and self.stem.exact,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]
        self._set_exact(state)

    def _set_exact(self, state: Mapping[str, Any]) -> None:
        if self.stem is not None:
            self.stem.set_exact(bool(state.get("exact")))

    def _two_pieces(self, clip: Clips, picture: Tensor) -> dict[str, Tensor]:
        """The first piece of a window, or the second behind what the first leaves, each half of the time."""
        r, n, before = self.recipe, self.recipe.frames, None
        own = slice(n)
        if self.random.random() < 0.5 and clip.x.shape[1] >= 2 * n:
            own = slice(n, 2 * n)
            if seen := self.generator.config.context:
                before = Carry(picture[:, n - seen : n], clip.is_mv[n - seen : n])
        out = self.generator(picture[:, own], clip.is_mv[own], clip.quality, before)
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
        """What the stage trains: of a learned STEM nothing before the joint stage."""
        own: list[dict[str, Any]] = [{"params": list(self.model.own.parameters()), "scale": 1.0}]
        if self.stem is None or self.stage != "joint":
            return own
        return own + groups_of_stem(self.stem.model)
