"""The scale table that networks and coder agree on: 64 deviations, log-spaced, in quantisation steps."""

from __future__ import annotations

NUM_SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 32.0
MEAN_STEP = 2.0**-3  # the grid of means, in quantisation steps

# Scales whose symbols are zero by definition. At 0.207 (index 7) one symbol in 64 would differ from zero.
# Coding costs 8.4 bits for each of those, all zeros counted, and as they lie just beyond 1/2 it lowers the
# squared error by 2|x| - 1, on average by 0.14: 0.016 per bit, when finer steps elsewhere buy 2 ln 2 / 12 =
# 0.115 per bit. Not coding them is the better encoder, and leaves the coder fewer symbols.
SKIPPED_SCALES = 8
