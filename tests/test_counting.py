"""Counted tables: they are the normal ones where nothing was seen, and cheaper where something was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gencodec.entropy.hyper import Z_BANDS
from gencodec.entropy.scales import NUM_SCALES
from gencodec.entropy.tables import gaussian_tables
from gencodec.training.counting import MAX_COUNTED, Z_MAX, HyperCounts, SymbolCounts


def test_without_counts_the_tables_are_normal() -> None:
    tables, normal = SymbolCounts().tables(8), gaussian_tables()
    assert tables.num_tables == NUM_SCALES
    assert tables.skip == 8
    symbols = np.arange(-3, 4)
    for index in (10, 30, 63):
        ours, theirs = (t.bits(symbols, np.full(7, index)) for t in (tables, normal))
        common = theirs < 10
        assert ours[common] == pytest.approx(theirs[common], abs=0.05)


def test_long_tails_become_cheaper() -> None:
    generator = torch.Generator().manual_seed(0)
    normal, cauchy = (torch.randn(40_000, generator=generator) for _ in range(2))
    symbols = (normal / cauchy.abs().clamp_min(0.01)).round()
    index = torch.full_like(symbols, 30.0)
    counts = SymbolCounts()
    counts.add(symbols[:20_000], index[:20_000])
    assert counts.counts[30].sum() == (symbols[:20_000].abs() <= MAX_COUNTED).sum()
    fresh, where = symbols[20_000:].numpy(), np.full(20_000, 30)
    assert counts.tables(8).bits(fresh, where).sum() < 0.9 * gaussian_tables().bits(fresh, where).sum()


def test_signs_cost_the_same() -> None:
    counts = SymbolCounts()
    counts.add(torch.full((500,), 2.0), torch.full((500,), 40.0))
    plus, minus = counts.tables(0).bits(np.array([2, -2]), np.array([40, 40]))
    assert plus == pytest.approx(minus, abs=1e-3)


def test_hyper_latents_have_tables_for_each_band_and_channel() -> None:
    counts = HyperCounts(channels=2)
    z = torch.stack([torch.full((3, 4), 1.0), torch.full((3, 4), -Z_MAX)])[None]
    counts.add(torch.cat([z, z]), [0, 63])
    tables = counts.tables()
    assert tables.num_tables == 2 * Z_BANDS
    last = 2 * (Z_BANDS - 1)
    assert tables.bits(np.array([1, -Z_MAX]), np.array([last, last + 1])).max() < 0.2
    assert tables.bits(np.array([1]), np.array([2])) > 3, "nothing was seen in this band"
