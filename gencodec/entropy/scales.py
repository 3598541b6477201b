"""The scale table that networks and coder agree on: 64 deviations, log-spaced, in quantisation steps."""

from __future__ import annotations

NUM_SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 32.0

# Scales whose symbols are zero by definition. Up to 0.144 (index 3) fewer than one symbol in 1900 would
# differ from zero. Such a one costs about 12 bits and lies just beyond 1/2, where it lowers the squared error
# by 2|x| - 1, on average by 0.07: 0.005 per bit, when other symbols buy about 0.1 per bit. Not coding it is
# the better encoder.
SKIPPED_SCALES = 4
