"""Colour against formulas written out here in float64: an error cannot hide in its own inverse."""

import math

import numpy as np
import pytest
import torch

from gencodec.colour import LUMA_WEIGHTS, default_matrix, rgb_to_yuv, upsample, yuv_to_rgb

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


def rgb_by_hand(y, u, v, matrix, bits, full_range):
    """RGB in 0..255, float64, of integer planes of one size."""
    kr, kb = KR_KB[matrix]
    if full_range:
        top = 2**bits - 1
        y, u, v = y / top, (u - 2 ** (bits - 1)) / top, (v - 2 ** (bits - 1)) / top
    else:
        scale = 2 ** (bits - 8)
        y = (y - 16 * scale) / (219 * scale)
        u, v = ((c - 128 * scale) / (224 * scale) for c in (u, v))
    r = y + 2 * (1 - kr) * v
    b = y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b]) * 255, 0, 255)


def colours(step):
    """Every `step`-th level of red, green and blue, and the highest: uint8 (3, n, n * n)."""
    levels = torch.unique(torch.cat([torch.arange(0, 256, step), torch.tensor([255])]))
    grid = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij"))
    return grid.reshape(3, len(levels), -1).to(torch.uint8)


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_yuv_to_rgb_follows_the_equations(matrix, full_range, bits):
    planes = torch.from_numpy(np.random.default_rng(1).integers(0, 2**bits, (3, 40, 50)).astype(np.int32))
    expected = rgb_by_hand(*planes.numpy().astype(np.float64), matrix, bits, full_range)
    rgb = yuv_to_rgb(list(planes), matrix=matrix, bits=bits, full_range=full_range)
    assert rgb.dtype == torch.uint8
    assert np.abs(rgb.numpy() - expected).max() <= 0.501


@pytest.mark.parametrize(
    ("matrix", "rgb", "yuv"),
    [  # rounded by hand from the equations, limited range, 8 bits
        ("bt601", (255, 0, 0), (81, 90, 240)),
        ("bt601", (0, 255, 0), (145, 54, 34)),
        ("bt709", (255, 0, 0), (63, 102, 240)),
        ("bt709", (0, 0, 255), (32, 240, 118)),
        ("bt2020", (0, 255, 0), (164, 47, 25)),
        ("bt709", (255, 255, 255), (235, 128, 128)),
        ("bt709", (0, 0, 0), (16, 128, 128)),
    ],
)
def test_known_colours(matrix, rgb, yuv):
    picture = torch.tensor(rgb, dtype=torch.uint8).reshape(3, 1, 1)
    assert tuple(int(plane) for plane in rgb_to_yuv(picture, matrix=matrix)) == yuv


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize(("bits", "full_range"), [(10, False), (10, True), (16, True)])
def test_rgb_survives_yuv_444_exactly(matrix, bits, full_range):
    rgb = colours(5)
    planes = rgb_to_yuv(rgb, matrix=matrix, bits=bits, full_range=full_range)
    assert torch.equal(yuv_to_rgb(planes, matrix=matrix, bits=bits, full_range=full_range), rgb)


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
def test_every_rgb_colour_survives_ten_bits(matrix):
    for red in range(256):
        plane = torch.cartesian_prod(torch.arange(256), torch.arange(256)).T.reshape(2, 256, 256)
        rgb = torch.cat([torch.full((1, 256, 256), red), plane]).to(torch.uint8)
        assert torch.equal(yuv_to_rgb(rgb_to_yuv(rgb, matrix=matrix, bits=10), matrix=matrix, bits=10), rgb)


def test_the_bound_that_makes_ten_bits_lossless():
    for kr, kb in LUMA_WEIGHTS.values():
        kg = 1 - kr - kb
        luma, chroma = 0.5 / (219 * 4), 0.5 / (224 * 4)
        green = 2 * kb * (1 - kb) / kg + 2 * kr * (1 - kr) / kg
        worst = max(2 * (1 - kr), 2 * (1 - kb), green)
        assert 255 * (luma + worst * chroma) < 0.5


def test_upsample_sites_against_interp():
    rows = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32))
    for siting, x_site, y_site in (("left", 0, 0.5), ("topleft", 0, 0), ("centre", 0.5, 0.5)):
        up = upsample(rows, (5, 7), siting).numpy()
        wide = np.stack([np.interp((np.arange(7) - x_site) / 2, np.arange(4), row) for row in rows.numpy()])
        full = np.stack([np.interp((np.arange(5) - y_site) / 2, np.arange(3), col) for col in wide.T], axis=1)
        assert np.allclose(up, full, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 5), (47, 63), (48, 64)])
def test_flat_colour_survives_420_of_any_size(size):
    rgb = torch.tensor([200, 30, 90], dtype=torch.uint8).reshape(3, 1, 1).expand(3, *size)
    y, u, v = rgb_to_yuv(rgb, matrix="bt709", subsampling="420")
    assert u.shape == v.shape == (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    back = yuv_to_rgb([y, u, v], matrix="bt709")
    assert (back.int() - rgb.int()).abs().max() <= 2


def test_420_keeps_a_ramp_where_it_is():
    ramp = torch.arange(0, 128, 2).expand(64, -1)
    rgb = torch.stack([ramp, ramp.flip(1), ramp.T]).to(torch.uint8)
    planes = rgb_to_yuv(rgb, matrix="bt709", subsampling="420")
    inside = (yuv_to_rgb(planes, matrix="bt709").int() - rgb.int())[:, 2:-2, 2:-2]
    assert inside.abs().max() <= 2
    assert inside.float().mean().abs() < 0.2  # a wrong siting would shift it


def test_grey_and_errors():
    assert torch.equal(
        yuv_to_rgb([torch.tensor([[16, 235, 0, 255]])], matrix="bt601")[0], torch.tensor([[0, 255, 0, 255]])
    )
    assert (default_matrix(719), default_matrix(720)) == ("bt601", "bt709")
    with pytest.raises(ValueError, match="is not one of bt601"):
        yuv_to_rgb([torch.zeros(1, 1)], matrix="bt999")
    with pytest.raises(ValueError, match="1 or 3 planes"):
        yuv_to_rgb([torch.zeros(1, 1)] * 2, matrix="bt601")
