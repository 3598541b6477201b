"""The cheapest of what may be told region by region; neighbours make each other cheap. Encoders only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SWEEPS = 4  # at each price


def cheapest(missed: np.ndarray, price: float, bits: np.ndarray, beyond: int) -> np.ndarray:
    """Indices, int32 (rows,columns), of a small sum of missed (choices,rows,columns) and price x bits.

    `bits` of an index, [left,above,index] or [row,column,left,above,index]; `beyond`: what stands left and
    above of the border. One region after the other takes what is best beside its neighbours, until nothing
    changes: once from the index that is best for all, once from the best one of each, at a price that rises
    to the full one.
    """
    shape = missed.shape[1:]
    bits = np.broadcast_to(bits, (*shape, *bits.shape[-3:]))
    regions = Regions(missed, bits, beyond)
    even = np.full(shape, int(missed.sum((1, 2)).argmin()), np.int32)
    rising = [price / 8, price / 3, price]
    found = [regions.settled(even, [price]), regions.settled(missed.argmin(0), rising)]
    return min(found, key=lambda index: regions.cost(index, price))


class Regions:
    """What `cheapest` looks at."""

    def __init__(self, missed: np.ndarray, bits: np.ndarray, beyond: int) -> None:
        self.missed, self.bits, self.beyond = missed, bits, beyond

    def settled(self, start: np.ndarray, prices: Sequence[float]) -> np.ndarray:
        """Where regions that each take their best come to rest."""
        index = np.pad(start.astype(np.int32), 1, constant_values=self.beyond)
        for price in prices:
            for _ in range(SWEEPS):
                before = index.copy()
                for row, column in np.ndindex(start.shape):
                    index[row + 1, column + 1] = self._best(index, row, column, price)
                if (index == before).all():
                    break
        return index[1:-1, 1:-1].copy()

    def cost(self, index: np.ndarray, price: float) -> float:
        """Of all regions."""
        padded = np.pad(index, 1, constant_values=self.beyond)
        rows, columns = np.indices(index.shape)
        own = self.missed[index, rows, columns].sum()
        bits = self.bits[rows, columns, padded[1:-1, :-2], padded[:-2, 1:-1], index].sum()
        return float(own + price * bits)

    def _best(self, index: np.ndarray, row: int, column: int, price: float) -> int:
        """The best index of a region, all others given; `index` has a border."""
        choices, rows, columns = self.missed.shape
        bits = self.bits[row, column, index[row + 1, column], index[row, column + 1]]
        if column + 1 < columns:
            right = self.bits[row, column + 1, :choices, index[row, column + 2]]
            bits = bits + right[:, index[row + 1, column + 2]]
        if row + 1 < rows:
            below = self.bits[row + 1, column, index[row + 2, column], :choices]
            bits = bits + below[:, index[row + 2, column + 1]]
        return int((self.missed[:, row, column] + price * bits).argmin())
