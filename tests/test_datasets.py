"""Data sets: their manifests, finding clips, raw files, Moving MNIST, and points measured by processes."""

from __future__ import annotations

import gzip
import os
import signal
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from gencodec.codec import UnreadableInput
from gencodec.colour import rgb_to_yuv
from gencodec.demo import SAMPLE
from gencodec.evaluation import workers
from gencodec.evaluation.clips import Clip, Selection
from gencodec.evaluation.compare import compare_clips
from gencodec.evaluation.datasets import DATASETS, Found, RawFormat, RawFrames, find
from gencodec.evaluation.moving_mnist import DIGIT, LAST, _Mover, load_digits, moving_digits
from gencodec.evaluation.ray_jobs import carry_out_on_ray
from gencodec.evaluation.workers import Order, carry_out_all

RAW = RawFormat(17, 9, Fraction(24))


def write_yuv(path: Path, frames: list[torch.Tensor]) -> None:
    data = b""
    for frame in frames:
        planes = rgb_to_yuv(frame, matrix="bt709", subsampling="420")
        data += b"".join(plane.numpy().tobytes() for plane in planes)
    path.write_bytes(data)


def ramps(count: int) -> list[torch.Tensor]:
    x = torch.arange(17).repeat(9, 1)
    return [torch.stack([x * 9 + t, x * 5 + 40, 200 - x * 7]).to(torch.uint8) for t in range(count)]


def test_manifests_have_the_fields_clips() -> None:
    sizes = {name: len(dataset.entries) for name, dataset in DATASETS.items()}
    assert sizes == {"uvg": 7, "hevc-b": 5, "mcl-jcv": 30, "davis": 20}
    assert sum(entry.frames for entry in DATASETS["uvg"].entries) == 6 * 600 + 300
    rates = [entry.raw.fps for entry in DATASETS["mcl-jcv"].entries]
    assert [rates.count(Fraction(fps)) for fps in (24, 25, 30)] == [7, 7, 16]
    assert all(e.frames == 5 * e.raw.fps for e in DATASETS["mcl-jcv"].entries)


def test_raw_frames_come_back_in_their_colours(tmp_path: Path) -> None:
    write_yuv(tmp_path / "a.yuv", ramps(3))
    raw = RawFrames(tmp_path / "a.yuv", RAW)
    assert len(raw) == 3
    for frame, expected in zip(raw, ramps(3), strict=True):
        assert (frame.int() - expected.int()).abs().float().mean() < 2
    (tmp_path / "b.yuv").write_bytes(b"1" * 100)
    with pytest.raises(UnreadableInput, match="whole number of 17x9"):
        RawFrames(tmp_path / "b.yuv", RAW)


def test_clips_are_found_by_name_and_absent_ones_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--root"):
        find("hevc-b")
    with pytest.raises(ValueError, match="no data set"):
        find("vimeo", tmp_path)
    names = [entry.name for entry in DATASETS["hevc-b"].entries]
    for name in names[:3]:
        (tmp_path / f"{name}_1920x1080_50.yuv").write_bytes(b"x")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / f"{names[3]}.mp4").write_bytes(b"x")
    (tmp_path / f"{names[4]}er_1080.yuv").write_bytes(b"x")  # another clip
    with pytest.raises(UnreadableInput, match=f"lacks 1 clips of hevc-b: {names[4]}$"):
        find("hevc-b", tmp_path)
    (tmp_path / f"{names[4]}.y4m").write_bytes(b"x")
    found = find("hevc-b", tmp_path)
    assert [clip.name for clip in found] == names
    assert [clip.raw is not None for clip in found] == [True, True, True, False, False]
    assert [clip.path.name for clip in find(tmp_path / "deeper")] == [f"{names[3]}.mp4"]


def test_a_clip_can_be_cropped_scaled_and_cut(tmp_path: Path) -> None:
    write_yuv(tmp_path / "a.yuv", ramps(4))
    clip = Clip.open(Found("a", tmp_path / "a.yuv", RAW), Selection(frames=(1, 3), crop=(8, 5)))
    assert (clip.info.width, clip.info.height, clip.info.num_frames, clip.info.fps) == (8, 5, 2, 24)
    whole = RawFrames(tmp_path / "a.yuv", RAW)[1]
    with clip.video() as video:
        assert torch.equal(next(iter(video)), whole[:, 2:7, 4:12])
    with pytest.raises(ValueError, match="smaller than the crop"):
        Clip.open(Found("a", tmp_path / "a.yuv", RAW), Selection(crop=(18, 5)))


def test_moving_digits_keep_the_rules() -> None:
    digits = torch.ones(3, DIGIT, DIGIT)
    frames = list(moving_digits(digits, clip=5))
    assert len(frames) == 30
    assert all(torch.equal(a, b) for a, b in zip(frames, moving_digits(digits, clip=5), strict=True))
    assert not torch.equal(frames[0], next(iter(moving_digits(digits, clip=6))))
    generator, bounces = np.random.default_rng(0), 0
    for _ in range(300):
        mover = _Mover(generator)
        for _ in range(30):
            before = list(mover.place)
            y, x = mover.bounce()
            assert 0 <= y < LAST
            assert 0 <= x < LAST
            assert all(abs(s) <= 4 for s in mover.speed)
            for place in before:
                if not 0 <= place < LAST:
                    bounces += 1
            mover.move()
    assert bounces / 300 == pytest.approx(3.57, abs=0.5)  # the published code gives 3.57 a digit


def test_digits_come_from_an_idx_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    path = tmp_path / "d.gz"
    path.write_bytes(gzip.compress(struct.pack(">4i", 0x803, 5, 28, 28) + pixels.tobytes()))
    digits = load_digits(path)
    assert digits.shape == (5, 32, 32)
    assert float(digits.mean()) == pytest.approx(pixels.mean() / 255, rel=0.05)
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(UnreadableInput, match="idx"):
        load_digits(tmp_path / "x")


# ---- processes ---------------------------------------------------------------------------------------------


class Fatal(Order):
    """Kills its worker the first time."""

    def carry_out(self, folder: Path) -> dict:
        mark = folder / f"died-{self.key}"
        if self.setting == 7 and not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"key": self.key, "pid": os.getpid()}


class AlwaysFatal(Order):
    """Kills every worker."""

    def carry_out(self, folder: Path) -> dict:
        if self.setting == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"key": self.key}


def orders(kind: type[Order], tmp_path: Path) -> list[Order]:
    clip = Clip.open(Found("sample", SAMPLE), Selection(frames=(0, 1)))
    return [kind(str(i), clip, "x265", i, ("psnr",), (), "cpu") for i in range(10)]


def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(tmp_path: Path) -> None:
    done = [row["key"] for _, row in carry_out_all(orders(Fatal, tmp_path), tmp_path, jobs=2)]
    assert sorted(done, key=int) == [str(i) for i in range(10)]


def test_a_point_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    done = dict(carry_out_all(orders(AlwaysFatal, tmp_path), tmp_path, jobs=2))
    failed = [order.key for order, row in done.items() if "error" in row]
    assert "7" in failed
    assert len(done) == 10
    assert len(failed) <= 2  # at most what ran beside it


def test_a_ray_worker_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # so that workers find this module
    done = list(carry_out_on_ray(orders(Fatal, tmp_path), tmp_path, address="local"))
    assert [row for _, row in done if "error" in row] == []
    assert sorted((row["key"] for _, row in done), key=int) == [str(i) for i in range(10)]


def test_processes_and_one_process_measure_the_same(tmp_path: Path) -> None:
    found, rows = [Found("sample", SAMPLE)], []
    for jobs in (1, 2):
        result = compare_clips(
            found,
            ["x264"],
            tmp_path / str(jobs),
            Selection(frames=(0, 3), size=(96, 64)),
            settings={"x264": [40, 30, 20]},
            metrics=["psnr", "lpips_alex"],
            jobs=jobs,
        )
        rows.append([(r["setting"], r["payload_bytes"], r["metrics"]["psnr"]) for r in result.rows])
    assert rows[0] == rows[1]
    with pytest.raises(ValueError, match="same name"):
        compare_clips(found * 2, ["x264"], tmp_path / "3", Selection())
    assert workers.ATTEMPTS == 3
