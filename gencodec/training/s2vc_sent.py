"""Records of what an encoder with weights really sends: see `s2vc_record`.

Motion is chosen by the bits of that file's tables, and symbols by its prior and LPIPS-Alex: pictures of
another look than plain rounding gives, and the ones that a decoder will have to render.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gencodec.entropy.coder import SymbolEncoder
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.loop import Coded, LoopCoder
from gencodec.methods.s2vc.model import STEPS_PER_PIXEL, level_of
from gencodec.training.s2vc_record import Record
from gencodec.weights import load_file, load_named


def encoder_of(weights: Path, intra: str, device: torch.device | str) -> LoopCoder:
    """The coding loop of a weights file of `s2vc`, key frames by those named `intra`."""
    key = KeyFrameCoder(*load_named(intra), device)
    key.tune = "lpips"
    return LoopCoder(load_file(weights)[0], key)


@torch.no_grad()
def record_sent(coder: LoopCoder, x: Tensor, quality: int) -> Record:
    """Code a clip x (T,3,H,W) in [0,1], sides multiples of 16."""
    frames = (255 * x).round().to(torch.uint8)
    coded = [coder.put_key(SymbolEncoder(), frames[0], quality)]
    for frame in frames[1:]:
        coded.append(coder.put(SymbolEncoder(), frame, coded[-1].state, quality))
    pictures, scaled, flow = (torch.cat([one.frame[k] for one in coded]) for k in range(3))
    return Record(
        torch.tensor([quality]),
        torch.tensor([[one.clock] for one in coded]),
        frames,
        (255 * pictures).round().to(torch.uint8),
        scaled.half(),
        _key_symbols(coder, coded[0]),
        (STEPS_PER_PIXEL * flow[1:]).to(torch.int16),
        torch.cat([_symbols(coder, one, quality, age) for age, one in enumerate(coded[1:], 1)]),
        torch.tensor([coder.cycle]),
    )


def _key_symbols(coder: LoopCoder, coded: Coded) -> Tensor:
    """y_hat of a key frame, on its grid of 1/8."""
    log2_gain = coder.key.model.transforms.log2_gain(torch.tensor([coded.clock], device=coder.device))
    return (8 * coded.frame.scaled * torch.exp2(log2_gain)[:, :, None, None]).round() / 8


def _symbols(coder: LoopCoder, coded: Coded, quality: int, age: int) -> Tensor:
    """y_hat of a frame `age` frames behind its key frame."""
    level = level_of(quality, age, coder.cycle)
    return (coded.frame.scaled * coder.loop.gains[level]).round().to(torch.int16)
