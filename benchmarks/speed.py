"""How fast the parts are: `python benchmarks/speed.py PART` measures one and writes results/speed-PART.json.

A part is a function that takes the number of repetitions and returns what goes into the JSON; add it to
PARTS. What is compared runs in turns, a repetition of each after the other, so that a busy machine slows all
of them. Times are CPU seconds of this process, the median over the repetitions.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from gencodec.entropy import coder, tables

RESULTS = Path(__file__).parent / "results"


def entropy(repetitions: int) -> dict[str, Any]:
    """The entropy coder: against CompressAI's rANS, and on the packet of a 1080p frame at 0.02 bpp.

    Arrays in, bytes out, and back: the lists that CompressAI's interface takes and gives are part of its
    time, those of its tables are not. "uniform" is 2^20 Gaussian symbols whose scales are drawn evenly from
    the 64; CompressAI codes them under the same counts. "frame_1080p" is 64 channels of 120 x 68 latents
    whose scales are log-normal with a deviation of 1 in the logarithm, clamped to 0.11..32, around the median
    that makes the ideal size 0.02 bpp.
    """
    scale_tables = tables.gaussian_tables()
    rng = np.random.default_rng(0)
    every = rng.integers(0, 64, 2**20).astype(np.uint8)
    frame = _indices_at(0.02 * 1920 * 1080, scale_tables, rng, 64 * 120 * 68)
    return {
        "uniform": _against_compressai(
            _draw(every, rng, skip=0), every, tables.gaussian_tables(skip=0), repetitions
        ),
        "frame_1080p": _frame(_draw(frame, rng), frame, scale_tables, repetitions),
    }


def intra(repetitions: int) -> dict[str, Any]:
    """`intra` on one 448x256 frame of the shipped sample at quality 32, and what its time is made of."""
    import torch

    import gencodec
    from gencodec.demo import SAMPLE
    from gencodec.video import open_video

    with open_video(SAMPLE, frames=(0, 1), size=(448, 256)) as video:
        frame = next(iter(video))
    info = gencodec.VideoInfo(448, 256, video.info.fps, 1)
    frame_coder = gencodec.create("intra", device="cpu").coder  # type: ignore[attr-defined]

    def encode() -> bytes:
        encoder = coder.SymbolEncoder()
        frame_coder.encode(encoder, frame, 32)
        return encoder.finish()

    payload = encode()
    latents = frame_coder.decode(coder.SymbolDecoder(payload), info, 32)
    seconds = interleave(
        {
            "encode": encode,
            "decode": lambda: frame_coder.render(
                frame_coder.decode(coder.SymbolDecoder(payload), info, 32).y_hat, info, 32
            ),
            "decode_latents": lambda: frame_coder.decode(coder.SymbolDecoder(payload), info, 32),
            "synthesis": lambda: frame_coder.render(latents.y_hat, info, 32),
        },
        repetitions,
    )
    return {"threads": torch.get_num_threads(), "bytes": len(payload), "seconds": seconds}


def s2vc(repetitions: int) -> dict[str, Any]:
    """`s2vc`, frames a second by the clock and its parts; in a file of its own."""
    import speed_s2vc

    return speed_s2vc.s2vc(repetitions)


def extreme(repetitions: int) -> dict[str, Any]:
    """`extreme`, seconds of a clip by quality; in a file of its own."""
    import speed_extreme

    return speed_extreme.extreme(repetitions)


def diffsit(repetitions: int) -> dict[str, Any]:
    """`diffsit`, frames a second by the clock and its parts; in a file of its own."""
    import speed_diffsit

    return speed_diffsit.diffsit(repetitions)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "entropy": entropy,
    "intra": intra,
    "s2vc": s2vc,
    "extreme": extreme,
    "diffsit": diffsit,
}


def interleave(functions: dict[str, Callable[[], object]], repetitions: int) -> dict[str, dict[str, float]]:
    """Median and least CPU seconds of each function, called in turns after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if repetition:
                seconds[name].append(time.process_time() - start)
    return {name: {"median": float(np.median(s)), "least": min(s)} for name, s in seconds.items()}


def environment() -> dict[str, Any]:
    """The commit, command, machine and versions that a result belongs to."""
    return {
        "commit": _output("git", "rev-parse", "HEAD"),
        "changed_files": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "command": shown_command(),
        "machine": f"{_cpu()}, {platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("numpy", "torch", "constriction", "compressai")},
    }


def shown_command() -> str:
    """The command of this process; of absolute paths the last part alone, for they are this machine's."""
    script, *arguments = sys.argv
    shown = [Path(text).name if Path(text).is_absolute() else text for text in arguments]
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *shown])


def _draw(table_index: np.ndarray, rng: np.random.Generator, skip: int = tables.SKIPPED_SCALES) -> np.ndarray:
    noise = rng.standard_normal(len(table_index)) * tables.gaussian_scales()[table_index]
    return np.where(table_index < skip, 0, np.rint(noise)).astype(np.int32)


def _indices_at(
    bits: float, scale_tables: tables.CdfTables, rng: np.random.Generator, count: int
) -> np.ndarray:
    noise = rng.standard_normal(count)
    steps = np.arange(scale_tables.num_tables)
    sample = np.stack([_draw(np.full(4096, index), rng) for index in steps])
    cost = scale_tables.bits(sample, steps[:, None]).mean(1)
    low, high = np.log(1e-4), 0.0  # of the logarithm of the median scale
    spacing = np.log(tables.SCALE_MAX / tables.SCALE_MIN) / (tables.NUM_SCALES - 1)
    for _ in range(30):
        middle = (low + high) / 2
        index = np.clip(np.rint((middle + noise - np.log(tables.SCALE_MIN)) / spacing), 0, steps[-1]).astype(
            np.uint8
        )
        low, high = (low, middle) if cost[index].sum() > bits else (middle, high)
    return index


def _against_compressai(
    symbols: np.ndarray, index: np.ndarray, scale_tables: tables.CdfTables, repetitions: int
) -> dict[str, Any]:
    from compressai import ans

    cdfs = [_natural_cdf(scale_tables, table) for table in range(scale_tables.num_tables)]
    described = (cdfs, (scale_tables.length + 1).tolist(), scale_tables.offset.tolist())

    def their_encode() -> bytes:
        return ans.RansEncoder().encode_with_indexes(symbols.tolist(), index.tolist(), *described)

    def their_decode() -> np.ndarray:
        return np.array(ans.RansDecoder().decode_with_indexes(theirs, index.tolist(), *described), np.int32)

    ours, theirs = coder.encode(symbols, index, scale_tables), their_encode()
    assert np.array_equal(coder.decode(ours, index, scale_tables), symbols)
    assert np.array_equal(their_decode(), symbols)
    seconds = interleave(
        {
            "encode": lambda: coder.encode(symbols, index, scale_tables),
            "compressai_encode": their_encode,
            "decode": lambda: coder.decode(ours, index, scale_tables),
            "compressai_decode": their_decode,
        },
        repetitions,
    )
    ideal = float(scale_tables.bits(symbols, index).sum()) / 8
    return {
        "symbols": len(symbols),
        "seconds": seconds,
        "encode_speed_ratio": seconds["compressai_encode"]["median"] / seconds["encode"]["median"],
        "decode_speed_ratio": seconds["compressai_decode"]["median"] / seconds["decode"]["median"],
        "encode_msymbols_per_second": len(symbols) / 1e6 / seconds["encode"]["median"],
        "decode_msymbols_per_second": len(symbols) / 1e6 / seconds["decode"]["median"],
        "bytes": len(ours),
        "compressai_bytes": len(theirs),
        "ideal_bytes": ideal,
        "gaussian_bytes": _gaussian_bytes(symbols, index),
        "over_ideal_percent": 100 * (len(ours) / ideal - 1),
        "over_gaussian_percent": 100 * (len(ours) / _gaussian_bytes(symbols, index) - 1),
    }


def _frame(
    symbols: np.ndarray, index: np.ndarray, scale_tables: tables.CdfTables, repetitions: int
) -> dict[str, Any]:
    payload = coder.encode(symbols, index, scale_tables)
    assert np.array_equal(coder.decode(payload, index, scale_tables), symbols)
    seconds = interleave(
        {
            "encode": lambda: coder.encode(symbols, index, scale_tables),
            "decode": lambda: coder.decode(payload, index, scale_tables),
        },
        repetitions,
    )
    return {
        "symbols": len(symbols),
        "coded_symbols": int(np.count_nonzero(index >= scale_tables.skip)),
        "tables_in_use": len(np.unique(index)),
        "seconds": seconds,
        "bytes": len(payload),
        "ideal_bytes": float(scale_tables.bits(symbols, index).sum()) / 8,
        "bpp": len(payload) * 8 / (1920 * 1080),
    }


def _natural_cdf(scale_tables: tables.CdfTables, table: int) -> list[int]:
    counts, shift = scale_tables.counts(table), int(scale_tables.mode[table] - scale_tables.offset[table])
    return [0, *np.cumsum(np.concatenate([np.roll(counts[:-1], shift), counts[-1:]])).tolist()]


def _gaussian_bytes(symbols: np.ndarray, index: np.ndarray) -> float:
    """Ideal size under the Gaussians themselves, before they became counts."""
    from scipy.special import ndtr

    width, scales = 0.5, tables.gaussian_scales()[index]
    size = np.abs(symbols)
    return float(-np.log2(ndtr((width - size) / scales) - ndtr((-width - size) / scales)).sum()) / 8


def _output(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=RESULTS.parent, check=False
    ).stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in info.read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure the part that the command line names, write its JSON and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--repetitions", type=int, default=31)
    arguments = parser.parse_args()
    result = environment() | {"results": PARTS[arguments.part](arguments.repetitions)}
    text = json.dumps(result, indent=2) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"speed-{arguments.part}.json").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
