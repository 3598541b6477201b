"""`gencodec train METHOD`: reads the arguments, builds the task and runs the trainer."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from gencodec.methods.intra.networks import STRIDE
from gencodec.training.data import BatchSource, PictureBank
from gencodec.training.intra import IntraTask
from gencodec.training.recipe import CONTINUE, PHASES, Recipe
from gencodec.training.trainer import Budget, Trainer
from gencodec.weights import load_file


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train intra`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train intra",
        description="Train the key-frame codec. A run goes on from the checkpoint in --out if there is one.",
        epilog="gencodec train intra --export CHECKPOINT OUTPUT.safetensors --data FOLDER turns a checkpoint "
        "into weights; --export --help shows its options.",
    )
    add = parser.add_argument
    add("--data", required=True, type=Path, nargs="+", help="folders of clips and photographs")
    add("--out", type=Path, default=Path("runs/intra"), help="checkpoint and log; resumed if there")
    add("--lpips", type=Path, help="VGG16 with LPIPS heads (.safetensors): adds LPIPS-VGG and DISTS")
    add("--init", type=Path, help="weights (.safetensors) to begin from instead of from nothing")
    add("--new-prior", action="store_true", help="take the transforms of --init alone, train the prior anew")
    add_budget(parser)
    add("--batch", type=int, default=Recipe().batch, help="pictures a step")
    add("--crop", type=int, default=Recipe().crop, help="pixels a side, a multiple of 64")
    add("--shares", type=float, nargs=len(PHASES), metavar="SHARE", help=f"lengths of {', '.join(PHASES)}")
    add("--limit", type=int, help="use only so many pictures")
    options = parser.parse_args(args)
    check_budget(parser, options)
    if options.new_prior and not options.init:
        parser.error("--new-prior takes the transforms of a weights file: give --init")
    if options.crop < 64 or options.crop % 64:
        parser.error(f"--crop is a multiple of 64, got {options.crop}")
    return options


def add_budget(parser: argparse.ArgumentParser) -> None:
    """The options of every trainer: how long, in which slices, on what, from which seed."""
    add = parser.add_argument
    add("--steps", type=int, help="length of the whole run")
    add("--minutes", type=float, help="length of the whole run, in minutes of training")
    add("--slice-steps", type=int, help="stop after so many in this call; the next goes on")
    add("--slice-minutes", type=float, help="the same, in minutes")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seed", type=int, default=0)


def check_budget(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Stop with a message where no length is given."""
    if options.steps is None and options.minutes is None:
        parser.error("give a budget: --steps N, --minutes M, or both")


def preset_of(args: list[str]) -> str | None:
    """What --preset says, whatever else is there."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset")
    return cast("str | None", parser.parse_known_args(args)[0].preset)


def budgets(options: argparse.Namespace) -> tuple[Budget, Budget]:
    """Of the whole run, and of this call."""
    whole = Budget(options.steps, options.minutes)
    return whole, Budget(options.slice_steps, options.slice_minutes)


def recipe_for(batch: int, crop: int, device: torch.device, base: Recipe | None = None) -> Recipe:
    """The recipe at a batch and crop; a GPU affords many more and larger patches."""
    base = base or Recipe()
    recipe = replace(base, batch=batch, crop=crop, patch=min(base.patch, crop // STRIDE))
    if device.type == "cpu":
        return recipe
    return replace(recipe, repairs=4 * batch, windows=batch, patch=min(8, crop // STRIDE))


def train_intra(args: list[str]) -> None:
    """Train the key-frame codec, or with --export write its weights."""
    if "--export" in args:
        from gencodec.training import export  # needs the entropy coder, which training does not

        export.main([arg for arg in args if arg != "--export"])
        return
    options = parse(args)
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    goes_on = options.init and not options.new_prior
    recipe = recipe_for(options.batch, options.crop, device, CONTINUE if goes_on else None)
    recipe = recipe.with_shares(options.shares) if options.shares else recipe
    bank = PictureBank(options.data, crop=recipe.crop, limit=options.limit)
    task = IntraTask(recipe, str(options.lpips) if options.lpips else None, device, options.seed)
    if options.init:
        task.start_from(load_file(options.init)[0], new_prior=options.new_prior)
    source = BatchSource(bank, recipe.batch, device, options.seed + int(1e6))
    Trainer(task, source, options.out, *budgets(options)).run()
