"""The generative half of `diffsit`: a whole clip of decoded frames is repaired in one step.

    x~ + frame type ─► encoder ─► x_s ─► transformer ─► x0 = x_s - sigma v(x_s, 1000 sigma)
    x0 ─► decoder, which also sees x~ ─► x strength[quality, frame type] ─► + x~ ─► x^

Outside the coding loop, in any precision. The decoded clip's own latents take the place of noisy ones, so no
noise is drawn but the decoder's fixed grain. What the autoencoder itself loses never reaches the picture:
the last layer gives nothing until it is trained, and then only what should be added.
Paper: Diff-SIT (arXiv 2603.18501). There the decoder is frozen and shows D(x0); here `decoder="frozen"` shows
x~ + D(x0) - D(x_s), since a tiny decoder would soften every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from gencodec.methods.diffsit.autoencoder import ALL, GROUP, PAST, Decoder, Encoder, PictureHead, on_maps
from gencodec.methods.diffsit.dit import ClipTransformer, Keys
from gencodec.nn.layers import ResidualBlock, conv3x3, init_unit
from gencodec.nn.quality import QualityTable

PREFIX = "generator."  # of its tensors in the weights file
TYPES, TYPE_CHANNELS = 2, 16  # backbone and MV frames
FIRST_STRENGTH = -2.0  # log2; at 0 the first steps of training paint far too much
PLAIN_BLOCKS = 10  # that have as many parameters as the transformer


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Sizes of the tiny preset, and the switches of ablations."""

    width: int = 160  # channels at an eighth, of a frame
    wide: int = 192  # of a latent
    latents: int = 32
    detail: int = 64  # channels at a quarter
    detail_blocks: int = 2
    channels: int = 256  # of the transformer
    blocks: int = 8
    heads: int = 4
    hidden: int = 1024
    sigma: float = 0.35  # how noisy x_s is taken for
    fte: bool = True  # frame type embedding
    fte_at: Literal["pixel", "latent"] = "pixel"
    dit: bool = True  # False: plain convolutions of equal size
    decoder: Literal["sees", "frozen"] = "sees"


class Carry(NamedTuple):
    """What the next piece of a GOP may look at: all causal, (B,...) of the last frames and latents."""

    features: Tensor  # (B,PAST,h,w,width), of the encoder
    keys: list[Keys]  # of each block of the transformer
    group: Tensor  # (B,h,w,wide), of the decoder
    frame: Tensor  # (B,h,w,width), of the decoder

    def detached(self) -> Carry:
        """The same without gradients."""
        keys = [(k.detach(), v.detach()) for k, v in self.keys]
        return Carry(self.features.detach(), keys, self.group.detach(), self.frame.detach())


class ClipRendered(NamedTuple):
    """The pictures (B,T,3,H,W), not clamped, and what the next piece needs."""

    picture: Tensor
    carry: Carry


class ClipGenerator(nn.Module):
    """Decoded clips to what is shown."""

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or GeneratorConfig()
        self.encoder = Encoder(c.width, c.wide, c.latents)
        self.decoder = Decoder(c.width, c.wide, c.latents)
        self.head = PictureHead(c.width, c.detail, c.detail_blocks)
        self.log2_strength = QualityTable(TYPES, FIRST_STRENGTH)
        if not c.dit:
            self.plain = _plain(c)
        init_unit(self)
        if c.dit:
            self.dit = ClipTransformer(c.latents, c.channels, c.blocks, c.heads, c.hidden)
        else:
            _zero(cast("nn.Conv2d", self.plain[-1]))
        if c.fte:
            self.types = nn.Embedding(TYPES, TYPE_CHANNELS)
            at_pixel = c.fte_at == "pixel"
            self.types_out = nn.Linear(
                TYPE_CHANNELS * (1 if at_pixel else GROUP), 3 if at_pixel else c.latents
            )
            _zero(self.types_out)
        if c.decoder == "frozen":
            del self.decoder.skip, self.head.see  # it knows latents alone
        self.begin()

    def begin(self) -> None:
        """Show the decoded pictures until more is learned; to be called before the joint stage."""
        if self.config.decoder == "sees":
            _zero(self.head.last)

    def forward(
        self,
        clip: Tensor,
        is_mv: Tensor,
        quality: Tensor,
        before: Carry | None = None,
        only: Sequence[int] | None = None,
    ) -> ClipRendered:
        """Decoded frames (B,T,3,H,W) in [0,1], T 1 more than a multiple of 4, H and W multiples of 16.

        is_mv (T,) bool; quality (B,) int64; `before` is the carry of the piece before, None at a new GOP;
        `only` the frames to show, by number, in less time than all of them.
        """
        features = self.encoder.frames(self._typed(clip, is_mv))
        x_s = self.encoder(features, before.features if before else None)
        if self.config.fte and self.config.fte_at == "latent":
            x_s = x_s + self._latent_types(is_mv)
        x0, keys = self.denoised(x_s, quality, before.keys if before else None)
        chosen = ALL if only is None else list(only)
        repair, group, frame = self._repair(x0, x_s, features, clip[:, chosen], before, chosen)
        types = is_mv[chosen].long()
        strength = torch.exp2(self.log2_strength(quality))[:, types, None, None, None]  # (B,T,1,1,1)
        carry = Carry(features[:, -PAST:], keys, group, frame)
        return ClipRendered(clip[:, chosen] + strength * repair, carry)

    def denoised(
        self, x_s: Tensor, quality: Tensor, before: Sequence[Keys] | None = None
    ) -> tuple[Tensor, list[Keys]]:
        """The one step, x_s (B,K,h,w,latents) -> x0 in the same shape, and keys for the next piece."""
        if not self.config.dit:
            return x_s + on_maps(self.plain, x_s).float(), []
        sigma = self.config.sigma
        time = torch.full((len(x_s),), 1000 * sigma, device=x_s.device)
        v, keys = self.dit(x_s, time, quality, list(before) if before else None)
        return x_s - sigma * v, keys

    def encoded(self, clip: Tensor) -> Tensor:
        """Clean clips (B,T,3,H,W) to latents (B,K,h,w,latents), near 0 ± 1."""
        return self.encoder(self.encoder.frames(clip))

    def decoded(self, latents: Tensor) -> Tensor:
        """Latents to pictures (B,T,3,H,W), not clamped, by the autoencoder alone; not after `begin`."""
        split, _ = self.decoder.groups(latents, None)
        return 0.5 + self.head(self.decoder.frames(split, None, None)[0], None)

    def _repair(
        self,
        x0: Tensor,
        x_s: Tensor,
        features: Tensor,
        shown: Tensor,
        before: Carry | None,
        chosen: list[int] | slice,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is added to `shown`, the `chosen` frames of the clip, and the decoder's part of the carry."""
        group, frame = (before.group, before.frame) if before else (None, None)
        if self.config.decoder == "sees":
            split, group = self.decoder.groups(x0, group)
            maps, frame = self.decoder.frames(split, features, frame, chosen)
            return self.head(maps, shown), group, frame
        split, group = self.decoder.groups(torch.cat([x0, x_s]), group)
        maps, frame = self.decoder.frames(split, None, frame, chosen)
        better, worse = self.head(maps, None).chunk(2)
        return better - worse, group, frame

    def _typed(self, clip: Tensor, is_mv: Tensor) -> Tensor:
        if not self.config.fte or self.config.fte_at == "latent":
            return clip
        return clip + self.types_out(self.types(is_mv.long()))[:, :, None, None].to(clip.dtype)  # (T,3,1,1)

    def _latent_types(self, is_mv: Tensor) -> Tensor:
        """What the types of each latent's frames add to it: (K,1,1,latents)."""
        past = is_mv[:1].expand(PAST)
        types = self.types(torch.cat([past, is_mv]).long()).unflatten(0, (-1, GROUP)).flatten(1)
        return self.types_out(types)[:, None, None].float()


def _plain(c: GeneratorConfig) -> nn.Sequential:
    blocks = (ResidualBlock(c.wide) for _ in range(PLAIN_BLOCKS))
    return nn.Sequential(conv3x3(c.latents, c.wide), *blocks, conv3x3(c.wide, c.latents))


def _zero(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
