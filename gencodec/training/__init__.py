"""One trainer; the losses and stages of each method."""

from __future__ import annotations


def run(method: str, args: list[str]) -> None:
    """Train `method` with the command line's arguments. Raises ValueError for a method without a trainer."""
    if method != "intra":
        raise ValueError(f"no trainer for {method = }; there is one for: intra")
    from gencodec.training.cli import train_intra

    train_intra(args)
