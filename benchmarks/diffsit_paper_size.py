"""How large the paper preset of `diffsit` is: parameters, memory, operations of each part, without weights.

    python benchmarks/diffsit_paper_size.py [--frames 33] [--out FILE.json]

On torch's meta device, as `s2vc_paper_size.py`, whose clocks it takes. What is held at most is the sum of the
tensors that live at once in float32, without parameters: inputs, the autoencoder's caches, what Python still
names. Inside of one fused operation nothing is seen.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1]))  # a machine where gencodec is not installed

from s2vc_paper_size import RESULTS, FusedAttention, _as_plain, _commit, _measured

from gencodec.methods.diffsit.paper import sizes
from gencodec.methods.diffsit.paper.generator import PaperGenerator
from gencodec.methods.diffsit.paper.motion_codec import MotionCodec
from gencodec.methods.diffsit.paper.stem_model import STRIDE as OF_STEM
from gencodec.methods.diffsit.paper.stem_model import LearnedState, StemModel
from gencodec.methods.intra.networks import STRIDE
from gencodec.methods.s2vc.paper.latents import PaperLatents
from gencodec.nn.warp import warp

PICTURES = {"1280x720": (1280, 720), "1920x1080": (1920, 1080)}
CLIP = 33  # frames


def main() -> int:
    """Count, write the JSON, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--frames", type=int, default=CLIP, help="of a clip: 9, 21 or 33")
    parser.add_argument("--out", type=Path, default=RESULTS / "size-diffsit-paper.json")
    options = parser.parse_args()
    generator = sizes.whole().eval()
    result = {
        "command": "python benchmarks/diffsit_paper_size.py",
        "machine": f"{platform.machine()}, meta device",
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "frames": options.frames,
        "parameters": sizes.parameters(),
        "published_millions": sizes.PUBLISHED,
        "work": {
            name: work(generator, options.frames, *size) | work_of_stem(*size)
            for name, size in PICTURES.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for size, parts in result["work"].items():
        for name, part in parts.items():
            print(size, f"{name:12}", {key: round(value, 1) for key, value in part.items()})
    return 0


class Held(TorchDispatchMode):
    """Adds up the storages that live at once, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[int] = Counter()  # of each storage: tensors on it
        self.now = self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and count what it gives."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self.names[key]:
            self.now += size
            self.most = max(self.most, self.now)
        self.names[key] += 1
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.names[key] -= 1
        if not self.names[key]:
            self.now -= size


def work(generator: PaperGenerator, frames: int, width: int, height: int) -> dict[str, dict[str, float]]:
    """Operations, largest tensor and what is held, of each part for one clip."""
    height, width = (-(-n // STRIDE) * STRIDE for n in (height, width))
    channels, groups = len(generator.mean[0]), 1 + (frames - 1) // 4
    with torch.device("meta"):
        clip, is_mv = torch.empty(1, frames, 3, height, width), torch.empty(frames, dtype=torch.bool)
        latents = torch.empty(1, channels, groups, height // 8, width // 8)
    parts: dict[str, Callable[[], object]] = {
        "encoder": lambda: generator.encoded(clip, is_mv),
        "one step": lambda: generator.denoised(latents),
        "decoder": lambda: generator.decoded(latents),
    }
    return {name: _measured(run) | {"held_mib": held(run)} for name, run in parts.items()}


def work_of_stem(width: int, height: int) -> dict[str, dict[str, float]]:
    """The same of the learned STEM, for one frame of each kind; an encoder's side holds the decoder's."""
    height, width = (-(-n // OF_STEM) * OF_STEM for n in (height, width))
    with torch.device("meta"):
        model: Any = _as_plain(StemModel().eval())  # type: ignore[arg-type]
        c, quality = model.config, torch.tensor([0])
        x, flow = torch.empty(1, 3, height, width), torch.empty(1, 2, height, width)
        memory = torch.empty(1, c.state_channels, height // 16, width // 16)
        state = LearnedState(x, torch.empty(1, c.widths[0], height, width), memory, 1)
        y = torch.empty(1, c.y_channels, height // 16, width // 16)
        m = torch.empty(1, c.motion_channels, height // 16, width // 16)

    def moved(codec: MotionCodec) -> None:
        _prior(codec.latents, m, codec.still(m))
        codec.synthesise(m, m, quality)

    def backbone(encodes: bool) -> None:
        if encodes:
            found(model.motion)
        moved(model.motion)
        contexts = model.context(state, flow)
        if encodes:
            model.latents.hyper_symbols(model.encode(x, contexts, quality))
        _prior(model.latents, y, memory)
        model.decode(y, y, contexts, quality)

    def mv_frame() -> None:
        moved(model.mv)
        warp(x, flow)

    def found(codec: MotionCodec) -> None:
        codec.latents.hyper_symbols(codec.analyse(x, x, quality))

    def sent_mv_frame() -> None:
        found(model.mv)
        mv_frame()

    runs: dict[str, Callable[[], object]] = {
        "STEM, a backbone, encoder": lambda: backbone(True),
        "STEM, a backbone, decoder": lambda: backbone(False),
        "STEM, an MV frame, encoder": sent_mv_frame,
        "STEM, an MV frame, decoder": mv_frame,
    }
    return {name: _measured(run) | {"held_mib": held(run)} for name, run in runs.items()}


def _prior(latents: PaperLatents, y: Tensor, memory: Tensor) -> None:
    """The exact networks' work for latents like y."""
    quality, prior = torch.tensor([0], device="meta"), latents.prior
    z = torch.empty(1, prior.z_channels, y.shape[2] // 4, y.shape[3] // 4, device="meta")
    params = prior.params(z, quality, memory)
    for turn in range(2):
        prior.predict(turn, params, y, quality)


def held(run: Callable[[], object]) -> float:
    """MiB in float32 that live at once, at most."""
    mode = Held()
    with torch.no_grad(), FusedAttention(), mode:
        run()
    return mode.most / 2**20


if __name__ == "__main__":
    sys.exit(main())
