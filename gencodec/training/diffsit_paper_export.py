"""From trained parts of `diffsit`'s paper preset to the file that its folder holds."""

from __future__ import annotations

from pathlib import Path

import torch

from gencodec.methods.diffsit.paper.folder import OWN
from gencodec.methods.diffsit.paper.generator import PaperGenerator, own_names
from gencodec.methods.diffsit.rendering import PREFIX
from gencodec.training.diffsit_record import mv_tables
from gencodec.training.export import commit
from gencodec.weights import save_whole


@torch.no_grad()
def export_paper(generator: PaperGenerator, records: Path, folder: Path) -> None:
    """Write what is this project's of a generator, in half precision; motion is counted on the records."""
    state = generator.state_dict()
    tensors = mv_tables(records)
    tensors |= {PREFIX + name: state[name].half().cpu().contiguous() for name in own_names(generator)}
    metadata = {
        "generator": generator.config.to_json(),
        "licence": "that of the base models and of the data it was trained on",
        "method": "diffsit",
        "preset": "paper",
        "commit": commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_whole(tensors, folder / OWN, metadata)
