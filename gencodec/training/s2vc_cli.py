"""`gencodec train s2vc --stage NAME`: one stage after another, each a run of its own that can be resumed.

record     clips             -> what the coding loop makes of them, in files
prior      records           -> the entropy networks, on long groups of pictures
generator  records           -> what renders a frame
export     all of these      -> the weights file
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.generator import GeneratorConfig
from gencodec.methods.s2vc.model import CodingLoop
from gencodec.training.banks import add_clips, named_clips
from gencodec.training.cli import add_budget, budgets, check_budget, preset_of
from gencodec.training.data import BatchSource
from gencodec.training.s2vc_prior import PriorRecipe, PriorTask
from gencodec.training.s2vc_record import Record, RecordBank, record, record_clip
from gencodec.training.s2vc_render import RenderRecipe, RenderTask
from gencodec.training.trainer import Task, Trainer, load_checkpoint
from gencodec.weights import load_file, load_named

R = TypeVar("R", PriorRecipe, RenderRecipe)
INTRA = "intra-tiny-9"  # codes the key frames


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train s2vc`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train s2vc",
        description="Train a stage of s2vc. A run goes on from the checkpoint in --out if there is one.",
    )
    add = parser.add_argument
    add("--preset", choices=("tiny", "paper"), default="tiny", help="paper has its own: --preset paper -h")
    add("--stage", required=True, choices=STAGES)
    add_clips(parser, "record")
    add("--records", type=Path, help="folder of a record stage (prior, generator)")
    add("--encoder", type=Path, help="weights file whose encoder chooses motion and symbols (record)")
    add("--held-out", type=Path, help="records of such: shows what is learned by heart (generator, export)")
    add(
        "--init",
        type=Path,
        help="checkpoint of such a stage to begin from (prior, generator), or a weights file",
    )
    add(
        "--prior",
        type=Path,
        help="checkpoint of a prior stage, or a weights file to keep the loop of (export)",
    )
    add(
        "--generator",
        type=Path,
        help="checkpoint of a generator stage, or a weights file to keep the generator of (export)",
    )
    add("--motion", type=Path, help="weights file to keep the motion tables of; else counted (export)")
    add("--lpips", type=Path, help="VGG16 with LPIPS heads: adds LPIPS-VGG and DISTS (generator)")
    add("--config", default="{}", help='JSON, fields of GeneratorConfig: {"semantics": "none"} (generator)')
    add("--recipe", default="{}", help="JSON, fields of the stage's recipe")
    add("--out", type=Path, help="checkpoint and log, records, or the weights file (runs/s2vc-STAGE)")
    add_budget(parser)
    add("--batch", type=int, help="clips a step")
    add("--crop", type=int, help="pixels a side, a multiple of 64")
    add(
        "--frames",
        type=int,
        help="of a record (record: 24; prior: any), or rendered ones in a row (generator)",
    )
    add("--first", type=int, default=0, help="number of the first record")
    add("--count", type=int, default=200, help="records to make")
    options = parser.parse_args(args)
    for name in NEEDED[options.stage]:
        if getattr(options, name) is None:
            parser.error(f"--stage {options.stage} needs --{name}")
    if options.stage == "record" and options.data is None and options.photos is None:
        parser.error("--stage record needs --data or --photos")
    if options.stage in TRAINED:
        check_budget(parser, options)
    if options.crop is not None and (options.crop < 64 or options.crop % 64):
        parser.error(f"--crop is a multiple of 64, got {options.crop}")
    if options.frames is not None and options.frames < 2:
        parser.error(f"--frames is 2 or more, got {options.frames}")
    return options


def train_s2vc(args: list[str]) -> None:
    """Train one stage."""
    if preset_of(args) == "paper":
        from gencodec.training.s2vc_paper_cli import train_paper  # needs diffusers

        return train_paper(args)
    options = parse(args)
    options.out = options.out or Path("runs") / f"s2vc-{options.stage}"
    STAGES[options.stage](options)


def _record(options: argparse.Namespace) -> None:
    crop, frames = options.crop or 192, options.frames or 24
    bank = named_clips(options, crop=crop, frames=frames, most=96)
    code = _coder(options.encoder, options.device)
    first, count = options.first, options.count
    record(code, bank, options.out, options.device, first=first, count=count, seed=options.seed)


def _coder(encoder: Path | None, device: str) -> Callable[[Tensor, int], Record]:
    if encoder:
        from gencodec.training.s2vc_sent import encoder_of, record_sent  # needs the entropy coder

        return partial(record_sent, encoder_of(encoder, INTRA, device))
    intra = IntraModel.frozen(load_named(INTRA)[0]).to(device)
    return partial(record_clip, CodingLoop().to(device).eval(), intra)


def _train_prior(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    recipe = _recipe(PriorRecipe(), options, "batch")
    bank = RecordBank(options.records, window=options.frames, crop=options.crop)
    task = PriorTask(recipe, CodingLoop(), bank, device)
    if options.init and options.init.suffix == ".safetensors":
        task.begin_from_weights(load_file(options.init)[0])
    elif options.init:
        task.begin_from(load_checkpoint(options.init))
    _run(task, BatchSource(bank, recipe.batch, device, options.seed), options)


def _train_generator(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    recipe = _recipe(RenderRecipe(), options, "batch", "crop", "frames")
    config = replace(GeneratorConfig(), **json.loads(options.config))
    bank = RecordBank(options.records, window=recipe.burn + recipe.frames, crop=recipe.crop)
    vgg = str(options.lpips) if options.lpips else None
    task = RenderTask(recipe, config, bank, vgg, device, options.seed)
    if options.held_out:
        task.held_out = RecordBank(options.held_out, window=recipe.burn + recipe.frames)
    task.start_from(load_named(INTRA)[0])
    if options.init and options.init.suffix == ".safetensors":
        task.begin_from_weights(load_file(options.init)[0])
    elif options.init:
        task.begin_from(load_checkpoint(options.init))
    _run(task, BatchSource(bank, recipe.batch, device, options.seed), options)


def _export(options: argparse.Namespace) -> None:
    from gencodec.training.s2vc_export import export  # needs the entropy coder, which training does not

    o = options
    export(o.prior, o.generator, o.records, o.out, o.held_out, o.motion)


def _recipe(base: R, options: argparse.Namespace, *names: str) -> R:
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return replace(base, **(json.loads(options.recipe) | chosen))


def _run(task: Task, source: BatchSource, options: argparse.Namespace) -> None:
    if torch.device(options.device).type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    Trainer(task, source, options.out, *budgets(options)).run()


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "record": _record,
    "prior": _train_prior,
    "generator": _train_generator,
    "export": _export,
}
NEEDED = {
    "record": (),
    "prior": ("records",),
    "generator": ("records",),
    "export": ("records", "prior", "generator"),
}
TRAINED = ("prior", "generator")
