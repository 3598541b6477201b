"""Comparing codecs: classical anchors, jobs, metrics, BD-rates and the report."""
