"""How much of a repair is shown: the best share of each band of qualities, from few records."""

import numpy as np
import pytest

from gencodec.training.s2vc_strength import BAND, LEAST, SHARES, best_shares

BANDS = 64 // BAND


def sums_of(best: list[float], weight: float = 1.0) -> np.ndarray:
    """Distances in units of the coded picture's that are least at `best`, a band each."""
    return np.array([[1 + weight * (abs(s - b) - b) for s in SHARES] for b in best])


def at_centres(share: np.ndarray) -> list[float]:
    """Between the two middle qualities of each band."""
    return [float(share[BAND * n + BAND // 2 - 1 : BAND * n + BAND // 2 + 1].mean()) for n in range(BANDS)]


def test_the_first_share_is_the_coded_picture() -> None:
    assert SHARES[0] == 0
    assert max(SHARES) > 1, "training may show too little"


def test_each_band_has_its_best_share_and_qualities_lie_in_between() -> None:
    best = [1.5] * 4 + [0.5] * 4
    counts = np.arange(1, BANDS + 1)
    share = best_shares(sums_of(best) * counts[:, None], counts)
    assert share.shape == (64,)
    assert share[0] == 1.5
    assert share[63] == 0.5
    assert (np.diff(share) <= 0).all()
    assert at_centres(share) == pytest.approx(best, abs=0.1)


def test_one_odd_band_does_not_stand_out() -> None:
    sums = sums_of([1.0] * BANDS)
    sums[3] = sums_of([0.0], 0.8)[0]
    assert (best_shares(sums, np.ones(BANDS)) == 1).all()


def test_bands_that_no_record_has_lie_between_the_others() -> None:
    counts = np.array([1, 0, 0, 0, 0, 0, 0, 1])
    share = best_shares(np.concatenate([sums_of([1.0]), np.zeros((6, len(SHARES))), sums_of([1.0])]), counts)
    assert (share == 1).all()


def test_no_share_is_nothing() -> None:
    assert best_shares(sums_of([0.0] * BANDS), np.ones(BANDS)).min() == LEAST
