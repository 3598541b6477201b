"""One frame to a payload and back: what `intra` does with every frame, and the other methods with key frames.

    frame ─► x (padded) ─► Analysis ─► y ─► LatentCoder ─► payload
    payload ─► LatentCoder ─► y_hat ─┬─► linear path ─► picture, and with the repair of Synthesis: another
                                     └─► the other methods' coding loops

Follows Minnen et al. 2018 (arXiv 1809.02736), He et al. 2022 (ELIC, 2203.10886) and, for training a
synthesis to please the eye, Mentzer et al. 2020 (HiFiC, 2006.09965). Written from the papers; MIT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import Tune, VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.latents import CodedLatents, LatentCoder
from gencodec.methods.intra.model import NOT_FLOAT, IntraModel
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.intra.perceptual import PerceptualQuantiser, Wish
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import log_spaced
from gencodec.nn.shares import shown
from gencodec.nn.state import load_float

KEY_PRICE = (8.0, 0.16)  # LPIPS that a bit a pixel is worth, at quality 0 and 63

QualityPicture = Callable[[Tensor, Tensor], Tensor]  # y_hat (1,C,h,w), quality (1,) -> (1,3,H,W)


class KeyFrameCoder:
    """One frame to a payload and back; what the other methods use for their key frames too."""

    def __init__(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], device: torch.device | str
    ) -> None:
        self.device = torch.device(device)
        model = IntraModel()
        self.latents = LatentCoder.load(model.latents, tensors)
        load_float(model, tensors, skip=NOT_FLOAT)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.tune: Tune = "psnr"
        self.latents.self_test(self.device, metadata.get("fingerprint", ""))

    @torch.inference_mode(mode=False)  # symbols may be chosen by gradient
    @torch.no_grad()
    def encode(
        self, encoder: SymbolEncoder, frame: Tensor, quality: int, picture_of: QualityPicture | None = None
    ) -> CodedLatents:
        """Put one frame, uint8 (3,H,W), into `encoder`.

        With `picture_of`, the picture that coding loops make of y_hat at a quality, symbols are chosen by
        `tune`; without, as `intra` itself has it, they are rounded.
        """
        x = pad_to_multiple(frame.to(self.device)[None].float() / 255, STRIDE)
        q = torch.tensor([quality], device=self.device)
        y = self.model.transforms.to_latents(x, q)
        if picture_of is not None and self.tune == "lpips":
            price = float(log_spaced(q, *KEY_PRICE))
            y = self.quantiser(Wish(y, x, lambda y_hat: picture_of(y_hat, q), price), quality)
        return self.latents.encode(encoder, y, quality)

    @cached_property
    def quantiser(self) -> PerceptualQuantiser:
        """For encoders that are tuned for LPIPS."""
        return PerceptualQuantiser(self.latents, LpipsLoss(Lpips.load(self.device)))

    @property
    def judge(self) -> LpipsLoss | None:
        """What encoders choose by: None for the squared error."""
        return self.quantiser.lpips if self.tune == "lpips" else None

    def decode(self, decoder: SymbolDecoder, video: VideoInfo, quality: int) -> CodedLatents:
        """Read the latents of one frame of `video`'s size. Raises CorruptStream."""
        size = (-(-video.height // STRIDE), -(-video.width // STRIDE))
        return self.latents.decode(decoder, size, quality, self.device)

    @torch.inference_mode()
    def pictures(self, y_hat: Tensor, quality: int) -> tuple[Tensor, Tensor]:
        """What y_hat (1,C,h,w) stands for, padded: by the linear path alone, and repaired; (1,3,H,W) both.

        The first is in [0,1], the second not clamped.
        """
        q = torch.tensor([quality], device=self.device)
        transforms = self.model.transforms
        return transforms.to_linear_picture(y_hat, q)[0].clamp(0, 1), transforms.to_picture(y_hat, q)

    def render(
        self, y_hat: Tensor, video: VideoInfo, quality: int, shares: np.ndarray | None = None
    ) -> Tensor:
        """The frame, uint8 (3,H,W) on the CPU, with `shares` of its repair; None: all of it."""
        return finished(shown(*self.pictures(y_hat, quality), shares), video)


def finished(picture: Tensor, video: VideoInfo) -> Tensor:
    """A padded picture (1,3,H,W), in [0,1] once clamped, as a frame: uint8 (3,H,W) on the CPU."""
    pixels = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels[:, : video.height, : video.width].contiguous().cpu()
