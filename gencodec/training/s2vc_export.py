"""From the checkpoints of `s2vc`'s stages to the weights file that ships."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gencodec.entropy.motion_counts import count_tables
from gencodec.entropy.tables import CdfTables
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.generator import PREFIX, Generator, GeneratorConfig
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.methods.s2vc.model import CodingLoop, motion_unit
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.exact_io import export_exact
from gencodec.nn.state import config_from, export_float
from gencodec.training.counting import SymbolCounts
from gencodec.training.export import commit, last_log_line
from gencodec.training.s2vc_cli import INTRA
from gencodec.training.s2vc_prior import levels
from gencodec.training.s2vc_record import Record, RecordBank, stacked
from gencodec.training.s2vc_strength import choose_strength
from gencodec.training.trainer import load_checkpoint
from gencodec.weights import load_file, load_named

MOTION_TABLES = "motion_tables"


class Renders(NamedTuple):
    """What a weights file holds of a generator: tensors, and what its metadata say of it."""

    tensors: dict[str, Tensor]
    config: str
    repair_shown: str
    parameters: int
    training: Any


def export(
    prior: Path,
    generator: Path,
    records: Path,
    output: Path,
    held_out: Path | None = None,
    motion: Path | None = None,
) -> None:
    """Write the averaged weights of a prior and of a generator run; tables are counted on the records.

    Where `prior` or `generator` is a weights file, its entropy networks and their tables, or its generator,
    stay, whatever the other is. How much of the repair is shown is chosen on `held_out` records; without them
    on the others, where a generator that knows them by heart shows too much. The tables of motion may come
    from another weights file, `motion`, which has seen more records.
    """
    bank = RecordBank(records, window=2)
    tensors, fingerprint, learned = loop_of(prior, bank)
    if motion:
        seen = load_file(motion)[0]
        tensors |= {name: t for name, t in seen.items() if name.startswith(MOTION_TABLES)}
    renders = generator_of(generator, RecordBank(held_out, window=2) if held_out else bank)
    metadata = {
        "fingerprint": fingerprint,
        "generator": renders.config,
        "licence": "MIT",
        "method": "s2vc",
        "preset": "tiny",
        "repair_shown": renders.repair_shown,
        "commit": commit(),
        "parameters": str(sum(p.numel() for p in CodingLoop().parameters()) + renders.parameters),
        "training": json.dumps([learned, renders.training]),
    }
    whole = {name: t.contiguous() for name, t in (tensors | renders.tensors).items()}
    save_file(whole, output, metadata)


def generator_of(path: Path, bank: RecordBank) -> Renders:
    """The averaged weights of a run, its share of repair chosen on the records; or all of a weights file."""
    if path.suffix == ".safetensors":
        tensors, metadata = load_file(path)
        own = {name: t for name, t in tensors.items() if name.startswith(PREFIX)}
        config = config_from(GeneratorConfig, metadata["generator"])
        parameters = sum(p.numel() for p in Generator(config).parameters())
        training = json.loads(metadata["training"])[1]
        return Renders(own, metadata["generator"], metadata["repair_shown"], parameters, training)
    generator = load_generator(path)
    share = choose_strength(generator, bank)
    exported = export_float(generator, skip=(), int8=True)
    return Renders(
        {f"{PREFIX}{name}": t for name, t in exported.items()},
        json.dumps(asdict(generator.config)),
        json.dumps([round(float(s), 3) for s in share]),
        sum(p.numel() for p in generator.parameters()),
        last_log_line(path.parent / "log.jsonl"),
    )


def loop_of(path: Path, bank: RecordBank) -> tuple[dict[str, Tensor], str, Any]:
    """Tensors of the coding loop, its fingerprint, and the end of its training's log.

    From a prior's checkpoint, or as they are in a weights file but for the tables of motion, which are
    counted again: records may have been made with that file's (`--encoder`).
    """
    if path.suffix != ".safetensors":
        return *export_loop(load_loop(path), bank), last_log_line(path.parent / "log.jsonl")
    tensors, metadata = load_file(path)
    kept = {name: t for name, t in tensors.items() if not name.startswith(PREFIX)}
    kept |= count_tables(fields_of(bank)).to_tensors(MOTION_TABLES)
    return kept, metadata["fingerprint"], json.loads(metadata["training"])[0]


def fields_of(records: Iterable[Record]) -> list[list[np.ndarray]]:
    """The motion (2,h,w) of each record's frames, in the steps that a packet holds."""
    return [list(r.motion.int().numpy() // motion_unit(int(r.quality))) for r in records]


def load_loop(path: Path, *, exact: bool = True) -> CodingLoop:
    """The averaged (EMA) prior of a checkpoint; its networks as integers, or as they are."""
    state = load_checkpoint(path)
    loop = CodingLoop()
    loop.load_state_dict(state["ema"])
    for layer in exact_layers(loop):
        layer.exact = bool(state["task"]["exact"])
    if exact and not state["task"]["exact"]:
        convert(loop)
    for table, layer in loop.latents.prior.tables():
        layer.bias_add_max = float(table.anchors.detach().abs().max())
    project(loop)
    return loop.eval()


def load_generator(path: Path) -> Generator:
    """The averaged (EMA) generator of a checkpoint."""
    state = load_checkpoint(path)
    config = GeneratorConfig(**state["task"]["config"])
    generator = Generator(config)
    generator.load_state_dict(state["ema"])
    return generator.eval()


def export_loop(loop: CodingLoop, bank: RecordBank) -> tuple[dict[str, Tensor], str]:
    """Tensors of the loop, and the fingerprint of its exact networks as loaded from them."""
    prior = loop.latents.prior
    tensors = export_exact(loop.temporal, [], "temporal.")
    tensors |= prior.to_tensors("latents.prior.")
    tensors |= counted(loop, bank).to_tensors("latents.y_tables")
    tensors |= count_tables(fields_of(bank)).to_tensors(MOTION_TABLES)
    coder = LoopCoder(tensors, KeyFrameCoder(*load_named(INTRA), "cpu"))
    return tensors, coder.fingerprint()


@torch.inference_mode()
def counted(loop: CodingLoop, bank: RecordBank) -> CdfTables:
    """Tables of the residuals."""
    counts = SymbolCounts()
    for record in bank:
        clip = stacked([record])
        state = loop.temporal.begin(clip.key_y_hat[:, 0].float())
        for t in range(clip.symbols.shape[1]):
            moved, level = loop.moved(state, clip.motion[:, t].float()), levels(clip, t + 1)
            estimate = loop.latents(clip.symbols[:, t].float(), level, moved)
            counts.add(estimate.symbols, estimate.scale_index)
            state = loop.temporal.update(moved, estimate.y_hat)
    return counts.tables(loop.latents.skip)
