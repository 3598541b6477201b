"""How much of the repair is shown at each quality and frame type, chosen when weights are exported.

As in `s2vc_strength`: training sets the strength by its own losses, and the share of it that is best by
LPIPS-Alex on held-out records is built into what ships.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from gencodec.methods.diffsit.generator import TYPES, ClipGenerator
from gencodec.metrics.lpips import Lpips
from gencodec.nn.quality import NUM_QUALITIES
from gencodec.training.diffsit_joint import Bank
from gencodec.training.s2vc_strength import BAND, SHARES, TINY, best_shares


@torch.inference_mode()
def choose_strength(generator: ClipGenerator, bank: Bank, *, most: int = 96) -> np.ndarray:
    """Scale the strengths of `generator` in place; gives the share at each quality and type (64,2)."""
    lpips = Lpips.load()
    sums = np.zeros((TYPES, NUM_QUALITIES // BAND, len(SHARES)))
    counts = np.zeros((TYPES, NUM_QUALITIES // BAND))
    for draw in islice(bank.batch(most, np.random.default_rng(0)), most):
        clip = bank.cut(draw[None])
        repair = generator(clip.picture, clip.is_mv, clip.quality).picture[0] - clip.picture[0]
        band = int(clip.quality) // BAND
        for t, is_mv in enumerate(clip.is_mv.tolist()):
            shown = torch.stack([(clip.picture[0, t] + s * repair[t]).clamp(0, 1) for s in SHARES])
            distances = lpips.distance(shown, clip.x[0, t].expand_as(shown)).numpy()
            sums[int(is_mv), band] += distances / max(distances[0], TINY)
            counts[int(is_mv), band] += 1
    share = np.stack([best_shares(*one) for one in zip(sums, counts, strict=True)], 1)
    table = generator.log2_strength
    table.rows.copy_(table.table() + torch.from_numpy(np.log2(share)).float())
    table.frozen = True
    return share
