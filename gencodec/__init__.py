"""Generative video compression: three published methods behind one interface, one file format, one entropy coder."""

__version__ = "0.1.0"
