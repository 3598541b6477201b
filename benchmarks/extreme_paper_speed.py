"""How fast the published predictor of `extreme` is: one generation of five frames by MCVD, random weights.

    python benchmarks/extreme_paper_speed.py [--device cuda|cpu] [--steps 100 8] [--small] [--out FILE]

"eager" is float32 as it is; "accelerated" replays the network as one CUDA graph (`sampler.cuda.accelerate`),
channels last. Both sample the same noise; how far their frames are apart says little with random weights,
but shows a mistake. Needs torch, einops and safetensors; --small is a trial with a few thousand parameters.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # a machine where gencodec is not installed

from gencodec.methods.extreme.paper.mcvd import CITYSCAPES, McvdConfig, McvdUNet
from gencodec.sampler.cuda import accelerate
from gencodec.sampler.denoiser import Denoise, from_eps
from gencodec.sampler.noise import Noise
from gencodec.sampler.samplers import sample_ddpm
from gencodec.sampler.schedule import ddpm_alpha_bar, discrete, spaced_timesteps

RESULTS = Path(__file__).parent / "results"
SMALL = McvdConfig(32, 3, 2, 5, 16, (1, 2, 3), attention_at=(16, 8), head_width=8)
NOISIEST = 999  # MCVD counts its labels from there down


def main() -> int:
    """Time, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 8])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed-extreme-paper.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    config = SMALL if options.small else CITYSCAPES
    net = McvdUNet(config).eval().requires_grad_(False).to(device)
    rows = [row(net, config, steps, options.repetitions, device) for steps in options.steps]
    result = environment(device) | {"small": options.small, "resolution": config.size, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))
    return 0


@torch.inference_mode()
def row(
    net: McvdUNet, config: McvdConfig, steps: int, repetitions: int, device: torch.device
) -> dict[str, Any]:
    """Seconds of a generation in both ways."""
    side = config.size
    past = torch.rand(1, config.past * config.channels, side, side, device=device) * 2 - 1
    like = torch.zeros(1, config.predicted * config.channels, side, side, device=device)
    alpha_bar = ddpm_alpha_bar()
    eager = from_eps(lambda x, t: net(x, past, NOISIEST - t), alpha_bar, clip=1.0)
    found: dict[str, Any] = {"steps": steps}
    frames: dict[str, Tensor] = {}
    for name in ("eager", "accelerated"):
        net.to(memory_format=torch.contiguous_format if name == "eager" else torch.channels_last)
        denoise = eager if name == "eager" else accelerate(eager, like)
        frames[name], found[name] = timed(denoise, like, alpha_bar, steps, repetitions, device)
    apart = (frames["eager"] - frames["accelerated"]).abs()
    return found | {"apart": {"mean": float(apart.mean()), "largest": float(apart.max())}}


def timed(
    denoise: Denoise, like: Tensor, alpha_bar: Tensor, steps: int, repetitions: int, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """The frames, and the median and least seconds of a generation by DDPM."""
    sigmas = discrete(alpha_bar, spaced_timesteps(len(alpha_bar), steps, "trailing"))
    seconds = []
    for _ in range(repetitions + 1):
        draw = Noise(0).steps(like.shape[1:], device=device)
        wait(device)
        start = time.perf_counter()
        frames = sample_ddpm(denoise, sigmas[0].to(device) * draw(0), sigmas, noise=draw)
        wait(device)
        seconds.append(time.perf_counter() - start)
    return frames, {"median": statistics.median(seconds[1:]), "least": min(seconds[1:])}


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def environment(device: torch.device) -> dict[str, Any]:
    """Where this was measured."""
    root = Path(__file__).parents[1]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "commit": commit or "unknown",
        "command": " ".join(["python benchmarks/extreme_paper_speed.py", *sys.argv[1:]]),
        "device": name,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


if __name__ == "__main__":
    sys.exit(main())
