"""Whether the generator of `s2vc` helps on clips that it was not trained on."""

from __future__ import annotations

import numpy as np
import torch

from gencodec.methods.s2vc.generator import Generator
from gencodec.metrics.lpips import Lpips
from gencodec.training.s2vc_record import RecordBank, coded_frame, stacked

CHECKED = 12  # windows of held-out records


@torch.no_grad()
def distance_left(model: Generator, bank: RecordBank, lpips: Lpips, device: torch.device) -> float:
    """LPIPS-Alex of the last frame of fixed windows, rendered, over that of the coded pictures."""
    was_training = model.training
    model.eval()
    coded = rendered = 0.0
    for draw in bank.batch(CHECKED, np.random.default_rng(0)):
        clip, memory, out = stacked(bank.cut(draw[None], device)), None, None
        for t in range(clip.x.shape[1]):
            out = model(coded_frame(clip, t), clip.clock[:, t, 0], memory)
            memory = out.memory
        assert out is not None, "windows hold frames"
        coded += float(lpips.distance(clip.picture[:, -1], clip.x[:, -1]))
        rendered += float(lpips.distance(out.picture.clamp(0, 1), clip.x[:, -1]))
    model.train(was_training)
    return rendered / coded
