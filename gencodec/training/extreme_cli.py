"""`gencodec train extreme --stage NAME`: one stage after another, each a run of its own that can be resumed.

record     clips             -> coded frames, and what follows them, in files
predictor  records or digits -> what continues a video
export     the predictor     -> the weights file
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gencodec.methods.extreme.network import SMMNIST, PredictorConfig, PredictorNet
from gencodec.methods.extreme.settings import CODED_BY
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.s2vc.model import CodingLoop
from gencodec.methods.s2vc.rendering import Renderer
from gencodec.nn.state import config_from, export_float, load_float
from gencodec.training.banks import add_clips, named_clips
from gencodec.training.cli import add_budget, budgets, check_budget
from gencodec.training.data import Bank, BatchSource
from gencodec.training.export import commit, last_log_line
from gencodec.training.extreme import Examples, PredictorRecipe, PredictorTask
from gencodec.training.extreme_examples import CleanExamples, CodedExamples
from gencodec.training.extreme_record import AHEAD, FARTHEST, AnchorBank, Models, record
from gencodec.training.moving_mnist import MovingMnist
from gencodec.training.trainer import Trainer, load_checkpoint
from gencodec.weights import load_file, load_named, save_whole

RECORD_CROP = 160
MOST = 60  # frames of a clip that are kept in memory


def parse(args: list[str]) -> argparse.Namespace:
    """Arguments of `gencodec train extreme`."""
    parser = argparse.ArgumentParser(
        prog="gencodec train extreme",
        description="Train a stage of extreme. A run goes on from the checkpoint in --out if there is one.",
    )
    add = parser.add_argument
    add("--stage", required=True, choices=STAGES)
    add_clips(parser, "record")
    add("--records", type=Path, help="folder of a record stage (predictor)")
    add(
        "--digits", type=Path, help="instead: MNIST images (idx, .gz), which bounce in grey clips (predictor)"
    )
    add("--init", type=Path, help="checkpoint to begin from (predictor)")
    add("--predictor", type=Path, help="checkpoint of a predictor stage, or a weights file (export)")
    add("--config", default="{}", help='JSON, fields of PredictorConfig: {"widths": [32, 64]}')
    add("--recipe", default="{}", help='JSON, fields of PredictorRecipe: {"perceptual_from": 0.2}')
    add("--out", type=Path, help="checkpoint and log, records, or the weights file (runs/extreme-STAGE)")
    add_budget(parser)
    add("--batch", type=int, help="clips a step")
    add("--crop", type=int, help="pixels a side, a multiple of 32")
    add("--first", type=int, default=0, help="number of the first record")
    add("--count", type=int, default=200, help="records to make")
    options = parser.parse_args(args)
    for name in NEEDED[options.stage]:
        if getattr(options, name) is None:
            parser.error(f"--stage {options.stage} needs --{name}")
    if options.stage == "record" and options.data is None and options.photos is None:
        parser.error("--stage record needs --data or --photos")
    if options.stage == "predictor":
        check_budget(parser, options)
        if (options.records is None) == (options.digits is None):
            parser.error("--stage predictor needs --records or --digits")
    if options.crop is not None and (options.crop < 32 or options.crop % 32):
        parser.error(f"--crop is a multiple of 32, got {options.crop}")
    return options


def train_extreme(args: list[str]) -> None:
    """Train one stage."""
    options = parse(args)
    options.out = options.out or Path("runs") / f"extreme-{options.stage}"
    STAGES[options.stage](options)


def _record(options: argparse.Namespace) -> None:
    crop, frames = options.crop or RECORD_CROP, FARTHEST + 1 + AHEAD
    bank = named_clips(options, crop=crop, frames=frames, most=MOST)
    first, count = options.first, options.count
    record(load_models(), bank, options.out, first=first, count=count, seed=options.seed)


def load_models() -> Models:
    """What codes and renders in records: the shipped weights."""
    (s2vc, metadata), (intra, _) = (load_named(name) for name in CODED_BY)
    renderer = Renderer(s2vc, metadata.get("generator", "{}"), torch.device("cpu"), 1)
    return Models(IntraModel.frozen(intra), CodingLoop().eval(), renderer.generator)


def _predictor(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    recipe, config = _recipe(options), _config(options)
    bank: Bank
    examples: Examples
    if options.digits:
        bank = MovingMnist(options.digits, frames=config.past + config.predicted)
        examples = CleanExamples(device)
    else:
        bank = AnchorBank(options.records, crop=recipe.crop)
        examples = CodedExamples(bank, device)
    task = PredictorTask(recipe, config, examples, device, options.seed)
    if options.init:
        task.begin_from(load_checkpoint(options.init)["task"])
    source = BatchSource(bank, recipe.batch, device, options.seed)
    Trainer(task, source, options.out, *budgets(options)).run()


def _export(options: argparse.Namespace) -> None:
    net, training = _trained(options.predictor)
    metadata = {
        "predictor": json.dumps(asdict(net.config)),
        "licence": "MIT",
        "method": "extreme",
        "preset": "tiny",
        "commit": commit(),
        "parameters": str(sum(p.numel() for p in net.parameters())),
        "training": training,
    }
    tensors = {name: t.contiguous() for name, t in export_float(net, skip=(), int8=True).items()}
    save_whole(tensors, options.out.with_suffix(".safetensors"), metadata)


def _trained(path: Path) -> tuple[PredictorNet, str]:
    """The predictor of a checkpoint or of a weights file, and how it was trained."""
    if path.suffix == ".safetensors":
        tensors, metadata = load_file(path)
        net = PredictorNet(config_from(PredictorConfig, metadata["predictor"]))
        load_float(net, tensors, skip=())
        return net, metadata["training"]
    state = load_checkpoint(path)
    net = PredictorNet(PredictorConfig(**state["task"]["config"]))
    net.load_state_dict(state["ema"])
    return net, json.dumps([last_log_line(path.parent / "log.jsonl")])


def _recipe(options: argparse.Namespace) -> PredictorRecipe:
    base = PredictorRecipe(batch=32) if options.digits else PredictorRecipe()
    given: dict[str, Any] = json.loads(options.recipe)
    given |= {n: getattr(options, n) for n in ("batch", "crop") if getattr(options, n) is not None}
    return replace(base, **given)


def _config(options: argparse.Namespace) -> PredictorConfig:
    given: dict[str, Any] = json.loads(options.config)
    sizes: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    return replace(SMMNIST if options.digits else PredictorConfig(), **sizes)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "record": _record,
    "predictor": _predictor,
    "export": _export,
}
NEEDED = {"record": (), "predictor": (), "export": ("predictor",)}
