"""`gencodec train s2vc --stage NAME`: one stage after another, each a run of its own that can be resumed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from gencodec.methods.intra.model import IntraModel
from gencodec.training.cli import add_budget, budgets, check_budget
from gencodec.training.clips import ClipBank
from gencodec.training.data import BatchSource
from gencodec.training.s2vc_loop import LoopRecipe, LoopTask
from gencodec.training.trainer import Trainer
from gencodec.weights import load_named

STAGES = ("loop",)
INTRA = "intra-tiny-3"  # codes the key frames


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train s2vc`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train s2vc",
        description="Train a stage of s2vc. A run goes on from the checkpoint in --out if there is one.",
    )
    add = parser.add_argument
    add("--stage", required=True, choices=STAGES)
    add("--data", required=True, type=Path, nargs="+", help="folders of clips")
    add("--out", type=Path, help="checkpoint and log; resumed if there (runs/s2vc-STAGE)")
    add_budget(parser)
    base = LoopRecipe()
    add("--batch", type=int, default=base.batch, help="clips a step")
    add("--crop", type=int, default=base.crop, help="pixels a side, a multiple of 64")
    add("--frames", type=int, default=base.frames, help="of a clip, the key frame with them")
    add("--limit", type=int, help="use only so many clips")
    options = parser.parse_args(args)
    check_budget(parser, options)
    if options.crop < 64 or options.crop % 64:
        parser.error(f"--crop is a multiple of 64, got {options.crop}")
    if options.frames < 2:
        parser.error(f"--frames is 2 or more, got {options.frames}")
    return options


def train_s2vc(args: list[str]) -> None:
    """Train one stage."""
    options = parse(args)
    device = torch.device(options.device)
    recipe = replace(LoopRecipe(), batch=options.batch, crop=options.crop, frames=options.frames)
    bank = ClipBank(options.data, crop=recipe.crop, frames=recipe.frames, limit=options.limit)
    task = LoopTask(recipe, IntraModel.frozen(load_named(INTRA)[0]), device, options.seed)
    source = BatchSource(bank, recipe.batch, device, options.seed + int(1e6))
    out = options.out or Path("runs") / f"s2vc-{options.stage}"
    Trainer(task, source, out, *budgets(options)).run()
