"""How strongly edges are smoothed, on the wire."""

from __future__ import annotations

import numpy as np
import pytest

from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.coder_ref import SymbolDecoderRef, SymbolEncoderRef
from gencodec.entropy.edges import BITS, COUNTS, NONE, get_edges, put_edges
from gencodec.entropy.tables import TOTAL
from gencodec.nn.deblock import STRENGTHS

GRID = (3, 5)


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(STRENGTHS), GRID).astype(np.int32)


def payload_of(strengths: np.ndarray, before: np.ndarray | None) -> bytes:
    encoder, other = SymbolEncoder(), SymbolEncoderRef()
    for one in (encoder, other):
        put_edges(one, strengths, before)
    payload = encoder.finish()
    assert payload == other.finish()
    return payload


def test_counts_are_whole() -> None:
    assert (COUNTS.sum(3) == TOTAL).all()
    assert COUNTS.min() >= 1


def test_what_is_like_its_neighbours_is_cheap() -> None:
    assert BITS[2, 2, 2, 2] < 0.2 < BITS[NONE, 2, 2, 2] < BITS[NONE, NONE, 2, 2] < BITS[NONE, NONE, NONE, 2]
    assert BITS[NONE, NONE, NONE, 2] == pytest.approx(np.log2(4), abs=1e-3)
    assert BITS[1, 2, 3, 1] == pytest.approx(BITS[1, 2, 3, 2], abs=1e-3)
    assert BITS[1, 2, 3, 1] < BITS[1, 2, 3, 0]


@pytest.mark.parametrize("before", [None, drawn(1), drawn(0)])
@pytest.mark.parametrize("strengths", [drawn(0), np.zeros(GRID, np.int32)])
def test_strengths_come_back(strengths: np.ndarray, before: np.ndarray | None) -> None:
    payload = payload_of(strengths, before)
    for decoder in (SymbolDecoder(payload), SymbolDecoderRef(payload)):
        assert np.array_equal(get_edges(decoder, GRID, before), strengths)
        decoder.finish()


def test_what_stays_costs_next_to_nothing() -> None:
    assert len(payload_of(drawn(0), drawn(0))) < len(payload_of(drawn(0), drawn(1)))
    many = SymbolEncoder()
    for _ in range(50):
        put_edges(many, drawn(0), drawn(0))
        put_edges(many, np.zeros(GRID, np.int32), None)
    assert len(many.finish()) < 10
