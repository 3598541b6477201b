"""Float networks in weights files: half precision, int8 with scales, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gencodec.nn.quality import QualityTable
from gencodec.nn.state import LARGE, export_float, load_float


class Net(nn.Module):
    """A layer that may be int8, one that is too small for it, and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.small = nn.Conv2d(32, 16, 3), nn.Linear(4, 4)
        self.table = QualityTable(2)


def nets() -> tuple[Net, Net]:
    torch.manual_seed(0)
    net, other = Net(), Net()
    with torch.no_grad():
        net.wide.weight.mul_(torch.logspace(-3, 1, 16)[:, None, None, None])  # channels of all sizes
        net.table.anchors.normal_()
    return net, other


def exported(net: Net) -> dict[str, Tensor]:
    return export_float(net, skip=(), int8=True)


def test_half_precision_comes_back() -> None:
    net, other = nets()
    tensors = export_float(net, skip=())
    load_float(other, tensors, skip=())
    assert torch.equal(other.wide.weight, net.wide.weight.half().float())
    assert torch.equal(other.table(torch.tensor([9])), net.table(torch.tensor([9])))
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.float32}


def test_int8_comes_back_within_half_a_step_of_each_channel() -> None:
    net, other = nets()
    tensors = exported(net)
    assert net.wide.weight.numel() >= LARGE > net.small.weight.numel()
    assert {n for n, t in tensors.items() if t.dtype == torch.int8} == {"wide.weight"}
    load_float(other, tensors, skip=())
    step = net.wide.weight.flatten(1).abs().amax(1) / 127
    missed = (other.wide.weight - net.wide.weight).flatten(1).abs().amax(1)
    assert (missed <= 0.5001 * step).all()
    assert (missed > 0.2 * step).all(), "nothing was rounded"
    assert torch.equal(other.small.weight, net.small.weight.half().float())


def test_a_channel_of_zeros() -> None:
    net, other = nets()
    net.wide.weight.data[3] = 0
    load_float(other, exported(net), skip=())
    assert torch.equal(other.wide.weight[3], torch.zeros_like(other.wide.weight[3]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wide.weight": None}, "lack the tensor 'wide.weight'"),
        ({"wide.weight.scale": None}, "int8 with a scale"),
        ({"wide.weight.scale": torch.ones(15)}, "int8 with a scale"),
        ({"wide.weight": torch.zeros(16, 32, 1, 1, dtype=torch.int8)}, "int8 with a scale"),
        ({"small.weight": torch.zeros(4, 4, dtype=torch.int32)}, "floating point"),
        ({"small.weight": torch.zeros(4, 5)}, "floating point"),
    ],
)
def test_other_tensors_are_refused(change: dict[str, Tensor | None], words: str) -> None:
    net, other = nets()
    tensors = {name: t for name, t in (exported(net) | change).items() if t is not None}
    with pytest.raises(ValueError, match=words):
        load_float(other, tensors, skip=())
