"""What a vector costs where it stands: its own bits, and those of the vectors that it helps to predict.

    field ─► for every block: near (4) ─► expected, spread ─► tables ─► bits
    another vector in one block ─► its own bits and those of its users

Encoders weigh vectors by it; on the wire `motion` alone says what is coded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gencodec.entropy.motion import MotionCoder
from gencodec.entropy.motion_order import LIMIT, stages

if TYPE_CHECKING:
    from typing_extensions import Self

FAR = 4 * LIMIT  # beyond what any vector has


class Group(NamedTuple):
    """Blocks that are coded together, by number (n), and up to m users of each: blocks predicted by it.

    near (4,n) are a block's own neighbours; near_users (4,n,m) those of its users.
    """

    level: int
    blocks: np.ndarray
    near: np.ndarray
    users: np.ndarray  # (n,m)
    is_user: np.ndarray  # (n,m)
    near_users: np.ndarray
    levels: np.ndarray  # (n,m), of users

    def of(self, which: np.ndarray) -> Self:
        """Only some of its blocks, bool (n)."""
        near, near_users = self.near[:, which], self.near_users[:, which]
        users, is_user, levels = self.users[which], self.is_user[which], self.levels[which]
        return type(self)(self.level, self.blocks[which], near, users, is_user, near_users, levels)


@lru_cache(maxsize=8)
def groups(height: int, width: int) -> tuple[Group, ...]:
    """All blocks of a field, in coding order."""
    count = height * width
    near, levels = np.zeros((4, count), np.int64), np.zeros(count, np.int64)
    for places in stages(height, width):
        blocks = places.rows * width + places.columns
        near[:, blocks] = places.near_rows * width + places.near_columns
        levels[blocks] = places.level
    users: list[list[int]] = [[] for _ in range(count)]
    for user in np.flatnonzero(levels):
        for block in set(near[:, user].tolist()):
            users[block].append(int(user))
    return tuple(
        _group(places.level, places.rows * width + places.columns, near, levels, users)
        for places in stages(height, width)
    )


def _group(
    level: int, blocks: np.ndarray, near: np.ndarray, levels: np.ndarray, users: list[list[int]]
) -> Group:
    most = max(len(users[block]) for block in blocks) if len(blocks) else 0
    table, is_user = np.zeros((len(blocks), most), np.int64), np.zeros((len(blocks), most), bool)
    for row, block in enumerate(blocks):
        table[row, : len(users[block])] = users[block]
        is_user[row, : len(users[block])] = True
    return Group(level, blocks, near[:, blocks], table, is_user, near[:, table], np.maximum(levels[table], 1))


class FieldCost:
    """Bits under a coder's tables, of fields that are coded against `before` (2,h,w) or None."""

    def __init__(self, coder: MotionCoder, before: np.ndarray | None) -> None:
        self.coder = coder
        self.before = None if before is None else before.reshape(2, -1)

    def expected(self, field: np.ndarray, group: Group) -> np.ndarray:
        """What a decoder expects at a group's blocks, (2,n), from field (2,h*w)."""
        if group.level == 0:
            before = self._before(group.blocks)
            return np.zeros((2, len(group.blocks)), np.int64) if before is None else before
        near = field[:, group.near]
        return _expected(near.sum(1), near.min(1), near.max(1))

    def bits(self, field: np.ndarray, group: Group, tried: np.ndarray) -> np.ndarray:
        """Bits (k,n) that depend on a group's blocks, were one of them `tried` (k,2,n) in field (2,h*w)."""
        tried = tried.transpose(1, 0, 2)  # (2,k,n)
        near = field[:, group.near]
        spread = (near.max(1) - near.min(1)).sum(0)
        own = self.coder.bits_of(
            tried, self.expected(field, group)[:, None], spread, group.level, self._before(group.blocks)
        )
        return own + self._users_bits(field, group, tried)

    def _users_bits(self, field: np.ndarray, group: Group, tried: np.ndarray) -> np.ndarray:
        """Bits (k,n) of the users of each block."""
        if not group.users.size:
            return np.zeros(tried.shape[1:])
        near = field[:, group.near_users]  # (2,4,n,m)
        is_own = group.near_users == group.blocks[:, None]
        tried = tried[..., None]  # (2,k,n,1)
        total = np.where(is_own, 0, near).sum(1)[:, None] + is_own.sum(0) * tried
        least = np.minimum(np.where(is_own, FAR, near).min(1)[:, None], tried)
        most = np.maximum(np.where(is_own, -FAR, near).max(1)[:, None], tried)
        bits = self.coder.bits_of(
            field[:, None, group.users],
            _expected(total, least, most),
            (most - least).sum(0),
            group.levels,
            self._before(group.users),
        )
        return np.where(group.is_user, bits, 0).sum(-1)

    def _before(self, blocks: np.ndarray) -> np.ndarray | None:
        return None if self.before is None else self.before[:, blocks]


def _expected(total: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """As `motion_order.expected_at`: the mean of the middle two of four."""
    return (total - least - most + 1) >> 1
