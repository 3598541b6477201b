"""How fast the paper preset of `s2vc` is at full size, and what memory it needs; its weights are random.

    python benchmarks/s2vc_paper_speed.py [--device cuda|cpu] [--width W] [--height H] [--small] [--out FILE]

Two ways of running the generator behind the same float32 loop: "eager fp32" as it is, and "fast": bfloat16,
channels-last, U-Net and TCG as one CUDA graph, the autoencoder in tiles. The loop's networks are timed once,
the exact ones in the way that is the default on the device. How far the pictures of both ways are apart says
little with random weights, but shows a mistake. Entropy coding of symbols is not timed. Needs torch, einops,
diffusers and peft; --small is a trial at a thousandth of the size.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # a machine where gencodec is not installed

from gencodec.methods.s2vc.paper import sizes
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.generator import BaseModels, PaperGenerator
from gencodec.methods.s2vc.paper.pcodec import STRIDE, PCodec, View
from gencodec.nn.exact import convert, project
from gencodec.nn.state import freeze_tables

RESULTS = Path(__file__).parent / "results"
SMALL = PaperConfig(
    features=32, wide=48, y_channels=16, z_channels=8, hyper_width=16, state_channels=16, reading_width=16,
    fusion_width=32, context_width=24, content=32, tokens=32, levels=(32, 64, 64), motion_channels=8,
    lora_rank=4,
)  # fmt: skip
SMALL_UNET = {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 32, "norm_num_groups": 8}
SMALL_VAE = {"block_out_channels": [16, 16, 32, 32], "norm_num_groups": 8, "sample_size": 64}
Levels = list[Tensor]


def main() -> int:
    """Time, write the JSON, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--frames", type=int, default=10, help="runs of each part that are timed")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed-s2vc-paper.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)  # noqa: TID251 - a script, and the weights are random
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    codec, generator = models(SMALL if options.small else PaperConfig(), options.small, device)
    size = [-(-n // STRIDE) * STRIDE for n in (options.height, options.width)]
    with torch.inference_mode():
        loop, view = time_loop(codec, torch.rand(1, 3, *size, device=device), options.frames)
        ways, pictures = {}, {}
        for name, prepare in {"eager fp32": as_it_is, "fast": as_fast}.items():
            reset_peak(device)
            ways[name], pictures[name] = time_generator(generator, view, prepare, options.frames, device)
            ways[name]["peak_gib"] = peak(device)
    apart = (pictures["eager fp32"] - pictures["fast"]).abs()
    result = environment(device) | {
        "command": "python benchmarks/s2vc_paper_speed.py" + (" --small" if options.small else ""),
        "width": options.width,
        "height": options.height,
        "loop": loop,
        "ways": ways,
        "apart": {"mean": float(apart.mean()), "largest": float(apart.max())},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, parts in {"loop": loop, **ways}.items():
        print(name, {part: round(value, 4) for part, value in parts.items()})
    print("apart", result["apart"])
    return 0 if torch.isfinite(apart).all() else 1


def models(config: PaperConfig, small: bool, device: torch.device) -> tuple[PCodec, PaperGenerator]:
    """Loop and generator with random weights, made on the device."""
    import diffusers

    with torch.device(device):
        codec = PCodec(config)
        unet = diffusers.UNet2DConditionModel.from_config(sizes.SD15_UNET | (SMALL_UNET if small else {}))
        vae = diffusers.AutoencoderKL.from_config(sizes.SD21_VAE | (SMALL_VAE if small else {}))
        generator = PaperGenerator(BaseModels(unet, vae, alpha_bar=0.00466), config)
    convert(codec)
    project(codec)
    freeze_tables(codec)
    generator.vae.encoder = None
    return codec.to(device).eval().requires_grad_(False), generator.to(device).eval().requires_grad_(False)


# ---- what is timed -----------------------------------------------------------------------------------------


def time_loop(codec: PCodec, x: Tensor, runs: int) -> tuple[dict[str, float], View]:
    """Seconds of the loop's networks for one predicted frame, and what a generator sees of it."""
    device, c = x.device, codec.config
    quality = torch.tensor([30], device=device)
    y_shape = (1, c.y_channels, x.shape[2] // 16, x.shape[3] // 16)
    features, state = codec.begin(x, torch.zeros(1, c.key_channels, *y_shape[2:], device=device))
    context = codec.context(features)
    y = torch.zeros(y_shape, device=device)
    z = codec.latents.hyper_symbols(y)
    prior = codec.latents.prior

    def entropy() -> Tensor:
        params = prior.params(z, quality, state)
        for turn in range(2):
            prior.predict(turn, params, y, quality)
        return codec.temporal.update(state, y)

    parts: dict[str, Callable[[], Any]] = {
        "context": lambda: codec.context(features),
        "encoder": lambda: codec.latents.hyper_symbols(codec.encode(x, context, quality)),
        "exact networks": entropy,
        "decoder": lambda: codec.decode(y, y, context, quality),
        "heads": lambda: codec.view(features, features),
    }
    seconds = {name: timed(run, runs, device) for name, run in parts.items()}
    return seconds, codec.view(features, features)


def as_it_is(generator: PaperGenerator, view: View, levels: Levels) -> Callable[[], tuple[Tensor, Levels]]:
    """U-Net and TCG in float32."""
    return lambda: generator.guided(view.content, view.tokens, "pframe", levels)


def as_fast(generator: PaperGenerator, view: View, levels: Levels) -> Callable[[], tuple[Tensor, Levels]]:
    """In bfloat16, channels-last, as one captured graph where there is CUDA; the autoencoder in tiles."""
    generator.to(dtype=torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.vae.enable_tiling()
    small = [t.to(torch.bfloat16, memory_format=torch.channels_last) for t in (view.content, *levels)]
    tokens = view.tokens.to(torch.bfloat16)
    return captured(lambda: generator.guided(small[0], tokens, "pframe", small[1:]), view.content.device)


def time_generator(
    generator: PaperGenerator, view: View, prepare: Callable[..., Any], runs: int, device: torch.device
) -> tuple[dict[str, float], Tensor]:
    """Seconds of U-Net and decoder for one predicted frame, and the picture (1,3,H,W)."""
    levels = generator.guided(view.content, view.tokens, "pframe", None)[1]
    unet = prepare(generator, view, levels)
    x0 = generator.x0(view.r, unet()[0])
    seconds = {
        "U-Net and TCG": timed(unet, runs, device),
        "VAE decoder": timed(lambda: generator.decode(x0), runs, device),
    }
    return seconds, generator.decode(x0)


# ---- clocks and memory -------------------------------------------------------------------------------------


def captured(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """`run`, whose inputs stay where they are, as one CUDA graph; itself on other devices."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # lets libraries choose their kernels before the capture
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()

    def replay() -> Any:
        graph.replay()
        return out

    return replay


def timed(run: Callable[[], Any], runs: int, device: torch.device) -> float:
    """Median seconds after two runs that do not count."""
    found = []
    for _ in range(runs + 2):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])


def synchronise(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Count memory from here."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """GiB that the device held at most, weights included; 0 without CUDA."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def environment(device: torch.device) -> dict[str, Any]:
    """Where the numbers come from."""
    import diffusers
    import peft

    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    is_cuda = device.type == "cuda"
    return {
        "machine": torch.cuda.get_device_name(device) if is_cuda else f"{platform.machine()}, CPU",
        "commit": done.stdout.strip() or "unknown",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "peft": peft.__version__,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
