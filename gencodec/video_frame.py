"""One decoded picture of PyAV as an RGB tensor, upright: planes, colour tags, display matrix.

av.VideoFrame ─► planes ─► colour.yuv_to_rgb ─► orient ─► uint8 (3, H, W)
"""

from __future__ import annotations

import math
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from .codec import UnreadableInput
from .colour import MATRIX_OF_CODE, Matrix, Siting, default_matrix, yuv_to_rgb

MAX_SIDE = 16384  # pixels; width and height are u16 in a .gcv header

_UNSPECIFIED = (2, 3)  # colour matrix codes of ITU-T H.273 that name none
_FULL_RANGE = 2  # AVColorRange: 0 not given, 1 limited, 2 full
# pictures whose grey runs from 0 to the highest code
_STILL_CODECS = ("png", "mjpeg", "bmp", "tiff", "gif", "webp")
_CENTRED_CODECS = ("mjpeg", "mpeg1video")  # chroma in the middle of its luma samples


def check_side(width: int, height: int, name: str) -> None:
    """Raise UnreadableInput unless both sides are 1..MAX_SIDE."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise UnreadableInput(
            f"{name}: {width}x{height} pixels; sides of 1 to {MAX_SIDE} can be coded: scale the video first"
        )


def frame_to_rgb(frame: av.VideoFrame, *, codec: str, siting: Siting | None = None) -> Tensor:
    """RGB, uint8 (3, H, W), of a frame as it is stored: neither turned nor stretched.

    `codec` is the name of its decoder; with `siting` None the chroma sites follow from codec and matrix.
    Raises UnreadableInput for a pixel format or colour matrix that is not known.
    """
    planar = _planar(frame)
    components = [c for c in planar.format.components if not c.is_alpha]
    bits = components[0].bits
    planes = [_plane(planar, c.plane, bits) for c in components]
    if planar.format.is_rgb:
        return torch.stack(planes).mul_(255 / (2**bits - 1)).add_(0.5).to(torch.uint8)
    matrix = _matrix(frame)
    return yuv_to_rgb(
        planes,
        matrix=matrix,
        bits=bits,
        full_range=_is_full_range(frame, codec),
        siting=siting or _siting(frame, codec, matrix),
    )


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d of the display matrix: column p, row q is shown at column a p + c q, row b p + d q."""
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 names no side data where one kind, EXIF for example, is unknown to it
        turn = math.radians(frame.rotation)  # counterclockwise
        a, b = round(math.cos(turn)), round(-math.sin(turn))
        return a, b, -b, a
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


def orient(rgb: Tensor, matrix: tuple[int, int, int, int]) -> Tensor:
    """A picture (3, H, W) turned and mirrored by the nearest of the eight right-angled display matrices."""
    a, b, c, d = matrix
    if is_transposing(matrix):
        rgb, a, d = rgb.transpose(1, 2), c, b
    flipped = [dim for dim, sign in ((2, a), (1, d)) if sign < 0]
    return rgb.flip(flipped).contiguous() if flipped else rgb.contiguous()


def is_transposing(matrix: tuple[int, int, int, int]) -> bool:
    """Whether a display matrix swaps width and height."""
    a, b, _, _ = matrix
    return abs(b) > abs(a)


def _planar(frame: av.VideoFrame) -> av.VideoFrame:
    """The same samples with one component a plane and the value in the low bits, as `_plane` reads them."""
    layout = frame.format
    planes = [c.plane for c in layout.components]
    bits = max((c.bits for c in layout.components), default=0)
    plain = len(set(planes)) == len(planes) and not layout.has_palette and not layout.is_bit_stream
    if plain and bits <= 16 and "msb" not in layout.name:
        return frame
    if layout.name.startswith("xyz"):
        raise UnreadableInput(f"pixel format {layout.name} is not supported: convert to rgb48 first")
    try:
        if (layout.is_rgb or layout.has_palette) and bits <= 8:
            frame = reformat(frame, "rgb24")  # swscale has an exact way to and from it, not straight to gbrp
        return reformat(frame, _planar_format(layout, bits))
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableInput(f"pixel format {layout.name} is not supported: convert to yuv420p") from error


def reformat(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """The frame in another pixel format, by one thread.

    With several, swscale now and then leaves a row of p010's chroma unconverted (one frame in a thousand,
    FFmpeg 8). PyAV before 17 has no such argument, and one thread.
    """
    try:
        return frame.reformat(format=pixel_format, threads=1)
    except TypeError:
        return frame.reformat(format=pixel_format)


def _planar_format(layout: av.VideoFormat, bits: int) -> str:
    if layout.is_rgb or layout.has_palette:
        return "gbrp" if bits <= 8 else "gbrp16le"
    if sum(not c.is_alpha for c in layout.components) == 1:
        return "gray" if bits <= 8 else "gray16le"
    reference = av.VideoFormat(layout.name, 64, 64)
    subsampling = {(32, 32): "420", (32, 64): "422", (64, 64): "444", (16, 64): "411"}
    name = f"yuv{subsampling[reference.chroma_width(), reference.chroma_height()]}p"
    return name if bits <= 8 else f"{name}{bits}le"


def _plane(frame: av.VideoFrame, index: int, bits: int) -> Tensor:
    """One plane, float32 (h, w), of integers."""
    plane = frame.planes[index]
    dtype = np.dtype(np.uint8) if bits <= 8 else np.dtype(">u2" if frame.format.is_big_endian else "<u2")
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    samples = rows[: plane.height, : plane.width * dtype.itemsize].view(dtype)
    return torch.from_numpy(samples.astype(np.float32))


def _matrix(frame: av.VideoFrame) -> Matrix:
    code = int(frame.colorspace)
    if code in MATRIX_OF_CODE:
        return MATRIX_OF_CODE[code]
    if code in _UNSPECIFIED or code == 0:  # 0 says RGB, which a frame of Y'CbCr cannot be
        return default_matrix(frame.height)
    raise UnreadableInput(f"colour matrix {code} of ITU-T H.273 is not supported: convert to BT.709 first")


def _is_full_range(frame: av.VideoFrame, codec: str) -> bool:
    if frame.format.name.startswith("yuvj"):
        return True
    if int(frame.color_range) == 0:
        return codec in _STILL_CODECS
    return int(frame.color_range) == _FULL_RANGE


def _siting(frame: av.VideoFrame, codec: str, matrix: Matrix) -> Siting:
    if codec in _CENTRED_CODECS or frame.format.name.startswith("yuvj420"):
        return "centre"
    four_two_zero = math.ceil(frame.height / 2) == frame.format.chroma_height(frame.height)
    return "topleft" if matrix == "bt2020" and four_two_zero else "left"
