"""`gencodec train extreme`: the predictor, on natural clips or on Stochastic Moving MNIST."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gencodec.methods.extreme.network import SMMNIST, PredictorConfig
from gencodec.methods.intra.model import IntraModel
from gencodec.training.cli import add_budget, budgets, check_budget
from gencodec.training.clips import ClipBank
from gencodec.training.data import Bank, BatchSource
from gencodec.training.extreme import PredictorRecipe, PredictorTask
from gencodec.training.moving_mnist import MovingMnist
from gencodec.training.trainer import Trainer
from gencodec.weights import load_named

INTRA = "intra-tiny-4"  # codes the key frames


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train extreme`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train extreme",
        description="Train the predictor of extreme. A run goes on from the checkpoint in --out.",
    )
    add = parser.add_argument
    add("--data", type=Path, nargs="+", help="folders of clips")
    add("--digits", type=Path, help="instead: MNIST images (idx, .gz), which bounce in grey clips of 64x64")
    add("--config", default="{}", help='JSON, fields of PredictorConfig: {"widths": [32, 64]}')
    add("--recipe", default="{}", help='JSON, fields of PredictorRecipe: {"alone": 0.5}')
    add("--out", type=Path, default=Path("runs/extreme"), help="checkpoint and log; resumed if there")
    add_budget(parser)
    add("--batch", type=int, help="clips a step")
    add("--crop", type=int, help="pixels a side, a multiple of 32")
    add("--limit", type=int, help="use only so many clips")
    options = parser.parse_args(args)
    if (options.data is None) == (options.digits is None):
        parser.error("give --data or --digits")
    check_budget(parser, options)
    if options.crop is not None and (options.crop < 32 or options.crop % 32):
        parser.error(f"--crop is a multiple of 32, got {options.crop}")
    return options


def train_extreme(args: list[str]) -> None:
    """Train the predictor."""
    options = parse(args)
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    recipe = _recipe(options)
    config = _config(options)
    frames = config.past + config.predicted
    bank: Bank
    intra = None
    if options.digits:
        bank = MovingMnist(options.digits, frames=frames)
    else:
        bank = ClipBank(options.data, crop=recipe.crop, frames=frames, limit=options.limit)
        intra = IntraModel.frozen(load_named(INTRA)[0]).to(device)
    task = PredictorTask(recipe, config, intra, device, options.seed)
    source = BatchSource(bank, recipe.batch, device, options.seed)
    Trainer(task, source, options.out, *budgets(options)).run()


def _recipe(options: argparse.Namespace) -> PredictorRecipe:
    base = PredictorRecipe(batch=32) if options.digits else PredictorRecipe()
    given: dict[str, Any] = json.loads(options.recipe)
    given |= {n: getattr(options, n) for n in ("batch", "crop") if getattr(options, n) is not None}
    return replace(base, **given)


def _config(options: argparse.Namespace) -> PredictorConfig:
    given: dict[str, Any] = json.loads(options.config)
    sizes: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    return replace(SMMNIST if options.digits else PredictorConfig(), **sizes)
