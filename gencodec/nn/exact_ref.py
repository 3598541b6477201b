"""The exact layer in NumPy integers: slow, readable, the specification of `ExactConv2d` and test oracle."""

from __future__ import annotations

import numpy as np

from gencodec.nn.exact import ACT_MAX, ACT_STEP, SLOPE, ExactConv2d


def exact_conv2d_ref(layer: ExactConv2d, x: np.ndarray, bias_add: np.ndarray | None = None) -> np.ndarray:
    """What `layer` computes: x int64 (B,C,H,W) in activation steps -> int64 in activation steps, or product
    steps (head).

    All arithmetic is on int64 but for the last rounding, of a quotient by a power of two, which float64 holds
    exactly.
    """
    exponent = layer.exponent.numpy().astype(np.int64)
    weight = np.rint(layer.weight.detach().double().numpy() / 2.0 ** exponent[:, None, None, None]).astype(
        np.int64
    )
    weight = np.clip(weight, -127, 127)
    product_step = 2.0**exponent * ACT_STEP  # (O,)
    bias = (
        layer.bias.detach().numpy()[None]
        if bias_add is None
        else layer.bias.detach().numpy()[None] + bias_add
    )
    bias = np.rint(bias / product_step.astype(np.float32)).astype(np.int64)  # (B or 1,O)

    k, p, s = weight.shape[-1], layer.padding, layer.stride
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, ::s, ::s]
    total = np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, :, None, None]
    if layer.head:
        return total
    value = total * product_step[None, :, None, None]
    if layer.activation:
        value = np.where(value < 0, value * SLOPE, value)
    return (
        np.rint(np.clip(value, -2 * ACT_MAX, 2 * ACT_MAX) / ACT_STEP)
        .clip(-ACT_MAX / ACT_STEP, ACT_MAX / ACT_STEP)
        .astype(np.int64)
    )
