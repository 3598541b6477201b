"""Triples of frames, one coded and two moved from it, repaired clip by clip by one diffusion step."""
