"""`gencodec train METHOD`: reads the arguments, builds the task and runs the trainer."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from gencodec.training.data import PictureBank
from gencodec.training.intra import IntraTask, Recipe
from gencodec.training.trainer import Budget, Trainer


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train intra`."""
    parser = argparse.ArgumentParser(prog="gencodec train intra", description=__doc__)
    parser.add_argument("--data", required=True, type=Path, nargs="+", help="folders of clips and photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/intra"), help="checkpoints and log; resumed if there")
    parser.add_argument("--lpips", type=Path, help="LPIPS-VGG weights (.safetensors); without: the shipped LPIPS-Alex")
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes of training")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=Recipe().batch)
    parser.add_argument("--limit", type=int, help="use only so many pictures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    if options.steps is None and options.minutes is None:
        parser.error("give a budget: --steps N, --minutes M, or both")
    return options


def train_intra(args: list[str]) -> None:
    """Train the key-frame codec; see `training.intra`."""
    options = parse(args)
    recipe = Recipe(batch=options.batch)
    bank = PictureBank(options.data, crop=recipe.crop, limit=options.limit)
    device = torch.device(options.device)
    task = IntraTask(recipe, str(options.lpips) if options.lpips else None, device, options.seed)
    generator = np.random.default_rng(options.seed + int(1e6))

    def next_batch() -> torch.Tensor:
        batch = bank.batch(recipe.batch, generator)
        return batch.to(device, memory_format=torch.channels_last)

    budget = Budget(options.steps, options.minutes)
    Trainer(task, next_batch, options.out, budget, recipe.learning_rate).run()
