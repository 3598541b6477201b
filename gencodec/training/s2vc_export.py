"""From the checkpoints of `s2vc`'s stages to the weights file that ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gencodec.entropy.latents import Z_BANDS
from gencodec.entropy.motion import count_tables
from gencodec.entropy.scales import NUM_SCALES
from gencodec.entropy.tables import TOTAL, CdfTables, gaussian_tables, quantise
from gencodec.methods.intra.codec import KeyFrameCoder
from gencodec.methods.s2vc.generator import Generator, GeneratorConfig
from gencodec.methods.s2vc.loop import NOT_FLOAT, LoopCoder
from gencodec.methods.s2vc.model import CodingLoop, motion_unit
from gencodec.methods.s2vc.rendering import PREFIX
from gencodec.nn.exact import convert, exact_layers, project
from gencodec.nn.exact_io import export_exact
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import export_float
from gencodec.training.export import Z_MAX, commit, last_log_line, smoothed_tables
from gencodec.training.s2vc_cli import INTRA
from gencodec.training.s2vc_prior import levels
from gencodec.training.s2vc_record import Record, RecordBank, stacked
from gencodec.training.s2vc_strength import choose_strength
from gencodec.training.trainer import load_checkpoint
from gencodec.weights import load_named

MAX_COUNTED = 300  # |symbol|; larger ones are escapes
PRIOR_WEIGHT = 50  # counts that the normal distribution stands for


def export(prior_path: Path, generator_path: Path, records: Path, output: Path) -> None:
    """Write the averaged weights of a prior and of a generator run; tables are counted on the records."""
    loop, generator = load_loop(prior_path), load_generator(generator_path)
    bank = RecordBank(records, window=2)
    tensors, fingerprint = export_loop(loop, bank)
    share = choose_strength(generator, bank)
    tensors |= {f"{PREFIX}{name}": t for name, t in export_float(generator, skip=()).items()}
    metadata = {
        "fingerprint": fingerprint,
        "generator": json.dumps(asdict(generator.config)),
        "licence": "MIT",
        "method": "s2vc",
        "preset": "tiny",
        "repair_shown": json.dumps([round(float(s), 3) for s in share]),
        "commit": commit(),
        "parameters": str(sum(p.numel() for m in (loop, generator) for p in m.parameters())),
        "training": json.dumps([last_log_line(p.parent / "log.jsonl") for p in (prior_path, generator_path)]),
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, output, metadata)


def fields_of(records: Sequence[Record]) -> list[list[np.ndarray]]:
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
    tensors |= export_exact(prior, prior.tables(), "latents.prior.")
    tensors |= count_symbols(loop, bank).to_tensors("latents.y_tables")
    tensors |= count_hyper_latents(loop, bank).to_tensors("latents.z_tables")
    tensors |= count_tables(fields_of(bank.records)).to_tensors("motion_tables")
    tensors |= export_float(loop, skip=NOT_FLOAT)
    coder = LoopCoder(tensors, KeyFrameCoder(*load_named(INTRA), "cpu"))
    return tensors, coder.fingerprint()


@torch.inference_mode()
def count_symbols(loop: CodingLoop, bank: RecordBank) -> CdfTables:
    """Tables of the residual's symbols: for each scale index what was seen there, beside the normal one.

    Residuals have longer tails than a normal distribution of their scale.
    """
    reach = MAX_COUNTED
    counts = np.zeros((NUM_SCALES, 2 * reach + 1))
    for record in bank.records:
        clip = stacked([record])
        state = loop.temporal.begin(clip.key_y_hat[:, 0].float())
        for t in range(clip.symbols.shape[1]):
            symbols, motion = clip.symbols[:, t].float(), clip.motion[:, t].float()
            moved = loop.moved(state, motion)
            index = loop.latents.indices(symbols, levels(clip.quality, t + 1), moved)
            inside = symbols.abs() <= reach
            np.add.at(counts, (index[inside].int().numpy(), symbols[inside].int().numpy() + reach), 1)
            state = loop.temporal.update(moved, symbols)
    normal = gaussian_tables()
    rows = []
    for number, seen in enumerate(counts):
        radius = -int(normal.offset[number])
        wide = min(2 * radius + 2, reach)
        expected = np.zeros(2 * reach + 1)
        bins = normal.counts(number)[:-1] / TOTAL
        expected[reach - radius : reach + radius + 1] = np.roll(bins, radius)
        mixed = (seen + PRIOR_WEIGHT * expected) / (seen.sum() + PRIOR_WEIGHT)
        mixed = (mixed + mixed[::-1]) / 2  # a sign says nothing
        kept = mixed[reach - wide : reach + wide + 1]
        rows.append((quantise(np.append(kept, max(1 / TOTAL, 1 - kept.sum()))), -wide))
    return CdfTables.from_counts(*zip(*rows, strict=True), skip=loop.latents.skip)


@torch.inference_mode()
def count_hyper_latents(loop: CodingLoop, bank: RecordBank) -> CdfTables:
    """Tables of z for each band of levels and channel."""
    channels = loop.latents.prior.z_channels
    counts = np.zeros((Z_BANDS, channels, 2 * Z_MAX + 1))
    for record in bank.records:
        level = torch.cat([levels(record.quality, t + 1) for t in range(len(record.symbols))])
        z = loop.latents.hyper_symbols(record.symbols.float(), level).to(torch.int64).numpy() + Z_MAX
        for one, band in zip(z, (level * Z_BANDS // NUM_QUALITIES).tolist(), strict=True):
            for channel in range(channels):
                counts[band, channel] += np.bincount(one[channel].ravel(), minlength=2 * Z_MAX + 1)
    return smoothed_tables(counts)
