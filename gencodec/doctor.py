"""`gencodec doctor`: is everything here, and does every device give the recorded bits?"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gencodec import __version__, registry, weights
from gencodec.api import load
from gencodec.cli_output import put, put_json
from gencodec.codec import GencodecError

PACKAGES = ("torch", "numpy", "av", "constriction", "safetensors", "typer", "rich")


def run(*, as_json: bool) -> int:
    """Print what was found and return 0 if all is well, 4 if weights are missing or altered, else 1."""
    found = {
        "versions": versions(),
        "devices": devices(),
        "weights": check_weights(),
        "methods": check_methods(),
    }
    bad = [
        f"{part}: {name}: {state}" for part in ("weights", "methods") for name, state in _faults(found[part])
    ]
    if as_json:
        put_json({**found, "ok": not bad})
    else:
        for part, entries in found.items():
            put(part)
            for name, state in entries.items():
                put(f"  {name:24} {state}")
        put("all is well" if not bad else f"{len(bad)} faults, see above")
    return 0 if not bad else 4 if _faults(found["weights"]) else 1


def _faults(entries: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, state) for name, state in entries.items() if state != "ok"]


def versions() -> dict[str, str]:
    """Return the versions of gencodec, Python, the packages in use and FFmpeg's libraries."""
    import av

    found = {"gencodec": __version__, "python": f"{platform.python_version()} on {platform.platform()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    libraries: dict[str, Any] = av.library_versions
    found |= {name: ".".join(map(str, number)) for name, number in libraries.items()}
    return found


def devices() -> dict[str, str]:
    """Return the devices that torch sees."""
    import torch

    found = {"cpu": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"}
    for number in range(torch.cuda.device_count()):
        found[f"cuda:{number}"] = torch.cuda.get_device_name(number)
    return found


def check_weights() -> dict[str, str]:
    """Return what is wrong with each weights file of the table or of a method of this package, or "ok"."""
    found = {name: weights.problem_with(name) or "ok" for name in weights.WEIGHTS}
    for method in registry.BUILT_IN:
        for sets in registry.codec_class(method).weight_sets.values():
            names = sets[0] if sets else ()  # none: a folder of the user's
            found |= {name: "not in this version" for name in names if name not in weights.WEIGHTS}
    return found


def check_methods() -> dict[str, str]:
    """Load every preset that is here on every device; loading runs the exact networks' self-test."""
    found = dict(registry.plug_in_problems())
    for name in registry.method_names():
        if name not in found:
            for preset, sets in registry.codec_class(name).weight_sets.items():
                for device in devices() if sets else ():  # without a set: weights of the user's, not here
                    found[f"{name} {preset} {device}"] = _self_test(name, preset, device)
    return found


def _self_test(name: str, preset: str, device: str) -> str:
    cls = registry.codec_class(name)
    try:
        loaded = weights.load_set(cls.weight_sets[preset][0], preset)
        hook = getattr(cls, "self_test", None)  # optional: more than what loading checks anyway
        if hook:
            hook(loaded, device)
        else:
            load(cls, loaded, cls.pack_settings(), device)
    except (GencodecError, ValueError, RuntimeError) as error:
        return str(error)
    return "ok"
