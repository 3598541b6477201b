"""What the parts of `diffsit`'s generator are worth: `diffsit_ablations.py --records R --clips VAL`.

Every variant begins from the weights that ship, without the part, its last layer at nothing, and is trained
for equally many steps on the same records (`--stage record`), the full one too. Measured on whole held-out
clips as encoders send them, so that all variants repair the same pictures at the same rate: LPIPS-Alex of
all frames, of backbones and of MV frames, and its deviation over the frames of a clip. All of the repair is
shown. Writes results/ablations-diffsit-training.json; everything is kept in --work: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from speed import RESULTS, environment
from torch import Tensor

from gencodec.evaluation.clips import digest_of
from gencodec.methods.diffsit.generator import ClipGenerator, GeneratorConfig
from gencodec.methods.diffsit.rendering import load_generator
from gencodec.metrics.lpips import Lpips
from gencodec.nn.precision import half_precision
from gencodec.nn.state import thaw_tables
from gencodec.training.data import VIDEO_SUFFIXES, BatchSource
from gencodec.training.diffsit_joint import JointRecipe, JointTask
from gencodec.training.diffsit_record import DiffsitBank, Record
from gencodec.training.diffsit_sent import record_sent, stem_coder
from gencodec.training.trainer import Budget, Trainer, load_checkpoint
from gencodec.video import open_video
from gencodec.weights import load_named

WEIGHTS, STEM = "diffsit-tiny-4", "STEM alone"
PIECE = 9  # frames that are rendered together
VARIANTS: dict[str, dict[str, Any]] = {  # fields of GeneratorConfig
    "full": {},
    "no FTE": {"fte": False},
    "FTE at the latents": {"fte_at": "latent"},
    "convolutions for the transformer": {"dit": False},
}
CPU = torch.device("cpu")


def main() -> None:
    """Record, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add = parser.add_argument
    add("--records", type=Path, required=True, help="of `--stage record`, to train on")
    add("--clips", type=Path, required=True, help="held-out clips")
    add("--lpips", type=Path, help="VGG16 with LPIPS heads: adds LPIPS-VGG and DISTS to the losses")
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    add("--qualities", type=int, nargs="+", default=[8, 24, 44])
    add("--frames", type=int, default=18, help="of each held-out clip, a multiple of 9")
    add("--steps", type=int, default=400)
    add("--work", type=Path, default=Path("ablations-diffsit-training"))
    add("--out", type=Path, default=RESULTS / "ablations-diffsit-training.json")
    options = parser.parse_args()
    paths = [p for p in sorted(options.clips.iterdir()) if p.suffix in VIDEO_SUFFIXES]
    held_out = {(path.stem, q): sent(path, q, options) for path in paths for q in options.qualities}
    found = {STEM: measured(None, held_out, options)}
    for name in dict.fromkeys(["full", *options.variants]):
        found[name] = measured(trained(name, options), held_out, options)
    result = environment() | {
        "clips": {path.stem: digest_of(path) for path in paths},
        "frames": options.frames,
        "steps": options.steps,
        "variants": found,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def sent(path: Path, quality: int, options: argparse.Namespace) -> Record:
    """A held-out clip as an encoder sends it; from --work if it is there."""
    kept = options.work / f"{path.stem}-{options.frames}-q{quality}.safetensors"
    if not kept.exists():
        with open_video(path, frames=(0, options.frames)) as video:
            x = torch.stack(list(video)).float() / 255
        x = x[..., : x.shape[2] // 16 * 16, : x.shape[3] // 16 * 16]
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        coded = record_sent(stem_coder(), x, quality)._asdict()
        save_file({name: t.contiguous() for name, t in coded.items()}, part)
        part.replace(kept)
    return Record(**load_file(kept))


def shipped() -> ClipGenerator:
    """The generator that ships, as it was trained."""
    tensors, metadata = load_named(WEIGHTS)
    model = load_generator(tensors, metadata["generator"], CPU)
    assert isinstance(model, ClipGenerator)
    thaw_tables(model)
    return model


def trained(name: str, options: argparse.Namespace) -> ClipGenerator:
    """A variant, from its checkpoint where it is trained already."""
    folder, config = options.work / name, replace(GeneratorConfig(), **VARIANTS[name])
    recipe = JointRecipe()
    bank = DiffsitBank(options.records, frames=2 * recipe.frames, crop=recipe.crop)
    vgg = str(options.lpips) if options.lpips else None
    task = JointTask(recipe, config, bank, vgg, CPU, seed=0)
    task.begin_from({"ema": shipped().state_dict(), "task": {}})
    Trainer(task, BatchSource(bank, recipe.batch, CPU, 0), folder, Budget(options.steps), Budget(None)).run()
    task.model.load_state_dict(load_checkpoint(folder / "checkpoint.pt")["ema"])
    return task.model.eval()


def measured(
    model: ClipGenerator | None, held_out: dict[tuple[str, int], Record], options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """By quality, means over clips; without a model of STEM's pictures."""
    lpips = Lpips.load()
    rows = {key: distances(rendered(model, one), one, lpips) for key, one in held_out.items()}
    found = {}
    for quality in options.qualities:
        own = [(rows[key], one.is_mv.numpy()) for key, one in held_out.items() if key[1] == quality]
        found[str(quality)] = {
            "mean": float(np.mean([row.mean() for row, _ in own])),
            "backbone": float(np.mean([row[~is_mv].mean() for row, is_mv in own])),
            "mv": float(np.mean([row[is_mv].mean() for row, is_mv in own])),
            "deviation": float(np.mean([row.std() for row, _ in own])),
        }
    return found


@torch.inference_mode()
def rendered(model: ClipGenerator | None, one: Record) -> Tensor:
    """The frames of a record as they are shown, (T,3,H,W) in [0,1]."""
    if model is None:
        return one.picture.float() / 255
    carry, shown = None, []
    for first in range(0, len(one.x), PIECE):
        own = slice(first, first + PIECE)
        with half_precision(CPU):
            out = model(one.picture[None, own].float() / 255, one.is_mv[own], one.quality, carry)
        carry = out.carry
        shown.append(out.picture[0].float().clamp(0, 1))
    return torch.cat(shown)


@torch.inference_mode()
def distances(shown: Tensor, one: Record, lpips: Lpips) -> np.ndarray:
    """LPIPS-Alex of each frame, (T,)."""
    x = one.x.float() / 255
    found = [lpips.distance(a, b) for a, b in zip(shown.split(3), x.split(3), strict=True)]
    return torch.cat(found).double().numpy()


if __name__ == "__main__":
    main()
