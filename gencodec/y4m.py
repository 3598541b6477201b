r"""YUV4MPEG2 (.y4m): plain planes behind a line of text, and how 8-bit RGB passes through them without loss.

    YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C444p10 XYSCSS=444P10 XCOLORRANGE=LIMITED\n   (FRAME\n Y U V)*

Written are 10 bits, 4:4:4, limited range, little-endian. Rounding Y and U to codes moves blue by at most
255 (0.5 / 876 + 2 (1 - Kb) 0.5 / 896) = 0.41 levels, red and green by less, so rounding finds each level
again. The format cannot name the matrix, so it is the one that a reader assumes (`colour.default_matrix`).
Source: the mjpegtools manual page yuv4mpeg(5); the C and X tags as FFmpeg knows them.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
from torch import Tensor

from .codec import UnreadableInput, VideoInfo
from .colour import Siting, default_matrix, rgb_to_yuv

MAGIC = b"YUV4MPEG2"
_MAX_HEADER = 256  # bytes read in search of the end of the header line
_FRAME = b"FRAME\n"


def write_header(file: BinaryIO, info: VideoInfo) -> None:
    """Write the stream's first line."""
    rate = f"F{info.fps.numerator}:{info.fps.denominator}"
    tags = "Ip A1:1 C444p10 XYSCSS=444P10 XCOLORRANGE=LIMITED"
    file.write(f"YUV4MPEG2 W{info.width} H{info.height} {rate} {tags}\n".encode())


def write_frame(file: BinaryIO, rgb: Tensor) -> None:
    """Write one picture, uint8 (3, H, W)."""
    file.write(_FRAME)
    for plane in rgb_to_yuv(rgb, matrix=default_matrix(rgb.shape[1]), bits=10):
        file.write(plane.numpy().astype(np.dtype("<u2")).tobytes())


def read_siting(header: bytes) -> Siting:
    """Where a stream that begins with `header` has its chroma samples; a bare C420 means C420jpeg."""
    tag = re.search(rb" C(\w+)", header.split(b"\n")[0])
    kind = tag[1].decode() if tag else "420"
    if kind in ("420", "420jpeg"):
        return "centre"
    return "topleft" if kind == "420paldv" else "left"


def check_length(header: bytes, num_bytes: int, frame_bytes: int, name: str) -> None:
    """Raise UnreadableInput unless `num_bytes` hold the header line and whole frames of `frame_bytes`."""
    start = header.find(b"\n", 0, _MAX_HEADER) + 1
    if (num_bytes - start) % (len(_FRAME) + frame_bytes):
        raise UnreadableInput(f"{name} ends inside a frame: it was cut; write or copy it again")
