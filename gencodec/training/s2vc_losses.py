"""What the training of `s2vc`'s generator makes less of, frame by frame; `s2vc_render` says when.

Terms of a frame weigh by its quality, but for the tokens' and the critic's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gencodec.methods.s2vc.generator import GeneratorConfig, Rendered
from gencodec.nn.motion import compensate
from gencodec.training.discriminator import ProjectedCritic, generator_loss
from gencodec.training.patches import SHIFTS, random_window
from gencodec.training.perceptual import Distances, PerceptualLoss
from gencodec.training.qualities import loss_weights
from gencodec.training.s2vc_teacher import TokenTeacher

if TYPE_CHECKING:
    from gencodec.training.s2vc_render import RenderRecipe

TOKEN_STRIDE = 64  # pixels a token stands for


class RenderLosses:
    """The networks that judge, and the terms they give. Windows are drawn from `random`."""

    def __init__(
        self,
        recipe: RenderRecipe,
        config: GeneratorConfig,
        vgg: str | None,
        device: torch.device,
        random: np.random.Generator,
    ) -> None:
        self.recipe, self.random = recipe, random
        self.has_tokens = config.unet and config.semantics in ("paired", "single")
        self.perceptual = PerceptualLoss(vgg).to(device).eval().requires_grad_(False)
        self.teacher = TokenTeacher(config.tokens, device)
        self.critic = ProjectedCritic(self.perceptual.channels).to(device)

    def of_frame(self, rendered: Rendered, x: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """L1, LPIPS-Alex, and what tokens know, of frames rendered at `quality` (B,) and x (B,3,H,W)."""
        r, weights = self.recipe, loss_weights(quality, self.recipe.fine)
        terms = {"l1": r.l1 * (weights * (rendered.picture - x).abs().mean((1, 2, 3))).mean()}
        whole = random_window([rendered.picture, x], x.shape[-1] - SHIFTS, self.random)
        terms["alex"] = r.alex * (weights * self.teacher.lpips.distance(*whole)).mean()
        if self.has_tokens and r.semantic:
            terms["semantic"] = r.semantic * self.teacher.distance(rendered.tokens, x, TOKEN_STRIDE)
        return terms

    def of_change(self, pictures: list[Tensor], x: list[Tensor], flow: Tensor, quality: Tensor) -> Tensor:
        """How much more than in the source changes along the decoded motion, from the first of two to the
        second.
        """
        moved, wanted = (two[1] - compensate(two[0], flow) for two in (pictures, x))
        weights = loss_weights(quality, self.recipe.fine)
        missed = (weights * (moved - wanted).abs().mean((1, 2, 3))).mean()
        return self.recipe.steady / self.recipe.steadied * missed

    def of_window(
        self, rendered: Rendered, x: Tensor, quality: Tensor, is_adversarial: bool
    ) -> tuple[dict[str, Tensor], Distances]:
        """What VGG16 and the critic on its maps say of a window."""
        r, weights = self.recipe, loss_weights(quality, self.recipe.fine)
        distances = self.perceptual(*random_window([rendered.picture, x], r.window, self.random))
        values = {"lpips": r.lpips * distances.lpips, "dists": r.dists * distances.dists}
        terms = {name: (weights * value).mean() for name, value in values.items()}
        if is_adversarial:
            value = generator_loss(self.critic, distances.decoded, distances.real)
            terms["adversarial"] = r.adversarial * value.mean()
        return terms, distances
