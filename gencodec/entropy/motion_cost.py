"""What a vector costs where it stands: its own bits, and those of the vectors that it helps to predict.

    field ─► for every block: near (4) ─► expected, spread, candidates ─► tables ─► bits
    another vector in one block ─► its own bits and those of its users

Encoders weigh vectors by it; on the wire `motion` alone says what is coded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gencodec.entropy.motion_order import LIMIT, Candidates, stages
from gencodec.entropy.motion_tables import NONE, choice_table

if TYPE_CHECKING:
    from typing_extensions import Self

    from gencodec.entropy.motion import MotionCoder  # training does without the entropy coder


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
        """Only some of its blocks, or some more often: bool (n), or their places in it."""
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
        return _expected(field[:, group.near])

    def bits(self, field: np.ndarray, group: Group, tried: np.ndarray) -> np.ndarray:
        """Bits (k,n) that depend on a group's blocks, were one of them `tried` (k,2,n) in field (2,h*w)."""
        tried = tried.transpose(1, 0, 2)  # (2,k,n)
        near, before = field[:, group.near][:, :, None], self._before(group.blocks)  # (2,4,1,n), (2,n)
        expected = self.expected(field, group)[:, None]
        own = self._bits(tried, expected, near, group.level, None if before is None else before[:, None])
        return own + self._users_bits(field, group, tried)

    def _users_bits(self, field: np.ndarray, group: Group, tried: np.ndarray) -> np.ndarray:
        """Bits (k,n) of the users of each block."""
        if not group.users.size:
            return np.zeros(tried.shape[1:])
        is_own = group.near_users == group.blocks[:, None]  # (4,n,m)
        near = np.where(is_own[:, None], tried[:, None, ..., None], field[:, group.near_users][:, :, None])
        before = self._before(group.users)
        bits = self._bits(
            field[:, None, group.users],
            _expected(near),
            near,
            group.levels,
            None if before is None else before[:, None],
        )
        return np.where(group.is_user, bits, 0).sum(-1)

    def _bits(
        self,
        wanted: np.ndarray,
        expected: np.ndarray,
        near: np.ndarray,
        level: int | np.ndarray,
        before: np.ndarray | None,
    ) -> np.ndarray:
        """Bits of vectors `wanted` (2,...) with neighbours (2,4,...); the shapes behind fit each other."""
        spread = (near.max(1) - near.min(1)).sum(0)
        free = self.coder.difference_bits(wanted, expected, spread, level)
        if isinstance(level, int) and level == 0:
            return free
        candidates = Candidates.of(expected, before, near)
        choice = candidates.choice(wanted)
        table = choice_table(level, candidates.size, candidates.agreeing, candidates.has_before)
        return self.coder.costs[table, 2 * LIMIT + choice] + np.where(choice == NONE, free, 0)

    def _before(self, blocks: np.ndarray) -> np.ndarray | None:
        return None if self.before is None else self.before[:, blocks]


def _expected(near: np.ndarray) -> np.ndarray:
    """As `motion_order.expected_at`, of neighbours (2,4,...): the mean of the middle two."""
    return (near.sum(1) - near.min(1) - near.max(1) + 1) >> 1
