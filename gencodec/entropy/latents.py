"""The shared latent coder: y, and hyper-latents where its prior has them, to and from one packet's symbols.

    encode   y ─► z ─► put(z) ─► features ─┬► mean, index ─► put(what this turn codes) ─┬─► y_hat
    decode             get(z) ─► features ─┴► mean, index ─► get(what this turn codes) ─┘
                                           ▲──────────── turn by turn ──────────────────┘

Everything right of z is integers; both sides run the same lines, so the decoder's tables are the encoder's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencodec.codec import InexactDevice
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.model import LatentModel
from gencodec.entropy.prior import HYPER_STRIDE, predict_all, round_index
from gencodec.entropy.scales import MEAN_STEP
from gencodec.entropy.tables import CdfTables
from gencodec.entropy.turns import Turn
from gencodec.nn.exact import pattern
from gencodec.nn.exact_io import load_exact
from gencodec.nn.quality import NUM_QUALITIES

Z_BANDS = 8  # hyper-latents have tables of their own for every eight qualities
LOST = 16.0  # bits that a step of a symbol is worth where its table codes nothing
MAX_LATENT = 4096  # |symbol|; far beyond what 8-bit pictures give, and exact in float32 with any mean

Code = Callable[[Turn, Tensor, Tensor], Tensor]  # a turn, its means and scale indices -> its symbols


@dataclass(frozen=True)
class CodedLatents:
    """y_hat (1,C,H,W) float32 on a grid of 1/8, and int32 symbols in coding order: z, if any, then y."""

    y_hat: Tensor
    symbols: list[np.ndarray]


class Trial(NamedTuple):
    """One way to code y: hyper-latents z, y_hat, the prior's means and table indices (1,C,H,W).

    Symbols and tables of each turn; the cost in bits.
    """

    z: Tensor
    y_hat: Tensor
    means: Tensor
    indices: Tensor
    turns: list[tuple[np.ndarray, np.ndarray]]
    cost: float


class LatentCoder:
    """Codes the latents of one method with its exact networks and stored tables. Stateless between calls."""

    def __init__(self, model: LatentModel, y_tables: CdfTables, z_tables: CdfTables | None) -> None:
        found, expected = (z_tables.num_tables if z_tables else 0), Z_BANDS * model.prior.z_channels
        if found != expected:
            raise ValueError(f"{expected} tables for z, got {found}")
        self.model, self.y_tables, self.z_tables = model.eval(), y_tables, z_tables

    @classmethod
    def load(cls, model: LatentModel, tensors: Mapping[str, Tensor], prefix: str = "latents.") -> LatentCoder:
        """Fill `model`'s exact layers and the tables from a file. Raises ValueError for another layout."""
        load_exact(model.prior, model.prior.tables(), tensors, f"{prefix}prior.")
        y_tables = CdfTables.from_tensors(tensors, f"{prefix}y_tables")
        if not model.prior.z_channels:
            return cls(model, y_tables, None)
        return cls(model, y_tables, CdfTables.from_tensors(tensors, f"{prefix}z_tables"))

    @torch.inference_mode()
    def encode(
        self,
        encoder: SymbolEncoder,
        y: Tensor,
        quality: int,
        extra: Tensor | None = None,
    ) -> CodedLatents:
        """Quantise y (1,C,H,W), in quantisation steps, and put its symbols into `encoder`."""
        trial = self._cheapest(y, quality, extra)
        sent = []
        if self.z_tables:
            sent.append(to_integers(trial.z)[0])
            encoder.put(sent[0], z_table_index(sent[0].shape, quality), self.z_tables)
        for symbols, tables in trial.turns:
            encoder.put(symbols, tables, self.y_tables)
        return CodedLatents(trial.y_hat, sent + [symbols for symbols, _ in trial.turns])

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
        q = torch.tensor([quality], device=device)
        symbols: list[np.ndarray] = []

        def get_y(turn: Turn, _: Tensor, index: Tensor) -> Tensor:
            mask = turn.mask.cpu().numpy()
            coded = decoder.get(to_table_index(index)[mask], self.y_tables)
            symbols.append(coded)
            return placed(coded, mask, device)

        z = torch.zeros(1, self.model.prior.z_channels, *(-(-n // HYPER_STRIDE) for n in size), device=device)
        if self.z_tables:
            symbols.append(decoder.get(z_table_index(z.shape[1:], quality), self.z_tables))
            z = torch.from_numpy(symbols[0]).to(z)[None]
        return CodedLatents(self._by_turns(z, q, size, extra, get_y), symbols)

    @torch.inference_mode()
    def expected(self, y: Tensor, quality: int, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the prior says of y (1,C,H,W) coded as it is: means and table indices (int64), like y."""
        trial = self._cheapest(y, quality, extra)
        return trial.means, trial.indices

    def _cheapest(self, y: Tensor, quality: int, extra: Tensor | None) -> Trial:
        """Whichever takes fewer bits: the hyper-latents that analysis gives, or none, all zero."""
        z = self.model.hyper_symbols(y.float(), torch.tensor([quality], device=y.device))
        if not self.z_tables:
            return self._trial(y, z, quality, extra)
        without = self._trial(y, torch.zeros_like(z), quality, extra)
        if not z.any() or self._bits_of(z, quality) > without.cost:  # all of y could be had for less
            return without
        trial = self._trial(y, z, quality, extra)
        return trial if trial.cost <= without.cost else without

    def _bits_of(self, z: Tensor, quality: int) -> float:
        """Of hyper-latents (1,Cz,h,w)."""
        if not self.z_tables:
            return 0.0
        return float(self.z_tables.bits(to_integers(z)[0], z_table_index(z.shape[1:], quality)).sum())

    def _trial(self, y: Tensor, z: Tensor, quality: int, extra: Tensor | None) -> Trial:
        """What coding y (1,C,H,W) comes to under the hyper-latents z."""
        means, indices = torch.zeros_like(y, dtype=torch.float32), torch.zeros_like(y, dtype=torch.int64)
        turns: list[tuple[np.ndarray, np.ndarray]] = []
        cost = self._bits_of(z, quality)

        def code(turn: Turn, mean: Tensor, index: Tensor) -> Tensor:
            nonlocal cost
            mask = turn.mask.cpu().numpy()
            turn.put(means, mean)
            turn.put(indices, round_index(index).long())
            own = turn.of(y).float()
            wanted = to_integers(torch.round(own - mean).clamp_(-MAX_LATENT, MAX_LATENT))[0][mask]
            tables = to_table_index(index)[mask]
            coded = np.where(tables < self.y_tables.skip, 0, wanted)
            lost = np.abs(wanted - coded).sum()
            cost += float(self.y_tables.bits(coded, tables).sum() + LOST * lost)
            turns.append((coded, tables))
            return placed(coded, mask, y.device)

        q = torch.tensor([quality], device=y.device)
        y_hat = self._by_turns(z, q, (y.shape[-2], y.shape[-1]), extra, code)
        return Trial(z, y_hat, means, indices, turns, cost)

    def _by_turns(
        self, z: Tensor, quality: Tensor, size: tuple[int, int], extra: Tensor | None, code: Code
    ) -> Tensor:
        """What both sides do alike; `code(turn, mean, index)` gives the symbols of one turn, else zero."""
        prior = self.model.prior
        features = prior.features(z, quality, size, extra)
        y_hat = torch.zeros(1, prior.y_channels, *size, device=z.device)
        for number, turn in enumerate(prior.turns(*size, z.device)):
            mean, index = prior.predict(number, features, y_hat, quality)
            turn.put(y_hat, code(turn, mean, index) + mean)
        return y_hat

    @torch.inference_mode()
    def fingerprint(self, device: torch.device) -> str:
        """SHA-256 of the exact networks' integer outputs on a fixed input, for a device's self-test."""
        prior, digest = self.model.prior, hashlib.sha256()
        for quality in (0, 31, 63):
            q = torch.tensor([quality], device=device)
            z = pattern((1, prior.z_channels, 3, 4), 17).to(device)
            size = (3 * HYPER_STRIDE, 4 * HYPER_STRIDE)
            extra = pattern((1, prior.extra_channels, *size), 13).to(device) if prior.extra_channels else None
            features = prior.features(z, q, size, extra)
            y_hat = pattern((1, prior.y_channels, *size), 41).to(device)
            for mean, index in predict_all(prior, features, y_hat, q):
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


def z_table_index(shape: tuple[int, ...], quality: int) -> np.ndarray:
    """Which table each hyper-latent of `shape` (Cz,h,w) takes: one for each band of qualities and channel."""
    band = quality * Z_BANDS // NUM_QUALITIES
    channels = np.arange(shape[0], dtype=np.uint16) + band * shape[0]
    return np.broadcast_to(channels[:, None, None], shape).copy()


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
