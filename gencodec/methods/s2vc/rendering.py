"""From coded frames to pictures: the generator with its memory, frame after frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.methods.intra.key_frames import finished
from gencodec.methods.s2vc.generator import PREFIX, Generator, GeneratorConfig, Memory
from gencodec.methods.s2vc.loop import Coded
from gencodec.nn.shares import shown
from gencodec.nn.state import config_from, load_float


class Renderer:
    """The generator of a weights file, whose metadata holds its configuration as JSON.

    Every `reset_period` frames of a GOP its memory is dropped: features begin anew from the coded picture.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], config: str, device: torch.device, reset_period: int
    ) -> None:
        self.device, self.reset_period = device, reset_period
        model = Generator(config_from(GeneratorConfig, config))
        own = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
        load_float(model, own, skip=())
        model = model.eval().requires_grad_(False)
        self.generator = model.to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def render(
        self, coded: Coded, memory: Memory | None, video: VideoInfo, shares: np.ndarray | None = None
    ) -> tuple[Tensor, Memory]:
        """The frame, uint8 (3,H,W) on the CPU, and the memory for the next one.

        `shares` of the repair hold now: what the GOP's packets told last.
        """
        picture, memory = self.generate(coded, memory)
        return finished(shown(coded.frame.picture, picture, shares), video), memory

    @torch.inference_mode()
    def generate(self, coded: Coded, memory: Memory | None) -> tuple[Tensor, Memory]:
        """The picture (1,3,H,W) with all of the repair, padded and not clamped, and the memory."""
        quality = torch.tensor([coded.clock], device=self.device)
        is_fresh = coded.state.age % self.reset_period == 0
        out = self.generator(coded.frame, quality, None if is_fresh else memory)
        return out.picture, out.memory

    @torch.inference_mode()
    def remember(self, coded: Coded, memory: Memory | None) -> Memory:
        """The memory behind a frame that nobody looks at: its features alone."""
        is_fresh = coded.state.age % self.reset_period == 0
        return Memory(self.generator.remember(coded.frame, None if is_fresh else memory), [])


class Rendition:
    """Renders a window's frames, each with the shares that hold then, lazily, each time it is called.

    `after` is the memory behind its last frame, None until it was rendered once: without `on_recon`, or a
    rate control that looks at pictures, an encoder runs the generator for the choice of shares alone.
    """

    def __init__(
        self,
        renderer: Renderer,
        coded: Sequence[tuple[Coded, np.ndarray | None]],
        before: Memory | None,
        video: VideoInfo,
    ) -> None:
        self._renderer, self._coded, self._before, self._video = renderer, coded, before, video
        self.after: Memory | None = None

    def __call__(self) -> Iterator[Tensor]:
        """The frames as a decoder on this machine gives them."""
        memory = self._before
        for coded, shares in self._coded:
            frame, memory = self._renderer.render(coded, memory, self._video, shares)
            yield frame
        self.after = memory
