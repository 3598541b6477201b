"""MCVD as a predictor of `extreme`: the reference's sampler, and cheaper ones.

The reference takes 100 of 1000 steps of DDPM, clips what it takes for clean, and denoises once more at the
end. Its sampler says so with the wrong time (label 99 in place of 990): `quirks` does as it does.
Voleti et al. 2022 (MCVD, arXiv 2205.09853); Ho et al. 2020 (DDPM, arXiv 2006.11239).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gencodec.methods.extreme.paper.mcvd import McvdUNet
from gencodec.methods.extreme.past import Past
from gencodec.methods.extreme.predictor import Sampler
from gencodec.nn.layers import pad_to_multiple
from gencodec.sampler.denoiser import Denoise, from_eps
from gencodec.sampler.noise import Noise
from gencodec.sampler.samplers import Draw, sample_ddim, sample_ddpm, sample_dpmpp_2m
from gencodec.sampler.schedule import ddpm_alpha_bar, discrete, spaced_timesteps

if TYPE_CHECKING:
    from typing_extensions import Self

STEPS = 1000  # that the network was trained with; label 999 is the cleanest
QUIRK_LABEL = 99


class McvdPredictor:
    """See `gop.Predictor`. `steps` calls of the network a chunk, with `quirks` one more.

    Frames are padded to what the network halves; it was trained at `config.size`, other sizes are a trial.
    """

    def __init__(
        self, net: McvdUNet, steps: int = 100, sampler: Sampler = "ddpm", quirks: bool = False
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.predicted, self.sampler, self.quirks = net.config.predicted, sampler, quirks
        self.alpha_bar = ddpm_alpha_bar(STEPS)
        self.sigmas = discrete(self.alpha_bar, spaced_timesteps(STEPS, steps, "trailing"))

    def to(self, device: torch.device) -> Self:
        """On a device."""
        self.net.to(device)
        return self

    def __call__(self, past: Past, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        """See `gop.Predictor`: uint8 in, uint8 out."""
        device, config = self.net.enter.weight.device, self.net.config
        seen = self._seen(past, device).expand(len(candidates), -1, -1, -1)
        shape = (self.predicted * config.channels, *seen.shape[-2:])
        draw = noise.steps(shape, candidates=candidates, chunk=chunk, device=device)
        network = lambda x, timestep: self.net(x, seen, STEPS - 1 - timestep)  # noqa: E731
        x = self._sampled(from_eps(network, self.alpha_bar, clip=1.0), draw)
        if self.quirks:
            last = (1 - self.alpha_bar[_last_timestep(len(self.sigmas) - 1)]).sqrt().float()
            label = torch.full((len(x),), float(QUIRK_LABEL), device=device)
            x = x - last.to(device) * self.net(x, seen, label)
        frames = (127.5 * (x.clamp(-1, 1) + 1)).round().to(torch.uint8)
        height, width = past.anchor.shape[-2:]
        shown = frames.unflatten(1, (self.predicted, config.channels))[..., :height, :width]
        return shown.cpu().expand(-1, -1, 3, -1, -1)  # of grey ones too

    def _seen(self, past: Past, device: torch.device) -> Tensor:
        """The last frames, (1,past*C,H,W) in [-1,1], sides padded; the oldest repeated where one lacks."""
        config = self.net.config
        shown = past.frames[-config.past :]
        every = [shown[0]] * (config.past - len(shown)) + list(shown)
        x = torch.stack(every).to(device).float() / 127.5 - 1
        x = x if config.channels == 3 else x.mean(1, keepdim=True)
        return pad_to_multiple(x.flatten(0, 1)[None], 1 << (len(config.multipliers) - 1))

    def _sampled(self, denoise: Denoise, draw: Draw) -> Tensor:
        start = self.sigmas[0] * draw(0)
        if self.sampler == "ddim":
            return sample_ddim(denoise, start, self.sigmas)
        if self.sampler == "dpmpp-2m":
            return sample_dpmpp_2m(denoise, start, self.sigmas)
        return sample_ddpm(denoise, start, self.sigmas, noise=draw)


def _last_timestep(steps: int) -> int:
    """The cleanest one that is sampled."""
    return int(spaced_timesteps(STEPS, steps, "trailing")[-1])
