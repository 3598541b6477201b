"""`gencodec train diffsit --preset paper --stage NAME`: the stages of the paper preset, each resumable.

prompt   text encoder          -> empty-prompt.safetensors, in the folder of the base models
stem     records               -> the learned STEM; left out, the shipped one codes
latent   records               -> encoder, transformer and embedding, in latents
pixel    records, a latent run -> the same, in pictures
joint    records, a pixel run  -> the same, on pieces in a row
export   records, any run      -> diffsit-paper.safetensors, for the folder of the base models

Records are those of the tiny preset: `gencodec train diffsit --stage record`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from gencodec.codec import WeightsMissing
from gencodec.methods.diffsit.paper.base import HELP, load_base
from gencodec.methods.diffsit.paper.config import parse_config
from gencodec.methods.diffsit.paper.folder import KEY, base_folders
from gencodec.methods.diffsit.paper.generator import PaperGenerator
from gencodec.methods.diffsit.paper.prompt import NAME, read_prompt, write_prompt
from gencodec.methods.diffsit.paper.stem_config import parse_stem
from gencodec.methods.diffsit.paper.stem_model import StemModel
from gencodec.methods.intra.model import IntraModel
from gencodec.training.cli import add_budget, budgets, check_budget
from gencodec.training.data import BatchSource
from gencodec.training.diffsit_paper import PaperRecipe, PaperTask, Stage
from gencodec.training.diffsit_record import DiffsitBank
from gencodec.training.diffsit_stem import StemRecipe, StemTask, StemTraining
from gencodec.training.trainer import Trainer, load_checkpoint
from gencodec.weights import load_named

TRAINED = ("stem", "latent", "pixel", "joint")
STAGES = ("prompt", *TRAINED, "export")


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train diffsit --preset paper`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train diffsit --preset paper",
        description="Train a stage at the paper's sizes. A run goes on from the checkpoint in --out.",
    )
    add = parser.add_argument
    add("--preset", choices=("paper",), required=True)
    add("--stage", required=True, choices=STAGES)
    add("--base", type=Path, required=True, help=f"folder with the base models; {HELP}")
    add("--records", type=Path, help="folder of a record stage (all but prompt)")
    add("--init", type=Path, help="checkpoint of the stage before (pixel, joint), or to export")
    add("--lpips", type=Path, help="VGG16 with LPIPS heads: LPIPS-VGG instead of LPIPS-Alex (pixel, joint)")
    add("--stem", help='JSON, fields of StemConfig: a learned STEM ("{}" for the sizes of DCVC-FM)')
    add("--config", default="{}", help='JSON, fields of PaperConfig: {"dit": "full"}')
    add("--recipe", default="{}", help='JSON, fields of PaperRecipe: {"learning_rate": 1e-5}')
    add("--out", type=Path, help="checkpoint and log, or the folder to export to (runs/diffsit-paper-STAGE)")
    add_budget(parser)
    add("--batch", type=int, default=2, help="clips a step")
    add("--crop", type=int, default=192, help="pixels a side, a multiple of 16")
    options = parser.parse_args(args)
    if options.stage != "prompt" and options.records is None:
        parser.error(f"--stage {options.stage} needs --records FOLDER")
    if options.stage in ("pixel", "joint", "export") and options.init is None:
        parser.error(f"--stage {options.stage} needs --init CHECKPOINT")
    if options.stage == "stem":
        options.stem = options.stem or "{}"
    elif options.stem is not None and options.stage in TRAINED and options.init is None:
        parser.error(
            f"--stage {options.stage} with --stem needs --init CHECKPOINT, of a stem run or a later one"
        )
    if options.stage in TRAINED:
        check_budget(parser, options)
    if options.crop < 64 or options.crop % 16:
        parser.error(f"--crop is a multiple of 16, 64 or more, got {options.crop}")
    return options


def train_paper(args: list[str]) -> None:
    """Train one stage, make the prompt, or export. Raises WeightsMissing for a folder without base models."""
    options = parse(args)
    options.out = options.out or Path("runs") / f"diffsit-paper-{options.stage}"
    if options.stage == "prompt":
        write_prompt(options.base)
        return
    task = make_task(options)
    if options.stage == "export":
        from gencodec.training.diffsit_paper_export import export_paper

        assert isinstance(task, PaperTask), "stages behind stem have a generator"
        export_paper(task.generator, options.records, options.out, task.stem)
        return
    if task.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    source = BatchSource(task.bank, options.batch, task.device, options.seed)
    Trainer(task, source, options.out, *budgets(options)).run()


def make_task(options: argparse.Namespace) -> PaperTask | StemTask:
    """The stage's task on its device, from `--init` where given."""
    torch.manual_seed(options.seed)
    stem = make_stem(options)
    task: PaperTask | StemTask
    if options.stage == "stem" and stem is not None:
        of_stem = replace(StemRecipe(), **json.loads(options.recipe))
        task = StemTask(of_stem, stem, _bank(options, of_stem.frames), options.seed)
    else:
        stage = cast("Stage", "joint" if options.stage == "export" else options.stage)
        recipe = replace(PaperRecipe(), **json.loads(options.recipe))
        generator = make_generator(options)
        bank = _bank(options, recipe.frames * (2 if options.stage == "joint" else 1))
        vgg = str(options.lpips) if options.lpips else None
        task = PaperTask(stage, recipe, generator, bank, stem=stem, vgg=vgg, seed=options.seed)
    if options.init:
        task.begin_from(load_checkpoint(options.init))
    return task


def make_generator(options: argparse.Namespace) -> PaperGenerator:
    """From the base models. Raises WeightsMissing with all that is wrong."""
    base, problems = load_base(base_folders(options.base), read_prompt(options.base)[NAME])
    if base is None:
        raise WeightsMissing(f"cannot train on {options.base} ({HELP}):\n  " + "\n  ".join(problems))
    return PaperGenerator(base, parse_config(options.config)).to(options.device)


def make_stem(options: argparse.Namespace) -> StemTraining | None:
    """A learned STEM where --stem asks for one."""
    if options.stem is None:
        return None
    intra = IntraModel.frozen(load_named(KEY)[0]).to(options.device)
    return StemTraining(StemModel(parse_stem(options.stem)).to(options.device), intra)


def _bank(options: argparse.Namespace, frames: int) -> DiffsitBank:
    return DiffsitBank(options.records, frames=frames, crop=options.crop)
