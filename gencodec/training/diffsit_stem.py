"""The learned STEM of `diffsit`'s paper preset as it is trained: clips to what a decoder has, and bits.

Stage `stem`: bits a pixel + weight x squared error, at all rates at once; the key frame is `intra`'s, fixed.
The weights go with the quality as in DCVC-UF's recipe (1 to 768). The paper's first stage trains at high
rates first; here a gain for each quality spans them. In the last part of the run the entropy networks are
integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gencodec.entropy.hyper import HYPER_STRIDE
from gencodec.methods.diffsit.paper.motion_codec import MotionCodec
from gencodec.methods.diffsit.paper.stem_model import STRIDE, LearnedState, StemModel
from gencodec.methods.diffsit.stem import groups_of
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.paper.latents import PaperEstimate
from gencodec.methods.s2vc.paper.pcodec import key_quality
from gencodec.nn.equalise import equalise
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import NUM_QUALITIES, log_spaced
from gencodec.nn.warp import warp
from gencodec.training.diffsit_joint import Bank

CHAIN = 1  # triples
PREFIXES = ("latents.", "motion.latents.", "mv.latents.")


@dataclass(frozen=True, slots=True)
class StemRecipe:
    """What the loss weighs, and how fast it learns."""

    mse_min: float = 1.0  # of the squared error, against bits a pixel, at quality 0
    mse_max: float = 768.0
    exact_from: float = 0.7  # share of the run's budget
    learning_rate: float = 1e-4
    frames: int = 9


class CodedClip(NamedTuple):
    """Pictures (B,T,3,H,W) as decoded; bits a pixel (B,) without the key frame; states; z_hat by prefix."""

    pictures: Tensor
    bpp: Tensor
    states: list[Tensor]
    z_hats: dict[str, list[Tensor]]


class StemTraining(nn.Module):
    """The learned STEM, and `intra` for its key frames."""

    def __init__(self, model: StemModel, intra: IntraModel) -> None:
        super().__init__()
        self.model = model
        self._intra = [intra]  # in a list: no parameters of this module
        self.exact = any(layer.exact for layer in exact_layers(model))

    def code(self, x: Tensor, quality: Tensor) -> CodedClip:
        """Clips (B,T,3,H,W) in [0,1], the first backbone a key frame."""
        height, width = x.shape[-2:]
        frames = [pad_to_multiple(frame, STRIDE) for frame in x.unbind(1)]
        pictures, bits = dict[int, Tensor](), list[Tensor]()
        clip = CodedClip(x, torch.zeros(len(x)), [], {prefix: [] for prefix in PREFIXES})
        state: LearnedState | None = None
        for group in groups_of(len(frames), CHAIN):
            own = frames[group.backbone]
            if state is None:
                state = self._key(own, quality)
            else:
                state = self._backbone(own, state, quality, clip, bits)
            clip.states.append(state.memory)
            pictures[group.backbone] = state.picture
            for number in (group.backbone + offset for offset in group.offsets):
                flow = self._flow(self.model.mv, "mv.latents.", frames[number], state, quality, clip, bits)
                pictures[number] = warp(state.picture, flow)
        decoded = torch.stack([pictures[n] for n in range(len(frames))], 1)[..., :height, :width]
        return clip._replace(pictures=decoded, bpp=torch.stack(bits).sum(0) / (len(frames) * height * width))

    @torch.no_grad()
    def make_exact(self, x: Tensor) -> None:
        """Equalise the entropy networks on clips x at all rates, convert them to integers."""
        quality = (torch.arange(len(x), device=x.device) * (NUM_QUALITIES - 1)) // max(len(x) - 1, 1)
        links = [link for latents in self.model.codecs().values() for link in latents.prior.links()]
        equalise(links, lambda: self.code(x, quality))
        states = torch.cat(self.code(x, quality).states)
        self.model.temporal.equalise(states, self.model.latents.prior)
        convert(self.model)
        self.exact = True

    def set_exact(self, exact: bool) -> None:
        """As a checkpoint says."""
        self.exact = exact
        for layer in exact_layers(self.model):
            layer.exact = exact

    def _key(self, x: Tensor, quality: Tensor) -> LearnedState:
        intra, own = self._intra[0], key_quality(quality)
        with torch.no_grad():
            y_hat = intra.latents(intra.transforms.to_latents(x, own).float(), own).y_hat
            picture = intra.transforms.to_linear_picture(y_hat, own)[0].clamp(0, 1)
        return self.model.begin(picture, pad_to_multiple(y_hat, HYPER_STRIDE))

    def _backbone(
        self, x: Tensor, state: LearnedState, quality: Tensor, clip: CodedClip, bits: list[Tensor]
    ) -> LearnedState:
        model = self.model
        flow = self._flow(model.motion, "motion.latents.", x, state, quality, clip, bits)
        contexts = model.context(state, flow)
        y = model.latents(model.encode(x, contexts, quality), quality, state.memory)
        _keep("latents.", y, clip, bits)
        features, picture = model.decode(y.y_hat, y.log2_step, contexts, quality)
        return model.after(state, features, picture, y.y_hat)

    def _flow(
        self,
        codec: MotionCodec,
        prefix: str,
        x: Tensor,
        state: LearnedState,
        quality: Tensor,
        clip: CodedClip,
        bits: list[Tensor],
    ) -> Tensor:
        y = codec.analyse(x, state.picture, quality)
        coded = codec.latents(y, quality, codec.still(y))
        _keep(prefix, coded, clip, bits)
        return codec.synthesise(coded.y_hat, coded.log2_step, quality)


class StemTask:
    """State and one step of the stage `stem`; see `trainer.Task`. Batches are draws of `bank`."""

    def __init__(self, recipe: StemRecipe, stem: StemTraining, bank: Bank, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.recipe, self.stem, self.bank, self.rescaled = recipe, stem, bank, False
        self.model = nn.ModuleDict({"stem": stem.model})
        self.device = stem.model.to_picture.weight.device
        self.optimizer = torch.optim.AdamW(groups_of_stem(stem.model), recipe.learning_rate, weight_decay=0.0)

    def learning_rate(self, progress: float) -> float:
        """A cosine from the peak to 2 %."""
        return self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def step(self, x: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on draws x; returns what the log shows."""
        r, clip = self.recipe, self.bank.cut(x, self.device)
        if progress >= r.exact_from and not self.stem.exact:
            self.stem.make_exact(clip.x)
            self.rescaled = True
        coded = self.stem.code(clip.x, clip.quality)
        weight = log_spaced(clip.quality, r.mse_min, r.mse_max)
        mse = (coded.pictures - clip.x).square().mean((1, 2, 3, 4))
        loss = ((coded.bpp + weight * mse) / weight.sqrt()).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        if self.stem.exact:
            project(self.stem.model)
        return {"loss": loss.item(), "bpp": coded.bpp.mean().item(), "mse": mse.mean().item()}

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the averaged weights of another run, and its integers."""
        self.model.load_state_dict(checkpoint["ema"])
        self.stem.set_exact(bool(checkpoint["task"]["exact"]))

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "exact": self.stem.exact,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stem.set_exact(bool(state["exact"]))


def groups_of_stem(model: StemModel) -> list[dict[str, Any]]:
    """What is trained; table indices move in units, weights in hundredths. Gains stay as they are."""
    fast = [p for latents in model.codecs().values() for p in latents.z_index.parameters()]
    chosen = {id(p) for p in fast}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": rest, "scale": 1.0}, {"params": fast, "scale": 20.0}]


def hyper_latents(clip: CodedClip) -> Iterator[tuple[str, Tensor]]:
    """z_hat (B,C,h,w) of every frame, by the prefix of its tables."""
    for prefix, found in clip.z_hats.items():
        for z_hat in found:
            yield prefix, z_hat


def _keep(prefix: str, coded: PaperEstimate, clip: CodedClip, bits: list[Tensor]) -> None:
    bits.append(coded.y_bits + coded.z_bits)
    clip.z_hats[prefix].append(coded.z_hat)


def one_at_each_rate(count: int) -> np.ndarray:
    """Qualities (count,) in the middle of as many equal bands."""
    return (2 * np.arange(count) + 1) * NUM_QUALITIES // (2 * count)
