"""From trained codec parts of the paper preset to the file that its folder holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from gencodec.entropy.hyper import Z_BANDS
from gencodec.entropy.tables import CdfTables, gaussian_tables
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.paper.folder import KEY_FRAMES, OWN, PREFIX
from gencodec.methods.s2vc.paper.generator import own_names
from gencodec.methods.s2vc.paper.loop import NOT_FLOAT, PaperLoopCoder
from gencodec.nn.exact import project
from gencodec.nn.exact_io import export_exact
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.nn.state import export_float
from gencodec.training.counting import HyperCounts
from gencodec.training.export import commit
from gencodec.training.s2vc_paper import PaperTask
from gencodec.weights import load_named


@torch.no_grad()
def export_paper(task: PaperTask, clips: Iterable[Tensor], folder: Path) -> None:
    """Write codec parts, converted to integers before, with z counted on clips (1,T,3,H,W) in [0,1].

    Raises ValueError for entropy networks that are still in float.
    """
    codec = task.model.codec.eval()
    prior = codec.latents.prior
    for table, layer in prior.tables():
        layer.bias_add_max = float(table.anchors.detach().abs().max())
    project(codec)
    tensors = export_exact(prior, prior.tables(), "latents.prior.")
    tensors |= export_exact(codec.temporal, [], "temporal.")
    tensors |= gaussian_tables().to_tensors("latents.y_tables")
    tensors |= count_hyper_latents(task, clips).to_tensors("latents.z_tables")
    tensors |= export_float(codec, skip=NOT_FLOAT)
    key = KeyFrameCoder(*load_named(KEY_FRAMES.partition(".")[0]), "cpu")
    loop = PaperLoopCoder(codec.config, tensors, key, reset_period=1)
    state = task.generator.state_dict()
    tensors |= {PREFIX + name: state[name].half() for name in own_names(task.generator)}
    metadata = {
        "fingerprint": loop.fingerprint(),
        "config": codec.config.to_json(),
        "licence": "that of the base models and of the data it was trained on",
        "method": "s2vc",
        "preset": "paper",
        "commit": commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / OWN, metadata)


@torch.no_grad()
def count_hyper_latents(task: PaperTask, clips: Iterable[Tensor]) -> CdfTables:
    """Tables of z for each band of qualities and channel, from clips coded in the middle of each band."""
    codec = task.model.codec
    counts = HyperCounts(codec.config.z_channels)
    for clip in clips:
        for band in range(Z_BANDS):
            middle = (2 * band + 1) * NUM_QUALITIES // (2 * Z_BANDS)
            quality = torch.tensor([middle], device=task.device)
            for z_hat in task.code(clip.to(task.device), quality).z_hats:
                counts.add(z_hat[:1], [middle])
    return counts.tables()
