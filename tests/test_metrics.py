"""Metrics against their formulas, the reference packages, and values recorded from them."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gencodec.codec import WeightsMissing
from gencodec.metrics.backbone import BACKBONES
from gencodec.metrics.dists import Dists, l2_pool, similarity
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.psnr import psnr
from gencodec.weights import load_named

VGG16 = os.environ.get(
    "GENCODEC_VGG16", ""
)  # .safetensors: torchvision's VGG16 features and the LPIPS-VGG heads
LPIPS_IMAGES = Path(os.environ.get("GENCODEC_LPIPS_IMAGES", "missing"))  # folder imgs of the LPIPS repository


def random_frames(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def golden_frames():
    h, w = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    a = torch.stack([h * 2, w, h + w]).to(torch.uint8)
    b = torch.stack([h * 2, w, (h * w) // 50]).to(torch.uint8)
    return a, b


def random_vgg(channels=4):
    """A VGG16 of few channels, with heads and DISTS weights to match."""
    rng = np.random.default_rng(0)
    tensors, inputs = {}, 3
    for stage in BACKBONES["vgg"]:
        for i in stage.convs:
            weight = rng.normal(size=(channels, inputs, 3, 3)) / 3
            tensors[f"features.{i}.weight"] = torch.from_numpy(weight.astype(np.float32))
            tensors[f"features.{i}.bias"] = torch.zeros(channels)
            inputs = channels
    for k in range(5):
        tensors[f"lin{k}.model.1.weight"] = torch.full((1, channels, 1, 1), 0.1)
    taps = 3 + 5 * channels
    return tensors, {"alpha": torch.ones(1, taps, 1, 1), "beta": torch.ones(1, taps, 1, 1)}


@pytest.fixture(scope="module")
def alex():
    return Lpips.load()


def reference_lpips(net, tensors):
    lpips = pytest.importorskip("lpips")
    oracle = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()  # the heads come with the package
    for k in range(1, 6):
        for i, layer in getattr(oracle.net, f"slice{k}").named_children():
            if hasattr(layer, "weight"):
                layer.weight.data.copy_(tensors[f"features.{i}.weight"])
                layer.bias.data.copy_(tensors[f"features.{i}.bias"])
    return oracle


def test_psnr_is_the_formula():
    x, y = random_frames(3, 20, 31), random_frames(3, 20, 31, seed=1)
    error = np.mean((x.numpy().astype(float) - y.numpy().astype(float)) ** 2)
    assert psnr(x, y).shape == (1,)
    assert psnr(x, y).item() == pytest.approx(10 * math.log10(255**2 / error), abs=1e-9)


def test_psnr_known_values():
    x = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    y = x.clone()
    y[1] = 255
    y[2] = 1
    y[3, 0, 0, 0] = 6
    assert psnr(x, y).tolist() == pytest.approx([math.inf, 0, 48.1308, 10 * math.log10(255**2 / 3)], abs=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchvision's, about the oracle's arguments
@pytest.mark.parametrize("size", [(64, 64), (72, 97), (130, 66)])
def test_lpips_alex_equals_the_reference(alex, size):
    x, y = random_frames(2, 3, *size), random_frames(2, 3, *size, seed=1)
    oracle = reference_lpips("alex", load_named("lpips-alex-1")[0])
    with torch.no_grad():
        expected = oracle(x / 127.5 - 1, y / 127.5 - 1).flatten()
    torch.testing.assert_close(alex(x, y), expected, rtol=1e-4, atol=1e-5)


def test_lpips_alex_in_half_precision_keeps_the_recorded_value(alex):
    # 0.22154784: the reference package with float32 weights on these frames
    assert alex(*golden_frames()).item() == pytest.approx(0.22154784, abs=1e-4)


@pytest.mark.skipif(not (LPIPS_IMAGES / "ex_ref.png").exists(), reason="needs GENCODEC_LPIPS_IMAGES")
def test_lpips_alex_published_values(alex):
    from PIL import Image

    images = [
        np.array(Image.open(LPIPS_IMAGES / f"ex_{name}.png").convert("RGB")) for name in ("ref", "p0", "p1")
    ]
    ref, p0, p1 = (torch.from_numpy(image).permute(2, 0, 1) for image in images)
    assert alex(ref, p0).item() == pytest.approx(0.722, abs=1e-3)
    assert alex(ref, p1).item() == pytest.approx(0.138, abs=1e-3)


@pytest.mark.weights
@pytest.mark.skipif(not VGG16, reason="needs GENCODEC_VGG16")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_vgg_and_dists_recorded_values():
    # from lpips 0.1.4 and DISTS-pytorch 0.1 on the same weights
    assert Lpips.from_file(VGG16)(*golden_frames()).item() == pytest.approx(0.26616955, abs=1e-5)
    assert Dists.load(VGG16)(*golden_frames()).item() == pytest.approx(0.18517870, abs=1e-5)


def test_lpips_is_a_distance_for_each_frame_alone(alex):
    x, y = random_frames(3, 3, 70, 80), random_frames(3, 3, 70, 80, seed=1)
    together = alex(x, y)
    alone = torch.cat([alex(a, b) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-7)
    assert torch.equal(alex(x, x), torch.zeros(3))
    torch.testing.assert_close(alex(y, x), together)
    assert not together.requires_grad


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (63, 64)])
def test_tiny_frames_are_padded_by_their_last_row_and_column(alex, size):
    x, y = random_frames(3, *size), random_frames(3, *size, seed=1)
    height, width = (torch.arange(max(n, 64)).clamp(max=n - 1) for n in size)
    padded = [frame[:, height][:, :, width] for frame in (x, y)]
    torch.testing.assert_close(alex(x, y), alex(*padded), rtol=1e-5, atol=1e-7)


def test_gradients_flow_to_the_pictures_only(alex):
    vgg, weights = random_vgg()
    for metric in (alex, Lpips("vgg", vgg), Dists(vgg, weights)):
        x = (random_frames(2, 3, 64, 64) / 255).requires_grad_()
        y = random_frames(2, 3, 64, 64, seed=1) / 255
        (slope,) = torch.autograd.grad(metric.distance(x, y).sum(), x)
        assert slope.isfinite().all()
        assert slope.abs().sum() > 0
        assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_gradients_stay_finite_where_features_vanish(alex):
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(alex.distance(x, torch.zeros(1, 3, 64, 64)).sum(), x)
    assert slope.isfinite().all()


def test_a_gradient_step_brings_pictures_closer(alex):
    x, y = (random_frames(1, 3, 64, 64, seed=s) / 255 for s in (0, 1))
    x.requires_grad_()
    before = alex.distance(x, y)
    (slope,) = torch.autograd.grad(before.sum(), x)
    assert alex.distance(x - 0.5 * slope, y).item() < before.item()


def test_lpips_from_file_tells_the_backbone(tmp_path):
    from safetensors.torch import save_file

    tensors, _ = random_vgg()
    save_file(tensors, tmp_path / "vgg.safetensors")
    assert Lpips.from_file(tmp_path / "vgg.safetensors").backbone.net == "vgg"
    with pytest.raises(WeightsMissing):
        Lpips.from_file(tmp_path / "none.safetensors")
    del tensors["lin3.model.1.weight"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="no tensor 'lin3"):
        Lpips.from_file(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="net = 'squeeze'"):
        Lpips("squeeze", tensors)


def test_dists_is_a_distance():
    dists = Dists(*random_vgg())
    x, y = random_frames(2, 3, 70, 66), random_frames(2, 3, 70, 66, seed=1)
    torch.testing.assert_close(dists(x, x), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(dists(x, y), dists(y, x))
    torch.testing.assert_close(dists(x[0], y[0]), dists(x, y)[:1])
    assert (dists(x, y) > 0.01).all()


def test_dists_shipped_weights_have_a_weight_for_every_channel():
    weights, metadata = load_named("dists-1")
    assert weights["alpha"].numel() == weights["beta"].numel() == 3 + 64 + 128 + 256 + 512 + 512
    assert metadata["licence"] == "MIT"


def test_dists_similarities_are_the_formulas():
    a, b = np.random.default_rng(0).normal(size=(2, 1, 1, 5, 6)) + 0.3
    texture, structure = similarity(torch.from_numpy(a), torch.from_numpy(b))
    ma, mb = a.mean(), b.mean()
    assert texture.item() == pytest.approx((2 * ma * mb + 1e-6) / (ma**2 + mb**2 + 1e-6))
    cov = np.cov(a.ravel(), b.ravel(), bias=True)
    assert structure.item() == pytest.approx((2 * cov[0, 1] + 1e-6) / (cov[0, 0] + cov[1, 1] + 1e-6))


def test_l2_pooling_halves_and_keeps_a_constant():
    pooled = l2_pool(torch.full((1, 2, 8, 8), 3.0), 2)
    assert pooled.shape == (1, 2, 4, 4)
    torch.testing.assert_close(pooled[..., 1:, 1:], torch.full((1, 2, 3, 3), 3.0))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), r"torch\.float32"),
        (random_frames(3, 8, 8), random_frames(3, 8, 9), r"\(3, 8, 8\) and \(3, 8, 9\)"),
        (random_frames(8, 8, 3), random_frames(8, 8, 3), r"not \(8, 8, 3\)"),
        (random_frames(3, 0, 8), random_frames(3, 0, 8), r"not \(3, 0, 8\)"),
        (random_frames(8, 8), random_frames(8, 8), r"not \(8, 8\)"),
    ],
)
def test_wrong_frames_are_refused(alex, x, y, message):
    for metric in (psnr, alex):
        with pytest.raises(ValueError, match=message):
            metric(x, y)


def test_wrong_pictures_are_refused(alex):
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        alex.distance(random_frames(1, 3, 64, 64), random_frames(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"not \(3, 64, 64\)"):
        alex.distance(torch.zeros(3, 64, 64), torch.zeros(3, 64, 64))
