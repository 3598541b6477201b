"""The tiny preset's predictor: a rectified flow from noise to what the next frames add to the last one."""

from __future__ import annotations

import torch
from torch import Tensor

from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.nn.layers import pad_to_multiple
from gencodec.sampler.denoiser import from_flow
from gencodec.sampler.noise import Noise
from gencodec.sampler.samplers import sample_euler
from gencodec.sampler.schedule import flow_shifted

RESIDUAL = 0.25  # deviation of what is predicted, pictures in [-1,1]; noise has 1


class FlowPredictor:
    """See `gop.Predictor`. All in float32; `steps` calls of the network a chunk."""

    def __init__(self, net: PredictorNet, steps: int) -> None:
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.past, self.predicted = net.config.past, net.config.predicted
        self.sigmas = flow_shifted(steps)

    def __call__(self, frames: Tensor, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """See `gop.Predictor`: uint8 in, uint8 out."""
        device = self.net.enter.weight.device
        past, known = conditions(frames[None].to(device), self.net.config)
        past = past.expand(len(candidates), -1, -1, -1)
        known = known.expand(len(candidates))
        shape = (self.predicted * self.net.config.channels, *past.shape[-2:])
        draw = noise.steps(shape, candidates=candidates, chunk=chunk, device=device)
        denoise = from_flow(lambda x, timestep: self.net(x, past, timestep, known))
        x = sample_euler(denoise, draw(0), self.sigmas)
        return pictures(x, past, self.net.config)[..., : frames.shape[-2], : frames.shape[-1]].cpu()


def conditions(frames: Tensor, config: PredictorConfig) -> tuple[Tensor, Tensor]:
    """Last frames, uint8 (B,n,3,H,W), n in 1..past, as the network sees them.

    (B,past*C,H',W') in [-1,1], sides padded to multiples, the oldest frame repeated; and n for each, (B,).
    """
    multiple = config.unshuffle << (len(config.widths) - 1)
    known = min(frames.shape[1], config.past)
    taken = frames[:, -known:]
    taken = torch.cat([taken[:, :1]] * (config.past - known) + [taken], 1)
    x = taken.flatten(1, 2).float() / 127.5 - 1
    return pad_to_multiple(x, multiple), torch.full((len(frames),), known, device=frames.device)


def pictures(residuals: Tensor, past: Tensor, config: PredictorConfig) -> Tensor:
    """Residuals (B,predicted*C,H,W) to the last frame, as frames (B,predicted,C,H,W), uint8."""
    last = past[:, -config.channels :].repeat(1, config.predicted, 1, 1)
    x = ((last + RESIDUAL * residuals).clamp(-1, 1) + 1) * 127.5
    return x.round().to(torch.uint8).unflatten(1, (config.predicted, config.channels))
