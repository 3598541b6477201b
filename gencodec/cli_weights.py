"""`gencodec weights import`: other projects' files, as they are or renamed for a paper preset."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import typer

from gencodec import cli_output as output

PAPER = "gencodec.methods.extreme.paper"
LAYOUTS = {"mcvd": f"{PAPER}.mcvd_import", "elic": f"{PAPER}.elic_import"}


def import_weights(words: list[str], config: Path | None) -> None:
    """[mcvd|elic] FILE [OUTPUT.safetensors]; without a name the output lies beside the file."""
    layout = words[0] if words[0] in LAYOUTS else ""
    names = [Path(word) for word in words[bool(layout) :]]
    if not 1 <= len(names) <= 2:
        raise typer.BadParameter(
            "give FILE [OUTPUT.safetensors], after mcvd or elic where it is one of those"
        )
    if config is not None and layout != "mcvd":
        raise typer.BadParameter("--config is for mcvd")
    source = names[0]
    target = names[1] if len(names) == 2 else source.with_suffix(".safetensors")
    if target.resolve() == source.resolve():
        raise typer.BadParameter(f"{source} would be overwritten: give another OUTPUT.safetensors")
    output.put(f"{_import(layout, source, target, config)} tensors -> {target}")


def _import(layout: str, source: Path, target: Path, config: Path | None) -> int:
    if not layout:
        from gencodec.weights_foreign import import_foreign

        return import_foreign(source, target)
    module = import_module(LAYOUTS[layout])  # by name: the command line knows no method
    known = (source, config, target) if layout == "mcvd" else (source, target)
    return int(getattr(module, f"import_{layout}")(*known))
