"""The generator of `s2vc`: first a denoiser of pictures, then one step from what the coding loop left.

denoise      pictures with normal noise on their cosine coefficients, where the codec's own noise is, less
             at higher quality; all but the decoder, which comes trained
perceptual   recorded pictures, frame after frame: L1, LPIPS-Alex, steadiness along the decoded motion, and
             the distillation of the tokens from a frozen network; now and then LPIPS on VGG16 and DISTS on
             the last one
adversarial  with a critic on the features of VGG16
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.intra.cosine import dct_basis, from_blocks
from gencodec.methods.intra.networks import Config as IntraConfig
from gencodec.methods.s2vc.generator import PREFIX, Generator, GeneratorConfig, Memory, Rendered
from gencodec.methods.s2vc.model import CodedFrame
from gencodec.nn.precision import half_precision, has_bfloat16
from gencodec.nn.quality import log_spaced
from gencodec.nn.state import load_float, thaw_tables
from gencodec.training.discriminator import critic_loss
from gencodec.training.mirrors import drawn_mirror, mirrored
from gencodec.training.perceptual import Distances
from gencodec.training.s2vc_held_out import distance_left
from gencodec.training.s2vc_losses import RenderLosses
from gencodec.training.s2vc_record import Record, RecordBank, coded_frame, stacked

CHECK_EVERY = 200  # steps


@dataclass(frozen=True, slots=True)
class RenderRecipe:
    """What the losses weigh, when a phase begins (share of the budget), and how fast it learns."""

    l1: float = 0.25
    alex: float = 2.0  # LPIPS-Alex
    steady: float = 0.5
    semantic: float = 0.1
    lpips: float = 1.0  # on VGG16; this and the next two in a `deep` share of the steps
    dists: float = 2.0
    adversarial: float = 0.15
    fine: float = 4.0  # what losses of pictures weigh at quality 63 against 0, where they are larger
    deep: float = 0.34  # VGG16 and the critic are half of what a step costs
    steadied: float = 0.34  # share of the steps with the term `steady`, which weighs as much more there
    noise: tuple[float, float] = (0.2, 0.02)  # deviation at quality 0 and 63, of [0,1]
    perceptual_from: float = 0.12
    adversarial_from: float = 0.12  # the critic learns ...
    heard_from: float = 0.12  # ... and is heard: later, where a trained generator meets a new one
    learning_rate: float = 3e-4
    decoder_scale: float = 0.15  # of the learning rate: it comes trained
    batch: int = 4
    crop: int = 128
    window: int = 64  # pixels a side that the distances see
    frames: int = 2  # rendered, with gradients through time
    cascade: bool = True  # False: no gradients from a frame to the one before (an ablation of the paper)
    burn: int = 4  # frames before them, at most, that only fill the feature buffer
    fresh: float = 0.35  # share of the steps without any: key frames, resets


class Terms(NamedTuple):
    """The parts of the loss, and the distances of the last frame for the critic."""

    terms: dict[str, Tensor]
    distances: Distances | None


class RenderTask:
    """State and one step of the training; see `trainer.Task`. Batches are draws of a `RecordBank`."""

    def __init__(
        self,
        recipe: RenderRecipe,
        config: GeneratorConfig,
        bank: RecordBank,
        vgg: str | None,
        device: torch.device,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device, self.bank = recipe, device, bank
        self.generator = np.random.default_rng(seed)
        self.model = Generator(config).to(device).to(memory_format=torch.channels_last)
        self.losses = RenderLosses(recipe, config, vgg, device, self.generator)
        self.predictor, self.critic = self.losses.teacher.predictor, self.losses.critic
        if not has_bfloat16(device):
            self.losses.perceptual.use_winograd()
        self.optimizer = torch.optim.Adam(self._groups(), recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))
        self.basis = dct_basis(IntraConfig().y_channels).to(device)
        self.held_out: RecordBank | None = None
        self.steps = 0
        self.rescaled = False

    def start_from(self, intra: Mapping[str, Tensor]) -> None:
        """Decoder and analysis from a weights file of `intra`."""
        prefix = "transforms.synthesis."
        own = {name.removeprefix(prefix): tensor for name, tensor in intra.items() if name.startswith(prefix)}
        load_float(self.model.decoder, with_first_blocks(own, self.model.config.repair_blocks), skip=())
        thaw_tables(self.model.decoder)
        with torch.no_grad():
            self.model.analysis.weight.copy_(intra["transforms.analysis.weight"])

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another run where names and shapes agree, and its critic."""
        for own, given in (
            (self.model, checkpoint["ema"]),
            (self.predictor, checkpoint["task"]["predictor"]),
            (self.critic, checkpoint["task"]["critic"]),
        ):
            state = own.state_dict()
            fitting = {n: t for n, t in given.items() if n in state and t.shape == state[n].shape}
            own.load_state_dict(state | fitting)

    def begin_from_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the generator of a weights file. Raises ValueError for one of another layout."""
        own = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
        load_float(self.model, own, skip=())
        thaw_tables(self.model)

    def phase(self, progress: float) -> str:
        """Name of the phase at `progress` in [0,1)."""
        r = self.recipe
        if progress >= r.adversarial_from:
            return "adversarial"
        return "perceptual" if progress >= r.perceptual_from or not self.model.config.unet else "denoise"

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %, once for the denoiser and once for what follows."""
        start, stop = (0.0, self.recipe.perceptual_from)
        if progress >= stop:
            start, stop = stop, 1.0
        share = (progress - start) / (stop - start)
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def step(self, draws: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on recorded windows; returns what the log shows."""
        phase = self.phase(progress)
        checked = self._checked()
        clip = mirrored(stacked(self.bank.cut(draws, self.device)), drawn_mirror(self.generator))
        self.model.train()
        self.model.decoder.requires_grad_(phase != "denoise")  # it comes trained
        with half_precision(self.device):
            if phase == "denoise":
                terms, distances = self._denoising(clip)
            else:
                is_heard = phase == "adversarial" and progress >= self.recipe.heard_from
                terms, distances = self._rendering(clip, is_heard)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        shown = {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}
        self.steps += 1
        if phase == "adversarial" and distances:
            shown |= self._update_critic(distances)
        return shown | checked

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "predictor": self.predictor.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.bit_generator.state,
            "config": asdict(self.model.config),
            "steps": self.steps,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        for name in ("model", "predictor", "critic"):
            getattr(self, name).load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.bit_generator.state = state["generator"]
        self.steps = state.get("steps", 0)

    def _checked(self) -> dict[str, float]:
        """Of held-out records, now and then, the first time before anything has changed."""
        if self.held_out is None or self.steps % CHECK_EVERY:
            return {}
        left = distance_left(self.model, self.held_out, self.losses.teacher.lpips, self.device)
        return {"held_out": left}

    def _denoising(self, clip: Record) -> Terms:
        x, scaled = (part[:, -self.recipe.frames :].flatten(0, 1) for part in (clip.x, clip.scaled))
        quality = clip.quality.repeat_interleave(self.recipe.frames)
        sigma = log_spaced(quality, *self.recipe.noise)[:, None, None, None]
        noise = torch.randn(scaled.shape, device=x.device)
        noise = 2 * from_blocks(noise, self.basis)  # of deviation 1 in a pixel
        frame = CodedFrame(x + sigma * noise, torch.zeros_like(scaled), torch.zeros_like(scaled[:, :2]))
        decoded = self.model(frame, quality).picture
        errors = (decoded - x).square().mean((1, 2, 3)) / sigma.flatten() ** 2
        return Terms({"denoise": errors.mean()}, None)

    def _rendering(self, clip: Record, is_heard: bool) -> Terms:
        """`frames` of the window in order; those before only fill the feature buffer, if there are any."""
        sums: dict[str, Tensor] = {}
        memory: Memory | None = None
        before: Rendered | None = None
        distances = None
        r = self.recipe
        is_fresh = r.burn == 0 or self.generator.random() < r.fresh
        first = 0 if is_fresh else int(self.generator.integers(1, r.burn + 1))
        deep, steadied = (bool(self.generator.random() < share) for share in (r.deep, r.steadied))
        count = first + r.frames
        for t in range(count):
            frame = coded_frame(clip, t)
            if t < first:
                memory = self._remembered(frame, memory)
                continue
            x, quality = clip.x[:, t], clip.clock[:, t, 0]
            rendered = self.model(frame, quality, memory)
            terms = self.losses.of_frame(rendered, x, quality)
            if before is not None and steadied:
                pictures = [before.picture, rendered.picture]
                terms["steady"] = self.losses.of_change(pictures, [clip.x[:, t - 1], x], frame.flow, quality)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / r.frames
            memory, before = rendered.memory, rendered
            if deep and t == count - 1:
                terms, distances = self.losses.of_window(rendered, x, quality, is_heard)
                sums |= terms
            if not r.cascade:
                memory = Memory(memory.features.detach(), [level.detach() for level in memory.levels])
        return Terms(sums, distances)

    @torch.no_grad()
    def _remembered(self, frame: CodedFrame, memory: Memory | None) -> Memory | None:
        """The memory after a frame that is not rendered: its features alone."""
        if not self.model.config.unet:
            return None
        return Memory(self.model.remember(frame, memory), [])

    def _update_critic(self, distances: Distances) -> dict[str, float]:
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss = critic_loss(self.critic, distances.decoded, distances.real)
        loss.backward()
        self.critic_optimizer.step()
        return {"critic": loss.item()}

    def _groups(self) -> list[dict[str, Any]]:
        """The decoder begins trained and moves slowly; the strength counts octaves; the transform stays."""
        model = self.model
        strength = [*model.decoder.log2_strength.parameters()]
        chosen = {id(p) for p in strength}
        decoder = [p for p in model.decoder.parameters() if id(p) not in chosen]
        known = chosen | {id(p) for p in decoder} | {id(p) for p in model.analysis.parameters()}
        rest = [p for p in model.parameters() if id(p) not in known] + [*self.predictor.parameters()]
        return [
            {"params": rest, "scale": 1.0},
            {"params": decoder, "scale": self.recipe.decoder_scale},
            {"params": strength, "scale": 10.0 * self.recipe.decoder_scale},
        ]


def with_first_blocks(tensors: Mapping[str, Tensor], wanted: tuple[int, int]) -> dict[str, Tensor]:
    """Tensors of `intra`'s synthesis with only the first `wanted` residual blocks at 1/4 and 1/2."""
    kept = dict(tensors)
    for stage, has, wants in zip(("at4", "at2"), IntraConfig().repair_blocks, wanted, strict=True):
        for name in [name for name in kept if name.startswith(f"{stage}.")]:
            _, number, rest = name.split(".", 2)
            tensor = kept.pop(name)
            if int(number) <= wants:  # 0 is the grain
                kept[name] = tensor
            elif int(number) > has:
                kept[f"{stage}.{wants + 1}.{rest}"] = tensor
    return kept
