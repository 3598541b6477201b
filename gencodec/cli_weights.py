"""`gencodec weights import`: other projects' files, as they are or renamed for a paper preset."""

from __future__ import annotations

from pathlib import Path

import typer

from gencodec import cli_output as output

LAYOUTS = ("mcvd", "elic")


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
    if layout == "mcvd":
        from gencodec.methods.extreme.paper.mcvd_import import import_mcvd

        return import_mcvd(source, config, target)
    if layout == "elic":
        from gencodec.methods.extreme.paper.elic_import import import_elic

        return import_elic(source, target)
    from gencodec.weights import import_foreign

    return import_foreign(source, target)
