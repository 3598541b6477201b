"""Generative video compression: three published methods, one interface, file format and entropy coder."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gencodec.api import create, decode, encode
    from gencodec.codec import (
        Codec,
        CorruptStream,
        FrameType,
        GencodecError,
        InexactDevice,
        Packet,
        UnreadableInput,
        UnsupportedStream,
        VideoInfo,
        WeightsMissing,
    )
    from gencodec.decoded import DecodedVideo
    from gencodec.evaluation.compare import Comparison, compare
    from gencodec.rate import ConstantQuality, TargetBitrate, TargetBpp, TargetLpips
    from gencodec.registry import codec_class, method_names
    from gencodec.results import CodingResult
    from gencodec.video import open_video, write_video

_MODULES = {
    "api": ["create", "decode", "encode"],
    "codec": [
        "Codec",
        "CorruptStream",
        "FrameType",
        "GencodecError",
        "InexactDevice",
        "Packet",
        "UnreadableInput",
        "UnsupportedStream",
        "VideoInfo",
        "WeightsMissing",
    ],
    "decoded": ["DecodedVideo"],
    "evaluation.compare": ["Comparison", "compare"],
    "rate": ["ConstantQuality", "TargetBitrate", "TargetBpp", "TargetLpips"],
    "registry": ["codec_class", "method_names"],
    "results": ["CodingResult"],
    "video": ["open_video", "write_video"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022 - as in _MODULES
    "DecodedVideo",
    "create",
    "decode",
    "encode",
    "Codec",
    "CorruptStream",
    "FrameType",
    "GencodecError",
    "InexactDevice",
    "Packet",
    "UnreadableInput",
    "UnsupportedStream",
    "VideoInfo",
    "WeightsMissing",
    "Comparison",
    "compare",
    "ConstantQuality",
    "TargetBitrate",
    "TargetBpp",
    "TargetLpips",
    "codec_class",
    "method_names",
    "CodingResult",
    "open_video",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import gencodec` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'gencodec' has no attribute {name!r}")
    return getattr(import_module(f"gencodec.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
