"""`intra`: every frame a key frame, by the shared image codec. All that goes on the wire is here.

    frame ─► x (padded) ─► Analysis ─► y ─► LatentCoder ─► payload
    payload ─► LatentCoder ─► y_hat ─► Synthesis ─► x_hat (cropped)

A packet holds one frame; its payload is the entropy coder's bytes: y in the stages of `stages`.
Follows Minnen et al. 2018 (arXiv 1809.02736), He et al. 2022 (ELIC, 2203.10886) and, for training a
synthesis to please the eye, Mentzer et al. 2020 (HiFiC, 2006.09965). Written from the papers; MIT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import (
    Codec,
    CorruptStream,
    EncodedGop,
    FrameType,
    Packet,
    RateControl,
    Tune,
    VideoInfo,
    Weights,
)
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.latents import CodedLatents, LatentCoder
from gencodec.methods.intra.model import NOT_FLOAT, IntraModel
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.intra.perceptual import PerceptualQuantiser, Wish
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.lpips_loss import LpipsLoss
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.quality import log_spaced
from gencodec.nn.state import load_float

if TYPE_CHECKING:
    from typing_extensions import Self


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
    def render(self, y_hat: Tensor, video: VideoInfo, quality: int) -> Tensor:
        """The frame, uint8 (3,H,W) on the CPU, that y_hat (1,C,h,w) stands for."""
        x_hat = self.model.transforms.to_picture(y_hat, torch.tensor([quality], device=self.device))
        pixels = (x_hat[0].clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels[:, : video.height, : video.width].contiguous().cpu()


class Intra(Codec):
    """The key-frame codec as a method: the baseline that every other one must beat."""

    name: ClassVar[str] = "intra"
    codec_id: ClassVar[int] = 1
    version: ClassVar[int] = 4
    qualities: ClassVar[range] = range(64)
    weight_sets: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {"tiny": (("intra-tiny-5",),)}
    paper: ClassVar[str] = "Grouped context model, He et al. 2022 (ELIC), https://arxiv.org/abs/2203.10886"

    def __init__(self, coder: KeyFrameCoder, preset: str, weights_id: int) -> None:
        self.coder, self.preset, self.weights_id, self.settings = coder, preset, weights_id, b""

    @classmethod
    def load(cls, weights: Weights, settings: bytes, *, device: torch.device | str) -> Self:
        """See `Codec.load`; `intra` has no settings."""
        if settings:
            raise CorruptStream(f"intra has no settings, the header holds {len(settings)} bytes of them")
        role = "intra"
        return cls(
            KeyFrameCoder(weights.files[role], weights.metadata[role], device), weights.preset, weights.id
        )

    def encode(
        self,
        frames: Iterable[Tensor],
        video: VideoInfo,
        rate: RateControl,
        *,
        seed: int = 0,
        on_recon: Callable[[Tensor], None] | None = None,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Packet]:
        """See `Codec.encode`: one INTRA packet a frame."""
        for number, frame in enumerate(frames):
            gop = rate.select(partial(self._encode_frame, frame, number, video))
            for symbols in gop.symbols:
                if on_symbols:
                    on_symbols(symbols)
            if on_recon:
                for recon in gop.recon():
                    on_recon(recon)
            yield from gop.packets

    def decode(
        self,
        packets: Iterable[Packet],
        video: VideoInfo,
        *,
        seed: int = 0,
        on_symbols: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Tensor]:
        """See `Codec.decode`."""
        for packet in packets:
            if packet.type != FrameType.INTRA or packet.num_frames != 1:
                raise CorruptStream(
                    f"intra has packets of one INTRA frame, got {packet.type!r}, {packet.num_frames}"
                )
            decoder = SymbolDecoder(packet.payload)
            coded = self.coder.decode(decoder, video, packet.quality)
            decoder.finish()
            for symbols in coded.symbols:
                if on_symbols:
                    on_symbols(symbols)
            yield self.coder.render(coded.y_hat, video, packet.quality)

    def _encode_frame(self, frame: Tensor, number: int, video: VideoInfo, quality: int) -> EncodedGop:
        encoder = SymbolEncoder()
        coded = self.coder.encode(encoder, frame, quality)
        packet = Packet(FrameType.INTRA, quality, number, 1, encoder.finish())
        return EncodedGop(
            [packet], coded.symbols, [frame], lambda: iter([self.coder.render(coded.y_hat, video, quality)])
        )
