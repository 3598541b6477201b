"""Between RGB and Y'CbCr: the one conversion that every frame entering or leaving gencodec goes through.

Sources: ITU-R BT.601-7 section 2.5, BT.709-6 item 3, BT.2020-2 tables 3 to 5 (the luma weights Kr, Kb and the
sites of the chroma samples); ITU-T H.273 section 8.3 (full and limited range). With Kg = 1 - Kr - Kb,

    Y = Kr R + Kg G + Kb B      U = (B - Y) / (2 (1 - Kb))      V = (R - Y) / (2 (1 - Kr))

on R, G, B, Y in 0..1 and U, V in -0.5..0.5, all gamma-corrected. As integers of n bits:

    limited   Y: (219 Y + 16) 2^(n-8)    U, V: (224 U + 128) 2^(n-8)
    full      Y: (2^n - 1) Y             U, V: (2^n - 1) U + 2^(n-1)

Transfer curves and primaries are left as they are: pixels are converted, not graded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Matrix = Literal["bt601", "bt709", "bt2020", "fcc", "smpte240m"]
Siting = Literal["left", "centre", "topleft"]  # of a chroma sample among the luma samples that it stands for

LUMA_WEIGHTS: dict[str, tuple[float, float]] = {  # Kr, Kb
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),  # non-constant luminance
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}
MATRIX_OF_CODE: dict[int, Matrix] = {  # MatrixCoefficients of ITU-T H.273, table 4
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
}


def default_matrix(height: int) -> Matrix:
    """The matrix of a video of `height` lines that does not name one."""
    return "bt709" if height >= 720 else "bt601"


def yuv_to_rgb(
    planes: Sequence[Tensor],
    *,
    matrix: Matrix,
    bits: int = 8,
    full_range: bool = False,
    siting: Siting = "left",
) -> Tensor:
    """RGB, uint8 (3, H, W), of the planes Y (H, W), U and V (h, w), or of Y alone for grey.

    Planes hold integers of `bits` bits in any dtype. Chroma of half or quarter size (rounded up) is
    interpolated linearly from the sites that `siting` names. Raises ValueError for an unknown matrix or
    number of planes.
    """
    kr, kb = _luma_weights(matrix)
    kg = 1 - kr - kb
    y_offset, y_scale, c_offset, c_scale = _code_range(bits, full_range)
    # half a step more, so that cutting off the fraction at the end rounds
    y = (planes[0].float() - y_offset).mul_(255 / y_scale).add_(0.5)
    if len(planes) == 1:
        return y.clamp_(0, 255.5).to(torch.uint8).expand(3, -1, -1).contiguous()
    if len(planes) != 3:
        raise ValueError(f"1 or 3 planes make a picture, got {len(planes)}")
    u, v = (
        upsample((c.float() - c_offset).mul_(255 / c_scale), (y.shape[0], y.shape[1]), siting)
        for c in planes[1:]
    )
    rgb = torch.empty(3, *y.shape)
    torch.add(y, v, alpha=2 * (1 - kr), out=rgb[0])
    torch.add(y, u, alpha=-2 * kb * (1 - kb) / kg, out=rgb[1]).add_(v, alpha=-2 * kr * (1 - kr) / kg)
    torch.add(y, u, alpha=2 * (1 - kb), out=rgb[2])
    return rgb.clamp_(0, 255.5).to(torch.uint8)


def rgb_to_yuv(
    rgb: Tensor,
    *,
    matrix: Matrix,
    bits: int = 8,
    full_range: bool = False,
    subsampling: Literal["444", "420"] = "444",
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes Y (H, W), U and V of an RGB picture, uint8 (3, H, W): uint8 for 8 bits, else int32.

    "420" halves the chroma, rounded up, with left siting: weights 1 2 1 along a row, 1 1 down a column. With
    10 bits and "444" `yuv_to_rgb` gives the very same RGB back (y4m.py shows why). Raises ValueError for an
    unknown matrix.
    """
    kr, kb = _luma_weights(matrix)
    y_offset, y_scale, c_offset, c_scale = _code_range(bits, full_range)
    r, g, b = rgb.float().div_(255)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u = (b - y).div_(2 * (1 - kb))
    v = (r - y).div_(2 * (1 - kr))
    if subsampling == "420":
        u, v = _halve(u), _halve(v)
    return (
        _to_codes(y, y_scale, y_offset, bits),
        _to_codes(u, c_scale, c_offset, bits),
        _to_codes(v, c_scale, c_offset, bits),
    )


def upsample(plane: Tensor, size: tuple[int, int], siting: Siting) -> Tensor:
    """A chroma plane, float (h, w), at the size (H, W) of the luma: linear, edges held."""
    height, width = size
    plane = _upsample_along(plane, 0, height, cosited=siting == "topleft")
    return _upsample_along(plane, 1, width, cosited=siting != "centre")


def _upsample_along(plane: Tensor, dim: int, size: int, *, cosited: bool) -> Tensor:
    n = plane.shape[dim]
    if n == size:
        return plane
    factor = 2 ** math.ceil(math.log2(size / n))  # sizes are rounded up: 3 luma samples have 2 chroma samples
    site = 0.0 if cosited else (factor - 1) / 2
    position = (torch.arange(size) - site) / factor  # of luma samples, counted in chroma samples
    low = position.floor()
    weight = (position - low).unsqueeze(1 - dim)
    low = low.long()
    a = plane.index_select(dim, low.clamp(0, n - 1))
    b = plane.index_select(dim, (low + 1).clamp(0, n - 1))
    return torch.lerp(a, b, weight)


def _halve(plane: Tensor) -> Tensor:
    """Half size, rounded up, left-sited: (H, W) -> (ceil(H / 2), ceil(W / 2))."""
    height, width = plane.shape
    rows = torch.cat([plane, plane[-1:]]) if height % 2 else plane
    rows = (rows[0::2] + rows[1::2]) / 2
    rows = torch.cat([rows[:, :1], rows, rows[:, -1:]], dim=1)  # one more sample at either end
    return (rows[:, 0:width:2] + 2 * rows[:, 1 : width + 1 : 2] + rows[:, 2 : width + 2 : 2]) / 4


def _to_codes(plane: Tensor, scale: float, offset: float, bits: int) -> Tensor:
    codes = (plane * scale + (offset + 0.5)).clamp_(0, 2**bits - 0.5)
    return codes.to(torch.uint8 if bits == 8 else torch.int32)


def _code_range(bits: int, full_range: bool) -> tuple[float, float, float, float]:
    """Offset and scale of the luma, offset and scale of the chroma."""
    if full_range:
        return 0.0, 2.0**bits - 1, 2.0 ** (bits - 1), 2.0**bits - 1
    step = 2.0 ** (bits - 8)
    return 16 * step, 219 * step, 128 * step, 224 * step


def _luma_weights(matrix: str) -> tuple[float, float]:
    if matrix not in LUMA_WEIGHTS:
        raise ValueError(f"{matrix=} is not one of {', '.join(LUMA_WEIGHTS)}")
    return LUMA_WEIGHTS[matrix]
