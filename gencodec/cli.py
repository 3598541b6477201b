"""The command line; `main` is the one place where errors become exit codes.

0 done · 1 a bug, or `doctor` found a fault · 2 wrong arguments or output · 3 corrupt or unsupported stream ·
4 weights missing · 5 input cannot be read · 130 interrupted · 143 terminated
"""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gencodec import cli_kit
from gencodec import cli_output as output
from gencodec.cli_arguments import (
    Device,
    Frames,
    Json,
    MaxPixels,
    Number,
    Options,
    Preset,
    Text,
    Tune,
    WeightsPath,
    parse_fps,
    parse_frames,
    parse_options,
    parse_size,
)
from gencodec.wire_header import MAX_PIXELS

if TYPE_CHECKING:
    from gencodec.results import CodingResult

DEFAULT_QUALITY = 32

app = typer.Typer(
    help="Generative video compression.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="List, verify or import weights.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(weights_app, name="weights")


cli_kit.register(app)


def main() -> None:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
        if code == 130:  # newer typers turn Ctrl-C into this
            raise KeyboardInterrupt
    except SystemExit:
        raise
    except BaseException as error:
        code = output.report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _terminate(*_: object) -> None:
    """Let a plain `kill` remove half-written files, as Ctrl-C does."""
    output.say("terminated")
    sys.exit(143)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from gencodec import __version__

        output.put(f"gencodec {__version__}")
        raise typer.Exit


@app.command()
def encode(  # noqa: PLR0913 - the options are the contract
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A video, or a folder of PNGs or JPEGs.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT.gcv")],
    method: Annotated[str, typer.Option(help="See `gencodec methods`.")],
    quality: Annotated[int | None, typer.Option(help="0 (smallest) to 63; 32 if nothing is given.")] = None,
    bpp: Annotated[Number, typer.Option(help="Bits per pixel of the file.")] = None,
    bitrate: Annotated[Number, typer.Option(metavar="BPS", help="Bits a second of the file.")] = None,
    lpips: Annotated[Number, typer.Option(help="Mean LPIPS-Alex of each group of pictures.")] = None,
    preset: Annotated[Preset, typer.Option()] = Preset.tiny,
    tune: Annotated[Tune, typer.Option(help="psnr encodes much faster.")] = Tune.lpips,
    options: Options = None,
    weights: WeightsPath = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1)] = 0,
    frames: Frames = None,
    size: Annotated[Text, typer.Option(metavar="WxH", help="Scale to this size first.")] = None,
    fps: Annotated[Text, typer.Option(help="Rate of a folder of pictures: 25, 30000/1001.")] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    json: Json = False,
) -> None:
    """Compress a video into a .gcv file."""
    from gencodec import api
    from gencodec.rate import from_arguments

    if quality is None and bpp is None and bitrate is None and lpips is None:
        quality = DEFAULT_QUALITY
    selection, scaled, rate = parse_frames(frames), parse_size(size), parse_fps(fps)
    from_arguments(quality=quality, bpp=bpp, bitrate=bitrate, lpips=lpips)  # before anything is loaded
    own = parse_options(options)
    codec = api.create(method, preset=preset.value, device=device, weights=weights, tune=tune.value, **own)
    with output.progress("encoding") as on_progress:
        result = api.encode(
            source,
            target,
            codec=codec,
            quality=quality,
            bpp=bpp,
            bitrate=bitrate,
            lpips=lpips,
            seed=seed,
            frames=selection,
            size=scaled,
            fps=rate,
            max_pixels=max_pixels,
            on_progress=on_progress,
        )
    if result.note:
        output.say(f"note: {result.note}")
    show(result, target, as_json=json)


@app.command()
def decode(
    source: Annotated[Path, typer.Argument(metavar="INPUT.gcv")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help=".mp4, .mkv, .y4m, or a folder for PNGs.")],
    frames: Frames = None,
    device: Device = "auto",
    weights: WeightsPath = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what is whole of a damaged file.")] = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    json: Json = False,
) -> None:
    """Decode a .gcv file."""
    from gencodec import api

    selection = parse_frames(frames)
    video = api.decode(
        source, frames=selection, device=device, partial=partial, weights=weights, max_pixels=max_pixels
    )
    with output.progress("decoding") as on_progress:
        result = video.save(target, on_progress=on_progress)
    if video.lost_gops:
        output.say(f"warning: {video.lost_gops} damaged groups of pictures were left out")
    show(result, target, as_json=json)


@app.command()
def info(source: Annotated[Path, typer.Argument(metavar="FILE.gcv")], json: Json = False) -> None:
    """Show a .gcv file's header and where its bytes are."""
    from gencodec.cli_info import describe, put_lines

    found = describe(source)
    if json:
        output.put_json(found)
    else:
        put_lines(found)


@app.command()
def methods(json: Json = False) -> None:
    """List the methods, their presets, weights, licences and papers."""
    from gencodec.cli_info import list_methods

    list_methods(as_json=json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the files and clips go.")] = Path("gencodec-demo"),
    quality: Annotated[int, typer.Option(min=0, max=63)] = DEFAULT_QUALITY,
    json: Json = False,
) -> None:
    """Encode and decode the sample with every method and compare them."""
    from gencodec.demo import run

    run(out, quality, as_json=json)


@app.command()
def doctor(json: Json = False) -> None:
    """Check versions, devices, weights and exactness."""
    from gencodec.doctor import run

    raise typer.Exit(run(as_json=json))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def train(context: typer.Context, method: Annotated[str, typer.Argument(metavar="METHOD")]) -> None:
    """Train a method; `gencodec train METHOD --help` shows its options."""
    from gencodec import training

    training.run(method, context.args)


@weights_app.command("list")
def weights_list(json: Json = False) -> None:
    """List the weights files of this version."""
    from gencodec.cli_info import list_weights

    list_weights(as_json=json)


@weights_app.command("verify")
def weights_verify() -> None:
    """Check that all weights are here and have their recorded SHA-256."""
    from gencodec.cli_info import verify_weights

    verify_weights()


@weights_app.command("import")
def weights_import(
    words: Annotated[list[str], typer.Argument(metavar="[mcvd|elic] FILE [OUTPUT.safetensors]")],
    config: Annotated[Path | None, typer.Option(help="config.yml of an MCVD checkpoint; beside FILE")] = None,
) -> None:
    """Turn a .pt, .pth or .safetensors file into .safetensors, without running anything that is in it.

    After mcvd or elic the tensors get the names of a paper preset, and must be exactly those.
    """
    from gencodec.cli_weights import import_weights

    import_weights(words, config)


def show(result: CodingResult, target: Path, *, as_json: bool) -> None:
    """Print the numbers of an encoding or decoding."""
    if as_json:
        return output.put_json(asdict(result))
    rate = f", {result.bpp:.5f} bpp" if result.bpp is not None else ""
    output.put(
        f"{target}: {result.frames} frames {result.width}x{result.height}, {result.bytes} bytes{rate}, "
        f"{result.seconds:.2f} s ({result.frames_per_second:.1f} frames/s)"
    )
