"""The tiny preset's predictor: a rectified flow from noise to what the next frames add to the last one."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gencodec.methods.extreme.motion import moved_on
from gencodec.methods.extreme.network import RESIDUAL, PredictorConfig, PredictorNet, Seen
from gencodec.methods.extreme.past import Past
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.motion import BLOCK
from gencodec.sampler.denoiser import Denoise
from gencodec.sampler.noise import Noise
from gencodec.sampler.samplers import sample_euler
from gencodec.sampler.schedule import flow_shifted

Sampler = Literal["euler", "ddpm", "ddim", "dpmpp-2m"]
"""Euler is for flows; the others are for the published predictor, which takes "ddpm" for "euler"."""


class FlowPredictor:
    """See `gop.Predictor`. All in float32; `steps` calls of the network a chunk."""

    def __init__(self, net: PredictorNet, steps: int) -> None:
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.predicted = net.config.predicted
        self.sigmas = flow_shifted(steps)

    def __call__(self, past: Past, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """See `gop.Predictor`: uint8 in, uint8 out."""
        device, config = self.net.enter.weight.device, self.net.config
        seen = seen_of(past, config, device)
        shape = (self.predicted * config.channels, *seen.past.shape[-2:])
        start = noise.steps(shape, candidates=candidates, chunk=chunk, device=device)(0)
        every = _repeated(seen, len(candidates))
        x = sample_euler(denoiser(self.net, every), start, self.sigmas)
        height, width = past.anchor.shape[-2:]
        found = pictures(x, every, config)[..., :height, :width].cpu()
        return found.expand(-1, -1, 3, -1, -1)  # of grey ones too


def denoiser(net: PredictorNet, seen: Seen) -> Denoise:
    """`net` as samplers take it, for x of flow form; sigma is the time from data, 0, to noise, 1."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return net(x, seen, (1000 * sigma).expand(len(x)))

    return denoise


def seen_of(past: Past, config: PredictorConfig, device: torch.device) -> Seen:
    """What the network sees of one past; sides padded to multiples."""
    multiple = config.unshuffle << (len(config.widths) - 1)
    shown = (past.anchor, past.frames[-1]) if config.moved else past.frames[-config.past :]
    known = (1 if past.velocity is None else 2) if config.moved else len(shown)
    frames = [shown[0]] * (config.past - len(shown)) + list(shown)
    x = torch.cat([_signed(f.to(device), config.channels) for f in frames])[None]
    x = pad_to_multiple(x, multiple)
    since = torch.tensor([past.since], device=device)
    moved = _moved(x[:, : config.channels], past, config) if config.moved else None
    return Seen(x, moved, torch.tensor([known], device=device), since)


def pictures(residuals: Tensor, seen: Seen, config: PredictorConfig) -> Tensor:
    """Residuals (B,predicted*C,H,W) to the last frame, as frames (B,predicted,C,H,W), uint8."""
    x = (127.5 * (signed_pictures(residuals, seen, config).clamp(-1, 1) + 1)).round()
    return x.to(torch.uint8).unflatten(1, (config.predicted, config.channels))


def signed_pictures(residuals: Tensor, seen: Seen, config: PredictorConfig) -> Tensor:
    """The same in [-1,1], not clamped, (B,predicted*C,H,W)."""
    return seen.past[:, -config.channels :].repeat(1, config.predicted, 1, 1) + RESIDUAL * residuals


def _moved(anchor: Tensor, past: Past, config: PredictorConfig) -> Tensor:
    """The anchor, padded, (1,C,H,W), where the next frames would have it, (1,predicted*C,H,W)."""
    if past.velocity is None:
        return anchor.repeat(1, config.predicted, 1, 1)
    rows, columns = (-(-n // BLOCK) for n in anchor.shape[2:])
    velocity = past.velocity.to(anchor.device)
    around = (0, columns - velocity.shape[3], 0, rows - velocity.shape[2])
    ahead = past.since + 1 + torch.arange(config.predicted, device=anchor.device)
    return moved_on(anchor, F.pad(velocity, around, mode="replicate"), ahead[None].float()).flatten(1, 2)


def _signed(frame: Tensor, channels: int) -> Tensor:
    """A frame, uint8 (3,H,W), in [-1,1]; grey where there is one channel: (C,H,W)."""
    x = frame.float() / 127.5 - 1
    return x if channels == len(x) else x.mean(0, keepdim=True)


def _repeated(seen: Seen, count: int) -> Seen:
    """The same past for `count` candidates."""
    past, moved, known, since = seen
    more = None if moved is None else moved.repeat_interleave(count, 0)
    return Seen(past.repeat_interleave(count, 0), more, known.repeat(count), since.repeat(count))
