"""The paper's latents as they are coded, with stored tables.

    encode   y ─► z ─► put(z) ─► params ─► step: y / step ─┬► mean, index ─► put(half of y) ─┬─► y_hat
    decode             get(z) ─► params ─► step            └► mean, index ─► get(half of y) ─┘   (twice)

Everything right of z is integers; both sides run the same lines, so the decoder's tables are the encoder's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.hyper import HYPER_STRIDE, Z_BANDS, z_table_index
from gencodec.entropy.latents import MAX_LATENT, placed, to_integers, to_table_index
from gencodec.entropy.prior import round_index
from gencodec.entropy.scales import MEAN_STEP
from gencodec.entropy.tables import CdfTables
from gencodec.methods.s2vc.paper.latents import PaperLatents
from gencodec.methods.s2vc.paper.prior import LOG2_STEP_GRID, halves
from gencodec.nn.exact import pattern
from gencodec.nn.exact_io import load_exact

# What a pass is done with: (mean, index, mask) -> symbols, zero outside of the mask
Stage = Callable[[Tensor, Tensor, np.ndarray], Tensor]


class PaperCoded(NamedTuple):
    """y_hat (1,C,H,W) in its steps, on a grid of 1/8; log2 of these; int32 symbols: z, then y by passes."""

    y_hat: Tensor
    log2_step: Tensor
    symbols: list[np.ndarray]


class PaperLatentCoder:
    """Codes y of one frame. Stateless between calls. `entropy.latents.LatentCoder` is its pattern."""

    def __init__(self, model: PaperLatents, tensors: Mapping[str, Tensor], prefix: str = "latents.") -> None:
        load_exact(model.prior, model.prior.tables(), tensors, f"{prefix}prior.")
        self.model = model.eval()
        self.y_tables, self.z_tables = (
            CdfTables.from_tensors(tensors, f"{prefix}{name}_tables") for name in ("y", "z")
        )
        if self.z_tables.num_tables != Z_BANDS * model.prior.z_channels:
            raise ValueError(
                f"{Z_BANDS} x {model.prior.z_channels} tables for z, got {self.z_tables.num_tables}"
            )

    @torch.inference_mode()
    def encode(self, encoder: SymbolEncoder, y: Tensor, quality: int, state: Tensor) -> PaperCoded:
        """Quantise y (1,C,H,W), in steps of its gains, and put its symbols into `encoder`."""
        z = self.model.hyper_symbols(y)
        symbols = [to_integers(z)[0]]
        encoder.put(symbols[0], z_table_index(symbols[0].shape, quality), self.z_tables)
        params = self.model.prior.params(z, _tensor(quality, y.device), state)
        log2_step = self.model.prior.log2_step(params)
        scaled = y * torch.exp2(-log2_step)

        def put(mean: Tensor, index: Tensor, mask: np.ndarray) -> Tensor:
            coded = to_integers(torch.round(scaled - mean).clamp_(-MAX_LATENT, MAX_LATENT))[0][mask]
            tables = to_table_index(index)[mask]
            coded[tables < self.y_tables.skip] = 0
            encoder.put(coded, tables, self.y_tables)
            symbols.append(coded)
            return placed(coded, mask, y.device)

        return PaperCoded(self._passes(params, quality, put), log2_step, symbols)

    @torch.inference_mode()
    def decode(self, decoder: SymbolDecoder, quality: int, state: Tensor) -> PaperCoded:
        """Read y at the size of `state` (1,S,H,W). Raises CorruptStream."""
        device, (height, width) = state.device, state.shape[-2:]
        shape = (self.model.prior.z_channels, height // HYPER_STRIDE, width // HYPER_STRIDE)
        symbols = [decoder.get(z_table_index(shape, quality), self.z_tables)]
        z = torch.from_numpy(symbols[0]).to(device).float()[None]
        params = self.model.prior.params(z, _tensor(quality, device), state)
        log2_step = self.model.prior.log2_step(params)

        def get(_: Tensor, index: Tensor, mask: np.ndarray) -> Tensor:
            symbols.append(decoder.get(to_table_index(index)[mask], self.y_tables))
            return placed(symbols[-1], mask, device)

        return PaperCoded(self._passes(params, quality, get), log2_step, symbols)

    def _passes(self, params: Tensor, quality: int, code: Stage) -> Tensor:
        """What both sides do alike."""
        prior, q = self.model.prior, _tensor(quality, params.device)
        y_hat = torch.zeros_like(params[:, : prior.y_channels])
        for turn, mask in enumerate(halves(*y_hat.shape[1:], device=y_hat.device)):
            mean, index = prior.predict(turn, params, y_hat, q)
            y_hat = torch.where(mask, code(mean, index, mask[0].cpu().numpy()) + mean, y_hat)
        return y_hat

    @torch.inference_mode()
    def fingerprint(self, device: torch.device) -> str:
        """SHA-256 of the exact networks' integer outputs on a fixed input."""
        prior, digest = self.model.prior, hashlib.sha256()
        for quality in (0, 31, 63):
            q = _tensor(quality, device)
            z = pattern((1, prior.z_channels, 3, 4), 17).to(device)
            size = (3 * HYPER_STRIDE, 4 * HYPER_STRIDE)
            state = pattern((1, prior.state_channels, *size), 13).to(device)
            params = prior.params(z, q, state)
            y_hat = pattern((1, prior.y_channels, *size), 41).to(device)
            found = [prior.log2_step(params) / LOG2_STEP_GRID]
            for turn in range(2):
                mean, index = prior.predict(turn, params, y_hat, q)
                found += [mean / MEAN_STEP, round_index(index)]
            for values in found:
                digest.update(to_integers(values).astype("<i4").tobytes())
        return digest.hexdigest()


def _tensor(quality: int, device: torch.device) -> Tensor:
    return torch.tensor([quality], device=device)
