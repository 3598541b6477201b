"""`gencodec train diffsit --stage NAME`: one stage after another, each a run of its own that can be resumed.

record       clips             -> what STEM makes of them, in files
backbones    records           -> their backbones alone, as records of `s2vc`: for the prior that codes both
autoencoder  clips             -> the video autoencoder of the generator
flow         clips             -> its transformer, as a generative prior; --init: the autoencoder's checkpoint
joint        records           -> all of it, in one step from STEM's clips; --init: the flow's checkpoint
export       the joint stage   -> the weights file

A stage can be left out: without --init it begins from nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from gencodec.methods.diffsit.generator import GeneratorConfig
from gencodec.training.banks import add_clips, named_clips
from gencodec.training.cli import add_budget, budgets, check_budget, preset_of
from gencodec.training.data import Bank, BatchSource
from gencodec.training.diffsit_autoencoder import AutoencoderRecipe, AutoencoderTask
from gencodec.training.diffsit_flow import FlowRecipe, FlowTask
from gencodec.training.diffsit_joint import JointRecipe, JointTask
from gencodec.training.diffsit_stage import Stage
from gencodec.training.trainer import Trainer, load_checkpoint
from gencodec.weights import load_file, load_named

if TYPE_CHECKING:
    from gencodec.training.diffsit_record import Record

R = TypeVar("R", AutoencoderRecipe, FlowRecipe, JointRecipe)
RECORD_CROP, RECORD_FRAMES = 192, 21
MOST = 48  # frames of a clip that are kept in memory


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train diffsit`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train diffsit",
        description="Train a stage of diffsit. A run goes on from the checkpoint in --out if there is one.",
    )
    add = parser.add_argument
    add("--preset", choices=("tiny", "paper"), default="tiny", help="paper has its own: --preset paper -h")
    add("--stage", required=True, choices=STAGES)
    add_clips(parser, "record, autoencoder, flow")
    add("--records", type=Path, help="folder of a record stage (backbones, joint, export)")
    add("--held-out", type=Path, help="records of such: shows what is learned by heart (joint, export)")
    add("--init", type=Path, help="checkpoint of an earlier stage or run, or a weights file, to begin from")
    add("--checkpoint", type=Path, help="checkpoint of a joint stage, or a weights file (export)")
    add("--lpips", type=Path, help="VGG16 with LPIPS heads: adds LPIPS-VGG and DISTS (joint)")
    add("--config", default="{}", help='JSON, fields of GeneratorConfig: {"fte": false}')
    add("--recipe", default="{}", help="JSON, fields of the stage's recipe")
    add("--out", type=Path, help="checkpoint and log, records, or the weights file (runs/diffsit-STAGE)")
    add_budget(parser)
    add("--batch", type=int, help="clips a step")
    add("--crop", type=int, help="pixels a side, a multiple of 32")
    add("--plain", action="store_true", help="without the entropy coder, by a formula and rounding (record)")
    add("--first", type=int, default=0, help="number of the first record")
    add("--count", type=int, default=200, help="records to make")
    options = parser.parse_args(args)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Stop with a message where options do not fit the stage."""
    for name in NEEDED[options.stage]:
        if getattr(options, name) is None:
            parser.error(f"--stage {options.stage} needs --{name}")
    if not NEEDED[options.stage] and options.data is None and options.photos is None:
        parser.error(f"--stage {options.stage} needs --data or --photos")
    if options.stage in TRAINED:
        check_budget(parser, options)
    if options.crop is not None and (options.crop < 64 or options.crop % 32):
        parser.error(f"--crop is a multiple of 32, 64 or more, got {options.crop}")


def train_diffsit(args: list[str]) -> None:
    """Train one stage."""
    if preset_of(args) == "paper":
        from gencodec.training.diffsit_paper_cli import train_paper  # needs diffusers

        return train_paper(args)
    options = parse(args)
    options.out = options.out or Path("runs") / f"diffsit-{options.stage}"
    STAGES[options.stage](options)


def _record(options: argparse.Namespace) -> None:
    from gencodec.training.diffsit_record import record

    bank = named_clips(options, crop=options.crop or RECORD_CROP, frames=RECORD_FRAMES, most=MOST)
    first, count, device = options.first, options.count, options.device
    record(_coder(options), bank, options.out, device, first=first, count=count, seed=options.seed)


def _coder(options: argparse.Namespace) -> Callable[[Tensor, int], Record]:
    """What makes a record of a clip; without --plain it needs the entropy coder."""
    if not options.plain:
        from gencodec.training.diffsit_sent import record_sent, stem_coder

        return partial(record_sent, stem_coder(options.device))
    from gencodec.methods.intra.model import IntraModel
    from gencodec.methods.s2vc.model import CodingLoop
    from gencodec.training.diffsit_record import record_plain
    from gencodec.training.s2vc_cli import INTRA

    intra = IntraModel.frozen(load_named(INTRA)[0]).to(options.device)
    return partial(record_plain, CodingLoop().eval().to(options.device), intra)


def _backbones(options: argparse.Namespace) -> None:
    from gencodec.methods.intra.model import IntraModel
    from gencodec.training.diffsit_backbones import write_backbones
    from gencodec.training.s2vc_cli import INTRA

    write_backbones(options.records, options.out, IntraModel.frozen(load_named(INTRA)[0]))


def _autoencoder(options: argparse.Namespace) -> None:
    recipe = _recipe(AutoencoderRecipe(), options)
    task = AutoencoderTask(recipe, _config(options), torch.device(options.device), options.seed)
    bank = named_clips(options, crop=recipe.crop, frames=recipe.frames, most=MOST)
    _run(task, bank, recipe.batch, options)


def _flow(options: argparse.Namespace) -> None:
    recipe = _recipe(FlowRecipe(), options)
    task = FlowTask(recipe, _config(options), torch.device(options.device), options.seed)
    bank = named_clips(options, crop=recipe.crop, frames=recipe.frames, most=MOST)
    _run(task, bank, recipe.batch, options)


def _joint(options: argparse.Namespace) -> None:
    from gencodec.training.diffsit_record import DiffsitBank

    recipe = _recipe(JointRecipe(), options)
    bank = DiffsitBank(options.records, frames=2 * recipe.frames, crop=recipe.crop)
    vgg = str(options.lpips) if options.lpips else None
    task = JointTask(recipe, _config(options), bank, vgg, torch.device(options.device), options.seed)
    if options.held_out:
        task.held_out = DiffsitBank(options.held_out, frames=recipe.frames)
    _run(task, bank, recipe.batch, options)


def _export(options: argparse.Namespace) -> None:
    from gencodec.training.diffsit_export import export  # needs the entropy coder, which training does not

    export(options.checkpoint, options.records, options.out, options.held_out)


def _run(task: Stage, bank: Bank, batch: int, options: argparse.Namespace) -> None:
    if options.init and options.init.suffix == ".safetensors":
        task.begin_from_weights(load_file(options.init)[0])
    elif options.init:
        task.begin_from(load_checkpoint(options.init))
    if task.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    source = BatchSource(bank, batch, task.device, options.seed)
    Trainer(task, source, options.out, *budgets(options)).run()


def _recipe(base: R, options: argparse.Namespace) -> R:
    chosen = {n: getattr(options, n) for n in ("batch", "crop") if getattr(options, n) is not None}
    return replace(base, **(json.loads(options.recipe) | chosen))


def _config(options: argparse.Namespace) -> GeneratorConfig:
    return replace(GeneratorConfig(), **json.loads(options.config))


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "record": _record,
    "backbones": _backbones,
    "autoencoder": _autoencoder,
    "flow": _flow,
    "joint": _joint,
    "export": _export,
}
NEEDED: dict[str, tuple[str, ...]] = {
    "record": (),
    "backbones": ("records",),
    "autoencoder": (),
    "flow": (),
    "joint": ("records",),
    "export": ("records", "checkpoint"),
}
TRAINED = ("autoencoder", "flow", "joint")
