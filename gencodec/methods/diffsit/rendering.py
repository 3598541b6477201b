"""From pieces to pictures: the generator with what it carries from one to the next, piece after piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.methods.diffsit.pieces import Piece
from gencodec.nn.shares import shown
from gencodec.nn.state import config_from, load_float

SHORTEST = 9  # frames that are rendered together at least: the clips of training
FOURS = 4  # frames that the autoencoder takes at once, behind the first


class Rendered(Protocol):
    """What a generator gives: picture (B,T,3,H,W) and what the next piece of the GOP needs."""

    picture: Tensor
    carry: Any


class Generator(Protocol):
    """Repairs a clip (B,T,3,H,W) in [0,1], T one more than a multiple of four, sides multiples of 16.

    is_mv (T,) bool; quality (B,) int64; `before` is the carry of the piece before, None at a GOP's start;
    `only` the frames to show, by number, None for all.
    """

    def __call__(
        self, clip: Tensor, is_mv: Tensor, quality: Tensor, before: Any, only: Sequence[int] | None = None
    ) -> Rendered:
        """The clip as it is shown."""
        ...


class Renderer:
    """Shows pieces of up to `clip_length` frames; without a generator as STEM has them."""

    def __init__(self, generator: Generator | None, clip_length: int, device: torch.device) -> None:
        self.generator, self.clip_length, self.device = generator, clip_length, device

    @torch.inference_mode()
    def render(
        self, piece: Piece, quality: int, before: Any, video: VideoInfo, shares: np.ndarray | None = None
    ) -> tuple[list[Tensor], Any]:
        """The frames, uint8 (3,H,W) on the CPU, and the carry for the next piece.

        `shares` of the repair hold now: what the GOP's packets told last.
        """
        clip, carry = self.generate(piece, quality, before)
        clip = shown(piece.pictures, clip, shares)
        pixels = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
        return list(pixels[..., : video.height, : video.width].contiguous().cpu()), carry

    @torch.inference_mode()
    def generate(
        self, piece: Piece, quality: int, before: Any, only: Sequence[int] | None = None
    ) -> tuple[Tensor, Any]:
        """The pictures (T,3,H,W) with all of the repair, padded and not clamped, and the carry.

        `only`: of these frames alone, by number in the piece.
        """
        clip, asked = piece.pictures, range(len(piece.pictures)) if only is None else only
        if self.generator is None:
            return clip[list(asked)], None
        missing = rendered_length(len(clip), self.clip_length) - len(clip)
        whole = torch.cat([clip, clip[-1:].expand(missing, -1, -1, -1)])
        is_mv = torch.tensor(piece.is_mv + piece.is_mv[-1:] * missing, device=self.device)
        at = torch.tensor([quality], device=self.device)
        out = self.generator(whole[None], is_mv, at, before, asked)
        return out.picture[0], out.carry


class Rendition:
    """Renders pieces, each at the quality of its packet and with the shares that hold then, lazily, each time
    it is called.

    `after` is the carry behind the last one, None until it was rendered once: without `on_recon`, or a rate
    control that looks at pictures, an encoder runs the generator for the choice of shares alone.
    """

    def __init__(
        self,
        renderer: Renderer,
        pieces: Sequence[tuple[Piece, int, np.ndarray | None]],
        before: Any,
        video: VideoInfo,
    ) -> None:
        self._renderer, self._pieces, self._before, self._video = renderer, pieces, before, video
        self.after: Any = None

    def __call__(self) -> Iterator[Tensor]:
        """The frames as a decoder on this machine gives them."""
        carry = self._before
        for piece, quality, shares in self._pieces:
            frames, carry = self._renderer.render(piece, quality, carry, self._video, shares)
            yield from frames
        self.after = carry


def rendered_length(count: int, clip_length: int) -> int:
    """How many frames are rendered for a piece of `count`: the last one is repeated so often."""
    fours = 1 + -(-(count - 1) // FOURS) * FOURS
    return min(max(fours, SHORTEST), clip_length)


def load_generator(tensors: Mapping[str, Tensor], config: str, device: torch.device) -> Generator:
    """The generator of a weights file, whose metadata holds its configuration as JSON."""
    from gencodec.methods.diffsit.generator import PREFIX, ClipGenerator, GeneratorConfig

    model = ClipGenerator(config_from(GeneratorConfig, config))
    own = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
    load_float(model, own, skip=())
    return model.eval().requires_grad_(False).to(device)
