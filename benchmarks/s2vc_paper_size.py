"""How large the paper preset of `s2vc` is: parameters, memory, operations of each part, without its weights.

    python benchmarks/s2vc_paper_size.py [--width 1920] [--height 1080] [--out FILE.json]

Everything runs on torch's meta device, which knows shapes and computes nothing. Operations are those of
products (convolutions, linear maps, attention), a multiply-add counted as two. The largest tensor is the
largest single output of an operation in float32: what a part needs at once is a few of them. Attention counts
as fused kernels compute it, without its matrix.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))  # a machine where gencodec is not installed

from gencodec.methods.s2vc.paper import sizes
from gencodec.methods.s2vc.paper.base import sketch
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.pcodec import STRIDE, PCodec
from gencodec.nn.exact import ExactConv2d
from gencodec.nn.state import freeze_tables

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Count, write the JSON, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--out", type=Path, default=RESULTS / "size-s2vc-paper.json")
    options = parser.parse_args()
    result = {
        "command": "python benchmarks/s2vc_paper_size.py",
        "machine": f"{platform.machine()}, meta device",
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "width": options.width,
        "height": options.height,
        "parameters": sizes.parameters(),
        "published_millions": sizes.PUBLISHED,
        "work": work(options.width, options.height),
        "buffers": buffers(options.width, options.height),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, part in result["work"].items():
        print(f"{name:20} {part['gflop']:10.1f} GFLOP   largest {part['largest_mib']:8.1f} MiB")
    return 0


class FusedAttention(TorchFunctionMode):
    """Counts attention without its matrix, as fused kernels compute it: meta would write it out (34 GB)."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Two products of places by places by channels."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        names = ("query", "key", "value")
        q, k, v = args[:3] if len(args) >= 3 else (dict(kwargs or {})[name] for name in names)
        self.flops += 2 * q.numel() * k.shape[-2] + 2 * q[..., 0].numel() * k.shape[-2] * v.shape[-1]
        return torch.empty((*q.shape[:-1], v.shape[-1]), device=q.device)


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and look at what it gives; views hold nothing of their own."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
            self.bytes = max([self.bytes, *(t.numel() * t.element_size() for t in tensors)])
        return out


def work(width: int, height: int) -> dict[str, dict[str, float]]:
    """Operations and largest tensor of each part for a predicted frame; `key` parts for a key frame."""
    config = PaperConfig()
    with torch.device("meta"):
        codec = _as_plain(PCodec(config).eval())
    generator = sketch(sizes.SD15_UNET, sizes.SD21_VAE, config).eval()
    height, width = (-(-n // STRIDE) * STRIDE for n in (height, width))
    h8, w8, h16, w16 = height // 8, width // 8, height // 16, width // 16
    quality = torch.tensor([0], device="meta")
    picture, features = _empty(3, height, width), _empty(config.features, h8, w8)
    y, state = _empty(config.y_channels, h16, w16), _empty(config.state_channels, h16, w16)
    z, r = _empty(config.z_channels, height // 64, width // 64), _empty(4, h8, w8)
    content, tokens = _empty(config.content, h8, w8), torch.empty(1, h8 * w8 // 64, 768, device="meta")
    prior = codec.latents.prior
    params = _empty(3 * config.y_channels, h16, w16)
    levels = [_empty(c, h8 >> k, w8 >> k) for k, c in enumerate(config.levels, 1)]
    fusions = generator.guided.fusions
    parts: dict[str, Callable[[], object]] = {
        "key frames": lambda: codec.key(picture),
        "feature extractor": lambda: codec.context(features),
        "encoder": lambda: codec.encoder(codec.embed(picture), features),
        "hyper-analysis": lambda: codec.latents.hyper_symbols(y),
        "exact prior": lambda: (prior.params(z, quality, state), prior.predict(1, params, y, quality)),
        "temporal state": lambda: codec.temporal.from_frame(torch.cat([y, state], 1)),
        "decoder": lambda: codec.decoder(y, features),
        "content head, r": lambda: codec.reduction(codec.content(features)),
        "semantic head": lambda: codec.semantics(features, features),
        "U-Net with LoRA": lambda: generator.guided(content, tokens, "pframe", None),
        "TCG": lambda: [f(x, x) for f, x in zip(fusions, levels, strict=True)],
        "VAE decoder": lambda: generator.vae.decode(r).sample,
    }
    return {name: _measured(run) for name, run in parts.items()}


def _measured(run: Callable[[], object]) -> dict[str, float]:
    largest, counter, attention = Largest(), FlopCounterMode(display=False), FusedAttention()
    with torch.no_grad(), counter, largest, attention:
        run()
    return {
        "gflop": (counter.get_total_flops() + attention.flops) / 1e9,
        "attention_gflop": attention.flops / 1e9,
        "largest_mib": largest.bytes / 2**20,
    }


def buffers(width: int, height: int) -> dict[str, float]:
    """MiB in float32 of what is kept from frame to frame."""
    config = PaperConfig()
    height, width = (-(-n // STRIDE) * STRIDE for n in (height, width))
    places = height * width / 64
    diffusion = sum(c * places / 4**k for k, c in enumerate(config.levels, 1))
    mib = 4 / 2**20
    return {
        "features": config.features * places * mib,
        "temporal state": config.state_channels * places / 4 * mib,
        "diffusion buffer": diffusion * mib,
    }


class _Plain(nn.Conv2d):
    """An exact convolution's work; its own code asks the device for modes that meta does not have."""

    def forward(self, x: Tensor, bias_add: Tensor | None = None) -> Tensor:
        """The table row that is added to the bias does not count."""
        return super().forward(x)


def _as_plain(codec: PCodec) -> PCodec:
    """The codec with plain layers in the place of exact ones."""
    freeze_tables(codec)
    for parent in list(codec.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, ExactConv2d):
                out, into, k, _ = layer.weight.shape
                setattr(parent, name, _Plain(into, out, k, stride=layer.stride, padding=layer.padding))
    return codec


def _empty(*shape: int) -> Tensor:
    return torch.empty(1, *shape, device="meta")


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
