"""A whole clip repaired in one step of Wan2.1; behind the coding loop, in any precision.

    x~ + frame type ─► encoder ─► x_s ─► transformer ─► x0 = x_s - sigma v(x_s, 1000 sigma) ─► decoder ─► x^

x_s and x0 are normalised by the published means and deviations of each channel; no noise is drawn. Encoder,
embedding and transformer are trained, the decoder is Wan's own.
From one piece of a GOP to the next goes what STEM made of its last frames: they are seen again and not shown
again, so that the encoder has a past and the transformer a neighbour. Paper: Diff-SIT (arXiv 2603.18501).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gencodec.methods.diffsit.paper.config import PaperConfig
from gencodec.methods.diffsit.paper.frame_types import FrameTypes

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]  # of the LoRA
FLOAT = ("time_embedder", "scale_shift_table", "norm2")  # of the transformer, in float32 whatever the rest is


class BaseModels(NamedTuple):
    """What others have trained, and the embedding (L,D) of the empty prompt."""

    vae: Any  # diffusers' AutoencoderKLWan
    transformer: Any  # its WanTransformer3DModel
    prompt: Tensor


class Carry(NamedTuple):
    """The last decoded frames (B,N,3,H,W) of a piece, in [0,1], and their types (N,)."""

    clip: Tensor
    is_mv: Tensor


class PaperRendered(NamedTuple):
    """The pictures (B,T,3,H,W), not clamped, and what the next piece of the GOP sees."""

    picture: Tensor
    carry: Carry | None


class PaperGenerator(nn.Module):
    """Decoded clips to what is shown; `rendering.Generator` says how it is called."""

    mean: Tensor
    deviation: Tensor
    prompt: Tensor

    def __init__(self, base: BaseModels, config: PaperConfig) -> None:
        super().__init__()
        self.config = config
        self.vae: Any = base.vae
        self.dit: Any = with_lora(base.transformer, config) if config.dit == "lora" else base.transformer
        if config.fte:
            self.types = FrameTypes(config.fte_at, base.vae.config["z_dim"])
        for name, field in {"mean": "latents_mean", "deviation": "latents_std"}.items():
            values = torch.tensor(base.vae.config[field]).view(1, -1, 1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("prompt", base.prompt[None], persistent=False)

    def forward(
        self,
        clip: Tensor,
        is_mv: Tensor,
        quality: Tensor,
        before: Carry | None = None,
        only: Sequence[int] | None = None,
    ) -> PaperRendered:
        """Decoded frames (B,T,3,H,W) in [0,1], T 1 more than a multiple of 4, H and W multiples of 16.

        is_mv (T,) bool; `before` is the carry of the piece before, None at a GOP's start; `only` the frames
        to show, by number, which saves nothing here. `quality` (B,) is not looked at: one noise level serves
        all.
        """
        known = 0
        if before is not None:
            known = before.clip.shape[1]
            clip, is_mv = torch.cat([before.clip, clip], 1), torch.cat([before.is_mv, is_mv])
        picture = self.decoded(self.denoised(self.encoded(clip, is_mv)))
        last = slice(clip.shape[1] - self.config.context, None)
        carry = Carry(clip[:, last], is_mv[last]) if self.config.context else None
        shown = picture[:, known:]
        return PaperRendered(shown if only is None else shown[:, list(only)], carry)

    def encoded(self, clip: Tensor, is_mv: Tensor | None = None) -> Tensor:
        """Frames (B,T,3,H,W) in [0,1] to x_s (B,16,1+(T-1)/4,H/8,W/8); without types if `is_mv` is None."""
        types = self.types if self.config.fte and is_mv is not None else None
        if types is not None and is_mv is not None and types.at == "pixel":
            clip = clip + types(is_mv)[:, :, None, None]
        x = (2 * clip - 1).transpose(1, 2).to(self.vae.quant_conv.weight.dtype)  # (B,3,T,H,W)
        x_s = (self.vae.encode(x).latent_dist.mode().float() - self.mean) / self.deviation
        if types is not None and is_mv is not None and types.at == "latent":
            x_s = x_s + types(is_mv).T[:, :, None, None]
        return cast("Tensor", x_s)

    def denoised(self, x_s: Tensor) -> Tensor:
        """The one step, (B,16,K,h,w) -> x0 in the same shape, float32."""
        sigma, dtype = self.config.sigma, self.dit.patch_embedding.weight.dtype
        time = torch.full((len(x_s),), 1000 * sigma, device=x_s.device)
        prompt = self.prompt.to(dtype).expand(len(x_s), -1, -1)
        v = self.dit(x_s.to(dtype), time, prompt, return_dict=False)[0]
        return x_s - sigma * cast("Tensor", v.float())

    def decoded(self, x0: Tensor) -> Tensor:
        """x0 (B,16,K,h,w) to pictures (B,1+4(K-1),3,8h,8w) in [0,1], float32."""
        latents = (x0 * self.deviation + self.mean).to(self.vae.post_quant_conv.weight.dtype)
        return cast("Tensor", self.vae.decode(latents).sample.float()).transpose(1, 2) / 2 + 0.5

    def for_rendering(self) -> PaperGenerator:
        """Ready for a decoder: adapters become part of the weights, precision and tiles are as configured."""
        if self.config.dit == "lora":
            self.dit.fuse_lora()
            self.dit.unload_lora()
        self.eval().requires_grad_(False)
        for name, parameter in self.dit.named_parameters():
            if not set(FLOAT) & set(name.split(".")):
                parameter.data = parameter.data.to(getattr(torch, self.config.precision))
        if side := self.config.tile:
            self.vae.enable_tiling(side, side, 3 * side // 4, 3 * side // 4)
        return self


def with_lora(transformer: Any, config: PaperConfig) -> Any:
    """Adapters for attention and feed-forward layers of a pre-trained transformer; they begin as nothing."""
    from peft import LoraConfig

    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=TARGETS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        transformer.add_adapter(lora)
    return transformer


def own_names(generator: PaperGenerator) -> list[str]:
    """Names of the tensors that are this project's; the rest are the base models'."""
    c = generator.config
    ours = ["types."]
    ours += ["vae.encoder.", "vae.quant_conv."] if c.encoder == "trained" else []
    ours += ["dit."] if c.dit == "full" else []
    return [n for n in generator.state_dict() if n.startswith(tuple(ours)) or ".lora_" in n]
