"""One trainer; the losses and stages of each method."""

from __future__ import annotations


def run(method: str, args: list[str]) -> None:
    """Train `method` with the command line's arguments. Raises ValueError for a method without a trainer."""
    if method == "intra":
        from gencodec.training.cli import train_intra

        return train_intra(args)
    if method == "s2vc":
        from gencodec.training.s2vc_cli import train_s2vc

        return train_s2vc(args)
    if method == "extreme":
        from gencodec.training.extreme_cli import train_extreme

        return train_extreme(args)
    if method == "diffsit":
        from gencodec.training.diffsit_cli import train_diffsit

        return train_diffsit(args)
    raise ValueError(f"no trainer for {method = }; there are those for: intra, s2vc, extreme, diffsit")
