"""Training of `intra` in two parts, one after the other, by share of the budget.

    the prior, on the latents of the cosine transform: the loss is the rate alone
      rate         in float
      exact        as integers
    the synthesis, on the latents as the coder reconstructs them: the loss is the picture's
      repair       L1
      perceptual   L1 + LPIPS on AlexNet and VGG16 + DISTS
      adversarial  the same, and a critic of small weight

A step of the first part costs a thirtieth of one of the second, and neither disturbs what the other has
learned. docs/decisions.md says what training everything at once gave.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.intra.model import NOT_FLOAT, IntraModel
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.equalise import equalise
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.precision import half_precision, has_bfloat16
from gencodec.nn.quality import NUM_QUALITIES, log_spaced
from gencodec.nn.state import load_float, thaw_tables
from gencodec.training.discriminator import ProjectedCritic, critic_loss, generator_loss
from gencodec.training.edges import best_blocks
from gencodec.training.patches import SHIFTS, Patches, cut_patches, cut_window
from gencodec.training.perceptual import Distances, PerceptualLoss
from gencodec.training.qualities import draw_quality, loss_weights
from gencodec.training.recipe import PRIOR, Recipe


class IntraTask:
    """State and one step of the training; the trainer owns the loop, the checkpoints and the log."""

    def __init__(self, recipe: Recipe, lpips_file: str | None, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device = recipe, device
        self.generator = np.random.default_rng(seed)
        self.model = IntraModel().to(device).to(memory_format=torch.channels_last)
        self.perceptual = PerceptualLoss(lpips_file).to(device).to(memory_format=torch.channels_last)
        if not has_bfloat16(device):
            self.perceptual.use_winograd()
        self.alex = Lpips.load().to(device)
        self.judge = LpipsLoss(self.alex)  # of edges
        self.critic = ProjectedCritic(self.perceptual.channels).to(device)
        fused = device.type == "cuda"
        groups = parameter_groups(self.model)
        self.optimizer = torch.optim.Adam(groups, recipe.prior_rate, betas=(0.9, 0.99), fused=fused)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))
        self.exact = self.calibrated = False
        self.rescaled = False  # since the trainer last looked

    def start_from(self, tensors: Mapping[str, Tensor], *, new_prior: bool = False) -> None:
        """Begin at shipped weights, with `new_prior` at their transforms alone.

        Raises ValueError for those of another layout.
        """
        if not new_prior:
            self.model.latents.prior.load(tensors, "latents.prior.")
            self.exact = self.calibrated = True
        load_float(self.model, tensors, skip=NOT_FLOAT)
        thaw_tables(self.model)

    def phase(self, progress: float) -> str:
        """Name of the phase at `progress` in [0,1)."""
        phases = self.recipe.phases().items()
        return next(name for name, (start, stop) in phases if start <= progress < stop)

    def learning_rate(self, progress: float) -> float:
        """Before the trainer's warm-up."""
        return self.recipe.learning_rate(progress)

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on x (B,3,crop,crop) in [0,1]; returns what the log shows."""
        phase = self.phase(progress)
        if not self.calibrated:
            self._calibrate(x)
        if phase != "rate" and not self.exact:
            self.make_exact(x)
        quality = draw_quality(len(x), self.generator).to(self.device)
        if phase in PRIOR:
            return self._train_prior(x, quality)
        return self._train_synthesis(x, quality, phase)

    def make_exact(self, x: Tensor) -> None:
        """Equalise the entropy networks on x, convert them to integers."""
        y, quality = self._at_all_rates(x)
        equalise(self.model.latents.prior.links(), lambda: self.model.latents(y, quality))
        convert(self.model.latents.prior)
        self.exact = self.rescaled = True

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.bit_generator.state,
            "exact": self.exact,
        }

    def load_state(self, state: dict) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.bit_generator.state = state["generator"]
        self.exact, self.calibrated = bool(state["exact"]), True
        for layer in exact_layers(self.model):
            layer.exact = self.exact

    def _train_prior(self, x: Tensor, quality: Tensor) -> dict[str, float]:
        latents = self.model.latents.train()
        with torch.no_grad():
            y = self.model.transforms.to_latents(x, quality)
        with half_precision(self.device):  # as integers, exact networks switch it off themselves
            estimate = latents(y.float(), quality)
        rate = estimate.bits / (x.shape[-1] * x.shape[-2])  # (B,) bpp
        loss = (rate / log_spaced(quality, self.recipe.lambda_min, self.recipe.lambda_max)).mean()
        self._update(loss)
        if self.exact:
            project(latents.prior)
        return {"loss": loss.item(), "bpp": rate.mean().item(), **self._health()}

    def _train_synthesis(self, x: Tensor, quality: Tensor, phase: str) -> dict[str, float]:
        """Several updates on patches of pictures that are encoded once; returns the log's means."""
        r = self.recipe
        count = r.repairs if phase == "repair" else r.windows
        patches = self._patches(x, quality, count * r.updates)
        parts = zip(*(t.split(count) for t in patches), strict=True)
        shown = [self._update_synthesis(Patches(*part), phase, i < r.deep) for i, part in enumerate(parts)]
        return means(shown)

    def _update_synthesis(self, patches: Patches, phase: str, deep: bool) -> dict[str, float]:
        with half_precision(self.device):
            decoded = self.model.transforms.to_picture(patches.y_hat, patches.quality, patches.blocks).float()
        weights = loss_weights(patches.quality, self.recipe.fine)
        terms = {"l1": self.recipe.l1 * (weights * (decoded - patches.x).abs().mean((1, 2, 3))).mean()}
        if phase != "repair":
            whole = cut_window([decoded, patches.x], self.generator, SHIFTS // 2)
            terms["alex"] = self.recipe.alex * (weights * self.alex.distance(*whole)).mean()
        distances = self._distances(decoded, patches.x) if deep and phase != "repair" else None
        if distances:
            terms |= self._perceptual_terms(distances, weights, phase)
        loss = torch.stack(list(terms.values())).sum()
        self._update(loss)
        shown = {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}
        return shown | (self._update_critic(distances) if distances and phase == "adversarial" else {})

    def _patches(self, x: Tensor, quality: Tensor, count: int) -> Patches:
        """Patches with their latents as the coder reconstructs them."""
        transforms, latents = self.model.transforms, self.model.latents.eval()
        with torch.no_grad():
            y_hat = latents(transforms.to_latents(x, quality), quality).y_hat
            patches = cut_patches(y_hat, x, quality, count, self.recipe.patch, self.generator)
            linear = transforms.to_linear_picture(patches.y_hat, patches.quality)[0]
            step = transforms.mean_step(patches.quality)
            return patches._replace(blocks=best_blocks(linear, patches.x, step, self.judge))

    def _distances(self, decoded: Tensor, real: Tensor) -> Distances:
        window = cut_window([decoded, real], self.generator)
        with half_precision(self.device):
            return self.perceptual(*window)

    def _perceptual_terms(self, distances: Distances, weights: Tensor, phase: str) -> dict[str, Tensor]:
        r = self.recipe
        values = {"lpips": r.lpips * distances.lpips, "dists": r.dists * distances.dists}
        terms = {name: (weights * value).mean() for name, value in values.items()}
        if phase == "adversarial":
            value = generator_loss(self.critic, distances.decoded, distances.real)
            terms["adversarial"] = r.adversarial * value.mean()
        return terms

    def _calibrate(self, x: Tensor) -> None:
        self.model.latents.calibrate(*self._at_all_rates(x))
        self.calibrated = True

    @torch.no_grad()
    def _at_all_rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of every picture at eight qualities, and which."""
        x = x.repeat(8, 1, 1, 1)
        quality = torch.arange(len(x), device=self.device) * (NUM_QUALITIES - 1) // (len(x) - 1)
        return self.model.transforms.to_latents(x, quality), quality

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)  # so that Adam leaves alone what has no gradient
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def _update_critic(self, distances: Distances) -> dict[str, float]:
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss = critic_loss(self.critic, distances.decoded, distances.real)
        loss.backward()
        self.critic_optimizer.step()
        return {"critic": loss.item()}

    def _health(self) -> dict[str, float]:
        layers = exact_layers(self.model)
        return {"saturation": max(layer.saturation for layer in layers)} if self.exact else {}


def means(shown: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over those that have it."""
    names = {name: None for one in shown for name in one}
    return {name: statistics.fmean(one[name] for one in shown if name in one) for name in names}


def parameter_groups(model: IntraModel) -> list[dict[str, Any]]:
    """Parameters for the optimizer, with a factor on the learning rate as "scale".

    The strength counts octaves, where weights are near 0.05: at the weights' rate it would stay where it
    begins. The cosine transform is close to what it ends as.
    """
    scales = {
        10.0: [*model.transforms.synthesis.log2_strength.parameters()],
        0.1: [*model.transforms.synthesis.linear.parameters()],
    }
    chosen = {id(p) for group in scales.values() for p in group}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": group, "scale": scale} for scale, group in [(1.0, rest), *scales.items()]]
