"""`gencodec compare` and `gencodec bench`, as the command line declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gencodec.cli_arguments import (
    Device,
    File,
    Frames,
    I3d,
    Inception,
    Jobs,
    Json,
    Metrics,
    Out,
    Points,
    Published,
    Raft,
    Settings,
    Spynet,
    Text,
    Vgg,
    parse_frames,
    parse_size,
)


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(bench)
    app.command()(compare)


def bench(  # noqa: PLR0913 - the options are the contract
    methods: Annotated[str, typer.Option(help="Comma-separated: methods and anchors.")],
    out: Out,
    dataset: Annotated[
        str, typer.Option(help="uvg, hevc-b, mcl-jcv, davis, cityscapes, smmnist, or a folder.")
    ],
    root: Annotated[
        File, typer.Option(metavar="DIR", help="Folder of the clips; smmnist: an idx file.")
    ] = None,
    points: Points = 5,
    metrics: Metrics = None,
    vgg: Vgg = None,
    inception: Inception = None,
    spynet: Spynet = None,
    raft: Raft = None,
    i3d: I3d = None,
    settings: Settings = None,
    device: Device = "auto",
    first: Annotated[int | None, typer.Option(min=1, help="Frames of each clip; 96, 30 of smmnist.")] = None,
    crop: Annotated[Text, typer.Option(metavar="WxH", help="The middle of every frame.")] = None,
    size: Annotated[Text, typer.Option(metavar="WxH", help="Scale to this size, after --crop.")] = None,
    jobs: Jobs = 1,
    published: Published = None,
    ray: Annotated[Text, typer.Option(metavar="ADDRESS|local", help="A Ray cluster instead.")] = None,
    json: Json = False,
) -> None:
    """Compare codecs on a data set."""
    from gencodec.cli_compare import run_bench

    run_bench(
        dataset,
        root,
        methods,
        out,
        first=first,
        crop=parse_size(crop),
        size=parse_size(size),
        ray=ray,
        points=points,
        metrics=metrics,
        weights=given(vgg=vgg, inception=inception, spynet=spynet, raft=raft, i3d=i3d),
        settings=settings or [],
        device=device,
        jobs=jobs,
        published=published,
        as_json=json,
    )


def compare(  # noqa: PLR0913 - the options are the contract
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Videos, or folders of videos.")],
    methods: Annotated[str, typer.Option(help="Comma-separated: methods, x264, x265, svtav1, vp9, ...")],
    out: Out,
    points: Points = 5,
    metrics: Metrics = None,
    vgg: Vgg = None,
    inception: Inception = None,
    spynet: Spynet = None,
    raft: Raft = None,
    i3d: I3d = None,
    settings: Settings = None,
    device: Device = "auto",
    frames: Frames = None,
    size: Annotated[Text, typer.Option(metavar="WxH", help="Scale to this size first.")] = None,
    jobs: Jobs = 1,
    published: Published = None,
    json: Json = False,
) -> None:
    """Compare codecs: a table, curves, BD-rates and a page to look at."""
    from gencodec.cli_compare import run

    run(
        inputs,
        methods,
        out,
        points=points,
        metrics=metrics,
        weights=given(vgg=vgg, inception=inception, spynet=spynet, raft=raft, i3d=i3d),
        settings=settings or [],
        device=device,
        frames=parse_frames(frames),
        size=parse_size(size),
        jobs=jobs,
        published=published,
        as_json=json,
    )


def given(**paths: Path | None) -> dict[str, Path]:
    """Those that were."""
    return {name: path for name, path in paths.items() if path}
