"""Everything of `intra` that is trained: transforms and latent model, and the chain of exact layers to
equalise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from gencodec.entropy.model import LatentEstimate, LatentModel
from gencodec.entropy.staged import StagedPrior
from gencodec.methods.intra.networks import Config, Transforms
from gencodec.methods.intra.stages import groups_of, stages
from gencodec.nn.state import load_float

NOT_FLOAT = ("latents.prior.",)  # kept as integers


class IntraOutput(NamedTuple):
    """x_hat (B,3,H,W), not clamped, and the estimate of the latents' bits."""

    x_hat: Tensor
    latents: LatentEstimate


class IntraModel(nn.Module):
    """x -> x_hat with estimated bits: the training graph."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or Config()
        self.transforms = Transforms(self.config)
        groups = groups_of(self.config.y_channels)
        self.latents = LatentModel(StagedPrior(groups, self.config.prior_widths, stages()))

    @classmethod
    def frozen(cls, tensors: Mapping[str, Tensor]) -> IntraModel:
        """The shipped model without its tables, for training others on what it gives.

        Raises ValueError for tensors of another layout.
        """
        model = cls()
        model.latents.prior.load(tensors, "latents.prior.")
        load_float(model, tensors, skip=NOT_FLOAT)
        return model.eval().requires_grad_(False)

    def forward(self, x: Tensor, quality: Tensor) -> IntraOutput:
        """x (B,3,H,W) in [0,1], sides multiples of 16; quality (B,) int64 in 0..63."""
        estimate = self.latents(self.transforms.to_latents(x, quality).float(), quality)
        return IntraOutput(self.transforms.to_picture(estimate.y_hat, quality), estimate)
