"""`gencodec train s2vc --preset paper --stage NAME`: the stages of the paper preset, each resumable.

loop     clips               -> codec parts
render   clips, a loop run   -> entrance, adapters, TCG and semantic head
joint    clips, a render run -> all of them, with the paper's loss
export   clips, any run      -> s2vc-paper.safetensors, for the folder of the base models
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from gencodec.codec import WeightsMissing
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.paper.base import HELP, load_base
from gencodec.methods.s2vc.paper.config import parse_config
from gencodec.methods.s2vc.paper.folder import base_folders
from gencodec.methods.s2vc.paper.generator import PaperGenerator
from gencodec.methods.s2vc.paper.pcodec import PCodec
from gencodec.training.cli import add_budget, budgets, check_budget
from gencodec.training.clips import ClipBank
from gencodec.training.data import BatchSource
from gencodec.training.s2vc_cli import INTRA
from gencodec.training.s2vc_paper import PaperRecipe, PaperTask, Stage
from gencodec.training.trainer import Trainer, load_checkpoint
from gencodec.weights import load_named

STAGES = ("loop", "render", "joint", "export")
COUNTED = 16  # clips that the tables of z are counted on


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train s2vc --preset paper`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train s2vc --preset paper",
        description="Train a stage of s2vc at the paper's sizes. A run goes on from the checkpoint in --out.",
    )
    add = parser.add_argument
    add("--preset", choices=("paper",), required=True)
    add("--stage", required=True, choices=STAGES)
    add("--data", type=Path, nargs="+", required=True, help="folders of clips")
    add("--base", type=Path, required=True, help=f"folder with the base models; {HELP}")
    add("--init", type=Path, help="checkpoint of the stage before (render, joint), or to export")
    add("--config", default="{}", help='JSON, fields of PaperConfig: {"form": "residual"}')
    add("--recipe", default="{}", help='JSON, fields of PaperRecipe: {"learning_rate": 5e-5}')
    add("--out", type=Path, help="checkpoint and log, or the folder to export to (runs/s2vc-paper-STAGE)")
    add_budget(parser)
    add("--batch", type=int, default=4, help="clips a step")
    add("--crop", type=int, default=256, help="pixels a side, a multiple of 64")
    add("--frames", type=int, default=3, help="of a clip, with gradients through all of them")
    add("--limit", type=int, help="use only so many clips")
    options = parser.parse_args(args)
    if options.stage != "loop" and options.init is None:
        parser.error(f"--stage {options.stage} needs --init CHECKPOINT")
    if options.stage != "export":
        check_budget(parser, options)
    if options.crop < 64 or options.crop % 64:
        parser.error(f"--crop is a multiple of 64, got {options.crop}")
    if options.frames < 2:
        parser.error(f"--frames is 2 or more, got {options.frames}")
    return options


def train_paper(args: list[str]) -> None:
    """Train one stage, or export. Raises WeightsMissing for a folder without the base models."""
    options = parse(args)
    options.out = options.out or Path("runs") / f"s2vc-paper-{options.stage}"
    task = make_task(options)
    bank = ClipBank(options.data, crop=options.crop, frames=options.frames, limit=options.limit)
    if options.stage == "export":
        from gencodec.training.s2vc_paper_export import export_paper  # needs the entropy coder

        generator = np.random.default_rng(options.seed)
        export_paper(task, (bank.batch(1, generator) for _ in range(COUNTED)), options.out)
        return
    if task.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    source = BatchSource(bank, options.batch, task.device, options.seed)
    Trainer(task, source, options.out, *budgets(options)).run()


def make_task(options: argparse.Namespace) -> PaperTask:
    """The stage's task on its device, from `--init` where given."""
    config = parse_config(options.config)
    base, problems = load_base(base_folders(options.base))
    if base is None:
        raise WeightsMissing(f"cannot train on {options.base} ({HELP}):\n  " + "\n  ".join(problems))
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    recipe = replace(PaperRecipe(), **json.loads(options.recipe))
    stage = cast("Stage", "joint" if options.stage == "export" else options.stage)
    codec, generator = PCodec(config).to(device), PaperGenerator(base, config).to(device)
    intra = IntraModel.frozen(load_named(INTRA)[0]).to(device)
    task = PaperTask(stage, recipe, codec, generator, intra, options.seed)
    if options.init:
        task.begin_from(load_checkpoint(options.init))
    return task
