"""How fast the paper preset of `diffsit` renders a clip at full size, and in what memory; random weights.

    python benchmarks/diffsit_paper_speed.py [--device cuda|cpu] [--frames 33] [--small] [--out FILE]

Three ways of one generator at 720p and 1080p: "eager fp32" as it is, with live LoRA; "fast": adapters merged,
bfloat16, channels-last, fused projections, the transformer as one CUDA graph; "fast, tiles": and the
autoencoder in tiles of 512 pixels. How far the pictures are apart says little with random weights, but shows
a mistake. Needs torch, einops, diffusers and peft; --small is a trial at a thousandth of the size.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # a machine where gencodec is not installed

from s2vc_paper_speed import RESULTS, captured, environment, peak, reset_peak, synchronise

from gencodec.methods.diffsit.paper import sizes
from gencodec.methods.diffsit.paper.config import PaperConfig
from gencodec.methods.diffsit.paper.generator import BaseModels, PaperGenerator
from gencodec.methods.diffsit.paper.prompt import TOKENS

PICTURES = {"1280x720": (720, 1280), "1920x1080": (1088, 1920)}  # as coded: sides in 16s
SMALL_PICTURES = {"64x48": (48, 64), "128x64": (64, 128)}
SMALL_VAE = {"base_dim": 8, "num_res_blocks": 1}
SMALL_TRANSFORMER = {
    "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 48, "num_layers": 2, "text_dim": 24,
    "freq_dim": 16,
}  # fmt: skip
TILE, SMALL_TILE = 512, 64


def main() -> int:
    """Time, write the JSON, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=33, help="of a clip: 9, 21 or 33")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed-diffsit-paper.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)  # noqa: TID251 - a script, and the weights are random
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, dict[str, dict[str, float]]] = {}
    shown: dict[str, dict[str, Tensor]] = {}
    generator = model(options.small, device)
    pictures = SMALL_PICTURES if options.small else PICTURES
    clips = {name: torch.rand(1, options.frames, 3, *size) for name, size in pictures.items()}
    tiles = partial(in_tiles, side=SMALL_TILE if options.small else TILE)
    prepared: dict[str, Callable[[PaperGenerator], None]] = {"eager fp32": as_it_is, "fast": as_fast}
    for way, prepare in (prepared | {"fast, tiles": tiles}).items():
        prepare(generator)
        for name, clip in clips.items():
            reset_peak(device)
            times, picture = timed_clip(generator, clip.to(device), way != "eager fp32")
            found.setdefault(name, {})[way] = times | {"peak_gib": peak(device)}
            shown.setdefault(name, {})[way] = picture.cpu()
            print(name, way, {part: round(value, 3) for part, value in found[name][way].items()}, flush=True)
    apart = {
        name: {way: float((x - ways["eager fp32"]).abs().mean()) for way, x in ways.items()}
        for name, ways in shown.items()
    }
    result = environment(device) | {
        "command": "python benchmarks/diffsit_paper_speed.py" + (" --small" if options.small else ""),
        "frames": options.frames,
        "sizes": found,
        "apart": apart,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print("apart", apart)
    return 0 if all(x.isfinite().all() for ways in shown.values() for x in ways.values()) else 1


def model(small: bool, device: torch.device) -> PaperGenerator:
    """A generator with random weights, made on the device."""
    import diffusers

    config = PaperConfig(lora_rank=4, lora_alpha=4) if small else PaperConfig()
    sizes_of = sizes.WAN_TRANSFORMER | (SMALL_TRANSFORMER if small else {})
    with torch.device(device):
        vae = diffusers.AutoencoderKLWan.from_config(sizes.WAN_VAE | (SMALL_VAE if small else {}))
        transformer = diffusers.WanTransformer3DModel.from_config(sizes_of)
        prompt = torch.rand(TOKENS, sizes_of["text_dim"])
        return PaperGenerator(BaseModels(vae, transformer, prompt), config).to(device).eval()


# ---- ways --------------------------------------------------------------------------------------------------


def as_it_is(generator: PaperGenerator) -> None:
    """Float32, adapters beside the weights."""
    generator.requires_grad_(False)


def as_fast(generator: PaperGenerator) -> None:
    """Merged, in bfloat16 (with the autoencoder), channels-last, one product for queries, keys and values."""
    generator.config = replace(generator.config, precision="bfloat16")
    generator.for_rendering()
    generator.dit.fuse_qkv_projections()
    generator.dit.rope.float()  # which is in float64, and so would be what it turns
    generator.vae.to(torch.bfloat16)
    for layer in generator.vae.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)


def in_tiles(generator: PaperGenerator, side: int) -> None:
    """What is fast already, with the autoencoder in tiles of `side` pixels."""
    generator.vae.enable_tiling(side, side, 3 * side // 4, 3 * side // 4)


# ---- clocks ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def timed_clip(generator: PaperGenerator, clip: Tensor, capture: bool) -> tuple[dict[str, float], Tensor]:
    """Seconds of each part for a clip (1,T,3,H,W), and the pictures (1,T,3,H,W)."""
    device = clip.device
    is_mv = torch.tensor([n % 3 != 1 for n in range(clip.shape[1])], device=device)
    seconds: dict[str, float] = {}
    seconds["encoder"], x_s = timed(lambda: generator.encoded(clip, is_mv), device)
    step: Callable[[], Any] = lambda: generator.denoised(x_s)  # noqa: E731
    seconds["one step"], x0 = timed(captured(step, device) if capture else step, device)
    x0 = x0.clone()  # a graph's own memory
    seconds["decoder"], picture = timed(lambda: generator.decoded(x0), device)
    return seconds | {"clip": sum(seconds.values())}, picture


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Seconds of the second of two runs, and what it gives."""
    run()
    synchronise(device)
    start = time.perf_counter()
    out = run()
    synchronise(device)
    return time.perf_counter() - start, out


if __name__ == "__main__":
    sys.exit(main())
