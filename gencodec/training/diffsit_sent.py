"""Records of what encoders of `diffsit` really send, and the tables of their motion: see `diffsit_record`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.motion_counts import count_pairs
from gencodec.entropy.tables import CdfTables
from gencodec.methods.diffsit.codec import MV_TABLES
from gencodec.methods.diffsit.pieces import StemCoder
from gencodec.methods.diffsit.stem import ALL_ANCHORS, Field, groups_of, steps_expected, unit_of
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.training.diffsit_record import CHAIN, Record, read_records
from gencodec.weights import load_named

LOOP, INTRA = "s2vc-tiny-6", "intra-tiny-9"  # code backbones


def stem_coder(device: torch.device | str = "cpu") -> StemCoder:
    """STEM with the shipped weights; motion is coded under tables of `s2vc`, which no picture depends on."""
    tensors, metadata = load_named(LOOP)
    key = KeyFrameCoder(*load_named(INTRA), device)
    key.tune = "lpips"
    key.smooths = False  # symbols come back from pictures, see `diffsit_backbones`
    loop = LoopCoder(tensors, key, metadata["fingerprint"], ALL_ANCHORS)
    return StemCoder(loop, MotionCoder.load(tensors), CHAIN)


def record_sent(coder: StemCoder, x: Tensor, quality: int) -> Record:
    """Code a clip x (T,3,H,W) in [0,1], sides multiples of 16, as one GOP."""
    frames = (255 * x).round().to(torch.uint8)
    piece = coder.encode(list(frames), None, quality)[1]
    motion = torch.from_numpy(piece.motion).to(torch.int16)
    pictures = (255 * piece.pictures).round().to(torch.uint8)
    return Record(frames, pictures, torch.tensor(piece.is_mv), torch.tensor([quality]), motion)


def count_tables(records: Iterable[Record]) -> CdfTables:
    """Tables of the motion of MV frames, as the wire predicts it."""
    return count_pairs(pair for one in records for pair in _pairs(one))


def mv_tables(folder: Path) -> dict[str, Tensor]:
    """The same of a folder's records, as tensors of a weights file."""
    return count_tables(read_records(folder)).to_tensors(MV_TABLES)


def _pairs(one: Record) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Fields of MV frames in steps of the wire, and what is expected in their place."""
    motion, unit = one.motion.int().numpy(), unit_of(int(one.quality))
    field: Field | None = None
    for group in groups_of(len(motion), CHAIN):
        for offset in group.offsets:
            expected = steps_expected(offset, field, unit)
            field = Field(motion[group.backbone + offset], offset)
            yield field.motion // unit, expected
