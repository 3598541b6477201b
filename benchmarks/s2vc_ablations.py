"""What the parts of `s2vc` are worth.

    s2vc_ablations.py --records R --clips VAL --lpips VGG16 --prior WEIGHTS --generator WEIGHTS

Every variant begins from the same weights (what shipped, or a checkpoint; priors from nothing with --anew),
without the part, and is trained for equally many steps on the same records, the full ones too. Measured on
whole held-out clips; writes results/ablations-s2vc.json, priors and generators each with the commit they were
measured at. Variants share the coding loop, so a prior's figure is its rate over the full one's at the same
pictures, and a generator's is BD-rate at equal LPIPS-Alex with the bits of the prior that was given.
Everything is kept in --work: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import RESULTS, environment

from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.motion_counts import count_tables
from gencodec.evaluation.bd_rate import bd_rate
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.generator import Generator
from gencodec.methods.s2vc.model import CodingLoop, key_quality
from gencodec.metrics.lpips import Lpips
from gencodec.training.data import VIDEO_SUFFIXES
from gencodec.training.s2vc_cli import INTRA, train_s2vc
from gencodec.training.s2vc_export import fields_of, load_generator, load_loop
from gencodec.training.s2vc_prior import PriorRecipe, PriorTask
from gencodec.training.s2vc_record import Record, RecordBank, coded_frame, record_clip, stacked
from gencodec.video import open_video
from gencodec.weights import load_file, load_named

QUALITIES = (4, 16, 28, 40, 52)
PRIORS: dict[str, dict[str, Any]] = {
    "full": {},
    "no temporal prior": {"temporal": False},
    "in float": {"exact_from": 2.0},
}
# Lower than from nothing, for the first steps at a high rate spoil what was learned; the critic is new.
GOING_ON = {"perceptual_from": 0.0, "adversarial_from": 0.0, "heard_from": 0.3, "learning_rate": 1e-4}
GENERATORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # configuration, recipe
    "full": ({}, {}),
    "no CSG": ({"semantics": "none"}, {}),
    "CSG of f_t alone": ({"semantics": "single"}, {}),
    "CSG without distillation": ({}, {"semantic": 0.0}),
    "one fixed token": ({"semantics": "fixed"}, {}),
    "no TCG": ({"temporal": False}, {}),
    "TCG without cascade": ({}, {"cascade": False}),
    "plain decoder": ({"unet": False}, {}),
}


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add = parser.add_argument
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure now")
    add("--records", type=Path, required=True, help="of `--stage record`, to train on")
    add("--record-frames", type=int, default=25, help="of each record")
    add("--clips", type=Path, required=True, help="held-out clips")
    add("--lpips", type=Path, help="VGG16 with LPIPS heads, for training generators")
    add("--prior", type=Path, required=True, help="weights file or checkpoint that priors begin from")
    add("--anew", action="store_true", help="priors begin from nothing: integers unlearn slowly")
    add("--generator", type=Path, help="the same for generators")
    add("--variants", nargs="+", choices=list(GENERATORS), default=list(GENERATORS))
    add("--frames", type=int, default=17, help="of each held-out clip")
    add("--prior-steps", type=int, default=300)
    add("--generator-steps", type=int, default=150)
    add("--also", type=Path, help="results of before, for the part that is not measured now")
    add("--work", type=Path, default=Path("ablations-s2vc"))
    add("--out", type=Path, default=RESULTS / "ablations-s2vc.json")
    options = parser.parse_args()
    if "generators" in options.parts and not (options.lpips and options.generator):
        parser.error("generators need --lpips and --generator")
    result = json.loads(options.also.read_text()) if options.also else {}
    held_out = record_held_out(options)
    for part in options.parts:
        found = PARTS[part](held_out, options)
        result[part] = environment() | {"frames": options.frames, "clips": sorted(held_out)} | found
        print(part, json.dumps(found["percent"], indent=1))
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def priors(held_out: dict[str, list[Record]], options: argparse.Namespace) -> dict[str, Any]:
    """Bits of the residual that each variant of the prior takes more."""
    bits = {name: residual_bits(train_prior(name, options), PRIORS[name], held_out) for name in PRIORS}
    percent = {name: against(bits["full"], found) for name, found in bits.items()}
    return {"steps": options.prior_steps, "from_nothing": options.anew, "percent": percent}


def generators(held_out: dict[str, list[Record]], options: argparse.Namespace) -> dict[str, Any]:
    """Curves of each variant of the generator, and BD-rate at equal LPIPS-Alex."""
    rates = frame_rates(residual_bits(shipped_loop(options.prior), {}, held_out), held_out, options)
    names = dict.fromkeys(["full", *options.variants])
    curves = {name: curve(train_generator(name, options), rates, held_out) for name in names}
    percent = {
        name: bd_rate(curves["full"], points, lower_is_better=True).percent for name, points in curves.items()
    }
    return {"steps": options.generator_steps, "curves": curves, "percent": percent}


PARTS = {"priors": priors, "generators": generators}


def shipped_loop(path: Path) -> CodingLoop:
    """The coding loop of a weights file or a checkpoint."""
    if path.suffix != ".safetensors":
        return load_loop(path)
    loop = CodingLoop()
    loop.load_weights(load_file(path)[0])
    return loop.eval()


def record_held_out(options: argparse.Namespace) -> dict[str, list[Record]]:
    """Every clip as coded at every quality."""
    loop, intra = CodingLoop().eval(), IntraModel.frozen(load_named(INTRA)[0])
    found = {}
    for path in sorted(p for p in options.clips.iterdir() if p.suffix in VIDEO_SUFFIXES):
        with open_video(path, frames=(0, options.frames)) as video:
            x = torch.stack(list(video)).float() / 255
        x = x[..., : x.shape[2] // 16 * 16, : x.shape[3] // 16 * 16]
        found[path.stem] = [record_clip(loop, intra, x, quality) for quality in QUALITIES]
    return found


def train_prior(name: str, options: argparse.Namespace) -> CodingLoop:
    """A variant's prior, from its checkpoint where it is trained already."""
    folder = options.work / f"prior {name}"
    begin = ["--recipe", json.dumps(PRIORS[name])]
    if not options.anew:
        recipe = {"learning_rate": 1e-3} | PRIORS[name]
        begin = ["--init", str(options.prior), "--recipe", json.dumps(recipe)]
    train_s2vc(
        [
            *("--stage", "prior", "--records", str(options.records), "--out", str(folder)),
            *("--frames", str(options.record_frames), "--steps", str(options.prior_steps)),
            *("--device", "cpu", *begin),
        ]
    )
    return load_loop(folder / "checkpoint.pt", exact=PRIORS[name].get("exact_from", 0) < 1)


def train_generator(name: str, options: argparse.Namespace) -> Generator:
    """The same for a generator."""
    config, recipe = GENERATORS[name]
    folder = options.work / f"generator {name}"
    train_s2vc(
        [
            *("--stage", "generator", "--records", str(options.records), "--out", str(folder)),
            *("--lpips", str(options.lpips), "--steps", str(options.generator_steps), "--device", "cpu"),
            *("--init", str(options.generator), "--config", json.dumps(config)),
            *("--recipe", json.dumps(GOING_ON | recipe)),
        ]
    )
    return load_generator(folder / "checkpoint.pt")


@torch.no_grad()
def residual_bits(
    loop: CodingLoop, recipe: dict[str, Any], held_out: dict[str, list[Record]]
) -> dict[str, list[float]]:
    """Estimated bits of all residuals of each clip at each quality."""
    found = {}
    for clip, records in held_out.items():
        bank = RecordBank.of(records, window=len(records[0].x))
        task = PriorTask(PriorRecipe(**recipe), loop, bank, torch.device("cpu"))
        task.model.eval()
        found[clip] = [
            float(
                task.rates(stacked(bank.cut(torch.tensor([[i, 0, 0, 0]]), task.device)), 0, len(r.motion))[0]
            )
            for i, r in enumerate(records)
        ]
    return found


def frame_rates(
    residuals: dict[str, list[float]], held_out: dict[str, list[Record]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Bits a pixel of each clip at each quality: key frame, motion under counted tables, residuals."""
    bank = RecordBank(options.records, window=2)
    motion = MotionCoder(count_tables(fields_of(bank)))
    intra = IntraModel.frozen(load_named(INTRA)[0])
    found: dict[str, list[float]] = {}
    for clip, records in held_out.items():
        for quality, record, residual in zip(QUALITIES, records, residuals[clip], strict=True):
            own = torch.tensor([key_quality(quality)])
            with torch.no_grad():
                x = record.x[:1].float() / 255
                key = intra.latents(intra.transforms.to_latents(x, own).float(), own)
            bits = residual + float(key.bits)
            fields = fields_of([record])[0]
            bits += sum(motion.bits(f, before) for f, before in zip(fields, [None, *fields], strict=False))
            pixels = record.x.shape[0] * record.x.shape[2] * record.x.shape[3]
            found.setdefault(clip, []).append(bits / pixels)
    return found


@torch.inference_mode()
def curve(
    generator: Generator, rates: dict[str, list[float]], held_out: dict[str, list[Record]]
) -> list[tuple[float, float]]:
    """(bits a pixel, LPIPS-Alex) at each quality, means over clips; every second frame is measured."""
    lpips = Lpips.load()
    points = []
    for i in range(len(QUALITIES)):
        distances = [rendered_distance(generator, records[i], lpips) for records in held_out.values()]
        points.append((float(np.mean([r[i] for r in rates.values()])), float(np.mean(distances))))
    return points


def rendered_distance(generator: Generator, record: Record, lpips: Lpips) -> float:
    """Mean LPIPS-Alex of a clip's rendered frames."""
    whole = RecordBank.of([record], window=len(record.x)).cut(
        torch.zeros(1, 4, dtype=torch.long), torch.device("cpu")
    )
    clip, memory, found = stacked(whole), None, []
    for t in range(clip.x.shape[1]):
        out = generator(coded_frame(clip, t), clip.clock[:, t, 0], memory)
        memory = out.memory
        if t % 2 == 0:
            found.append(float(lpips.distance(out.picture.clamp(0, 1), clip.x[:, t])))
    return float(np.mean(found))


def against(full: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """How many percent more bits, mean over clips and qualities."""
    ratios = [b / a for clip in full for a, b in zip(full[clip], other[clip], strict=True)]
    return 100 * (float(np.exp(np.mean(np.log(ratios)))) - 1)


if __name__ == "__main__":
    main()
