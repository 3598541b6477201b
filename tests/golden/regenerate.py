"""Writes golden streams that do not exist yet: `python tests/golden/regenerate.py`. It never replaces one.

A golden stream is a promise: its symbols decode to the same bits for ever, its frames within a tolerance.
Other bytes from the encoder need a higher `Codec.version` or new weights, and so a new name here.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import torch

import gencodec
from gencodec import registry

FOLDER = Path(__file__).parent
QUALITIES = (5, 30, 60)
FRAMES = {"s2vc": 6, "extreme": 9, "diffsit": 12}  # enough for an anchor, a restart, two pieces; intra: 2


def clip(num_frames: int = 2, height: int = 70, width: int = 100) -> torch.Tensor:
    """A small moving test picture, uint8 (T,3,H,W), from integers alone: a ramp, a chequered disc, some
    texture.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = []
    for t in range(num_frames):
        disc = ((x - 30 - 4 * t) ** 2 + (y - 35) ** 2 < 400).long()
        texture = (x * x * 7 + y * y * 13 + x * y * 3) % 61
        ramp = torch.stack([x * 255 // width, y * 255 // height, 160 - x * 100 // width])
        ball = torch.stack([220 - 150 * ((x // 6 + y // 6) % 2), 40 + texture, 60 + texture * 0])
        frames.append(ramp * (1 - disc) + ball * disc + texture // 8 * (1 - disc))
    return torch.stack(frames).clamp(0, 255).to(torch.uint8)


def main() -> None:
    """Write NAME.gcv, NAME.json (hash of the symbols), NAME/ (PNGs) for each method and quality."""
    for method in registry.BUILT_IN:
        codec = gencodec.create(method)
        for quality in QUALITIES:
            name = f"{method}-v{codec.version}-{codec.weights_id:08x}-q{quality}"
            target = FOLDER / f"{name}.gcv"
            if target.exists():
                print(f"{name} exists: kept")
                continue
            frames = clip(FRAMES.get(method, 2))
            result = gencodec.encode(frames, target, codec=codec, quality=quality, fps=Fraction(25))
            gencodec.decode(target).save(FOLDER / name)
            record = {"latents_sha256": result.latents_sha256, "bytes": result.bytes}
            (FOLDER / f"{name}.json").write_text(json.dumps(record) + "\n")
            print(f"{name} written, {result.bytes} bytes")


if __name__ == "__main__":
    main()
