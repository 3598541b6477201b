"""What candidates are worth where chance decides: Stochastic Moving MNIST.

    extreme_digits.py --digits t10k-images-idx3-ubyte.gz --predictor CHECKPOINT [--clips 8]

A digit that meets a wall goes on at a speed that nobody can foresee; among K samples of what comes next one
may guess it. Clips of 30 frames of test digits, coded by `extreme` with a predictor of `gencodec train
extreme --digits`, a pair of frames each restart, as the predictor wants two, and the same threshold for
every K. Sizes are payloads, decoded again before they count. Writes results/digits-extreme.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import RESULTS, environment
from torch import Tensor

import gencodec
from gencodec import api
from gencodec.methods.extreme.codec import Extreme
from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.methods.extreme.predictor import FlowPredictor
from gencodec.rate import ConstantQuality
from gencodec.training.moving_mnist import MovingMnist
from gencodec.training.trainer import load_checkpoint

FRAMES, SIDE = 30, 64
CANDIDATES = (1, 8, 32)


def main() -> None:
    """Code the clips with each number of candidates, and with the last frame repeated."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add = parser.add_argument
    add("--digits", type=Path, required=True)
    add("--predictor", type=Path, required=True)
    add("--clips", type=int, default=8)
    add("--steps", type=int, default=8, help="of the sampler")
    add("--threshold", type=float, default=0.1)
    add("--key-quality", type=int, default=58)
    add("--out", type=Path, default=RESULTS / "digits-extreme.json")
    options = parser.parse_args()
    drawn = MovingMnist(options.digits, frames=FRAMES).batch(options.clips, np.random.default_rng(0))
    clips = (255 * drawn).round().to(torch.uint8).expand(-1, -1, 3, -1, -1)
    net, steps = predictor(options.predictor)
    rows = [of_all(clips, net, 0, options), *(of_all(clips, net, k, options) for k in CANDIDATES)]
    result = environment() | {
        "clips": options.clips,
        "sampler_steps": options.steps,
        "threshold": options.threshold,
        "key_quality": options.key_quality,
        "training_steps": steps,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def predictor(path: Path) -> tuple[PredictorNet, int]:
    """The averaged network of a checkpoint, and how many steps it took."""
    state = load_checkpoint(path)
    net = PredictorNet(PredictorConfig(**state["task"]["config"]))
    net.load_state_dict(state["ema"])
    return net, int(state["step"])


def of_all(clips: Tensor, net: PredictorNet, candidates: int, options: argparse.Namespace) -> dict[str, Any]:
    """Means over the clips (N,T,3,64,64); 0 candidates: the last frame repeated."""
    given: dict[str, Any] = {
        "threshold": options.threshold,
        "key_quality": options.key_quality,
        "restart": "pair",
        "pans": 0,
    }
    given |= {"steps": options.steps if candidates else 0, "candidates": max(candidates, 1)}
    codec = api.create("extreme", device="cpu", **given)
    assert isinstance(codec, Extreme)
    if candidates:
        codec.coder = replace(codec.coder, predictor=FlowPredictor(net, options.steps))
    found = [of_clip(codec, clip) for clip in clips]
    return {"candidates": candidates} | {k: float(np.mean([f[k] for f in found])) for k in found[0]}


def of_clip(codec: Extreme, clip: Tensor) -> dict[str, float]:
    """One clip (T,3,64,64)."""
    info = gencodec.VideoInfo(SIDE, SIDE, Fraction(25), len(clip))
    packets = list(codec.encode(list(clip), info, ConstantQuality(32)))
    shown = torch.stack(list(codec.decode(packets, info)))
    events = [event for packet in packets for event in codec.events_of(packet, info)]
    return {
        "bytes": float(sum(len(packet.payload) for packet in packets)),
        "lpips_alex": float(codec.distance(clip, shown).mean()),
        "generated_share": sum(max(event.kept, 0) for event in events) / len(clip),
        "coded_frames": float(1 + sum(event.kept <= 0 for event in events)),
    }


if __name__ == "__main__":
    main()
