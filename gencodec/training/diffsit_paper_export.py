"""From trained parts of `diffsit`'s paper preset to the file that its folder holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.hyper import Z_BANDS
from gencodec.entropy.tables import gaussian_tables
from gencodec.methods.diffsit.generator import PREFIX
from gencodec.methods.diffsit.paper.folder import KEY, LEARNED, OWN
from gencodec.methods.diffsit.paper.generator import PaperGenerator, own_names
from gencodec.methods.diffsit.paper.stem_coder import NOT_FLOAT, LearnedLoop
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.nn.exact import project
from gencodec.nn.exact_io import export_exact
from gencodec.nn.state import export_float
from gencodec.training.counting import HyperCounts
from gencodec.training.diffsit_record import DiffsitBank
from gencodec.training.diffsit_sent import mv_tables
from gencodec.training.diffsit_stem import StemTraining, hyper_latents, one_at_each_rate
from gencodec.training.export import commit
from gencodec.weights import load_named, save_whole

COUNTED = 16  # windows of records that tables of z are counted on


@torch.no_grad()
def export_paper(
    generator: PaperGenerator, records: Path, folder: Path, stem: StemTraining | None = None
) -> None:
    """Write what is this project's of a generator, in half precision, and STEM, counted on the records.

    Raises ValueError for a learned STEM whose entropy networks are still in float.
    """
    state = generator.state_dict()
    tensors, notes = (mv_tables(records), dict[str, str]()) if stem is None else learned(stem, records)
    tensors |= {PREFIX + name: state[name].half().cpu() for name in own_names(generator)}
    metadata = {
        "generator": generator.config.to_json(),
        "licence": "that of the base models and of the data it was trained on",
        "method": "diffsit",
        "preset": "paper",
        "commit": commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_whole({n: t.contiguous() for n, t in tensors.items()}, folder / OWN, metadata | notes)


@torch.no_grad()
def learned(stem: StemTraining, records: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a learned STEM as a file holds them, and what its metadata says of them."""
    model = stem.model.eval()
    tensors: dict[str, Tensor] = {}
    for latents in model.codecs().values():
        for table, layer in latents.prior.tables():
            layer.bias_add_max = float(table.anchors.detach().abs().max())
    project(model)
    for prefix, latents in model.codecs().items():
        tensors |= export_exact(latents.prior, latents.prior.tables(), f"{prefix}prior.")
        tensors |= gaussian_tables().to_tensors(f"{prefix}y_tables")
    tensors |= export_exact(model.temporal, [], "temporal.")
    bank = DiffsitBank(records)
    tensors |= counted(stem, (bank.cut(d[None]).x for d in bank.batch(COUNTED, np.random.default_rng(0))))
    tensors |= export_float(model, skip=NOT_FLOAT)
    tensors = {name: t.cpu() for name, t in tensors.items()}
    loop = LearnedLoop(model.config, tensors, KeyFrameCoder(*load_named(KEY), "cpu"), None)
    notes = {"stem": model.config.to_json(), "fingerprint": loop.fingerprint()}
    return {LEARNED + name: t for name, t in tensors.items()}, notes


@torch.no_grad()
def counted(stem: StemTraining, clips: Iterable[Tensor]) -> dict[str, Tensor]:
    """Tables of z for each band of qualities and channel, from clips (1,T,3,H,W) coded at a rate of each."""
    codecs = stem.model.codecs()
    counts = {prefix: HyperCounts(latents.prior.z_channels) for prefix, latents in codecs.items()}
    device = stem.model.to_picture.weight.device
    for clip in clips:
        for quality in one_at_each_rate(Z_BANDS).tolist():
            coded = stem.code(clip.to(device), torch.tensor([quality], device=device))
            for prefix, z_hat in hyper_latents(coded):
                counts[prefix].add(z_hat, [quality])
    found: dict[str, Tensor] = {}
    for prefix, of_prefix in counts.items():
        found |= of_prefix.tables().to_tensors(f"{prefix}z_tables")
    return found
