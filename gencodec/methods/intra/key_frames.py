"""One frame to a payload and back: what `intra` does with every frame, and the other methods with key frames.

    frame ─► x (padded) ─► Analysis ─► y ─► LatentCoder ─► payload ◄─ how strongly edges are smoothed
    payload ─► LatentCoder ─► y_hat ─┬─► linear path, edges smooth ─► picture, and with the repair of
                                     │                                Synthesis: another
                                     └─► the other methods' coding loops

Follows Minnen et al. 2018 (arXiv 1809.02736), He et al. 2022 (ELIC, 2203.10886) and, for training a
synthesis to please the eye, Mentzer et al. 2020 (HiFiC, 2006.09965). Written from the papers; MIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import Tune, VideoInfo
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.edges import get_edges, put_edges
from gencodec.entropy.latents import LatentCoder
from gencodec.methods.intra.edge_choice import choose_edges
from gencodec.methods.intra.model import NOT_FLOAT, IntraModel
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.intra.perceptual import PerceptualQuantiser, Wish
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.deblock import no_edges, of_blocks
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import log_spaced
from gencodec.nn.shares import grid_of, shown
from gencodec.nn.state import load_float

KEY_PRICE = (8.0, 0.16)  # LPIPS that a bit a pixel is worth, at quality 0 and 63
EDGE_PRICE = (128.0, 0.16)  # the same for strengths of edges: what a generator repairs need not be smooth


class CodedKey(NamedTuple):
    """A key frame as both sides have it: y_hat (1,C,h,w) float32, how strongly edges are smoothed, int32
    (rows,columns), see `nn.deblock`, and all int32 symbols.
    """

    y_hat: Tensor
    edges: np.ndarray
    symbols: list[np.ndarray]


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
        self.smooths = True  # whether encoders may smooth edges, the other methods' too
        self.latents.self_test(self.device, metadata.get("fingerprint", ""))

    @torch.inference_mode(mode=False)  # symbols may be chosen by gradient
    @torch.no_grad()
    def encode(
        self, encoder: SymbolEncoder, frame: Tensor, quality: int, *, is_rounded: bool = False
    ) -> CodedKey:
        """Put one frame, uint8 (3,H,W), into `encoder`.

        Symbols are chosen by `tune`, for the linear path's picture; or rounded, as `intra` itself has it.
        """
        x = pad_to_multiple(frame.to(self.device)[None].float() / 255, STRIDE)
        q = torch.tensor([quality], device=self.device)
        y = self.model.transforms.to_latents(x, q)
        price = float(log_spaced(q, *KEY_PRICE))
        edges = self._edges(y.round(), x, quality, float(log_spaced(q, *EDGE_PRICE)))
        if self.tune == "lpips" and not is_rounded:
            y = self.quantiser(
                Wish(y, x, lambda y_hat: self.picture(y_hat, quality, edges)[0], price), quality
            )
        coded = self.latents.encode(encoder, y, quality)
        put_edges(encoder, edges, None)
        return CodedKey(coded.y_hat, edges, [*coded.symbols, edges])

    def _edges(self, y_hat: Tensor, x: Tensor, quality: int, price: float) -> np.ndarray:
        """How strongly edges are best smoothed: as it is with symbols by rounding."""
        if not self.smooths:
            return no_edges(*x.shape[-2:])
        picture = self.picture(y_hat, quality, no_edges(*x.shape[-2:]))[0]
        step = float(self.model.transforms.mean_step(torch.tensor([quality], device=self.device)))
        return choose_edges(picture, x, step, self.judge, price)

    @cached_property
    def quantiser(self) -> PerceptualQuantiser:
        """For encoders that are tuned for LPIPS."""
        return PerceptualQuantiser(self.latents, LpipsLoss(Lpips.load(self.device)))

    @property
    def judge(self) -> LpipsLoss | None:
        """What encoders choose by: None for the squared error."""
        return self.quantiser.lpips if self.tune == "lpips" else None

    def decode(self, decoder: SymbolDecoder, video: VideoInfo, quality: int) -> CodedKey:
        """Read one frame of `video`'s size. Raises CorruptStream."""
        size = (-(-video.height // STRIDE), -(-video.width // STRIDE))
        coded = self.latents.decode(decoder, size, quality, self.device)
        edges = get_edges(decoder, grid_of(*(STRIDE * n for n in size)), None)
        return CodedKey(coded.y_hat, edges, [*coded.symbols, edges])

    def picture(self, y_hat: Tensor, quality: int, edges: np.ndarray) -> tuple[Tensor, Tensor]:
        """What y_hat (1,C,h,w) stands for by the linear path alone, padded, (1,3,H,W), not clamped; and y_hat
        without its gains.
        """
        q = torch.tensor([quality], device=self.device)
        return self.model.transforms.to_linear_picture(y_hat, q, self._blocks(y_hat, edges))

    @torch.inference_mode()
    def pictures(self, coded: CodedKey, quality: int) -> tuple[Tensor, Tensor]:
        """What a frame looks like, padded: by the linear path alone, and repaired; (1,3,H,W) both.

        The first is in [0,1], the second not clamped.
        """
        picture, scaled = self.picture(coded.y_hat, quality, coded.edges)
        q = torch.tensor([quality], device=self.device)
        return picture.clamp(0, 1), self.model.transforms.synthesis(scaled, q, picture)

    def render(
        self, coded: CodedKey, video: VideoInfo, quality: int, shares: np.ndarray | None = None
    ) -> Tensor:
        """The frame, uint8 (3,H,W) on the CPU, with `shares` of its repair; None: all of it."""
        return finished(shown(*self.pictures(coded, quality), shares), video)

    def _blocks(self, y_hat: Tensor, edges: np.ndarray) -> Tensor | None:
        return of_blocks(edges, *y_hat.shape[-2:]).to(self.device) if edges.any() else None


def finished(picture: Tensor, video: VideoInfo) -> Tensor:
    """A padded picture (1,3,H,W), in [0,1] once clamped, as a frame: uint8 (3,H,W) on the CPU."""
    pixels = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels[:, : video.height, : video.width].contiguous().cpu()
