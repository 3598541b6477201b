"""The paper preset of `s2vc`: its three stages, each a task for the trainer.

    loop      codec parts alone: bits, and how far r is from the autoencoder's own latent of the frame
    render    codec frozen; entrance, adapters, TCG and semantic head: L1 + LPIPS on what is rendered, tokens
              distilled, gradients through the diffusion buffer from frame to frame (cascade training)
    joint     all of them: lambda x bits a pixel + L1 + LPIPS, the paper's loss
The base models stay as they are. Not here: the paper's loss on optical flow, whose weight is not known, and
DINOv3, whose place a frozen AlexNet takes. Sources: S2VC (arXiv 2512.07480); the first stage's distance
between latents is SODEC's idea of aligning before training jointly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gencodec.entropy.hyper import HYPER_STRIDE
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.paper.generator import PaperGenerator, own_names
from gencodec.methods.s2vc.paper.pcodec import STRIDE, PCodec, key_quality
from gencodec.nn.equalise import equalise
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import NUM_QUALITIES, log_spaced
from gencodec.training.perceptual import PerceptualLoss
from gencodec.training.qualities import draw_quality
from gencodec.training.s2vc_teacher import TokenTeacher

Stage = Literal["loop", "render", "joint"]


@dataclass(frozen=True, slots=True)
class PaperRecipe:
    """What the losses weigh, and how fast it learns."""

    latent_min: float = 0.02  # of r's squared error in the first stage, against bits a pixel, at quality 0
    latent_max: float = 2.0
    lambda_min: float = 5.2  # of bits a pixel in the joint loss, at quality 0: the paper's largest
    lambda_max: float = 0.2
    semantic: float = 0.1
    exact_from: float = 0.7  # share of the first stage's budget
    reset_share: float = 0.25  # of clips whose last frame is coded behind a reset
    learning_rate: float = 1e-4


class CodedClip(NamedTuple):
    """Features and temporal states of T frames; of the predicted ones bits a pixel (T-1,B), and z_hat."""

    features: list[Tensor]
    states: list[Tensor]
    bpp: Tensor
    z_hats: list[Tensor]


class Trained(nn.Module):
    """All that is this project's: the codec, and of the generator what no base model has."""

    def __init__(self, codec: PCodec, generator: PaperGenerator) -> None:
        super().__init__()
        self.codec = codec
        parameters = dict(generator.named_parameters())
        self.own = nn.ParameterDict({n.replace(".", "/"): parameters[n] for n in own_names(generator)})


class PaperTask:
    """State and one step of a stage; see `trainer.Task`. Batches are clips (B,T,3,H,W), sides in 64s."""

    def __init__(
        self,
        stage: Stage,
        recipe: PaperRecipe,
        codec: PCodec,
        generator: PaperGenerator,
        intra: IntraModel,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.stage, self.recipe, self.generator, self.intra = stage, recipe, generator, intra
        self.device = codec.embed.weight.device
        self.random = np.random.default_rng(seed)
        self.exact, self.rescaled = any(layer.exact for layer in exact_layers(codec)), False
        self.model = Trained(codec, generator.requires_grad_(False))
        self.perceptual = PerceptualLoss(None).to(self.device).eval().requires_grad_(False)
        self.teacher = TokenTeacher(codec.config.tokens, self.device)
        self.predictor = self.teacher.predictor
        self.optimizer = torch.optim.AdamW(self._groups(), recipe.learning_rate, weight_decay=0.0)

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another run, and its integers."""
        self.model.load_state_dict(checkpoint["ema"])
        self.predictor.load_state_dict(checkpoint["task"]["predictor"])
        self._set_exact(bool(checkpoint["task"]["exact"]))

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on clips x (B,T,3,H,W) in [0,1]; returns what the log shows."""
        quality = draw_quality(len(x), self.random).to(self.device)
        if self.stage == "loop" and progress >= self.recipe.exact_from and not self.exact:
            self.make_exact(x)
        terms = self.terms(x, quality)
        loss = torch.stack([value for name, value in terms.items() if name != "bpp"]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        chosen = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        self.optimizer.step()
        if self.exact:
            project(self.model.codec)
        return {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}

    def terms(self, x: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """The parts of the stage's loss, and "bpp", which is not one."""
        r = self.recipe
        with torch.set_grad_enabled(self.stage != "render"):
            clip = self.code(x, quality)
        bpp = {"bpp": clip.bpp.detach().mean()}
        if self.stage == "loop":
            weight = log_spaced(quality, r.latent_min, r.latent_max)
            loss = (clip.bpp + weight * self._latent_errors(x, clip.features)) / weight.sqrt()
            return {"loop": loss.mean(), **bpp}
        terms = self._rendering(x, clip.features)
        if self.stage == "joint":
            terms["rate"] = (log_spaced(quality, r.lambda_min, r.lambda_max) * clip.bpp).mean()
        return {**terms, **bpp}

    def code(self, x: Tensor, quality: Tensor) -> CodedClip:
        """The key frame as `intra` codes it, then every frame against the one before."""
        codec = self.model.codec
        features, state = self._key(x[:, 0], quality)
        resets = {x.shape[1] - 1} if self.random.random() < self.recipe.reset_share else set()
        all_features, states = [features], [state]
        bits, z_hats = [], []
        for t in range(1, x.shape[1]):
            context = codec.context(features, reset=t in resets)
            y = codec.latents(codec.encode(x[:, t], context, quality), quality, state)
            features = codec.decode(y.y_hat, y.log2_step, context, quality)
            state = codec.temporal.update(state, y.y_hat)
            all_features.append(features)
            states.append(state)
            bits.append((y.y_bits + y.z_bits) / (x.shape[-1] * x.shape[-2]))
            z_hats.append(y.z_hat)
        return CodedClip(all_features, states, torch.stack(bits), z_hats)

    def make_exact(self, x: Tensor) -> None:
        """Equalise the entropy networks on x at all rates, convert them to integers."""
        codec = self.model.codec
        quality = (torch.arange(len(x), device=self.device) * (NUM_QUALITIES - 1)) // max(len(x) - 1, 1)
        with torch.no_grad():
            equalise(codec.latents.prior.links(), lambda: self.code(x, quality))
            codec.temporal.equalise(torch.cat(self.code(x, quality).states), codec.latents.prior)
        convert(codec)
        self.exact = self.rescaled = True

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "predictor": self.predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "exact": self.exact,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.predictor.load_state_dict(state["predictor"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]
        self._set_exact(bool(state["exact"]))

    def _set_exact(self, exact: bool) -> None:
        self.exact = exact
        for layer in exact_layers(self.model.codec):
            layer.exact = exact

    @torch.no_grad()
    def _coded_key(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Linear picture and y_hat of key frames x (B,3,H,W), as a decoder has them."""
        own = key_quality(quality)
        transforms, latents = self.intra.transforms, self.intra.latents
        y_hat = latents(transforms.to_latents(x, own).float(), own).y_hat
        return transforms.to_linear_picture(y_hat, own)[0], pad_to_multiple(y_hat, HYPER_STRIDE)

    def _key(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        picture, y_hat = self._coded_key(x, quality)
        return self.model.codec.begin(pad_to_multiple(picture, STRIDE), y_hat)

    def _latent_errors(self, x: Tensor, features: list[Tensor]) -> Tensor:
        """Mean squared error of r (T-1,B) against the latent of the frame; the key frame's counts for all."""
        codec = self.model.codec
        errors = []
        for t, seen in enumerate(features):
            r = codec.reduction(codec.content(seen))
            errors.append((r - self.generator.latent(x[:, t])).square().mean((1, 2, 3)))
        return torch.stack(errors[1:]) + errors[0]

    def _rendering(self, x: Tensor, features: list[Tensor]) -> dict[str, Tensor]:
        """All frames in order, the first by the key frames' adapter; means over the frames."""
        sums: dict[str, Tensor] = {}
        before, levels = None, None
        for t, seen in enumerate(features):
            view = self.model.codec.view(seen, before)
            out = self.generator(view, "iframe" if t == 0 else "pframe", levels)
            terms = {
                "l1": (out.picture - x[:, t]).abs().mean(),
                "lpips": self.perceptual(out.picture, x[:, t]).lpips.mean(),
                "semantic": self.recipe.semantic * self.teacher.distance(view.tokens, x[:, t], STRIDE),
            }
            sums = {name: sums.get(name, 0) + value / len(features) for name, value in terms.items()}
            before, levels = seen, out.levels
        return sums

    def _groups(self) -> list[dict[str, Any]]:
        """What the stage trains; table indices move in units, weights in hundredths."""
        codec = self.model.codec
        codec.requires_grad_(self.stage != "render")
        codec.log2_gain.requires_grad_(
            False
        )  # behind rounding, straight-through gradients only ever say finer
        codec.semantics.requires_grad_(self.stage != "loop")
        own = list(self.model.own.parameters())
        for parameter in own:
            parameter.requires_grad_(self.stage != "loop")
        fast = [p for p in codec.latents.z_index.parameters() if p.requires_grad]
        chosen = {id(p) for p in fast}
        rest = [p for p in (*codec.parameters(), *own) if p.requires_grad and id(p) not in chosen]
        return [
            {"params": [*rest, *self.predictor.parameters()], "scale": 1.0},
            {"params": fast, "scale": 20.0},
        ]
