"""Which methods there are: a table for this package, entry points of group "gencodec.methods" for others.

Nothing is imported until it is asked for. The wire numbers are typed by a person and never change:
1 intra, 2 extreme, 3 s2vc, 4 diffsit; 5..127 are kept for this package, 128..255 are for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from gencodec.codec import Codec, UnsupportedStream

GROUP = "gencodec.methods"
EXTERNAL_IDS = range(128, 256)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A method of this package: its number on the wire and where its class is."""

    codec_id: int
    target: str  # "module:Class"


BUILT_IN = {
    "intra": BuiltIn(1, "gencodec.methods.intra.codec:Intra"),
    "extreme": BuiltIn(2, "gencodec.methods.extreme.codec:Extreme"),
    "s2vc": BuiltIn(3, "gencodec.methods.s2vc.codec:S2vc"),
    "diffsit": BuiltIn(4, "gencodec.methods.diffsit.codec:DiffSit"),
}


def method_names() -> list[str]:
    """Return the names of all methods, those of this package first. Imports none of them."""
    return [*BUILT_IN, *sorted(plug_ins().keys() - BUILT_IN.keys())]


def codec_class(name: str) -> type[Codec]:
    """Return a method's class. Raises ValueError for an unknown name or a plug-in that cannot be used."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].target.partition(":")
        return cast("type[Codec]", getattr(import_module(module), attribute))
    points = plug_ins().get(name)
    if not points:
        raise ValueError(f"there is no method {name!r}; there are {', '.join(method_names())}")
    if len(points) > 1:
        raise ValueError(
            f"method {name!r} is in several packages ({_origins(points)}): uninstall all but one"
        )
    return _load(points[0])


def codec_class_by_id(codec_id: int) -> type[Codec]:
    """Return the class of the method with a wire number. Raises UnsupportedStream if it is not installed."""
    for name, built_in in BUILT_IN.items():
        if built_in.codec_id == codec_id:
            return codec_class(name)
    found, problems = _external_classes()
    matches = {name: cls for name, cls in found.items() if cls.codec_id == codec_id}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        raise UnsupportedStream(
            f"method number {codec_id} is taken by {' and '.join(matches)}: uninstall all but one"
        )
    unusable = f" ({'; '.join(problems.values())})" if problems and codec_id in EXTERNAL_IDS else ""
    raise UnsupportedStream(
        f"method number {codec_id} is not installed{unusable}; install what has it, or a newer gencodec"
    )


def plug_ins() -> dict[str, list[EntryPoint]]:
    """Return other packages' entry points by method name; more than one under a name is a clash."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if not any(point.value == other.value for other in found.get(point.name, [])):
            found.setdefault(point.name, []).append(point)
    return found


def plug_in_problems() -> dict[str, str]:
    """Return, by name, why plug-ins cannot be used: broken, or in conflict. Imports them all."""
    found, problems = _external_classes()
    for name in plug_ins().keys() & BUILT_IN.keys():
        problems[name] = (
            f"{_origins(plug_ins()[name])} offers {name!r}, which gencodec has itself: it is not used"
        )
    by_id: dict[int, list[str]] = {}
    for name, cls in found.items():
        by_id.setdefault(cls.codec_id, []).append(name)
    for codec_id, names in by_id.items():
        if len(names) > 1:
            problems |= {
                name: f"method number {codec_id} is taken by {' and '.join(names)}" for name in names
            }
    return problems


def _external_classes() -> tuple[dict[str, type[Codec]], dict[str, str]]:
    found, problems = {}, {}
    for name in plug_ins().keys() - BUILT_IN.keys():
        try:
            found[name] = codec_class(name)
        except ValueError as error:
            problems[name] = str(error)
    return found, problems


def _load(point: EntryPoint) -> type[Codec]:
    where = f"method {point.name!r} of {_origins([point])}"
    try:
        cls = point.load()
    except Exception as error:  # a stranger's module may raise anything; the other methods go on
        raise ValueError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Codec)):
        raise ValueError(f"{where} is not a gencodec.Codec")
    if cls.name != point.name:
        raise ValueError(f"{where} calls itself {cls.name!r}")
    if cls.codec_id not in EXTERNAL_IDS:
        raise ValueError(f"{where} has number {cls.codec_id}; other packages have 128..255")
    return cls


def _origins(points: list[EntryPoint]) -> str:
    return ", ".join(point.dist.name if point.dist else point.value for point in points)
