"""The files of a finished comparison: results.json, table.csv, curves.svg and report.html."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencodec.atomic import replacing
from gencodec.evaluation.curves import curves_svg
from gencodec.evaluation.report import report_html

if TYPE_CHECKING:
    from gencodec.evaluation.compare import Comparison


def write_results(comparison: Comparison, made_by: dict[str, Any]) -> None:
    """results.json, table.csv, curves.svg and report.html, each in one piece."""
    table, published = comparison.table, comparison.published
    summary = {
        "schema": 1,
        **made_by,
        "missing_metrics": comparison.missing,
        "failures": comparison.failures,
        "means": table.means,
        "bd_rate": table.bd_rates(),
        "published": published.record if published else None,
        "points": comparison.rows,
    }
    outputs = {
        "results.json": json.dumps(summary, indent=1),
        "table.csv": table.csv(),
        "curves.svg": curves_svg(table, published),
        "report.html": report_html(comparison, made_by),
    }
    for name, text in outputs.items():
        with replacing(comparison.folder / name) as file:
            file.write(text.encode())


def provenance() -> dict[str, Any]:
    """Machine, versions and command."""
    versions = {}
    for package in ("gencodec", "torch", "av", "numpy", "constriction"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **versions},
    }
