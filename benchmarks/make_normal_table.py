"""Make the normal quantiles that all noise is drawn from: python benchmarks/make_normal_table.py OUTPUT.

The upper half of 2^16 quantiles, at (i + 1/2) / 2^16 for i = 2^15 .. 2^16-1, from 40-digit arithmetic,
rounded to float32. The SHA-256 that is printed belongs in the table of gencodec/weights.py. Never change a
released table: make another beside it, or streams decode to other frames.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import mpmath
import numpy as np
from safetensors.numpy import save

SIZE = 2**16


def main() -> None:
    """Compute, write, print the hash."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    mpmath.mp.dps = 40
    odds = [mpmath.mpf(2 * i + 1) / SIZE - 1 for i in range(SIZE // 2, SIZE)]  # 2 p - 1
    upper = np.array([float(mpmath.sqrt(2) * mpmath.erfinv(p)) for p in odds], dtype=np.float32)
    data = save({"upper": upper}, metadata={"provenance": "benchmarks/make_normal_table.py"})
    args.output.write_bytes(data)
    print(f"{args.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
