"""Are the exact networks exact here? Every way of computing them against float64 on the CPU.

    python benchmarks/exact_cuda.py [--device cuda|cpu] [--small] [--out FILE.json]

Networks: random ones, and the shipped `intra` prior where its file is there. Switches: TF32 on and off, cuDNN
benchmark on and off (CUDA); bfloat16 products on and off, oneDNN on and off (CPU); autocast; channels-last;
batch 1, 4, 16. A case is equal if every integer of both passes' means and scale indices is. "default" is what
gencodec takes by itself, and must be equal in all cases: else the exit code is 1. Needs torch, numpy and
safetensors only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # a machine where gencodec is not installed

from gencodec.entropy.prior import round_index
from gencodec.entropy.staged import StagedPrior, predict_all
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.intra.stages import RESIDUAL, groups_of, stages
from gencodec.methods.s2vc.model import CodingLoop
from gencodec.nn.exact import ExactConv2d, Way, convert, exact_layers, project, safe_way
from gencodec.nn.exact_io import export_exact, load_exact

DEFAULT = "default"
RESULTS = Path(__file__).parent / "results"
ZOO = Path(__file__).parents[1] / "gencodec" / "zoo"
PREFIX = "latents.prior."
SIZE = (36, 28)  # of the latents that are compared
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Case = tuple[bool, bool, bool, str]  # reduced precision, other kernels, autocast, memory format


def main() -> int:
    """Measure, write the JSON, print a table; 1 if the default way is not exact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--small", action="store_true", help="one random network, batches of 1 and 4: a trial"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "exact-cuda.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    nets = dict(networks(count=1 if options.small else 3))
    batches = (1, 4) if options.small else (1, 4, 16)
    ways = compare(nets, batches, device)
    result = environment(device) | {"default_way": safe_way(device), "networks": list(nets), "ways": ways}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    exact = not ways[DEFAULT]["failures"]
    print(f"default ({safe_way(device)}): {'exact in every case' if exact else 'NOT EXACT'}")
    return 0 if exact else 1


def compare(nets: dict[str, StagedPrior], batches: Sequence[int], device: torch.device) -> dict[str, Any]:
    """By way: how many cases there are, how many are equal, which are not, and how long a layer takes."""
    places = list(itertools.product(nets, batches))
    cpu = torch.device("cpu")
    references = {(name, n): run(nets[name], n, cpu, "double", "contiguous") for name, n in places}
    for net in nets.values():
        net.to(device)
    ways = {}
    for way in (None, *get_args(Way)):
        failures = [
            {"network": name, "batch": n, **describe(case, device)}
            for (name, n), case in itertools.product(places, cases())
            if not is_equal(nets[name], n, device, way, case, references[name, n])
        ]
        count = len(places) * len(list(cases()))
        row = {"cases": count, "equal": count - len(failures), "milliseconds": time_layer(way, device)}
        print(
            f"{way or DEFAULT:8} {row['equal']} of {count} equal, {row['milliseconds']} ms a layer",
            flush=True,
        )
        ways[way or DEFAULT] = row | {"failures": failures}
    return ways


def networks(count: int) -> Iterator[tuple[str, StagedPrior]]:
    """Random priors by name, and the shipped ones."""
    for seed in range(count):
        torch.manual_seed(seed)  # noqa: TID251
        net = random_net(seed)
        for layer in exact_layers(net):
            nn.init.normal_(layer.weight, std=0.05 * 2**seed)
            nn.init.normal_(layer.bias)
        for quality_table, _ in net.tables():
            nn.init.normal_(quality_table.anchors)
        convert(net)
        yield f"random {seed}", stored(net)
    for pattern, model in (("intra-*.safetensors", IntraModel), ("s2vc-*.safetensors", CodingLoop)):
        for path in sorted(ZOO.glob(pattern)):
            from safetensors.torch import load_file

            yield path.stem, loaded(model().latents.prior, load_file(path))


def random_net(seed: int) -> StagedPrior:
    """Of key frames and of residuals in turn."""
    if seed % 2:
        return StagedPrior(groups_of(192), (24, 32, 40, 40, 40), stages())
    return StagedPrior(groups_of(192), [32] * 5, stages(RESIDUAL), centred=True, extra_channels=8)


def stored(net: StagedPrior) -> StagedPrior:
    """The network as it comes back from a weights file: integers, quality tables as stored rows."""
    for table, layer in net.tables():
        layer.bias_add_max = float(table.anchors.detach().abs().max())
    project(net)
    return loaded(copy.deepcopy(net), export_exact(net, net.tables(), PREFIX))


def loaded(net: StagedPrior, tensors: dict[str, Tensor]) -> StagedPrior:
    """A network filled from a weights file."""
    load_exact(net, net.tables(), tensors, PREFIX)
    return net.eval()


def cases() -> Iterator[Case]:
    """All combinations of the switches."""
    for reduced, kernels, autocast in itertools.product((False, True), repeat=3):
        for memory_format in FORMATS:
            yield reduced, kernels, autocast, memory_format


def describe(case: Case, device: torch.device) -> dict[str, Any]:
    """A case in words."""
    reduced, kernels, autocast, memory_format = case
    names = ("tf32", "cudnn_benchmark") if device.type == "cuda" else ("bf16_matmul", "onednn_off")
    return {names[0]: reduced, names[1]: kernels, "autocast": autocast, "format": memory_format}


@contextlib.contextmanager
def switches(case: Case, device: torch.device) -> Iterator[None]:
    """Set what a process can set: reduced precision of float32, choice of kernels, autocast."""
    warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
    reduced, kernels, autocast, _ = case
    before = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    torch.set_float32_matmul_precision(
        "medium" if reduced and device.type == "cpu" else "high" if reduced else "highest"
    )
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = reduced, kernels
    onednn = torch.backends.mkldnn.flags(enabled=not (kernels and device.type == "cpu"))
    try:
        with onednn, torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def is_equal(
    net: StagedPrior, batch: int, device: torch.device, way: Way | None, case: Case, expected: list[Tensor]
) -> bool:
    """Whether one case gives the reference's integers."""
    with switches(case, device):
        found = run(net, batch, device, way, case[3])
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@torch.inference_mode()
def run(
    net: StagedPrior, batch: int, device: torch.device, way: Way | None, memory_format: str
) -> list[Tensor]:
    """Means (in eighths) and scale indices of all turns, int32 on the CPU."""
    for layer in exact_layers(net):
        layer.way = way

    def integers(seed: int, channels: int, size: tuple[int, int], most: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randint(-most, most + 1, (batch, channels, *size), generator=generator).float()
        return values.to(device).contiguous(memory_format=FORMATS[memory_format])

    quality = (torch.arange(batch) * 21 % 64).to(device)
    extra = integers(1, net.extra_channels, SIZE, 16) if net.extra_channels else None
    turns = predict_all(net, integers(2, net.y_channels, SIZE, 40), quality, extra)
    return [v.to(torch.int32).cpu() for mean, index in turns for v in (mean * 8, round_index(index))]


@torch.no_grad()  # not inference mode: a layer made there has no version to know its weights by
def time_layer(way: Way | None, device: torch.device) -> float:
    """Median milliseconds of a 3x3 layer of 96 channels on the latents of a 1080p frame, 120 x 68."""
    layer = ExactConv2d(96, 96)
    layer.convert()
    layer.way = way
    layer.eval().to(device)
    x = torch.ones(1, 96, 68, 120, device=device)
    seconds = []
    for _ in range(12):
        _wait(device)
        start = time.perf_counter()
        layer(x)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return round(1000 * sorted(seconds[2:])[5], 3)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def environment(device: torch.device) -> dict[str, Any]:
    """Where this ran."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit or "unknown",
        "command": "python " + " ".join(["benchmarks/exact_cuda.py", *sys.argv[1:]]),
        "device": f"{device.type} ({name})",
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


if __name__ == "__main__":
    sys.exit(main())
