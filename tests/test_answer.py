"""The sentence on top of a report: what was found, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gencodec.evaluation.report import answer
from gencodec.evaluation.tables import Table


def table(factors: Sequence[float], anchor: str = "x265") -> Table:
    """A codec "new" that needs `factors[i]` times the anchor's rate on clip i."""
    rows = [
        {"clip": str(clip), "clip_sha256": str(clip), "codec": codec, "setting": setting}
        | {"bpp": bpp * scale, "payload_bpp": 0, "metrics": {"lpips_alex": 0.6 - 0.1 * setting}}
        | {"frames": 1, "encode_seconds": 1, "decode_seconds": 1}
        for clip, factor in enumerate(factors)
        for codec, scale in ((anchor, 1.0), ("new", factor))
        for setting, bpp in ((1, 0.02), (2, 0.05), (3, 0.1))
    ]
    return Table.of(rows, ["lpips_alex"], Path())


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        ((0.5, 0.5, 0.5), "At equal LPIPS-Alex, new needs 50 % less rate than x265."),
        ((1.5, 1.5, 1.5), "At equal LPIPS-Alex, new needs 50 % more rate than x265."),
        ((0.2, 0.2), "At equal LPIPS-Alex, new needs 80 % less rate than x265."),
    ],
)
def test_says_who_needs_less(factors: Sequence[float], sentence: str) -> None:
    assert answer(table(factors)) == sentence


def test_says_where_clips_disagree() -> None:
    found = answer(table((0.4, 1.2, 0.7, 1.4, 1.0)))
    assert found.startswith(
        "At equal LPIPS-Alex, new needs 6 % less rate than x265; other clips may say otherwise"
    )
    assert "95 % interval -" in found


def test_without_an_anchor_there_is_nothing_to_say() -> None:
    assert "no anchor" in answer(table((0.5, 0.5), anchor="other"))


def test_bd_rates_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = table((0.5, 0.6, 0.7))
    before = one.bd_rates()
    monkeypatch.setattr(Table, "_bd_rate", None)
    assert one.bd_rates() is before
