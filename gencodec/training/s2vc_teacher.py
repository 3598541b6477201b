"""The frozen network that semantic tokens of `s2vc` are distilled from, in both presets.

Paper: S2VC (arXiv 2512.07480), which takes DINOv3; its weights are not at hand. Here it is LPIPS' AlexNet,
whose fifth map a linear layer, which does not ship, predicts from the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencodec.metrics.lpips import Lpips

CHANNELS = 256


class TokenTeacher:
    """What tokens (B,N,`width`) should know of a picture; `predictor` is trained with them."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.lpips = Lpips.load().to(device).eval().requires_grad_(False)
        self.predictor = nn.Linear(width, CHANNELS).to(device)

    def distance(self, tokens: Tensor, x: Tensor, stride: int) -> Tensor:
        """Mean absolute error of what is predicted from tokens, one for each `stride` x `stride` pixels of x
        (B,3,H,W).
        """
        with torch.no_grad():
            size = (-(-x.shape[-2] // stride), -(-x.shape[-1] // stride))
            features = F.adaptive_avg_pool2d(self.lpips.maps(x)[-1].float(), size)
            target = F.layer_norm(features.flatten(2).transpose(1, 2), [CHANNELS])
        return (self.predictor(tokens) - target).abs().mean()
