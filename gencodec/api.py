"""The one-call functions: `create` a codec, `encode` to a .gcv file, `decode` one.

source ─► open_video ─► Codec.encode ─► Writer ─► .gcv ─► decoded.DecodedVideo ─► save
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from fractions import Fraction
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

from gencodec import registry, wire_header
from gencodec import weights as weights_table
from gencodec.atomic import replacing
from gencodec.codec import (
    Codec,
    Tune,
    UnreadableInput,
    UnsupportedStream,
    VideoInfo,
    WeightsMissing,
)
from gencodec.container_writer import Writer
from gencodec.decoded import DecodedVideo, Progress, Stream, check_range
from gencodec.rate import from_arguments
from gencodec.results import CodingResult, Tally
from gencodec.video import open_video

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from gencodec.codec import RateControl, Weights

Preset = Literal["tiny", "paper"]


def create(
    method: str,
    *,
    preset: Preset = "tiny",
    device: str = "auto",
    weights: str | Path | None = None,
    tune: Tune = "lpips",
    **options: object,
) -> Codec:
    """Return the codec of a method, ready to encode.

    `device` is auto, cpu or cuda; `weights` a file or folder to use in place of the shipped ones; `tune` what
    the encoder chooses symbols for, "lpips", or "psnr", which is much faster; `options` are the
    method's own. Raises ValueError for a wrong argument, WeightsMissing where weights are absent or
    do not fit.
    """
    cls = registry.codec_class(method)
    if preset not in cls.weight_sets:
        raise ValueError(f"method {method!r} has no preset {preset!r}; it has {', '.join(cls.weight_sets)}")
    if tune not in (tunes := get_args(Tune)):
        raise ValueError(f"tune is {' or '.join(tunes)}, got {tune!r}")
    target = check_device(device)
    settings = cls.pack_settings(**options)
    loaded = cls.weights_from(preset, weights)
    if loaded is None:
        loaded = weights_table.load_set(cls.weight_sets[preset][0], preset, path=weights)
    codec = load(cls, loaded, settings, target)
    codec.set_tune(tune)
    return codec


def load(cls: type[Codec], weights: Weights, settings: bytes, device: str) -> Codec:
    """Build a codec; weights that do not fit its networks are WeightsMissing."""
    try:
        return cls.load(weights, settings, device=device)
    except (ValueError, KeyError) as error:
        raise WeightsMissing(f"the weights do not fit method {cls.name!r}: {error}") from error


def check_device(device: str) -> str:
    """Return cpu or cuda for auto, cpu, cuda or cuda:N. Raises ValueError for a device that is not here."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ValueError(f"device is auto, cpu or cuda, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch finds no CUDA device; use cpu")
    return device


# ---- encode ------------------------------------------------------------------------------------------------


def encode(  # noqa: PLR0913 - one argument for each thing that one may say
    source: str | Path | BinaryIO | Tensor | Iterable[Tensor],
    target: str | Path | BinaryIO,
    *,
    codec: Codec,
    quality: int | None = None,
    bpp: float | None = None,
    bitrate: float | None = None,
    lpips: float | None = None,
    rate: RateControl | None = None,
    seed: int = 0,
    frames: tuple[int, int | None] | None = None,
    size: tuple[int, int] | None = None,
    fps: Fraction | int | None = None,
    max_pixels: int = wire_header.MAX_PIXELS,
    on_progress: Progress | None = None,
) -> CodingResult:
    """Encode a video to a .gcv file and return its sizes and rates.

    Give exactly one of quality (0..63), bpp, bitrate (bits a second), lpips and `rate`, an object that
    chooses each GOP's quality and serves this call alone. `frames` is a half-open range, `size` (width,
    height) scales, `fps` is for pictures and tensors. A path gets its file in one piece at the end. Raises
    UnreadableInput, ValueError, and OSError where the target cannot be written.
    """
    wish = bound(from_arguments, quality=quality, bpp=bpp, bitrate=bitrate, lpips=lpips, rate=rate)
    wish()  # refused before anything is opened
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 32:
        raise ValueError(f"a seed is a whole number 0..4294967295, got {seed!r}")
    out: AbstractContextManager[BinaryIO]
    out = replacing(target) if isinstance(target, (str, Path)) else nullcontext(target)
    with out as file, open_video(source, frames=frames, size=size, fps=fps) as video:
        if problem := wire_header.size_problem(video.info.width, video.info.height, max_pixels=max_pixels):
            raise UnreadableInput(problem)
        pixels = video.info.width * video.info.height
        control = wish(fps=video.info.fps, pixels=pixels)
        start = time.perf_counter()
        tally = Tally()
        stored = _header_of(codec, video.info, seed)
        with Writer(file, stored) as writer:
            pictures = tally.counted(video, video.info.num_frames, on_progress)
            info = VideoInfo(stored.width, stored.height, stored.fps, video.info.num_frames)
            for packet in codec.encode(pictures, info, control, seed=seed, on_symbols=tally.symbols):
                writer.write(packet)
                tally.packet(packet)
            if writer.num_frames != tally.frames:
                raise RuntimeError(f"{codec.name} took {tally.frames} frames and coded {writer.num_frames}")
        note = getattr(control, "note", "")
        return tally.result(codec, stored, writer.bytes_written, time.perf_counter() - start, note=note)


def _header_of(codec: Codec, video: VideoInfo, seed: int) -> wire_header.Header:
    return wire_header.Header(
        codec_id=codec.codec_id,
        version=codec.version,
        preset=codec.preset,
        weights_id=codec.weights_id,
        width=video.width,
        height=video.height,
        fps=wire_header.storable_fps(video.fps),
        num_frames=None,
        seed=seed,
        settings=codec.settings,
    )


# ---- decode ------------------------------------------------------------------------------------------------


def decode(
    source: str | Path | BinaryIO,
    *,
    frames: tuple[int, int | None] | None = None,
    device: str = "auto",
    partial: bool = False,
    weights: str | Path | None = None,
    max_pixels: int = wire_header.MAX_PIXELS,
) -> DecodedVideo:
    """Open a .gcv file and return its frames, to be decoded as they are asked for.

    `frames` is a half-open range; only the GOPs that hold it are read. `partial` takes what is whole of a
    damaged file. Raises CorruptStream, UnsupportedStream, WeightsMissing, UnreadableInput, ValueError.
    """
    stream = Stream(source, partial=partial, max_pixels=max_pixels)
    with stream.reader() as reader:
        cls = class_for(reader.header)
        selection = check_range(frames, reader.num_frames, partial=partial)
        target = check_device(device)
        loaded = _weights_for(cls, reader.header, weights)
        codec = load(cls, loaded, reader.header.settings, target)
        return DecodedVideo(stream, codec, reader.header, reader.num_frames, selection)


def _weights_for(cls: type[Codec], header: wire_header.Header, path: str | Path | None) -> Weights:
    """Return the weights that the header asks for. Raises WeightsMissing if they are not here."""
    loaded = cls.weights_from(header.preset, path)
    if loaded is None:
        sets = cls.weight_sets.get(header.preset, ())
        return weights_table.choose_set(sets, header.weights_id, header.preset, path=path)
    if loaded.id != header.weights_id:
        raise WeightsMissing(
            f"the stream needs {header.preset} weights {header.weights_id:08x}, {path} holds "
            f"{loaded.id:08x}; give the folder that it was made with"
        )
    return loaded


def class_for(header: wire_header.Header) -> type[Codec]:
    """Return the class that decodes a header's method and version. Raises UnsupportedStream."""
    cls = registry.codec_class_by_id(header.codec_id)
    if header.version != cls.version:
        age = "newer" if header.version > cls.version else "older"
        raise UnsupportedStream(
            f"the stream has version {header.version} of method {cls.name!r}, this gencodec "
            f"has {cls.version}: install a{'n' if age == 'older' else ''} {age} one"
        )
    return cls
