"""The command line's contract: exit codes, one JSON object on stdout, whole files or none."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gencodec
from gencodec import api, cli, cli_output, demo, registry, weights
from gencodec.video import open_video

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, toy: str) -> Run:
    """Call `gencodec ARGUMENTS` in this process; returns exit code, stdout, stderr.

    However long it takes, it tells no progress on stderr.
    """
    monkeypatch.setattr(cli_output, "PLAIN_SECONDS", math.inf)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gencodec", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        out, err = capsys.readouterr()
        return int(exit_info.value.code or 0), out, err

    return call


@pytest.fixture
def stream(tmp_path: Path, toy_stream: bytes) -> Path:
    path = tmp_path / "in.gcv"
    path.write_bytes(toy_stream)
    return path


FIELDS = {
    "note",
    "bytes",
    "payload_bytes",
    "bpp",
    "payload_bpp",
    "frames",
    "width",
    "height",
    "seconds",
    "frames_per_second",
    "method",
    "preset",
    "quality",
    "seed",
    "latents_sha256",
}


def test_encode_and_decode_json(run: Run, clip_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.gcv"
    code, out, err = run("encode", clip_file, file, "--method", "toy", "--quality", 40, "--seed", 3, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert set(made) == FIELDS
    assert made["bytes"] == file.stat().st_size
    assert made["bpp"] == 8 * file.stat().st_size / (20 * 48 * 32)
    assert (made["frames"], made["width"], made["height"], made["quality"], made["seed"]) == (
        20,
        48,
        32,
        40,
        3,
    )
    code, out, err = run("decode", file, tmp_path / "pictures", "--json")
    assert (code, err) == (0, "")
    read = json.loads(out)
    moving = {"seconds", "frames_per_second"}
    assert {k: v for k, v in read.items() if k not in moving} == {
        k: v for k, v in made.items() if k not in moving
    }
    with open_video(tmp_path / "pictures") as pictures:
        decoded = list(pictures)
    assert all(torch.equal(a, b) for a, b in zip(decoded, gencodec.decode(file), strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gcv", "pictures"]


def test_options_of_a_method(run: Run, clip_file: Path, tmp_path: Path) -> None:
    given = ("--set", "gop_length=7", "--set", "reset_period=3")
    code, _, err = run("encode", clip_file, tmp_path / "a.gcv", "--method", "s2vc", *given)
    assert (code, err) == (0, "")
    code, out, _ = run("info", tmp_path / "a.gcv", "--json")
    assert json.loads(out)["settings"] == "07000300"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gop_length", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
        ("color=red", "has options"),
        ("gop_length=0", "1..4096"),
    ],
)
def test_wrong_options_of_a_method(run: Run, clip_file: Path, tmp_path: Path, text: str, said: str) -> None:
    code, out, err = run("encode", clip_file, tmp_path / "a.gcv", "--method", "s2vc", "--set", text)
    assert (code, out) == (2, "")
    assert said in err
    assert not list(tmp_path.glob("*.gcv"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m", ""])
def test_decode_targets_and_ranges(run: Run, stream: Path, tmp_path: Path, suffix: str) -> None:
    code, out, err = run("decode", stream, tmp_path / f"out{suffix}", "--frames", "9:12")
    assert (code, err) == (0, "")
    assert "3 frames 24x16" in out
    with open_video(tmp_path / f"out{suffix}") as video:
        assert len(list(video)) == 3


def test_range_is_that_part_of_the_whole(run: Run, stream: Path, tmp_path: Path) -> None:
    _, out, _ = run("decode", stream, tmp_path / "part", "--frames", "6:18", "--json")
    result = json.loads(out)
    assert (result["frames"], result["bpp"], result["latents_sha256"]) == (12, None, None)
    whole = list(gencodec.decode(stream))
    with open_video(tmp_path / "part") as part:
        assert all(torch.equal(a, b) for a, b in zip(part, whole[6:18], strict=True))
    video = gencodec.decode(stream)
    assert all(torch.equal(a, b) for a, b in zip(video.seek(13), whole[13:], strict=True))
    assert video.info.num_frames == 20
    assert video.seek(13).info.num_frames == 7
    assert video.latents_sha256 is None
    assert len(list(video)) == len(list(video)) == 20
    assert video.latents_sha256
    assert len(video.latents_sha256) == 64


def test_frames_and_size_at_the_encoder(run: Run, clip_file: Path, tmp_path: Path) -> None:
    arguments = ("--method", "toy", "--frames", "2:9", "--size", "20x10", "--json")
    code, out, _ = run("encode", clip_file, tmp_path / "a.gcv", *arguments)
    result = json.loads(out)
    assert code == 0
    assert (result["frames"], result["width"], result["height"], result["quality"]) == (7, 20, 10, 32)


def test_info(run: Run, stream: Path) -> None:
    code, out, _ = run("info", stream, "--json")
    found = json.loads(out)
    assert code == 0
    assert sum(found["parts"].values()) == found["bytes"] == stream.stat().st_size
    assert found["parts"]["intra_packets"] + found["parts"]["predicted_packets"] == found["payload_bytes"]
    assert found["payload_parts"] == {"samples": found["payload_bytes"]}
    assert [gop["frame"] for gop in found["gops"]] == [0, 8, 16]
    assert (found["method"], found["fps"], found["frames"], found["settings"]) == ("toy", "25", 20, "08")
    code, out, _ = run("info", stream)
    assert code == 0
    assert "predicted_packets" in out


def test_info_without_the_method(stream: Path) -> None:
    """A file says what it is where its method is not installed; decoding it is exit code 3."""
    code = "import sys; from gencodec.cli import main; sys.argv = ['gencodec', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run([*command, "info", stream, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["method"] is None
    done = subprocess.run([*command, "decode", stream, "x.mp4"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "method number 200 is not installed" in done.stderr


def test_listings(run: Run) -> None:
    code, out, _ = run("methods", "--json")
    rows = {row["method"]: row for row in json.loads(out)["methods"]}
    assert code == 0
    assert set(registry.BUILT_IN) | {"toy"} <= set(rows)
    assert rows["toy"]["weights"] == "none needed"
    assert "intra" in run("methods")[1]
    code, out, _ = run("weights", "list", "--json")
    assert {row["name"] for row in json.loads(out)["weights"]} == set(weights.WEIGHTS)
    assert run("weights", "verify")[0] == 0


def test_weights_verify_fails_with_4(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "ZOO", tmp_path)
    code, out, err = run("weights", "verify")
    assert (code, out, err.count("\n")) == (4, "", 1)


def test_weights_import(run: Run, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "x.pt")
    code, out, _ = run("weights", "import", tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert (code, out) == (0, f"1 tensors -> {tmp_path / 'x.safetensors'}\n")


def test_doctor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", {})
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (0, True)
    assert found["methods"]["toy tiny cpu"] == "ok"
    monkeypatch.setitem(
        weights.WEIGHTS, "gone-1", weights.WeightsFile("gone-1.safetensors", "00", "MIT", "nowhere")
    )
    code, out, _ = run("doctor")
    assert code == 4
    assert "gone-1" in out


def test_demo(
    run: Run, clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_env: dict[str, str]
) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", {})
    monkeypatch.setattr(demo, "SAMPLE", clip_file)
    monkeypatch.setenv("PYTHONPATH", toy_env["PYTHONPATH"])
    code, out, err = run("demo", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("toy", "LPIPS", "PSNR", str(tmp_path / "out")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["toy.gcv", "toy.mp4"]


def test_sample_is_what_the_readme_promises() -> None:
    with open_video(demo.SAMPLE) as video:
        assert (video.info.width, video.info.height, video.info.fps * 2) == (320, 180, video.info.num_frames)
    assert demo.SAMPLE.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Usage"),
        (["--help"], "encode"),
        (["encode", "--help"], "--quality"),
        (["--version"], gencodec.__version__),
    ],
)
def test_help(run: Run, arguments: list[str], words: str) -> None:
    code, out, err = run(*arguments)
    assert code in (0, 2)
    assert words in out + err


# ---- errors ----------------------------------------------------------------------------------------------


def test_unexpected_errors_are_one_line(run: Run, stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("over\nand out")

    monkeypatch.setattr(api, "decode", fail)
    code, out, err = run("decode", stream, "x.mp4")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "ZeroDivisionError: over and out; this is a bug, please report it" in err
    monkeypatch.setenv("GENCODEC_DEBUG", "1")
    assert "Traceback" in run("decode", stream, "x.mp4")[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (gencodec.CorruptStream("x"), 3),
        (gencodec.UnsupportedStream("x"), 3),
        (gencodec.WeightsMissing("x"), 4),
        (gencodec.UnreadableInput("x"), 5),
        (ValueError("x"), 2),
        (OSError(28, "No space left on device", "a.gcv"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_output.report(error) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_training_is_handed_its_arguments(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("gencodec.training.run", lambda *arguments: seen.append(arguments))
    assert run("train", "intra", "--data", "folder", "--steps", "3", "--help")[0] == 0
    assert seen == [("intra", ["--data", "folder", "--steps", "3", "--help"])]


# ---- interrupted -----------------------------------------------------------------------------------------


@pytest.fixture
def slow_encode(
    tmp_path: Path, clip_file: Path, toy_env: dict[str, str]
) -> Callable[[], subprocess.Popen[str]]:
    """Start an encoding that takes minutes; returns when its temporary file has bytes."""

    def start() -> subprocess.Popen[str]:
        env = {**toy_env, "GENCODEC_TOY_SECONDS": "0.2", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "gencodec", "encode", str(clip_file), str(tmp_path / "a.gcv")]
        process = subprocess.Popen(
            [*command, "--method", "toy", "--json"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's & ignores it
        )
        for _ in range(1200):
            if any(tmp_path.iterdir()) or process.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(0.5)  # into the first GOP, which takes 1.6 s
        return process

    return start


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupt_leaves_nothing(
    slow_encode: Callable[[], subprocess.Popen[str]], tmp_path: Path, sent: int, code: int, said: str
) -> None:
    process = slow_encode()
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (code, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_kill_leaves_no_file_of_the_final_name(
    slow_encode: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = slow_encode()
    process.kill()
    process.communicate(timeout=60)
    assert all(path.name.startswith(".a.gcv.") and path.suffix == ".part" for path in tmp_path.iterdir())


def test_progress_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_output, "PLAIN_SECONDS", 0.0)
    with cli_output.progress("encoding") as on_progress:
        on_progress(3, 9)
        on_progress(4, None)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"encoding: 3 of 9 frames, \d+ s left", lines[0])
    assert lines[1:] == ["encoding: 4 frames"]
