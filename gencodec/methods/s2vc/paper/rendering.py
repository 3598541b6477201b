"""From coded frames of the paper preset to pictures: the two heads in float32, then the generator."""

from __future__ import annotations

import torch
from torch import Tensor

from gencodec.codec import VideoInfo
from gencodec.methods.s2vc.paper.generator import PaperGenerator
from gencodec.methods.s2vc.paper.loop import PaperFrame
from gencodec.methods.s2vc.paper.pcodec import PCodec


class PaperRenderer:
    """Renders frame after frame; the caller keeps the diffusion buffer."""

    def __init__(
        self, model: PCodec, generator: PaperGenerator, device: torch.device, reset_period: int
    ) -> None:
        self.model, self.device, self.reset_period = model, device, reset_period
        self.generator = generator.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def render(
        self, coded: PaperFrame, levels: list[Tensor] | None, video: VideoInfo, shares: None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The frame, uint8 (3,H,W) on the CPU, and the diffusion buffer for the next one."""
        view = self.model.view(coded.state.features, coded.before)
        is_key = coded.before is None
        out = self.generator(view, "iframe" if is_key else "pframe", None if is_key else levels)
        pixels = (out.picture[0].clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels[:, : video.height, : video.width].contiguous().cpu(), out.levels
