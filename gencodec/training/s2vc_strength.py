"""How much of the generator's repair is shown at each quality, chosen on records when weights are exported.

What a frame becomes is its coded picture plus strength x repair. Training sets the strength by its own
losses; at high rates the coded picture alone is nearer to the source by LPIPS-Alex, which those losses are
not. So the share that is best by it, on clips of the training set, is built into the strengths.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from gencodec.methods.s2vc.generator import Generator, Memory
from gencodec.metrics.lpips import Lpips
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.training.s2vc_record import Record, RecordBank, coded_frame, stacked

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # first the coded picture; training may show too little
TINY = 1e-6  # of a distance to divide by
LEAST = 2.0**-12  # in place of 0, whose logarithm the strengths would hold
BAND = 8  # qualities that share a choice; in between it is interpolated


@torch.inference_mode()
def choose_strength(generator: Generator, bank: RecordBank, *, frames: int = 9, most: int = 64) -> np.ndarray:
    """Scale the strengths of `generator` in place; gives the share at each quality (64,)."""
    lpips = Lpips.load()
    sums, counts = np.zeros((NUM_QUALITIES // BAND, len(SHARES))), np.zeros(NUM_QUALITIES // BAND)
    for record in islice(bank, most):
        for clock, distances in _distances(generator, record, frames, lpips):
            sums[clock // BAND] += np.array(distances) / max(distances[0], TINY)
            counts[clock // BAND] += 1
    share = best_shares(sums, counts)
    table = generator.decoder.log2_strength
    table.rows.copy_(table.table() + torch.from_numpy(np.log2(share)).float()[:, None])
    table.frozen = True
    return share


def _distances(
    generator: Generator, record: Record, frames: int, lpips: Lpips
) -> list[tuple[int, list[float]]]:
    """Clock and LPIPS at every share of the first `frames` frames."""
    whole = record._replace(x=record.x.float() / 255, picture=record.picture.float() / 255)
    clip = stacked([whole._replace(scaled=whole.scaled.float(), motion=whole.motion.float())])
    memory: Memory | None = None
    found = []
    for t in range(min(frames, len(record.x))):
        out = generator(coded_frame(clip, t), clip.clock[:, t, 0], memory)
        memory, coded = out.memory, clip.picture[:, t]
        shown = torch.cat([(coded + s * (out.picture - coded)).clamp(0, 1) for s in SHARES])
        found.append((int(clip.clock[0, t]), lpips.distance(shown, clip.x[:, t].expand_as(shown)).tolist()))
    return found


def best_shares(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The best share at each quality (64,).

    From sums (bands,len(SHARES)) over `counts` (bands) frames of distances in units of the coded picture's.
    Bands are smoothed with their neighbours, for few records have but a handful of clips in each.
    """
    known = np.flatnonzero(counts)
    near = np.pad(sums[known] / counts[known, None], ((1, 1), (0, 0)), "edge")
    best = np.array(SHARES)[(near[:-2] + 2 * near[1:-1] + near[2:]).argmin(1)]
    return np.interp(np.arange(NUM_QUALITIES), known * BAND + (BAND - 1) / 2, best).clip(LEAST)
