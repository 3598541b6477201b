"""From a training checkpoint to the weights file that ships.

Exact networks become integers, tables are counted on data, all else goes to half precision.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gencodec.entropy.latents import LatentCoder
from gencodec.entropy.means import MeanScale
from gencodec.entropy.tables import CdfTables
from gencodec.methods.intra.model import NOT_FLOAT, IntraModel
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import export_float
from gencodec.training.counting import SymbolCounts
from gencodec.training.data import PictureBank
from gencodec.training.mean_gains import fit_means, mixed
from gencodec.training.trainer import load_checkpoint as read_checkpoint
from gencodec.weights import load_file

PREFIX = "latents."
BANDS = 8  # of qualities, to count in evenly


REPAIR, LINEAR = "transforms.synthesis.", "transforms.synthesis.linear."


def load_checkpoint(path: Path) -> IntraModel:
    """The averaged (EMA) model of a checkpoint, its entropy networks exact; or that of a weights file, whose
    means grow evenly where it has no gains.
    """
    if path.suffix == ".safetensors":
        even = MeanScale().to_tensors(f"{PREFIX}prior.means")
        return IntraModel.frozen(even | load_file(path)[0])
    state = read_checkpoint(path)
    model = IntraModel()
    model.load_state_dict(state["ema"])
    layers = exact_layers(model.latents.prior)
    for layer in layers:
        layer.exact = bool(state["task"]["exact"])
    if not state["task"]["exact"]:
        convert(model.latents.prior)
    for table, layer in model.latents.prior.tables():
        layer.bias_add_max = float(table.anchors.detach().abs().max())
    project(model.latents.prior)
    return model.eval()


@torch.inference_mode()
def counted_tables(model: IntraModel, pictures: PictureBank, rounds: int, seed: int = 0) -> CdfTables:
    """Tables of y, from `rounds` batches for each eight qualities."""
    generator, counts = np.random.default_rng(seed), SymbolCounts()
    per_band = NUM_QUALITIES // BANDS
    for i in range(rounds * BANDS):
        quality = torch.full((8,), i % BANDS * per_band + i // BANDS % per_band)
        x = pictures.batch(len(quality), generator)
        estimate = model.latents(model.transforms.to_latents(x, quality), quality)
        counts.add(estimate.symbols, estimate.scale_index)
    return counts.tables(model.latents.skip)


def export_intra(model: IntraModel, y_tables: CdfTables) -> tuple[dict[str, Tensor], str]:
    """Tensors of the weights file, and the fingerprint of the exact networks as loaded from it."""
    prior = model.latents.prior
    tensors = prior.to_tensors(f"{PREFIX}prior.")
    tensors |= y_tables.to_tensors(f"{PREFIX}y_tables")
    tensors |= export_float(model, skip=NOT_FLOAT)
    fresh = IntraModel()
    coder = LatentCoder.load(fresh.latents, tensors)
    return tensors, coder.fingerprint(torch.device("cpu"))


def repaired_anew(kept: Mapping[str, Tensor], model: IntraModel) -> dict[str, Tensor]:
    """The tensors of a weights file with the repair of `model`: what streams depend on stays, bit for bit.

    Raises ValueError for a file of another layout.
    """
    found = export_float(model, skip=NOT_FLOAT).items()
    repair = {name: t for name, t in found if name.startswith(REPAIR) and not name.startswith(LINEAR)}
    if other := sorted(name for name, t in repair.items() if name not in kept or kept[name].shape != t.shape):
        raise ValueError(f"the weights to keep are of another layout: {', '.join(other[:3])}")
    return {**kept, **repair}


def main(args: list[str]) -> None:
    """`gencodec train intra --export`: a checkpoint to a weights file with provenance in its metadata."""
    parser = argparse.ArgumentParser(
        prog="gencodec train intra --export",
        description="Write the averaged weights of a checkpoint as the codec loads them.",
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint.pt, or weights to count anew")
    add("output", type=Path, metavar="OUTPUT", help=".safetensors file to write")
    add("--data", type=Path, nargs="+", help="pictures to count symbols on")
    add("--keep", type=Path, help="weights of which all stays but the repair: nothing is counted")
    add("--rounds", type=int, default=64, help="batches for each band of eight qualities")
    add("--crop", type=int, default=256, help="pixels a side; smaller pictures are left out")
    add("--limit", type=int, help="use only so many pictures")
    add("--command", default="", help="the command that trained it, for the metadata")
    add("--date", default="", help="for the metadata")
    options = parser.parse_args(args)
    if not (options.keep or options.data):
        parser.error("give --data to count symbols on, or --keep")
    model = load_checkpoint(options.checkpoint)
    if options.keep:
        kept, known = load_file(options.keep)
        tensors, fingerprint = repaired_anew(kept, model), known["fingerprint"]
    else:
        bank = PictureBank(options.data, crop=options.crop, limit=options.limit)
        fit_means(model, mixed(bank))
        tensors, fingerprint = export_intra(model, counted_tables(model, bank, options.rounds))
    metadata = {
        "fingerprint": fingerprint,
        "licence": "MIT",
        "method": "intra",
        "preset": "tiny",
        "command": options.command,
        "date": options.date,
        "commit": commit(),
        "parameters": str(sum(p.numel() for p in model.parameters())),
        "training": json.dumps(last_log_line(options.checkpoint.parent / "log.jsonl")),
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, options.output, metadata)


def commit() -> str:
    """The commit that this runs from; empty outside of a checkout."""
    result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def last_log_line(path: Path) -> dict:
    """What a run logged last."""
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1]) if lines else {}
