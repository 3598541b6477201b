"""Backbones of `diffsit` as records of `s2vc`, whose prior codes them: every frame of them is an anchor.

A record of `diffsit` holds pictures and motion. Transform and motion are linear and known, so symbols come
back from the pictures: what 8 bits took of these is 1/400 of a quantisation step on average.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from gencodec.methods.diffsit.stem import ALL_ANCHORS
from gencodec.methods.intra.cosine import SIZE
from gencodec.methods.intra.model import IntraModel
from gencodec.methods.intra.networks import Transforms
from gencodec.methods.s2vc.model import CodingLoop, key_quality, level_of
from gencodec.training import diffsit_record, s2vc_record

KEY_GRID = 8  # y_hat of a key frame is a multiple of 1/8


def write_backbones(records: Path, folder: Path, intra: IntraModel) -> None:
    """Write the backbones of all records of a folder into `folder`, under the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(records.glob("*.safetensors")):
        one = backbones_of(diffsit_record.Record(**load_file(path)), CodingLoop(), intra)
        part = folder / f"{path.name}.part"
        save_file({k: v.contiguous() for k, v in one._asdict().items()}, part)
        part.replace(folder / path.name)


@torch.no_grad()
def backbones_of(one: diffsit_record.Record, loop: CodingLoop, intra: IntraModel) -> s2vc_record.Record:
    """What the coding loop made of a record's backbones, the first of them a key frame."""
    quality, at = int(one.quality), (~one.is_mv).nonzero()[:, 0]
    picture, motion = one.picture[at].float() / 255, one.motion[at][1:]
    own = torch.tensor([key_quality(quality)])
    y_hat = key_latents(intra.transforms, picture[:1], own)
    prediction = loop.predict(picture[:-1], motion.float())
    level = torch.tensor([level_of(quality, age, ALL_ANCHORS) for age in range(1, len(at))])
    symbols = loop.to_latents(picture[1:], prediction, level).round()
    scaled = loop.to_picture(symbols, prediction, level)[1]
    return s2vc_record.Record(
        one.quality,
        torch.tensor([[int(own)]] + [[quality]] * (len(at) - 1)),
        one.x[at],
        one.picture[at],
        torch.cat([intra.transforms.to_linear_picture(y_hat, own)[1], scaled]).half(),
        y_hat,
        motion,
        symbols.to(torch.int16),
        torch.tensor([ALL_ANCHORS]),
    )


def key_latents(transforms: Transforms, picture: Tensor, quality: Tensor) -> Tensor:
    """y_hat of a picture (B,3,H,W) that the linear path made; off where that was clamped to [0,1].

    The analysis is trained, and no inverse of the linear path.
    """
    weight = transforms.synthesis.linear.weight.flatten(1)  # (192,768)
    blocks = functional.unfold(4 * (picture - 0.5), SIZE, stride=SIZE)  # (B,768,h w)
    rows, columns = (n // SIZE for n in picture.shape[2:])
    scaled = (torch.linalg.pinv(weight).t() @ blocks).unflatten(2, (rows, columns))
    gain = torch.exp2(transforms.log2_gain(quality))[:, :, None, None]
    return (KEY_GRID * scaled * gain).round() / KEY_GRID
