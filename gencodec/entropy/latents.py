"""The shared latent coder: y to and from one packet's symbols.

    encode   mean, index ─► put(what this turn codes) ─┬─► y_hat
    decode   mean, index ─► get(what this turn codes) ─┘
             ▲──────────── turn by turn ───────────────┘

All of it is integers; both sides run the same lines, so the decoder's tables are the encoder's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import InexactDevice
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.model import LatentModel
from gencodec.entropy.prior import round_index
from gencodec.entropy.scales import MEAN_STEP
from gencodec.entropy.staged import predict_all
from gencodec.entropy.tables import CdfTables
from gencodec.entropy.turns import Turn
from gencodec.nn.exact import pattern

SIZE = (12, 16)  # of the fixed input that a device is tested by
MAX_LATENT = 4096  # |symbol|; far beyond what 8-bit pictures give, and exact in float32 with any mean

Code = Callable[[Turn, Tensor, Tensor], Tensor]  # a turn, its means and scale indices -> its symbols


@dataclass(frozen=True)
class CodedLatents:
    """y_hat (1,C,H,W) float32 on a grid of 1/8, and int32 symbols in coding order."""

    y_hat: Tensor
    symbols: list[np.ndarray]


class LatentCoder:
    """Codes the latents of one method with its exact networks and stored tables. Stateless between calls."""

    def __init__(self, model: LatentModel, tables: CdfTables) -> None:
        self.model, self.tables = model.eval(), tables

    @classmethod
    def load(cls, model: LatentModel, tensors: Mapping[str, Tensor], prefix: str = "latents.") -> LatentCoder:
        """Fill `model`'s exact layers and the tables from a file. Raises ValueError for another layout."""
        model.prior.load(tensors, f"{prefix}prior.")
        return cls(model, CdfTables.from_tensors(tensors, f"{prefix}y_tables"))

    @torch.inference_mode()
    def encode(
        self,
        encoder: SymbolEncoder,
        y: Tensor,
        quality: int,
        extra: Tensor | None = None,
    ) -> CodedLatents:
        """Quantise y (1,C,H,W), in quantisation steps, and put its symbols into `encoder`."""
        symbols: list[np.ndarray] = []

        def put_y(turn: Turn, mean: Tensor, index: Tensor) -> Tensor:
            coded, tables = self._symbols(turn, y, mean, index)
            encoder.put(coded, tables, self.tables)
            symbols.append(coded)
            return placed(coded, turn.mask.cpu().numpy(), y.device)

        q = torch.tensor([quality], device=y.device)
        return CodedLatents(self._by_turns(q, (y.shape[-2], y.shape[-1]), extra, put_y), symbols)

    @torch.inference_mode()
    def decode(
        self,
        decoder: SymbolDecoder,
        size: tuple[int, int],
        quality: int,
        device: torch.device,
        extra: Tensor | None = None,
    ) -> CodedLatents:
        """Read the latents of `size` (H,W) from `decoder`. Raises CorruptStream."""
        symbols: list[np.ndarray] = []

        def get_y(turn: Turn, _: Tensor, index: Tensor) -> Tensor:
            mask = turn.mask.cpu().numpy()
            coded = decoder.get(to_table_index(index)[mask], self.tables)
            symbols.append(coded)
            return placed(coded, mask, device)

        q = torch.tensor([quality], device=device)
        return CodedLatents(self._by_turns(q, size, extra, get_y), symbols)

    @torch.inference_mode()
    def expected(self, y: Tensor, quality: int, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the prior says of y (1,C,H,W) coded as it is: means and table indices (int64), like y."""
        means, indices = torch.zeros_like(y, dtype=torch.float32), torch.zeros_like(y, dtype=torch.int64)

        def look(turn: Turn, mean: Tensor, index: Tensor) -> Tensor:
            turn.put(means, mean)
            turn.put(indices, round_index(index).long())
            coded, _ = self._symbols(turn, y, mean, index)
            return placed(coded, turn.mask.cpu().numpy(), y.device)

        self._by_turns(torch.tensor([quality], device=y.device), (y.shape[-2], y.shape[-1]), extra, look)
        return means, indices

    def _symbols(self, turn: Turn, y: Tensor, mean: Tensor, index: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """What `turn` codes of y (1,C,H,W), and by which tables; zero where a table codes nothing."""
        mask = turn.mask.cpu().numpy()
        wanted = torch.round(turn.of(y).float() - mean).clamp_(-MAX_LATENT, MAX_LATENT)
        tables = to_table_index(index)[mask]
        return np.where(tables < self.tables.skip, 0, to_integers(wanted)[0][mask]), tables

    def _by_turns(self, quality: Tensor, size: tuple[int, int], extra: Tensor | None, code: Code) -> Tensor:
        """What both sides do alike; `code(turn, mean, index)` gives the symbols of one turn, else zero."""
        prior = self.model.prior
        y_hat = torch.zeros(1, prior.y_channels, *size, device=quality.device)
        for number, turn in enumerate(prior.turns(*size, quality.device)):
            mean, index = prior.predict(number, y_hat, quality, extra)
            turn.put(y_hat, code(turn, mean, index) + mean)
        return y_hat

    @torch.inference_mode()
    def fingerprint(self, device: torch.device) -> str:
        """SHA-256 of the exact networks' integer outputs on a fixed input, for a device's self-test."""
        prior, digest = self.model.prior, hashlib.sha256()
        for quality in (0, 31, 63):
            q = torch.tensor([quality], device=device)
            extra = pattern((1, prior.extra_channels, *SIZE), 13).to(device) if prior.extra_channels else None
            y_hat = pattern((1, prior.y_channels, *SIZE), 41).to(device)
            for mean, index in predict_all(prior, y_hat, q, extra):
                for values in (mean / MEAN_STEP, round_index(index)):
                    digest.update(to_integers(values).astype("<i4").tobytes())
        return digest.hexdigest()

    def self_test(self, device: torch.device, recorded: str) -> None:
        """Raise InexactDevice unless the exact networks give the recorded fingerprint on `device`."""
        check_fingerprint(self.fingerprint(device), recorded, device)


def check_fingerprint(found: str, recorded: str, device: torch.device) -> None:
    """Raise InexactDevice unless `device` computed what stands in the weights."""
    if found != recorded:
        raise InexactDevice(
            f"device {device} does not compute the exact entropy networks to the recorded bits; it would "
            "decode garbage. Use --device cpu, and please report this machine (gencodec doctor)"
        )


def to_integers(values: Tensor) -> np.ndarray:
    """Integers held in float -> int32 array on the CPU."""
    return values.to(torch.int32).cpu().numpy()


def to_table_index(index: Tensor) -> np.ndarray:
    """Unrounded scale index (1,C,H,W) -> uint8 (C,H,W)."""
    return round_index(index)[0].to(torch.uint8).cpu().numpy()


def placed(coded: np.ndarray, mask: np.ndarray, device: torch.device) -> Tensor:
    """Symbols of one turn -> float (1,n,h,w) like its mask, zeros elsewhere."""
    out = np.zeros(mask.shape, np.float32)
    out[mask] = coded
    return torch.from_numpy(out)[None].to(device)
