"""What the generator of `s2vc` uses its parts for: `s2vc_zeroed.py --clips VAL --vgg VGG16`.

Streams are coded once and decoded with a part of the generator set to nothing, without training it anew: what
the part is used for, not what its place could be used for (`s2vc_ablations.py`). Two variants take repair
from the frame before instead: what a memory of what was shown could add. The decoder is changed, so this runs
in one process, and rates are those of payloads, the same for all. Writes results/zeroed-s2vc.json: BD-rates
at equal LPIPS-Alex and DISTS of every fourth frame, and mean flicker.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from speed import RESULTS, environment
from torch import Tensor, nn

import gencodec
from gencodec import api
from gencodec.evaluation.bd_rate import bd_rate_over_clips
from gencodec.evaluation.clips import digest_of
from gencodec.methods.s2vc.codec import S2vc
from gencodec.methods.s2vc.generator import Generator, Memory, Rendered
from gencodec.methods.s2vc.model import CodedFrame
from gencodec.metrics.dists import Dists
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.temporal import flicker
from gencodec.nn.motion import compensate
from gencodec.nn.winograd import use_winograd
from gencodec.rate import ConstantQuality
from gencodec.training.data import VIDEO_SUFFIXES
from gencodec.video import open_video

JUDGED = 4  # one frame in so many


class Nothing(nn.Module):
    """Zeros in place of what `part` gives; `first`: of the first thing alone."""

    def __init__(self, part: nn.Module, *, first: bool = False) -> None:
        super().__init__()
        self.part, self.first = part, first

    def forward(self, *inputs: Any) -> Any:
        """As the part's."""
        out = self.part(*inputs)
        return (torch.zeros_like(out[0]), *out[1:]) if self.first else torch.zeros_like(out)


def no_tokens(generator: Generator) -> None:
    """CSG: every cross-attention sees zeros."""
    generator.semantics = Nothing(generator.semantics)  # type: ignore[assignment]


def no_fusion(generator: Generator) -> None:
    """TCG: nothing comes from the diffusion buffer."""
    generator.unet.fusions = nn.ModuleList()


def no_past(generator: Generator) -> None:
    """Features begin anew at each frame, and nothing comes from the diffusion buffer."""
    no_fusion(generator)
    remember = generator.remember
    generator.remember = lambda frame, memory: remember(frame, None)  # type: ignore[method-assign]


def no_unet(generator: Generator) -> None:
    """The decoder by itself."""
    generator.unet = Nothing(generator.unet, first=True)  # type: ignore[assignment]


def carried(share: float) -> Callable[[Generator], None]:
    """So much of each frame's repair is that of the frame before, moved: what a memory of what was shown
    could add.
    """

    def change(generator: Generator) -> None:
        render, kept = generator.forward, list[Tensor]()

        def forward(frame: CodedFrame, quality: Tensor, memory: Memory | None = None) -> Rendered:
            out = render(frame, quality, memory)
            repair = out.picture - frame.picture
            if memory is not None and kept:
                repair = torch.lerp(repair, compensate(kept.pop(), frame.flow), share)
            kept[:] = [repair]
            return out._replace(picture=frame.picture + repair)

        generator.forward = forward  # type: ignore[method-assign]

    return change


VARIANTS: dict[str, Callable[[Generator], None]] = {
    "as shipped": lambda _: None,
    "CSG: no tokens": no_tokens,
    "TCG: no fusion": no_fusion,
    "no fusion, no feature buffer": no_past,
    "no U-Net": no_unet,
    "half of the repair from the frame before": carried(0.5),
    "all of it from the key frame": carried(1.0),
}


def main() -> None:
    """Code once, decode with each variant, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--vgg", type=Path, required=True, help="VGG16, for DISTS")
    parser.add_argument("--qualities", type=int, nargs="+", default=[8, 22, 36, 50])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--out", type=Path, default=RESULTS / "zeroed-s2vc.json")
    options = parser.parse_args()
    paths = [p for p in sorted(options.clips.iterdir()) if p.suffix in VIDEO_SUFFIXES]
    codec, judges = api.create("s2vc"), Judges(Lpips.load(), Dists.load(options.vgg))
    use_winograd(judges.dists.backbone.convs)
    assert isinstance(codec, S2vc)
    rows = [row for path in paths for row in scored(path, codec, judges, options)]
    result = environment() | {
        "weights": f"{codec.weights_id:08x}",
        "frames": options.frames,
        "clip_hashes": {path.stem: digest_of(path) for path in paths},
        "variants": {name: of_variant(rows, name) for name in VARIANTS},
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["variants"], indent=1))


class Judges(NamedTuple):
    """Distances by name."""

    lpips_alex: Lpips
    dists: Dists


def scored(path: Path, codec: S2vc, judges: Judges, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each quality and variant."""
    with open_video(path, frames=(0, options.frames)) as video:
        frames = list(video)
    height, width = frames[0].shape[1:]
    info = gencodec.VideoInfo(width, height, Fraction(25), len(frames))
    rows = []
    for quality in options.qualities:
        packets = list(codec.encode(frames, info, ConstantQuality(quality)))
        bpp = 8 * sum(len(packet.payload) for packet in packets) / (len(frames) * height * width)
        for name, change in VARIANTS.items():
            decoded = list(changed(codec, change).decode(packets, info))
            row = {"clip": path.stem, "quality": quality, "variant": name, "bpp": bpp}
            rows.append(row | scores(judges, decoded, frames))
    return rows


def changed(codec: S2vc, change: Callable[[Generator], None]) -> S2vc:
    """The codec with a changed generator of its own."""
    other = S2vc(codec.loop, deepcopy(codec.renderer), codec.gop_length, codec.preset, codec.weights_id)
    change(other.renderer.generator)
    return other


@torch.inference_mode()
def scores(judges: Judges, decoded: list[Tensor], frames: list[Tensor]) -> dict[str, float]:
    """Means over frames, and over pairs of them."""
    pairs = list(zip(decoded, frames, strict=True))[JUDGED // 2 :: JUDGED]
    found = {
        name: float(np.mean([float(judge(*pair)) for pair in pairs]))
        for name, judge in judges._asdict().items()
    }
    shown, source = torch.stack(decoded), torch.stack(frames)
    flickers = flicker((source[:-1], source[1:]), (shown[:-1], shown[1:]))
    return found | {"flicker": float(flickers.mean())}


def of_variant(rows: list[dict[str, Any]], name: str) -> dict[str, float | None]:
    """BD-rates against what ships, and what flicker is over it."""
    shipped, own = ([r for r in rows if r["variant"] == n] for n in ("as shipped", name))
    means = [float(np.mean([r["flicker"] for r in some])) for some in (shipped, own)]
    found: dict[str, float | None] = {"flicker": 100 * (means[1] / means[0] - 1)}
    for judge in Judges._fields:
        anchor, test = (curves(some, judge) for some in (shipped, own))
        found[judge] = bd_rate_over_clips(anchor, test, lower_is_better=True).percent
    return found


def curves(rows: list[dict[str, Any]], judge: str) -> dict[str, list[tuple[float, float]]]:
    """Points of each clip."""
    clips = {row["clip"] for row in rows}
    return {clip: [(r["bpp"], r[judge]) for r in rows if r["clip"] == clip] for clip in clips}


if __name__ == "__main__":
    main()
