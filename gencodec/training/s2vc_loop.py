"""The coding loop of `s2vc`: all frames of a clip, with gradients through time.

    rate     the temporal prior and both latent coders in float, on what the loop codes at the time
    exact    the same as integers
The loss is that of plain decoding: bits and squared error of the buffer's picture. The generator comes after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.model import STEPS_PER_PIXEL, CodingLoop, PredictedFrame, global_motion, key_quality
from gencodec.nn.exact import convert, equalise, exact_layers, project
from gencodec.nn.quality import NUM_QUALITIES, log_spaced
from gencodec.training.qualities import draw_quality


@dataclass(frozen=True, slots=True)
class LoopRecipe:
    """What the loss weighs, and how fast it learns."""

    lambda_min: float = 8e-5  # of squared levels against bits a pixel, log-spaced over the quality
    lambda_max: float = 7e-3
    exact_from: float = 0.7  # share of the budget
    learning_rate: float = 4e-4
    batch: int = 4
    crop: int = 192
    frames: int = 4


class LoopTask:
    """State and one step of the training; see `trainer.Task`."""

    def __init__(self, recipe: LoopRecipe, intra: IntraModel, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device, self.intra = recipe, device, intra.to(device)
        self.generator = np.random.default_rng(seed)
        self.model = CodingLoop().to(device)
        self.optimizer = torch.optim.Adam(
            parameter_groups(self.model), recipe.learning_rate, betas=(0.9, 0.99), fused=device.type == "cuda"
        )
        self.exact = self.calibrated = self.rescaled = False

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on clips x (B,T,3,H,W) in [0,1]; returns what the log shows."""
        quality = draw_quality(len(x), self.generator).to(self.device)
        if not self.calibrated:
            self._calibrate(x)
        if progress >= self.recipe.exact_from and not self.exact:
            self.make_exact(x)
        self.model.train()
        frames = self.code(x, quality)
        bits, errors = self._rate_and_error(x, frames)  # (T-1,B) each
        weight = log_spaced(quality, self.recipe.lambda_min, self.recipe.lambda_max)
        loss = ((bits + weight * errors) / weight.sqrt()).mean()  # about as much at every quality
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.exact:
            project(self.model)
        return self._shown(loss, bits, errors, frames, x)

    def code(self, x: Tensor, quality: Tensor) -> list[PredictedFrame]:
        """All frames but the first, which `intra` codes as it will."""
        buffer, state = self.model.begin(*key_of(self.intra, x[:, 0], quality))
        frames = []
        for t in range(1, x.shape[1]):
            frame = self.model(x[:, t], buffer, state, quality)
            buffer, state = frame.buffer, frame.state
            frames.append(frame)
        return frames

    def make_exact(self, x: Tensor) -> None:
        """Equalise the entropy networks on x at all rates, convert them to integers."""
        quality = self._at_all_rates(len(x))
        links = [link for latents in self._latents() for link in latents.prior.links()]
        with torch.no_grad():
            equalise(links, lambda: self.code(x, quality))
            states = torch.cat([frame.state for frame in self.code(x, quality)])
            self.model.temporal.equalise(states, [latents.prior for latents in self._latents()])
        convert(self.model)
        self.exact = self.rescaled = True

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.bit_generator.state,
            "exact": self.exact,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.device.type == "cuda"  # the checkpoint may come from another device
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.bit_generator.state = state["generator"]
        self.exact, self.calibrated = bool(state["exact"]), True
        for layer in exact_layers(self.model):
            layer.exact = self.exact

    def _latents(self) -> list[Any]:
        return [self.model.motion_latents, self.model.latents]

    @torch.no_grad()
    def _calibrate(self, x: Tensor) -> None:
        """Scales begin at the deviations of the first batch."""
        quality = self._at_all_rates(len(x))
        buffer, _ = self.model.begin(*key_of(self.intra, x[:, 0], quality))
        motion = self.model.motion_of(x[:, 1], buffer, quality)
        self.model.motion_latents.calibrate(motion - global_motion(motion), quality)
        flow = motion / STEPS_PER_PIXEL
        y = self.model.residuals.encode(x[:, 1], self.model.extractor(buffer, flow), quality)
        self.model.latents.calibrate(y, quality)
        self.calibrated = True

    def _rate_and_error(self, x: Tensor, frames: list[PredictedFrame]) -> tuple[Tensor, Tensor]:
        pixels = x.shape[-1] * x.shape[-2]
        bits = torch.stack([f.motion_bits + f.residual_bits for f in frames]) / pixels
        errors = [
            (f.buffer.picture - x[:, t + 1]).square().mean((1, 2, 3)) * 255**2 for t, f in enumerate(frames)
        ]
        return bits, torch.stack(errors)

    def _shown(
        self, loss: Tensor, bits: Tensor, errors: Tensor, frames: list[PredictedFrame], x: Tensor
    ) -> dict[str, float]:
        motion = torch.stack([f.motion_bits for f in frames]).mean() / (x.shape[-1] * x.shape[-2])
        layers = exact_layers(self.model)
        saturation = {"saturation": max(layer.saturation for layer in layers)} if self.exact else {}
        psnr = (10 * torch.log10(255**2 / errors.clamp_min(1e-3))).mean()
        shown = {"loss": loss, "bpp": bits.mean(), "motion_bpp": motion, "psnr": psnr}
        return {name: value.item() for name, value in shown.items()} | saturation

    def _at_all_rates(self, size: int) -> Tensor:
        return (torch.arange(size, device=self.device) * (NUM_QUALITIES - 1)) // max(size - 1, 1)


@torch.no_grad()
def key_of(intra: IntraModel, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A key frame as a decoder has it: linear picture, y_hat, and y_hat without its gains."""
    quality = key_quality(quality)
    transforms, latents = intra.transforms, intra.latents
    y_hat = latents(transforms.to_latents(x, quality).float(), quality).y_hat
    scaled = y_hat * torch.exp2(-transforms.log2_gain(quality))[:, :, None, None]
    return transforms.synthesis.linear(scaled) / 4 + 0.5, y_hat, scaled


def parameter_groups(model: CodingLoop) -> list[dict[str, Any]]:
    """Parameters for the optimizer, with a factor on the learning rate as "scale".

    Table indices move in units, weights in hundredths; the cosine transform is close to what it ends as. The
    heads that begin at zero sum a hundred features into a pixel, and what they move in all pixels of a block
    adds up in its mean. Steps and gains stay: behind rounding, straight-through gradients say that finer is
    always better (docs/decisions.md).
    """
    repairs = [model.key.repair, model.extractor.repair, model.residuals.repair]
    slow = [model.residuals.linear, model.residuals.inverse, model.residuals.analysis_out]
    scales = {
        20.0: [*model.latents.z_index.parameters(), *model.motion_latents.z_index.parameters()],
        0.1: [p for m in slow for p in m.parameters()],
        0.02: [p for m in repairs for p in m.parameters()],
    }
    chosen = {id(p) for group in scales.values() for p in group}
    rest = [p for p in model.parameters() if id(p) not in chosen and p.requires_grad]
    groups = [(1.0, rest), *scales.items()]
    return [{"params": group, "scale": scale} for scale, group in groups]
