"""What all parts of the report are written with: tables, percentages, where numbers come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Result = dict[str, Any]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    titles = list(head)
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, rule, *map(list, rows)])


def percent(value: float | None) -> str:
    """A difference with its sign; "none" where the curves have no quality in common."""
    return "none" if value is None else f"{value:+.1f} %"


def provenance(result: Result) -> str:
    """Where the numbers come from."""
    versions = ", ".join(f"{name} {number}" for name, number in result.get("versions", {}).items())
    changed = " with uncommitted changes" if result.get("changed_files") else ""
    commit = str(result.get("commit", "unknown"))[:9]
    return f"`{result['command']}` on {result['machine']}; commit {commit}{changed}; {versions}."
