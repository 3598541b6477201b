"""The last stage of `diffsit`'s generator: one step from STEM's clips to the source.

L1, LPIPS-Alex of some frames, and L1 of what changes from frame to frame, for steadiness; in a `deep` share
of the steps LPIPS on VGG16 and DISTS of some windows, and later a critic on the maps of VGG16. In a `carried`
share of the steps the clip is the second piece of its window, behind what the first piece carries.

STEM is frozen: its coding loop is not learned at all, so there is no rate to be annealed here, and "joint"
is the paper's name of the stage, with its encoder, transformer and embedding trained at once.
Paper: Diff-SIT (arXiv 2603.18501); distances as far as they are known, see `docs/methods/diffsit.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.diffsit.generator import ClipGenerator, GeneratorConfig
from gencodec.metrics.lpips import Lpips
from gencodec.nn.precision import half_precision, has_bfloat16
from gencodec.training.diffsit_stage import Stage, some_frames
from gencodec.training.discriminator import ProjectedCritic, critic_loss, generator_loss
from gencodec.training.mirrors import drawn_mirror
from gencodec.training.patches import SHIFTS, random_window
from gencodec.training.perceptual import Distances, PerceptualLoss
from gencodec.training.qualities import loss_weights

CHECK_EVERY = 200  # steps
CHECKED = 16  # windows of held-out records


class Clips(Protocol):
    """B windows of records: x and picture (B,T,3,H,W) in [0,1], is_mv (T,) bool, quality (B,)."""

    @property
    def x(self) -> Tensor: ...  # noqa: D102
    @property
    def picture(self) -> Tensor: ...  # noqa: D102
    @property
    def is_mv(self) -> Tensor: ...  # noqa: D102
    @property
    def quality(self) -> Tensor: ...  # noqa: D102


class Bank(Protocol):
    """Draws of records, and what they drew; `diffsit_record.DiffsitBank`."""

    def batch(self, size: int, generator: np.random.Generator) -> Tensor: ...  # noqa: D102
    def cut(self, draws: Tensor, device: torch.device | str = "cpu") -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class JointRecipe:
    """What the losses weigh, when the critic begins (share of the budget), and how fast it learns."""

    l1: float = 0.5
    alex: float = 2.0  # LPIPS-Alex
    change: float = 1.0
    lpips: float = 1.0  # on VGG16; this and the next two in a `deep` share of the steps
    dists: float = 2.0
    adversarial: float = 0.15
    fine: float = 4.0  # what losses of pictures weigh at quality 63 against 0, where they are larger
    deep: float = 0.34
    adversarial_from: float = 0.4
    carried: float = 0.35
    learning_rate: float = 4e-4
    batch: int = 3
    crop: int = 128
    frames: int = 9  # of a piece; windows hold two
    judged: int = 3  # frames of each clip that LPIPS-Alex sees
    judged_deep: int = 1  # that VGG16 sees
    window: int = 64  # pixels a side of the latter


class JointTask(Stage):
    """Trains all of the generator, with a frozen decoder all but that; batches are draws of a `Bank`."""

    def __init__(
        self,
        recipe: JointRecipe,
        config: GeneratorConfig,
        bank: Bank,
        vgg: str | None,
        device: torch.device,
        seed: int,
    ) -> None:
        super().__init__(config, recipe.learning_rate, device, seed)
        self.recipe, self.bank = recipe, bank
        self.lpips = Lpips.load(device).requires_grad_(False)
        self.perceptual = PerceptualLoss(vgg).to(device).eval().requires_grad_(False)
        if not has_bfloat16(device):
            self.perceptual.use_winograd()
        self.critic = ProjectedCritic(self.perceptual.channels).to(device)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))
        self.held_out: Bank | None = None
        strength = {id(p) for p in self.model.log2_strength.parameters()}
        is_frozen = ("decoder.", "head.") if config.decoder == "frozen" else ()
        named = [(n, p) for n, p in self.model.named_parameters() if not n.startswith(is_frozen)]
        rest = [p for _, p in named if id(p) not in strength]
        self.learn([(rest, 1.0), (self.model.log2_strength.parameters(), 5.0)])  # which counts octaves

    def begin_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Of another run of this stage all, with its critic; of an earlier stage all but the last layer."""
        super().begin_from(checkpoint)
        if "critic" in checkpoint["task"]:
            self.critic.load_state_dict(checkpoint["task"]["critic"])
        else:
            self.model.begin()

    def step(self, draws: Tensor, progress: float) -> dict[str, float]:
        """One optimizer step on recorded windows; returns what the log shows."""
        r, checked = self.recipe, self._checked()
        self.model.train()
        deep = self.random.random() < r.deep
        is_adversarial = progress >= r.adversarial_from
        with half_precision(self.device):
            clip = self.bank.cut(draws, self.device)
            weights = loss_weights(clip.quality, r.fine)
            shown, x = self._rendered(clip)
            terms, distances = self._terms(shown, x, weights), None
            if deep:
                deep_terms, distances = self._deep_terms(shown, x, weights, is_adversarial)
                terms |= deep_terms
        log = self.descend(terms)
        if distances is not None and is_adversarial:
            log["critic"] = self._update_critic(distances)
        return log | checked

    def _checked(self) -> dict[str, float]:
        """Of held-out records, now and then, the first time before anything has changed."""
        if self.held_out is None or self.steps % CHECK_EVERY:
            return {}
        return distance_left(self.model, self.held_out, self.lpips, self.recipe.frames, self.device)

    def _rendered(self, clip: Clips) -> tuple[Tensor, Tensor]:
        """A piece as shown, and its source; what STEM does to a mirrored clip is the mirror image."""
        n, carry, axes = self.recipe.frames, None, drawn_mirror(self.random)
        x, picture = (v.flip(axes) for v in (clip.x, clip.picture))
        pieces = [slice(i, i + n) for i in range(0, x.shape[1] - n + 1, n)]
        at = int(self.random.integers(len(pieces)))
        if at and self.random.random() < self.recipe.carried / (1 - 1 / len(pieces)):
            before = pieces[at - 1]
            with torch.no_grad():
                carry = self.model(picture[:, before], clip.is_mv[before], clip.quality).carry
        own = pieces[at]
        return self.model(picture[:, own], clip.is_mv[own], clip.quality, carry).picture, x[:, own]

    def _terms(self, shown: Tensor, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        r = self.recipe
        frames = some_frames([shown, x], r.judged, self.random)
        judged = random_window(frames, x.shape[-1] - SHIFTS, self.random)
        values = {
            "l1": r.l1 * (shown - x).abs().mean((1, 2, 3, 4)),
            "alex": r.alex * self.lpips.distance(*judged).view(len(x), -1).mean(1),
            "change": r.change * (shown.diff(dim=1) - x.diff(dim=1)).abs().mean((1, 2, 3, 4)),
        }
        return {name: (weights * value).mean() for name, value in values.items()}

    def _deep_terms(
        self, shown: Tensor, x: Tensor, weights: Tensor, is_adversarial: bool
    ) -> tuple[dict[str, Tensor], Distances]:
        """What VGG16 and the critic on its maps say of windows."""
        r = self.recipe
        frames = some_frames([shown, x], r.judged_deep, self.random)
        distances = self.perceptual(*random_window(frames, r.window, self.random))
        values = {"lpips": r.lpips * distances.lpips, "dists": r.dists * distances.dists}
        terms = {name: (weights * value.view(len(x), -1).mean(1)).mean() for name, value in values.items()}
        if is_adversarial:
            value = generator_loss(self.critic, distances.decoded, distances.real)
            terms["adversarial"] = r.adversarial * value.mean()
        return terms, distances

    def _update_critic(self, distances: Distances) -> float:
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss = critic_loss(self.critic, distances.decoded, distances.real)
        loss.backward()
        self.critic_optimizer.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        critic = {
            "critic": self.critic.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }
        return super().state() | critic

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        super().load_state(state)
        self.critic.load_state_dict(state["critic"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])


@torch.no_grad()
def distance_left(
    model: ClipGenerator, bank: Bank, lpips: Lpips, frames: int, device: torch.device
) -> dict[str, float]:
    """LPIPS-Alex of fixed windows of held-out records, rendered, over that of STEM's pictures.

    "held_out" of all frames that are looked at, "held_out_mv" of MV frames alone: the middle triple's first
    frame, MV, and its backbone, in the last piece of each window.
    """
    was_training = model.training
    model.eval()
    seen = [3 * (frames // 6), 3 * (frames // 6) + 1]
    distances = []
    for draw in bank.batch(CHECKED, np.random.default_rng(0)):
        clip, carry = bank.cut(draw[None], device), None
        for first in range(0, clip.x.shape[1] - frames + 1, frames):
            own = slice(first, first + frames)
            x, picture, is_mv = clip.x[:, own], clip.picture[:, own], clip.is_mv[own]
            with half_precision(device):
                out = model(picture, is_mv, clip.quality, carry)
            carry = out.carry
        pairs = [(v[0, seen], x[0, seen]) for v in (out.picture.clamp(0, 1), picture)]
        distances.append(torch.stack([lpips.distance(*pair) for pair in pairs]))  # (2,2): shown or not, frame
    model.train(was_training)
    shown, decoded = torch.stack(distances).sum(0).tolist()
    return {"held_out": sum(shown) / sum(decoded), "held_out_mv": shown[0] / decoded[0]}
