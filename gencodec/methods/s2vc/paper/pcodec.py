"""The paper's P codec: a frame against the feature buffer, and what the generator sees of it. In float32.

    features of the frame before ─► adaptor ─► extractor ─► ctx
    x ─► embed ─┐
          ctx ──┴─► encoder ─► y ─► (coder) ─► y_hat ─┐
                                              ctx ──┴─► decoder ─► features ─┬─► the buffer of the next frame
                                                                             ├─► content ─► f_pix ─► r
                                                                             └─► semantics ─► tokens

Everything that re-enters the loop is coded: at a reset it is r, the four planes that the U-Net is to denoise,
where the released model takes the picture that it has generated. An encoder need not run the U-Net for that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencodec.methods.s2vc.paper.blocks import Down, ResidualBlock, Up, chain5
from gencodec.methods.s2vc.paper.config import PaperConfig
from gencodec.methods.s2vc.paper.heads import F8, LATENT, KeyAdaptor, Reduction, SemanticHead
from gencodec.methods.s2vc.paper.latents import PaperLatents
from gencodec.methods.s2vc.paper.prior import SymbolState
from gencodec.nn.quality import NUM_QUALITIES, QualityTable

STRIDE = 64  # of a token and of z: pictures are padded to multiples of it
KEY_QUALITY = 22  # of a key frame at quality 0; it rises by 3 in 2
LOG2_GAINS = (-2.0, 2.0)  # at quality 0 and 63; the paper trains a model for each rate instead


class View(NamedTuple):
    """What the generator sees of a frame: f_pix (B,320,H/8,W/8), r (B,4,H/8,W/8), tokens (B,N,768)."""

    content: Tensor
    r: Tensor
    tokens: Tensor


class Encoder(nn.Module):
    """x and ctx, both (B,features,H/8,W/8), to y (B,y_channels,H/16,W/16)."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        n, w = c.features, c.wide
        self.body = chain5(2 * n, w, w, w, n, n, n)
        self.leave = nn.Sequential(Down(n, n), ResidualBlock(n, n), nn.Conv2d(n, c.y_channels, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """See the class."""
        return self.leave(self.body(torch.cat([x, context], 1)))


class Decoder(nn.Module):
    """y_hat (B,y_channels,H/16,W/16) and ctx (B,features,H/8,W/8) to the features of the frame."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        n, w = c.features, c.wide
        self.enter = nn.Sequential(nn.Conv2d(c.y_channels, n, 1), ResidualBlock(n, n), Up(n, n))
        self.body = chain5(2 * n, w, w, w, n, n, n)

    def forward(self, y_hat: Tensor, context: Tensor) -> Tensor:
        """See the class."""
        return self.body(torch.cat([self.enter(y_hat), context], 1))


class PCodec(nn.Module):
    """All networks of the loop and the heads behind it; the exact ones are in `latents` and `temporal`."""

    def __init__(self, config: PaperConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or PaperConfig()
        n = c.features
        self.embed = nn.Conv2d(3, n, F8, stride=F8)
        self.adaptor_p, self.adaptor_i = ResidualBlock(n, n), ResidualBlock(LATENT, n)
        self.extractor = chain5(
            *[n] * 7
        )  # in the paper ctx, and behind it ctx_t for the temporal prior alone
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.latents = PaperLatents(c)
        self.temporal = SymbolState(c.key_channels, c.y_channels, c.state_channels)
        self.content = nn.Sequential(ResidualBlock(n, n), ResidualBlock(n, n), ResidualBlock(n, c.content))
        self.semantics = SemanticHead(c)
        self.log2_gain = QualityTable(c.y_channels, *LOG2_GAINS).requires_grad_(False)
        self.key, self.reduction = KeyAdaptor(n), Reduction(c.content)

    def begin(self, picture: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Features and temporal state after a key frame.

        `picture` is the coded one, (B,3,H,W) around [0,1], H and W multiples of 64; y_hat, `intra`'s, is
        (B,key_channels,H/16,W/16).
        """
        return self.key(picture), self.temporal.begin(y_hat)

    def context(self, features: Tensor, *, reset: bool = False) -> Tensor:
        """ctx (B,features,H/8,W/8) from the features of the frame before; a reset sees of them only r."""
        if reset:
            return self.extractor(self.adaptor_i(self.reduction(self.content(features))))
        return self.extractor(self.adaptor_p(features))

    def encode(self, x: Tensor, context: Tensor, quality: Tensor) -> Tensor:
        """x (B,3,H,W) in [0,1] -> y (B,y_channels,H/16,W/16) in steps of its gains."""
        return self.encoder(self.embed(2 * x - 1), context) * self._gain(quality)

    def decode(self, y_hat: Tensor, log2_step: Tensor, context: Tensor, quality: Tensor) -> Tensor:
        """y_hat and its steps, (B,y_channels,H/16,W/16) each -> the features of the frame."""
        return self.decoder(y_hat * torch.exp2(log2_step) / self._gain(quality), context)

    def view(self, features: Tensor, before: Tensor | None) -> View:
        """What the generator sees; `before` is None after a key frame."""
        content = self.content(features)
        tokens = self.semantics(features, features if before is None else before)
        return View(content, self.reduction(content), tokens)

    def _gain(self, quality: Tensor) -> Tensor:
        return torch.exp2(self.log2_gain(quality))[:, :, None, None]


def key_quality(quality: Tensor) -> Tensor:
    """`intra`'s quality (B,) for INTRA packets of `quality`: better than what follows, which feeds on it."""
    return (KEY_QUALITY + torch.div(3 * quality, 2, rounding_mode="floor")).clamp_max(NUM_QUALITIES - 1)
