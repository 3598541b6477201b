"""The U-Net of Stable Diffusion 1.5 as the paper uses it: another entrance, two sets of LoRA, TCG.

    f_pix ─► conv_in (320 -> 320) ─► (down ─► fuse) three times ─► down ─► middle ─► up ─► eps
                                           └─► skip connections, diffusion buffer

`diffusers` has the class and `peft` the adapters; what happens between blocks is written out here because the
fusion stands there. Sides of f_pix are multiples of 8, so that every skip connection fits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.tcg import Fusion

TIMESTEP = 999
Adapter = Literal["iframe", "pframe"]
ADAPTERS: tuple[Adapter, ...] = ("iframe", "pframe")
TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
    *("downsamplers.0.conv", "upsamplers.0.conv"),
]


def prepare(unet: Any, config: PaperConfig) -> Any:
    """Give a pre-trained UNet2DConditionModel the entrance for f_pix, and adapters that begin as nothing."""
    from peft import LoraConfig

    unet.conv_in = nn.Conv2d(config.content, unet.config["block_out_channels"][0], 3, padding=1)
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=TARGETS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two are meant to be
        for name in ADAPTERS:
            unet.add_adapter(lora, adapter_name=name)
    return unet


class GuidedUNet(nn.Module):
    """f_pix and tokens to noise, and the levels of the diffusion buffer."""

    def __init__(self, unet: Any, config: PaperConfig) -> None:
        super().__init__()
        widths = tuple(unet.config["block_out_channels"][: len(config.levels)])
        if widths != config.levels:
            raise ValueError(
                f"the U-Net has levels of {widths} channels, the codec parts are for {config.levels}"
            )
        self.unet: Any = prepare(unet, config)
        self.fusions = nn.ModuleList(Fusion(c, config.motion_channels) for c in config.levels)

    def forward(
        self, content: Tensor, tokens: Tensor, adapter: Adapter, before: Sequence[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """content (B,320,h,w), tokens (B,N,768) -> (B,4,h,w), and what the levels were before fusing.

        `before` are the levels of the frame before; without them nothing is fused.
        """
        unet = self.unet
        self._select(adapter)
        timesteps = torch.full((len(content),), TIMESTEP, device=content.device)
        clock = unet.time_embedding(unet.time_proj(timesteps).to(content.dtype))
        x = unet.conv_in(content)
        skips, levels = [x], []
        for number, block in enumerate(unet.down_blocks):
            x, seen = block(x, clock, **_tokens(block, tokens))
            skips += seen
            if number < len(self.fusions):
                levels.append(x)
                x = x if before is None else self.fusions[number](x, before[number])
        x = unet.mid_block(x, clock, **_tokens(unet.mid_block, tokens))
        for block in unet.up_blocks:
            count = len(block.resnets)
            skips, taken = skips[:-count], tuple(skips[-count:])
            x = block(x, taken, clock, **_tokens(block, tokens))
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x))), levels

    def _select(self, adapter: Adapter) -> None:
        """Let this frame's adapter act; peft would also freeze the other, which a clip's training needs."""
        if self.unet.active_adapters() in (adapter, [adapter]):
            return
        before = [(p, p.requires_grad) for p in self.unet.parameters()]
        self.unet.set_adapter(adapter)
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def _tokens(block: Any, tokens: Tensor) -> dict[str, Tensor]:
    """The argument of blocks with cross-attention, nothing for the others."""
    return {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
