"""From a checkpoint of `diffsit`'s last stage to the weights file that ships."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch

from gencodec.methods.diffsit import rendering
from gencodec.methods.diffsit.generator import PREFIX, ClipGenerator, GeneratorConfig
from gencodec.nn.state import export_float
from gencodec.training.diffsit_record import DiffsitBank
from gencodec.training.diffsit_sent import mv_tables
from gencodec.training.diffsit_strength import choose_strength
from gencodec.training.export import commit, last_log_line
from gencodec.training.trainer import load_checkpoint
from gencodec.weights import load_file, save_whole


def export(checkpoint: Path, records: Path, output: Path, held_out: Path | None = None) -> None:
    """Write the averaged weights of a joint run, in int8; tables of motion are counted on the records.

    How much of the repair is shown is chosen on `held_out` records; without them on the others, where a
    generator that knows them by heart shows too much. Where `checkpoint` is a weights file, that choice is
    made anew, and all else stays as it is there.
    """
    if checkpoint.suffix == ".safetensors":
        return _shown_anew(checkpoint, DiffsitBank(held_out or records), output.with_suffix(".safetensors"))
    generator = load_generator(checkpoint)
    share = choose_strength(generator, DiffsitBank(held_out or records))
    tensors = mv_tables(records)
    tensors |= {f"{PREFIX}{name}": t for name, t in export_float(generator, skip=(), int8=True).items()}
    metadata = {
        "generator": json.dumps(asdict(generator.config)),
        "licence": "MIT",
        "method": "diffsit",
        "preset": "tiny",
        "repair_shown": json.dumps([[round(float(s), 3) for s in row] for row in share]),
        "commit": commit(),
        "parameters": str(sum(p.numel() for p in generator.parameters())),
        "training": json.dumps([last_log_line(checkpoint.parent / "log.jsonl")]),
    }
    whole = {name: t.contiguous() for name, t in tensors.items()}
    save_whole(whole, output.with_suffix(".safetensors"), metadata)


def _shown_anew(weights: Path, bank: DiffsitBank, output: Path) -> None:
    """A weights file with another share of its generator's repair, in what it showed before."""
    tensors, metadata = load_file(weights)
    loaded = rendering.load_generator(tensors, metadata["generator"], torch.device("cpu"))
    generator = cast("ClipGenerator", loaded)
    share = choose_strength(generator, bank) * np.array(json.loads(metadata["repair_shown"]))
    tensors[f"{PREFIX}log2_strength.rows"] = generator.log2_strength.rows.clone()
    shown = json.dumps([[round(float(s), 3) for s in row] for row in share])
    save_whole(tensors, output, metadata | {"repair_shown": shown, "commit": commit()})


def load_generator(path: Path) -> ClipGenerator:
    """The averaged (EMA) generator of a checkpoint."""
    state = load_checkpoint(path)
    generator = ClipGenerator(GeneratorConfig(**state["task"]["config"]))
    generator.load_state_dict(state["ema"])
    return generator.eval().to(memory_format=torch.channels_last)
