"""What users and attackers hand in: typed errors, exit codes, one line, no traceback, no half file.

Most cases run in this process through `api`; one of each kind goes through the real command line.
"""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_clip

import gencodec
from gencodec import api, cli, weights, wire
from gencodec.codec import CorruptStream, GencodecError, UnreadableInput, UnsupportedStream, WeightsMissing
from gencodec.container import Reader
from gencodec.video import write_video
from gencodec.wire import Index
from gencodec.wire_header import pack_header

MEMORY_KIB = 1 << 20  # that a command may take, torch included
Run = Callable[..., "tuple[int, str]"]
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, toy: str, tmp_path: Path) -> Run:
    """Call the command line in this process; returns exit code and the one line that it must print."""

    def call(*arguments: object) -> tuple[int, str]:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["gencodec", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return int(exit_info.value.code or 0), err

    return call


def decode_all(data: bytes, **arguments: Any) -> list[torch.Tensor]:
    return list(api.decode(io.BytesIO(data), device="cpu", **arguments))


@pytest.fixture(scope="module")
def frames(toy_stream: bytes) -> list[torch.Tensor]:
    return decode_all(toy_stream)


# ---- what is no video ------------------------------------------------------------------------------------


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", make_clip(6, 32, 32), gencodec.VideoInfo(32, 32, Fraction(25)))
    return tmp_path / "clip.mp4"


def test_input_that_cannot_be_read(run: Run, tmp_path: Path, mp4: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50, encoding="utf-8")
    (tmp_path / "noise.mkv").write_bytes(random.Random(1).randbytes(5000))
    (tmp_path / "cut.mp4").write_bytes(mp4.read_bytes()[:-300])
    (tmp_path / "no_pictures").mkdir()
    (tmp_path / "wide.y4m").write_bytes(b"YUV4MPEG2 W16385 H2 F25:1 C444\nFRAME\n" + bytes(3 * 16385 * 2))
    (tmp_path / "frameless.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F25:1 C444\n")
    names = [
        "empty.mp4",
        "text.mp4",
        "noise.mkv",
        "cut.mp4",
        "no_pictures",
        "wide.y4m",
        "frameless.y4m",
        "absent.mp4",
    ]
    for name in names:
        assert run("encode", tmp_path / name, tmp_path / "a.gcv", "--method", "toy")[0] == 5, name


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0)
    try:
        assert run("encode", folder, tmp_path / "a.gcv", "--method", "toy")[0] == 5
        assert run("decode", folder / "a.gcv", tmp_path / "a.mp4")[0] == 5
    finally:
        folder.chmod(0o700)


def test_frames_over_the_limit(run: Run, clip_file: Path, tmp_path: Path) -> None:
    code, line = run("encode", clip_file, tmp_path / "a.gcv", "--method", "toy", "--max-pixels", 1000)
    assert code == 5
    assert "48x32 is over the limit of 1000 pixels" in line


@pytest.mark.parametrize("source", [torch.zeros(0, 3, 8, 8, dtype=torch.uint8), [], iter([])])
def test_no_frames(toy: str, source: Any, tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput):
        api.encode(source, tmp_path / "a.gcv", codec=api.create(toy), quality=3)
    assert list(tmp_path.iterdir()) == []


def test_source_that_fails_midway(toy: str, tmp_path: Path) -> None:
    def frames() -> Iterator[torch.Tensor]:
        yield from make_clip(12, 16, 16)
        raise UnreadableInput("the disk is gone")

    with pytest.raises(UnreadableInput, match="disk"):
        api.encode(frames(), tmp_path / "a.gcv", codec=api.create(toy), quality=3)
    assert list(tmp_path.iterdir()) == []


# ---- wrong arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quality", "-1"], "0..63"),
        (["--quality", "64"], "0..63"),
        (["--quality", "x"], "--quality"),
        (["--quality", "3", "--bpp", "0.1"], "exactly one"),
        (["--bpp", "0"], "above 0"),
        (["--bitrate", "-5"], "above 0"),
        (["--lpips", "nan"], "above 0"),
        (["--lpips", "0.2", "--bpp", "0.1"], "exactly one"),
        (["--preset", "huge"], "--preset"),
        (["--preset", "paper"], "no preset 'paper'"),
        (["--device", "tpu"], "auto, cpu or cuda"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "4294967296"], "--seed"),
        (["--frames", "5"], "A:B"),
        (["--frames", "5:5"], "5"),
        (["--frames", "a:b"], "A:B"),
        (["--frames", "100:200"], "20 frames"),
        (["--size", "20"], "WxH"),
        (["--size", "0x10"], "WxH"),
        (["--size", "99999x10"], "99999"),
        (["--fps", "x"], "--fps"),
        (["--fps", "25"], "fps"),
        (["--colour"], "--colour"),
        (["--method", "h264"], "there are intra"),
    ],
)
def test_wrong_arguments(run: Run, clip_file: Path, tmp_path: Path, options: list[str], words: str) -> None:
    code, line = run("encode", clip_file, tmp_path / "a.gcv", "--method", "toy", *options)
    assert code == 2
    assert words in line


def test_missing_arguments(run: Run, clip_file: Path, tmp_path: Path) -> None:
    assert run("encode", clip_file, tmp_path / "a.gcv")[0] == 2
    assert run("encode", clip_file)[0] == 2
    assert run("frobnicate")[0] == 2


def test_outputs_that_cannot_be(run: Run, clip_file: Path, tmp_path: Path, toy_stream: bytes) -> None:
    stream = tmp_path / "in.gcv"
    stream.write_bytes(toy_stream)
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "none" / "a.gcv", tmp_path / "folder", clip_file / "a.gcv"):
        assert run("encode", clip_file, target, "--method", "toy")[0] == 2
    for target in (tmp_path / "none" / "a.mp4", tmp_path / "a.xyz", clip_file / "a.mp4"):
        assert run("decode", stream, target)[0] == 2, target


@pytest.mark.parametrize("frames", ["20:21", "0:21", "3:3", "7:2", "x", ""])
def test_ranges_outside(run: Run, tmp_path: Path, toy_stream: bytes, frames: str) -> None:
    stream = tmp_path / "in.gcv"
    stream.write_bytes(toy_stream)
    assert run("decode", stream, tmp_path / "a.mp4", "--frames", frames)[0] == 2


# ---- weights ---------------------------------------------------------------------------------------------


def test_wrong_weights(run: Run, clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 200)
    fake = weights.WeightsFile("intra-tiny-9.safetensors", "0" * 64, "MIT", "test")
    monkeypatch.setitem(weights.WEIGHTS, "intra-tiny-9", fake)
    for path in ("bad.safetensors", "absent.safetensors"):
        arguments = ("--method", "intra", "--weights", tmp_path / path)
        assert run("encode", clip_file, tmp_path / "a.gcv", *arguments)[0] == 4
    lpips = weights.ZOO / "lpips-alex-1.safetensors"  # sound weights, of something else
    assert run("encode", clip_file, tmp_path / "a.gcv", "--method", "intra", "--weights", lpips)[0] == 4


def test_stream_of_other_weights(run: Run, tmp_path: Path, toy_stream: bytes) -> None:
    (tmp_path / "in.gcv").write_bytes(with_header(toy_stream, weights_id=0x1234))
    code, line = run("decode", tmp_path / "in.gcv", tmp_path / "a.mp4")
    assert code == 4
    assert "00001234" in line
    assert f"{weights.set_id([]):08x}" in line


# ---- damaged streams -------------------------------------------------------------------------------------


def with_header(stream: bytes, **fields: Any) -> bytes:
    """Return the stream with other header fields under a right CRC; INDEX offsets stay right."""
    from dataclasses import replace

    reader = Reader(io.BytesIO(stream))
    return pack_header(replace(reader.header, **fields)) + stream[reader.header_bytes :]


def gops_of(stream: bytes) -> tuple[bytes, list[bytes]]:
    reader = Reader(io.BytesIO(stream))
    return stream[: reader.header_bytes], [stream[g.offset : g.offset + g.size] for g in reader.gops()]


def assembled(stream: bytes, order: list[int], frames: list[int], total: int) -> bytes:
    header, chunks = gops_of(stream)
    parts = [chunks[i] for i in order]
    offsets = [len(header) + sum(map(len, parts[:i])) for i in range(len(parts))]
    return header + b"".join(parts) + wire.pack_index(Index(total, frames, offsets))


def flipped(stream: bytes, position: int, mask: int) -> bytes:
    return stream[:position] + bytes([stream[position] ^ mask]) + stream[position + 1 :]


def sensitive_positions(stream: bytes) -> list[int]:
    """Return every byte of the header, of the chunk heads and of INDEX."""
    reader = Reader(io.BytesIO(stream))
    assert reader.index
    heads = [offset + i for offset in reader.index.offsets for i in range(9)]
    return [*range(reader.header_bytes), *heads, *range(len(stream) - reader.index_bytes, len(stream))]


def test_flipped_where_it_matters(toy_stream: bytes, frames: list[torch.Tensor]) -> None:
    for position in sensitive_positions(toy_stream):
        for mask in (0x01, 0x80, 0xFF):
            refuses(flipped(toy_stream, position, mask), frames)


def test_flipped_at_500_places(toy_stream: bytes, frames: list[torch.Tensor]) -> None:
    draw = random.Random(5)
    for _ in range(500):
        refuses(flipped(toy_stream, draw.randrange(len(toy_stream)), 1 << draw.randrange(8)), frames)


def refuses(data: bytes, frames: list[torch.Tensor]) -> None:
    """The stream is refused, and what came out before is right and whole GOPs: none of a damaged one."""
    decoded: list[torch.Tensor] = []
    with pytest.raises((CorruptStream, UnsupportedStream)):  # noqa: PT012 - what came before counts
        for frame in api.decode(io.BytesIO(data), device="cpu"):
            decoded.append(frame)
    assert len(decoded) % 8 == 0
    assert all(torch.equal(a, b) for a, b in zip(decoded, frames, strict=False))


def test_cut_at_every_byte(toy_stream: bytes, frames: list[torch.Tensor]) -> None:
    for size in range(len(toy_stream)):
        with pytest.raises(CorruptStream):
            api.decode(io.BytesIO(toy_stream[:size]), device="cpu")


def test_partial_takes_what_is_whole(toy_stream: bytes, frames: list[torch.Tensor]) -> None:
    reader = Reader(io.BytesIO(toy_stream))
    assert reader.index
    second = reader.index.offsets[1]
    for size in range(reader.header_bytes, len(toy_stream), 13):
        whole = sum(offset + 1 <= size for offset in [g.offset + g.size - 1 for g in reader.gops()])
        if whole == 0:
            with pytest.raises(CorruptStream, match="no frame"):
                decode_all(toy_stream[:size], partial=True)
            continue
        decoded = decode_all(toy_stream[:size], partial=True)
        assert len(decoded) == [0, 8, 16, 20][whole]
        assert all(torch.equal(a, b) for a, b in zip(decoded, frames, strict=False))
    damaged = decode_all(flipped(toy_stream, second + 20, 4), partial=True)
    assert all(torch.equal(a, b) for a, b in zip(damaged, frames[:8] + frames[16:], strict=True))


@pytest.mark.parametrize(
    ("order", "firsts", "total"),
    [
        ([1, 0, 2], [0, 8, 16], 20),
        ([0, 1, 1, 2], [0, 8, 16, 24], 28),
        ([0, 2], [0, 8], 12),
        ([0, 2], [0, 16], 20),
        ([0, 1], [0, 8], 16),
        ([0, 0, 0], [0, 8, 16], 20),
    ],
)
def test_gops_swapped_doubled_or_dropped(
    toy_stream: bytes, order: list[int], firsts: list[int], total: int
) -> None:
    with pytest.raises(CorruptStream):
        decode_all(assembled(toy_stream, order, firsts, total))


def test_extended_or_emptied(toy_stream: bytes) -> None:
    for data in (toy_stream + b"\0", toy_stream * 2, b"", b"\0" * len(toy_stream), gops_of(toy_stream)[0]):
        with pytest.raises(CorruptStream):
            decode_all(data)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"codec_id": 99}, UnsupportedStream),
        ({"codec_id": 255}, UnsupportedStream),
        ({"version": 2}, UnsupportedStream),
        ({"preset": "paper"}, WeightsMissing),
        ({"settings": b""}, CorruptStream),
        ({"settings": b"\x09"}, CorruptStream),
        ({"width": 16384, "height": 16384, "num_frames": 2**32 - 1}, CorruptStream),
        ({"width": 4096, "height": 4096}, CorruptStream),
        ({"num_frames": 2**32 - 1}, CorruptStream),
    ],
)
def test_headers_that_lie(toy_stream: bytes, fields: dict[str, Any], error: type[GencodecError]) -> None:
    data = with_header(toy_stream, **fields)
    if len(data) != len(toy_stream):  # settings of another length move the GOPs
        header, chunks = gops_of(toy_stream)
        start = len(data) - len(toy_stream) + len(header)
        offsets = [start + sum(map(len, chunks[:i])) for i in range(3)]
        data = data[:start] + b"".join(chunks) + wire.pack_index(Index(20, [0, 8, 16], offsets))
    with pytest.raises(error):
        decode_all(data)


# ---- through the real command line -----------------------------------------------------------------------


def in_process_of_its_own(env: dict[str, str], folder: Path, *arguments: object) -> tuple[int, str, int]:
    """Run the command line; returns exit code, stderr and its peak memory in KiB."""
    code = (
        "import sys, runpy, atexit, shutil\n"
        "atexit.register(lambda: shutil.copy('/proc/self/status', 'peak'))\n"
        "sys.argv = ['gencodec', *sys.argv[1:]]\n"
        "runpy.run_module('gencodec', run_name='__main__')"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert time.monotonic() - started < 60
    peak = folder / "peak"
    kib = peak_of(peak.read_text())
    peak.unlink()
    assert done.stdout == ""
    return done.returncode, done.stderr, kib


def peak_of(status: str) -> int:
    """Peak memory in KiB, of /proc/PID/status; `getrusage` counts what the parent had at its fork, too."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


@linux
def test_bomb_is_bounded(toy_stream: bytes, toy_env: dict[str, str], tmp_path: Path) -> None:
    """16384x16384 and four billion frames: refused within the memory of torch's import."""
    file = tmp_path / "bomb.gcv"
    file.write_bytes(with_header(toy_stream, width=16384, height=16384, num_frames=2**32 - 1))
    code, line, kib = in_process_of_its_own(toy_env, tmp_path, "decode", file, "out.mp4")
    assert (code, line.count("\n")) == (3, 1)
    assert "max_pixels" in line
    assert kib < MEMORY_KIB
    file.write_bytes(with_header(toy_stream, num_frames=2**32 - 1))
    assert in_process_of_its_own(toy_env, tmp_path, "decode", file, "out.mp4")[0] == 3
    assert os.listdir(tmp_path) == ["bomb.gcv"]


@linux
def test_errors_of_the_real_command(
    toy_stream: bytes, toy_env: dict[str, str], tmp_path: Path, clip_file: Path
) -> None:
    (tmp_path / "bad.gcv").write_bytes(flipped(toy_stream, 150, 8))
    (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
    encode = ("encode", clip_file, "a.gcv", "--method", "toy")
    cases: list[tuple[int, tuple[object, ...]]] = [
        (3, ("decode", "bad.gcv", "out.mp4")),
        (5, ("encode", "text.mp4", "a.gcv", "--method", "toy", "--json")),
        (2, (*encode, "--quality", "x")),
    ]
    for expected, arguments in cases:
        code, err, _ = in_process_of_its_own(toy_env, tmp_path, *arguments)
        assert (code, err.count("\n"), "Traceback" in err) == (expected, 1, False), err
    assert sorted(os.listdir(tmp_path)) == ["bad.gcv", "text.mp4"]


@linux
def test_memory_does_not_grow_with_the_video(toy: str, tmp_path: Path) -> None:
    """Encoding 50 times the frames takes the same memory: nothing holds the video."""

    def frames(count: int) -> Iterator[torch.Tensor]:
        for i in range(count):
            yield torch.full((3, 256, 256), i % 256, dtype=torch.uint8)

    codec = api.create(toy)
    api.encode(frames(10), tmp_path / "a.gcv", codec=codec, quality=3)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # tests before may have taken more
    before = peak_of(status.read_text(encoding="ascii"))
    result = api.encode(frames(500), tmp_path / "a.gcv", codec=codec, quality=3)
    assert sum(1 for _ in api.decode(tmp_path / "a.gcv")) == 500
    assert peak_of(status.read_text(encoding="ascii")) - before < 40 * 1024  # the video has 96 MiB
    assert result.frames == 500
