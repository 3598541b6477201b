"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer


class Preset(str, Enum):
    """Sizes of networks."""

    tiny = "tiny"
    paper = "paper"


class Tune(str, Enum):
    """What an encoder chooses symbols for."""

    lpips = "lpips"
    psnr = "psnr"


Text = str | None
Number = float | None
File = Path | None
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]
Frames = Annotated[Text, typer.Option(metavar="A:B", help="Only frames A up to, not including, B.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
WeightsPath = Annotated[File, typer.Option(help="File or folder in place of the shipped weights.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Largest frame, in pixels.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes.")]
Points = Annotated[int, typer.Option(min=1, help="Rates of each codec.")]
Metrics = Annotated[Text, typer.Option(help="Comma-separated; all whose weights are there.")]
Vgg = Annotated[File, typer.Option(help="VGG16 and LPIPS heads, for LPIPS-VGG and DISTS.")]
Inception = Annotated[File, typer.Option(help="Inception-v3, for FID and KID.")]
Spynet = Annotated[File, typer.Option(help="SPyNet, for the warping error.")]
Raft = Annotated[File, typer.Option(help="torchvision's raft_large, for the warping error by RAFT.")]
I3d = Annotated[File, typer.Option(help="I3D in the flax layout, for FVD.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the method: its page in docs/methods."),
]
Settings = Annotated[list[str] | None, typer.Option(metavar="CODEC=A,B,...", help="Fix points.")]
Published = Annotated[Text, typer.Option(metavar="FILE.json:SET", help="Curves of papers, drawn dashed.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes; a killed run goes on.")]


def parse_frames(text: str | None) -> tuple[int, int | None] | None:
    """Return (a, b) for "a:b"; b may be left out. Raises ValueError."""
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (start, stop)):
        raise ValueError(f"--frames is A:B with whole numbers, got {text!r}")
    return int(start or 0), int(stop) if stop else None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (width, height) for "WxH". Raises ValueError."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"--size is WxH, for example 640x360, got {text!r}")
    return int(width), int(height)


def parse_options(texts: list[str] | None) -> dict[str, int | float | str]:
    """Return what "NAME=VALUE" texts say; whole numbers and others as such. Raises ValueError."""
    found: dict[str, int | float | str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--set is NAME=VALUE, got {text!r}")
        found[name] = _number(value)
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse_fps(text: str | None) -> Fraction | None:
    """Return the rate for "25", "29.97" or "30000/1001". Raises ValueError."""
    if text is None:
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--fps is a number or a fraction, got {text!r}") from None
