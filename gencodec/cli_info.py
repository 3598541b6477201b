"""`gencodec info`, `methods` and `weights`: what is in a file and what is installed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from gencodec import registry, weights, wire_header
from gencodec.cli_output import put, put_json, put_table
from gencodec.codec import Codec, FrameType, UnsupportedStream, WeightsMissing
from gencodec.decoded import Stream
from gencodec.wire import Gop
from gencodec.wire_header import Header


def describe(source: Path) -> dict[str, Any]:
    """Return a file's header, its GOPs and its bytes by part. Needs no weights. Raises CorruptStream."""
    with Stream(source, max_pixels=wire_header.MAX_SIDE**2).reader() as reader:
        cls = _class_or_none(reader.header)
        gops, parts, inside = [], Counter[str](), Counter[str]()
        for gop in reader.gops():
            gops.append(
                {"frame": gop.first_frame, "frames": gop.stop_frame - gop.first_frame, "bytes": gop.size}
            )
            _count(gop, cls, parts, inside)
        size = reader.file_bytes
        frames = sum(gop["frames"] for gop in gops)
        fixed = {"header": reader.header_bytes, "index": reader.index_bytes}
        payload = sum(parts.values())
        return {
            **_header_fields(reader.header, cls),
            "bytes": size,
            "payload_bytes": payload,
            "frames": frames,
            "bpp": 8 * size / (frames * reader.header.width * reader.header.height),
            "parts": {**fixed, **parts, "container": size - payload - sum(fixed.values())},
            "payload_parts": dict(inside),
            "gops": gops,
        }


def _count(gop: Gop, cls: type[Codec] | None, parts: Counter[str], inside: Counter[str]) -> None:
    hook = getattr(cls, "describe", None)  # optional: a packet's bytes by part, without weights
    for packet in gop.packets:
        parts["intra_packets" if packet.type is FrameType.INTRA else "predicted_packets"] += len(
            packet.payload
        )
        if hook:
            inside.update(hook(packet))


def _class_or_none(header: Header) -> type[Codec] | None:
    try:
        return registry.codec_class_by_id(header.codec_id)
    except UnsupportedStream:
        return None


def _header_fields(header: Header, cls: type[Codec] | None) -> dict[str, Any]:
    return {
        "method": cls.name if cls else None,
        "method_number": header.codec_id,
        "version": header.version,
        "preset": header.preset,
        "weights_id": f"{header.weights_id:08x}",
        "width": header.width,
        "height": header.height,
        "fps": str(header.fps),
        "seed": header.seed,
        "settings": header.settings.hex(),
    }


def put_lines(found: dict[str, Any]) -> None:
    """Print what `describe` found."""
    for key, value in found.items():
        if key not in ("parts", "payload_parts", "gops"):
            put(f"{key:14} {value if value is not None else 'not installed'}")
    put(f"{'gops':14} {len(found['gops'])}")
    rows = [
        (name, str(size), f"{100 * size / found['bytes']:.1f} %") for name, size in found["parts"].items()
    ]
    rows += [(f"  {name}", str(size), "") for name, size in found["payload_parts"].items()]
    put_table(("part", "bytes", "share"), rows)


# ---- methods and weights -----------------------------------------------------------------------------------


def list_methods(*, as_json: bool) -> None:
    """Print every method and preset, and why a plug-in cannot be used."""
    problems = registry.plug_in_problems()
    rows = [row for name in registry.method_names() if name not in problems for row in _method_rows(name)]
    if as_json:
        return put_json({"methods": rows, "problems": problems})
    columns = ("method", "number", "preset", "parameters", "weights", "licence", "paper")
    put_table(columns, [[str(row[column]) for column in columns] for row in rows])
    for problem in problems.values():
        put(f"not usable: {problem}")


def _method_rows(name: str) -> list[dict[str, Any]]:
    cls = registry.codec_class(name)
    return [
        {
            "method": name,
            "number": cls.codec_id,
            "preset": preset,
            **(_set_fields(list(sets[0])) if sets else FROM_FOLDER),
            "paper": cls.paper,
        }
        for preset, sets in cls.weight_sets.items()
    ]


FROM_FOLDER = {"parameters": 0, "weights": "give a folder", "licence": "-"}


def _set_fields(names: list[str]) -> dict[str, Any]:
    known = [name for name in names if name in weights.WEIGHTS]
    try:
        weights.files_of(names)
        state = "present" if names else "none needed"
    except WeightsMissing:
        state = "missing"
    licences = sorted({weights.WEIGHTS[name].licence for name in known})
    return {
        "parameters": sum(weights.parameter_count(name) for name in known),
        "weights": state,
        "licence": ", ".join(licences) or "-",
    }


def list_weights(*, as_json: bool) -> None:
    """Print the table of weights files."""
    rows = [
        {
            "name": name,
            "file": entry.filename,
            "parameters": weights.parameter_count(name),
            "present": (weights.ZOO / entry.filename).exists(),
            "licence": entry.licence,
            "source": entry.source,
            "sha256": entry.sha256,
        }
        for name, entry in weights.WEIGHTS.items()
    ]
    if as_json:
        return put_json({"weights": rows})
    columns = ("name", "parameters", "present", "licence", "source")
    put_table(columns, [[str(row[column]) for column in columns] for row in rows])


def verify_weights() -> None:
    """Check every file of the table. Raises WeightsMissing with the first that is absent or altered."""
    problems = [problem for name in weights.WEIGHTS if (problem := weights.problem_with(name))]
    if problems:
        raise WeightsMissing("; ".join(problems))
    put(f"all {len(weights.WEIGHTS)} weights files are here and have their recorded SHA-256")
