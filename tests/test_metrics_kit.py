"""MS-SSIM, FID, KID, warping error, flicker, and the suite that measures all of them on a clip."""

from __future__ import annotations

import math
import os
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gencodec.codec import WeightsMissing
from gencodec.metrics import fid as fid_module
from gencodec.metrics.backbone import BACKBONES, LastTwo
from gencodec.metrics.fid import PatchFeatures, fid, kid, load_inception, patches_of
from gencodec.metrics.fvd import ClipFeatures, fvd, i3d_distance
from gencodec.metrics.ms_ssim import ms_ssim
from gencodec.metrics.recall import Recall
from gencodec.metrics.suite import METRICS, Suite, frames_at_once
from gencodec.metrics.temporal import flicker, motion_of, warping_error
from gencodec.nn.i3d import STAGES, I3d, pad_same
from gencodec.nn.spynet import WIDTHS, SpyNet
from gencodec.nn.warp import warp
from gencodec.video import open_video


def smooth(height: int, width: int, seed: int = 0, count: int = 1) -> Tensor:
    """Blurred noise, uint8 (count,3,height,width)."""
    noise = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.avg_pool2d(noise, 5, 1, 2)).to(torch.uint8)


@pytest.mark.parametrize("size", [(161, 161), (176, 203), (200, 334)])
def test_ms_ssim_equals_the_reference(size: tuple[int, int]) -> None:
    reference = pytest.importorskip("pytorch_msssim")
    a = smooth(*size, count=2)
    b = (
        (a.float() + 12 * torch.rand(a.shape, generator=torch.Generator().manual_seed(1)))
        .clamp(0, 255)
        .byte()
    )
    expected = reference.ms_ssim(a.float(), b.float(), data_range=255, size_average=False)
    assert torch.allclose(ms_ssim(a, b), expected, atol=1e-5)
    assert torch.allclose(ms_ssim(a, a), torch.ones(2), atol=1e-6)


def test_ms_ssim_refuses_what_has_no_five_scales() -> None:
    frame = smooth(160, 300)
    with pytest.raises(ValueError, match="161"):
        ms_ssim(frame, frame)


def test_patches_cover_both_grids_in_order() -> None:
    frame = torch.arange(640 * 512).remainder(251).byte().reshape(1, 1, 512, 640).repeat(1, 3, 1, 1)
    patches = patches_of(frame)
    assert patches.shape == (4 + 2, 3, 256, 256)
    assert torch.equal(patches[1], frame[0, :, :256, 256:512])
    assert torch.equal(patches[4], frame[0, :, 128:384, 128:384])
    assert len(patches_of(frame[..., :255])) == 0
    assert len(patches_of(frame[..., :256, :448])) == 1  # the shifted grid does not fit


def test_fid_of_normals_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 6))
    b = rng.normal(size=(4000, 6)) * 2 + 1
    assert fid(a, b) == pytest.approx(6 * 1 + 6 * (1 - 2) ** 2, rel=0.08)
    assert fid(a, a) == pytest.approx(0, abs=1e-6)


def test_kid_is_unbiased_and_grows_with_the_distance() -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(300, 8)) + shift for shift in (0, 0, 1)]
    assert abs(kid(sets[0], sets[1])) < 60
    assert kid(sets[0], sets[2]) > 1000
    few = rng.normal(size=(1, 8))
    for metric in (fid, kid):
        with pytest.raises(ValueError, match="at least"):
            metric(few, few)


def test_features_of_a_stand_in_network_are_pooled() -> None:
    collected = PatchFeatures(lambda x: x.mean((2, 3)), batch=4)
    collected.add(smooth(512, 640, count=2))
    collected.add(smooth(200, 640))  # too low for a patch
    assert collected.features().shape == (12, 3)
    assert collected.features().max() <= 1


def test_inception_is_taken_from_a_file_of_its_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inception = pytest.importorskip("pytorch_fid.inception")
    pytest.importorskip("torchvision")
    seen = {}

    class Small:
        BLOCK_INDEX_BY_DIM = inception.InceptionV3.BLOCK_INDEX_BY_DIM

        def __new__(cls, blocks: list[int]) -> nn.Module:  # type: ignore[misc]
            seen.update(inception.load_state_dict_from_url("https://nowhere"))
            return nn.Identity()

    monkeypatch.setattr(inception, "InceptionV3", Small)
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "i.safetensors")
    load_inception(tmp_path / "i.safetensors")
    assert torch.equal(seen["fc.weight"], torch.ones(2))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsMissing, match="weights import"):
        load_inception()


def spynet_tensors(seed: int = 0) -> dict[str, Tensor]:
    """SPyNet's layout with small random values."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {"mean": torch.full((1, 3, 1, 1), 0.45), "std": torch.full((1, 3, 1, 1), 0.225)}
    for level in range(6):
        for i, (before, after) in enumerate(pairwise(WIDTHS)):
            prefix = f"basic_module.{level}.basic_module.{2 * i}."
            tensors[prefix + "weight"] = torch.randn(after, before, 7, 7, generator=generator) * 1e-2
            tensors[prefix + "bias"] = torch.zeros(after)
    return tensors


def test_warping_by_a_shift_moves_the_picture() -> None:
    x = smooth(20, 30).float()
    flow = torch.zeros(1, 2, 20, 30)
    flow[:, 0], flow[:, 1] = 3, -2
    assert torch.allclose(warp(x, flow)[..., 2:, :-3], x[..., :-2, 3:], atol=1e-3)
    assert torch.allclose(warp(x, torch.zeros_like(flow)), x, atol=1e-3)


def test_spynet_loads_its_layout_and_any_size(tmp_path: Path) -> None:
    save_file(spynet_tensors(), tmp_path / "s.safetensors")
    net = SpyNet.load(tmp_path / "s.safetensors")
    a, b = smooth(50, 70, 0).float() / 255, smooth(50, 70, 1).float() / 255
    flow = net(a, b)
    assert flow.shape == (1, 2, 50, 70)
    assert flow.isfinite().all()
    broken = spynet_tensors()
    del broken["basic_module.3.basic_module.4.bias"]
    save_file(broken, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="SPyNet"):
        SpyNet.load(tmp_path / "b.safetensors")


class Still(nn.Module):
    """A flow of zero."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros(len(a), 2, *a.shape[-2:])


def test_warping_error_of_a_still_clip_is_the_decoder_s_flicker() -> None:
    frame = smooth(32, 32) // 2
    brighter = frame + 10
    motion = motion_of(Still(), (frame, frame))
    found = warping_error(motion, (frame, frame), (frame, brighter))
    assert found.source.item() == pytest.approx(0, abs=1e-9)
    assert found.decoded.item() == pytest.approx(1000 * (10 / 255) ** 2, rel=1e-4)


def test_flicker_sees_change_not_a_constant_error() -> None:
    a, b = smooth(16, 16, 0), smooth(16, 16, 1)
    assert flicker((a, b), (a // 2, a // 2 + (b.int() - a.int()).byte())).item() >= 0
    assert flicker((a, b), (a, b)).item() == 0
    still = torch.full_like(a, 100)
    assert flicker((still, still), (still, still + 7)).item() == 7
    assert flicker((still, still), (still + 9, still + 9)).item() == 0


def test_the_suite_measures_batches_as_it_would_the_whole() -> None:
    source = torch.cat([smooth(64, 64, seed) for seed in range(7)])
    decoded = (source.float() * 0.9).byte()
    scores = []
    for batch in (7, 3):
        clip = Suite.load(["psnr", "lpips_alex", "flicker"]).clip()
        for a, b in zip(source.split(batch), decoded.split(batch), strict=True):
            clip.add(a, b)
        scores.append(clip)
    assert scores[0].per_frame.keys() == {"psnr", "lpips_alex", "flicker"}
    assert sorted(scores[0].per_frame["flicker"]) == [1, 2, 3, 4, 5, 6]
    for name, value in scores[0].means().items():
        assert value == pytest.approx(scores[1].means()[name], rel=1e-4)


def test_what_is_known_of_a_source_changes_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        name: torch.cat([smooth(64, 64, seed + i) for i in range(4)]) for name, seed in (("a", 0), ("b", 9))
    }
    suite = Suite.load(["lpips_alex"])
    maps = suite.networks["lpips_alex"].maps
    passes: list[int] = []

    def counted(x: Tensor) -> list[Tensor]:
        passes.append(len(x))
        return list(maps(x))

    monkeypatch.setattr(suite.networks["lpips_alex"], "maps", counted)
    for name, factor in (("a", 0.9), ("a", 0.7), ("b", 0.7), ("a", 0.7)):
        decoded = (sources[name].float() * factor).byte()
        known, fresh = suite.clip(name), Suite.load(["lpips_alex"]).clip()
        for a, b in zip(sources[name].split(2), decoded.split(2), strict=True):
            known.add(a, b)
            fresh.add(a, b)
        assert known.per_frame == fresh.per_frame
    assert sum(passes) == 3 * (4 + 4) + 4  # the second decoding of "a" needs no source


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 and LPIPS' heads in the real layout, random."""
    generator, before = torch.Generator().manual_seed(0), 3
    tensors: dict[str, Tensor] = {}
    for k, (stage, width) in enumerate(zip(BACKBONES["vgg"], (64, 128, 256, 512, 512), strict=True)):
        for i in stage.convs:
            weight = torch.randn(width, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
            tensors |= {f"features.{i}.weight": weight, f"features.{i}.bias": torch.zeros(width)}
            before = width
        tensors[f"lin{k}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.slow
def test_lpips_vgg_and_dists_share_a_first_stage_and_no_number_changes(vgg_file: Path) -> None:
    source = torch.cat([smooth(64, 72, seed) for seed in range(6)])  # of which 0 and 5 are taken

    def scores(*names: str) -> list[dict[str, dict[int, float]]]:
        """Of two decodings; in each, the first stage sees every picture once, and the source only once."""
        suite, found, seen = Suite.load(names, {"vgg": vgg_file}), [], []
        for conv in {net.backbone.convs["0"] for net in suite.networks.values()}:
            conv.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        for factor, pictures in ((0.9, 2 + 2), (0.7, 2)):
            clip = suite.clip("a")
            clip.add(source, (source.float() * factor).byte())
            found.append(clip.per_frame)
            assert sum(seen) == pictures
            seen.clear()
        return found

    together = scores("lpips_vgg", "dists")
    for name in ("lpips_vgg", "dists"):
        for shared, alone in zip(together, scores(name), strict=True):
            assert shared[name].keys() == alone[name].keys() == {0, 5}
            assert shared[name] == pytest.approx(alone[name], abs=1e-6)


def test_the_last_two_are_kept_within_limits_and_without_gradients() -> None:
    x, seen = [torch.full((4,), float(i)) for i in range(3)], []

    def double(x: Tensor) -> Tensor:
        seen.append(int(x[0]))
        return 2 * x

    def runs(kept: LastTwo, order: str) -> str:
        seen.clear()
        for i in order:
            assert torch.equal(kept(double, x[int(i)].clone()), 2 * x[int(i)])
        return "".join(map(str, seen))

    with torch.no_grad():
        assert runs(LastTwo(), "0101221100") == "0120"
        assert runs(LastTwo(limit=64), "0101") == "01"  # 16 bytes of each of two inputs and outputs
        assert runs(LastTwo(limit=63), "0011") == "0011"
    assert runs(LastTwo(), "00") == "00"


def test_recall_forgets_other_sources_and_keeps_to_its_limit() -> None:
    recall = Recall(limit=100)
    counts: list[str] = []

    def make(name: str) -> list[Tensor]:
        counts.append(name)
        return [torch.zeros(20)]  # 80 bytes

    for source in ("", "a", "b"):
        recall.begin(source)
        for name in ("x", "x", "y", "y"):
            recall(name, partial(make, name))
    assert counts == ["x", "x", "y", "y", *(2 * ["x", "y", "y"])]


def test_what_cannot_be_measured_leaves_an_empty_column_and_a_reason() -> None:
    suite = Suite.load(["psnr", "ms_ssim", "dists", "warping_error"])
    assert set(suite.names) == {"psnr", "ms_ssim"}
    assert "--vgg" in suite.missing["dists"]
    assert "--spynet" in suite.missing["warping_error"]
    clip = suite.clip()
    clip.add(smooth(64, 64), smooth(64, 64))
    assert clip.means() == {"psnr": 100.0}
    assert "161" in clip.problems["ms_ssim"]
    with pytest.raises(ValueError, match="no metric"):
        Suite.load(["vmaf"])


def test_a_metric_that_is_not_a_number_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite.load(["lpips_alex", "psnr"])
    monkeypatch.setattr(suite.networks["lpips_alex"], "between", lambda a, b: torch.full((1,), math.nan))
    clip = suite.clip()
    clip.add(smooth(64, 64), smooth(64, 64))
    assert set(clip.means()) == {"psnr"}
    assert "not a number" in clip.problems["lpips_alex"]


def test_batches_shrink_with_the_frame() -> None:
    assert frames_at_once(256, 448) == 8
    assert frames_at_once(1080, 1920) == 1
    assert fid_module.PATCH == 256
    assert {m.needs for m in METRICS.values()} == {"", "vgg", "spynet", "raft", "inception", "i3d"}


def i3d_tensors() -> dict[str, Tensor]:
    """The flax layout of I3D with few channels; only the names and the ranks are the real ones."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}

    def unit(name: str, before: int, after: int, k: int) -> int:
        shape = (k, k, k, before, after)
        tensors[f"params/{name}/Conv_0/kernel"] = (
            torch.randn(shape, generator=generator) / (k**3 * before) ** 0.5
        )
        tensors[f"params/{name}/BatchNorm_0/bias"] = torch.zeros(after)
        tensors[f"batch_stats/{name}/BatchNorm_0/mean"] = torch.zeros(1, 1, 1, 1, after)
        tensors[f"batch_stats/{name}/BatchNorm_0/var"] = torch.ones(1, 1, 1, 1, after)
        return after

    width = unit("Conv3d_1a_7x7", 3, 4, 7)
    width = unit("Conv3d_2b_1x1", width, 4, 1)
    width = unit("Conv3d_2c_3x3", width, 6, 3)
    for name in (name for stage in STAGES for name in stage):
        parts = [unit(f"{name}/Branch_0/Conv3d_0a_1x1", width, 2, 1)]
        for branch in (1, 2):
            inner = unit(f"{name}/Branch_{branch}/Conv3d_0a_1x1", width, 2, 1)
            parts.append(unit(f"{name}/Branch_{branch}/Conv3d_0b_3x3", inner, 2, 3))
        parts.append(unit(f"{name}/Branch_3/Conv3d_0b_1x1", width, 2, 1))
        width = sum(parts)
    tensors["params/Logits/Conv3d_0c_1x1/Conv_0/kernel"] = torch.randn(
        1, 1, 1, width, 400, generator=generator
    )
    tensors["params/Logits/Conv3d_0c_1x1/Conv_0/bias"] = torch.zeros(400)
    return tensors


def test_i3d_loads_its_layout(tmp_path: Path) -> None:
    save_file(i3d_tensors(), tmp_path / "i.safetensors")
    net = I3d.load(tmp_path / "i.safetensors")
    with torch.no_grad():
        assert net(torch.rand(1, 3, 10, 40, 60)).shape == (1, 400)
    with pytest.raises(ValueError, match="at least 10"):
        net(torch.rand(1, 3, 9, 40, 60))
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="I3D"):
        I3d.load(tmp_path / "x.safetensors")


def test_same_padding_is_tensorflow_s() -> None:
    x = torch.ones(1, 1, 10, 224, 7)
    padded = pad_same(x, (7, 7, 3), (2, 2, 2))
    assert padded.shape[2:] == (15, 229, 9)  # 5 = 2 + 3 in time and height, 1 + 1 in width
    assert padded[0, 0, 1].sum() == 0
    assert padded[0, 0, 2].sum() > 0


@pytest.mark.skipif(not os.environ.get("GENCODEC_I3D"), reason="set GENCODEC_I3D to I3D's weights")
def test_i3d_knows_what_it_sees() -> None:
    """Classes of Kinetics-400 that DAVIS clips show: 34 breakdancing, 177 kitesurfing."""
    net = I3d.load(os.environ["GENCODEC_I3D"])
    folder = Path(os.environ.get("GENCODEC_DAVIS", "missing"))
    for name, label in (("breakdance", 34), ("kite-surf", 177)):
        path = next(folder.glob(f"{name}_*.mp4"), None)
        if path is None:
            pytest.skip("set GENCODEC_DAVIS to the folder of DAVIS clips")
        with open_video(path, frames=(0, 32)) as video, torch.no_grad():
            logits = net(torch.stack(list(video), 1)[None].float() / 255)[0]
        assert logits.argmax() == label
        assert logits.softmax(0)[label] > 0.9


def test_fvd_wants_many_windows_and_a_few_have_a_distance() -> None:
    collected = ClipFeatures(lambda x: x.mean((2, 3, 4)))
    collected.add(smooth(20, 20, count=40))
    assert collected.features().shape == (2, 3)
    with pytest.raises(ValueError, match="64 windows"):
        fvd(collected.features(), collected.features())
    a = np.random.default_rng(0).normal(size=(80, 4))
    assert fvd(a, a + 1) == pytest.approx(4, rel=1e-3)
    assert i3d_distance(a, a + 1) == pytest.approx(4)
    with pytest.raises(ValueError, match="no clip"):
        i3d_distance(a[:0], a[:0])
