"""RAFT's flow and the warping error by it, from torchvision's real layout with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gencodec.codec import WeightsMissing
from gencodec.metrics.suite import METRICS, Suite
from gencodec.nn.raft import Raft

optical_flow = pytest.importorskip("torchvision.models.optical_flow")


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return optical_flow.raft_large(weights=None).state_dict()


@pytest.fixture(scope="module")
def file(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raft") / "raft_large.pth"
    torch.save(tensors, path)
    return path


def pictures(height: int, width: int, count: int = 2) -> Tensor:
    noise = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return (255 * torch.nn.functional.avg_pool2d(noise, 5, 1, 2)).to(torch.uint8)


def test_both_formats_give_torchvision_s_flow(tensors: dict[str, Tensor], file: Path, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "raft.safetensors")
    reference = optical_flow.raft_large(weights=None).eval()
    reference.load_state_dict(tensors)
    a, b = (pictures(128, 136).float() / 255).split(1)
    net, same = Raft.load(file), Raft.load(tmp_path / "raft.safetensors")
    with torch.no_grad():
        assert torch.equal(net(a, b), reference(2 * a - 1, 2 * b - 1)[-1])
    for name, tensor in net.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor)


def test_other_sizes_are_padded_and_cropped_and_nothing_large_is_kept(file: Path) -> None:
    net = Raft.load(file)
    a, b = (pictures(61, 131).float() / 255).split(1)
    last_row = torch.arange(128).clamp(max=60)
    last_column = torch.arange(136).clamp(max=130)
    with torch.no_grad():
        flow = net(a, b)
        padded = net(*(x[:, :, last_row][..., last_column] for x in (a, b)))
    assert flow.shape == (1, 2, 61, 131)
    assert flow.isfinite().all()
    assert torch.equal(flow, padded[..., :61, :131])
    assert net.net.corr_block.corr_pyramid == []


def test_other_layouts_are_refused_with_what_to_do(
    tensors: dict[str, Tensor], file: Path, tmp_path: Path
) -> None:
    name = "mask_predictor.conv.bias"
    cut = {key: value for key, value in tensors.items() if key != name}
    for broken in (cut, cut | {name: torch.zeros(3)}, tensors | {"module.more": torch.zeros(1)}):
        torch.save(broken, tmp_path / "broken.pth")
        with pytest.raises(ValueError, match=r"does not hold RAFT: 1 tensors .* Raft_Large_Weights"):
            Raft.load(tmp_path / "broken.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for path in (tmp_path / "none.pth", tmp_path / "none.safetensors", tmp_path / "text.pth"):
        with pytest.raises(WeightsMissing):
            Raft.load(path)


def test_the_suite_measures_with_it_under_its_own_name(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    last = "update_block.flow_head.conv2."
    still = tensors | {last + part: torch.zeros_like(tensors[last + part]) for part in ("weight", "bias")}
    torch.save(still, tmp_path / "still.pth")
    suite = Suite.load(["warping_error", "warping_error_raft"], {"raft": tmp_path / "still.pth"})
    assert suite.names == ("warping_error_raft",)
    assert "--spynet" in suite.missing["warping_error"]
    source, every = pictures(64, 72, count=6), METRICS["warping_error_raft"].every
    clip = suite.clip()
    clip.add(source, source // 2)
    errors = {
        name: 1000 * ((x[every].float() - x[every - 1].float()) / 255).square().mean().item()
        for name, x in (("warping_error_raft", source // 2), ("warping_error_raft_source", source))
    }
    assert clip.means() == pytest.approx(errors, rel=1e-4)  # a flow of zero
    assert clip.per_frame["warping_error_raft"].keys() == {every}


def test_without_weights_it_is_missing() -> None:
    missing = Suite.load(["warping_error_raft"]).missing["warping_error_raft"]
    assert missing == "the warping error by RAFT needs raft_large: give its weights with --raft FILE.pth"
