"""Training of `intra`: four phases in one run, by share of the budget.

    warm         L1 and picture gradients only: cheap, sets the transforms and the rate up
    perceptual   L1 + LPIPS-VGG
    exact        the same, after the entropy networks were converted to integers
    adversarial  the same, with a patch discriminator of small weight

Loss per picture: R / sqrt(lambda) + sqrt(lambda) D, with R in bpp, D the distortion and lambda log-spaced
over the quality, drawn anew for each picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.methods.intra.model import NOT_FLOAT, IntraModel
from gencodec.metrics.lpips import Lpips
from gencodec.nn.exact import convert, equalise, exact_layers, project
from gencodec.nn.exact_io import load_exact
from gencodec.nn.state import load_float, thaw_tables
from gencodec.training.discriminator import PatchDiscriminator, discriminator_loss, generator_loss


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the loss weighs and when a phase begins (share of the budget)."""

    lambda_min: float = 0.1
    lambda_max: float = 4.0
    annealing: float = 8.0  # how much larger lambda is at the start
    l1: float = 2.0
    gradient: float = 4.0  # warm phase only
    lpips: float = 1.0
    adversarial: float = 0.2
    perceptual_from: float = 0.15
    exact_from: float = 0.35
    adversarial_from: float = 0.5
    learning_rate: float = 4e-4
    batch: int = 8
    crop: int = 128
    window: int = 64  # LPIPS looks at a random window of this size ...
    lpips_batch: int = 5  # ... in so many pictures of the batch


# Going on from shipped weights: they are exact already, and a high rate at the start would only undo them.
CONTINUE = Recipe(perceptual_from=0.0, exact_from=0.0, adversarial_from=0.4, learning_rate=2e-4)


class IntraTask:
    """State and one step of the training; the trainer owns the loop, the checkpoints and the log."""

    def __init__(self, recipe: Recipe, lpips_file: str | None, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device = recipe, device
        self.generator = np.random.default_rng(seed)
        self.model = IntraModel().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic = PatchDiscriminator().to(device)
        perceptual = (
            Lpips.from_file(lpips_file, device, pool=smooth_pool) if lpips_file else Lpips.load(device)
        )
        self.lpips = perceptual.to(memory_format=torch.channels_last)
        fused = device.type == "cuda"
        parameters = self.model.parameters()
        self.optimizer = torch.optim.Adam(parameters, recipe.learning_rate, betas=(0.9, 0.99), fused=fused)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))
        self.exact = False
        self.rescaled = False  # since the trainer last looked

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin at shipped weights. Raises ValueError for those of another layout."""
        prior = self.model.latents.prior
        load_exact(prior, prior.tables(), tensors, "latents.prior.")
        load_float(self.model, tensors, skip=NOT_FLOAT)
        thaw_tables(self.model)
        self.exact = True

    def phase(self, progress: float) -> str:
        """Name of the phase at `progress` in [0,1]."""
        r = self.recipe
        starts = {
            "warm": 0.0,
            "perceptual": r.perceptual_from,
            "exact": r.exact_from,
            "adversarial": r.adversarial_from,
        }
        return [name for name, start in starts.items() if progress >= start][-1]

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on x (B,3,crop,crop) in [0,1]; returns what the log shows."""
        phase = self.phase(progress)
        if phase in ("exact", "adversarial") and not self.exact:
            self.make_exact(x)
        quality = torch.from_numpy(self.generator.integers(0, 64, len(x))).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.model(x, quality)
        terms = self._terms(x, out.x_hat.float(), phase)
        rate = (out.latents.y_bits + out.latents.z_bits) / (x.shape[-1] * x.shape[-2])  # (B,) bpp
        root = (self._lambda(quality) * self._annealing(progress)).sqrt()
        loss = (rate / root + root * sum(terms.values())).mean()
        self._update(loss)
        if phase == "adversarial":
            self._update_critic(x, out.x_hat.float().detach().clamp(0, 1))
        return {
            "loss": loss.item(),
            "bpp": rate.mean().item(),
            **{k: v.mean().item() for k, v in terms.items()},
            **self._health(),
        }

    def make_exact(self, x: Tensor) -> None:
        """Equalise the entropy networks on x, convert them to integers."""
        x = x.repeat(8, 1, 1, 1)  # every picture at eight qualities
        quality = torch.arange(len(x), device=self.device) * 63 // (len(x) - 1)
        equalise(self.model.latents.prior.links(), lambda: self.model(x, quality))
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
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.device.type == "cuda"  # the checkpoint may come from another device
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.bit_generator.state = state["generator"]
        self.exact = bool(state["exact"])
        for layer in exact_layers(self.model):
            layer.exact = self.exact

    def _annealing(self, progress: float) -> float:
        """Factor on lambda: training begins at a high rate, so that no channel dies."""
        share = min(1.0, progress / self.recipe.perceptual_from) if self.recipe.perceptual_from else 1.0
        return self.recipe.annealing ** (1 - share)

    def _lambda(self, quality: Tensor) -> Tensor:
        r = self.recipe
        return r.lambda_min * (r.lambda_max / r.lambda_min) ** (quality.float() / 63)

    def _terms(self, x: Tensor, x_hat: Tensor, phase: str) -> dict[str, Tensor]:
        r = self.recipe
        terms = {"l1": r.l1 * (x_hat - x).abs().mean((1, 2, 3))}
        if phase == "warm":
            terms["gradient"] = r.gradient * gradient_loss(x_hat, x)
            return terms
        terms["lpips"] = r.lpips * self._windowed_lpips(x_hat, x)
        if phase == "adversarial":
            terms["adversarial"] = r.adversarial * generator_loss(self.critic, x_hat)
        return terms

    def _windowed_lpips(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """LPIPS of a random window of some pictures, scattered to (B,); its mean is unbiased."""
        r = self.recipe
        top, left = (int(self.generator.integers(0, n - r.window + 1)) for n in x.shape[-2:])
        chosen = slice(0, min(r.lpips_batch, len(x)))
        window = (chosen, slice(None), slice(top, top + r.window), slice(left, left + r.window))
        a, b = (t[window].contiguous(memory_format=torch.channels_last) for t in (x_hat, x))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            distance = self.lpips.distance(a, b).float()
        return F.pad(distance * (len(x) / len(distance)), (0, len(x) - len(distance)))

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.exact:
            project(self.model.latents.prior)

    def _update_critic(self, real: Tensor, decoded: Tensor) -> None:
        self.critic_optimizer.zero_grad(set_to_none=True)
        discriminator_loss(self.critic, real, decoded).backward()
        self.critic_optimizer.step()

    def _health(self) -> dict[str, float]:
        layers = exact_layers(self.model)
        return {"saturation": max(layer.saturation for layer in layers)} if self.exact else {}


def smooth_pool(x: Tensor, kernel: int) -> Tensor:
    """Root mean square of 3x3, at half the size, in place of VGG's max pooling, which aliases.

    Meant against grids of a few pixels, to which max pooling is nearly blind.
    """
    return (F.avg_pool2d(x.square(), 3, stride=kernel, padding=1) + 1e-6).sqrt()


def gradient_loss(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical picture gradients, (B,)."""
    e = x_hat - x
    return (e.diff(dim=2).abs().mean((1, 2, 3)) + e.diff(dim=3).abs().mean((1, 2, 3))) / 2
