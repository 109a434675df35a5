# SPDX-License-Identifier: Apache-2.0
"""The typer app: arguments and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

import backstride
from backstride._command.explain import explain
from backstride._command.photo import read_raster, scikit_image
from backstride._command.terminal import progress, refusals, refuse, show
from backstride._demo import report as chain_report
from backstride._demo import run as chain
from backstride._upscale import demonstration, report, upscaling
from backstride._upscale.enlargement import SCALES, Enlarger
from backstride._upscale.photographs import HELD_OUT

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(explain)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, no tables.")]
Scale = Annotated[int, typer.Option(min=SCALES[0], max=SCALES[-1], help="How many times to enlarge.")]


def show_version(asked: bool) -> None:
    """Prints the version and ends the program, if that was asked."""
    if asked:
        typer.echo(f"backstride {backstride.__version__}")
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[bool, typer.Option("--version", callback=show_version, help="Print the version.")] = False,
) -> None:
    """TensorFlow's transposed convolutions on NumPy arrays."""


@app.command()
def demo(
    context: typer.Context,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PHOTO", help="Image files to measure on; without any, photos from scikit-image."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.")] = Path(),
    scale: Scale = 2,
    steps: Annotated[int, typer.Option(min=1, help="How long to train.")] = 2500,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the patches.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Don't train; enlarge from 1/32 by the upsampling of FCN-8s.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a super-resolution network, and measure it on photographs that it has never seen.

    Writes its weights, xSCALE.npz, and for each PHOTO a picture, PHOTO-xSCALE.png: the reduced photo, bicubic
    enlargement, the network's, and the truth.

    With --quick, PHOTO-backstride.png: the original, its 1/32, the result, and SciPy's bilinear zoom.
    """
    for name in ("scale", "steps", "seed"):
        source = context.get_parameter_source(name)
        if quick and source and source.name == "COMMANDLINE":
            refuse(f"--{name} is for training, and --quick does not train; leave one of them out")
    with refusals(output):
        if quick:
            paths = photos or scikit_image(*chain.SAMPLES)
            with progress(chain.total_steps(len(paths))) as step:
                found = chain.run(paths, output, step)
            tell(as_json, chain_report.document(found), chain_report.tables(found))
        else:
            paths = photos or scikit_image(*HELD_OUT)
            with progress(demonstration.total_steps(len(paths), steps)) as step:
                trained = demonstration.run(paths, output, scale, steps, seed, step)
            tell(as_json, report.document(trained), report.tables(trained))


@app.command()
def upscale(
    photo: Annotated[Path, typer.Argument(help="An image file, of any size, colour or grey, 8 or 16 bits.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The PNG file to write; PHOTO-xSCALE.png if not given.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `backstride demo` wrote; the package's own if not given.")
    ] = None,
    scale: Scale = 2,
    as_json: AsJson = False,
) -> None:
    """Enlarge an image by a trained super-resolution network."""
    target = output or Path(f"{photo.stem}-x{scale}.png")
    if target.suffix.lower() != ".png":
        refuse(f"the result is a PNG file; give --output a name that ends in .png, not {str(target)!r}")
    if target.resolve() == photo.resolve():
        refuse(f"--output {str(target)!r} is the photo itself")
    with refusals(target):
        enlarger = Enlarger(scale)
        enlarger.load(weights)
        raster = read_raster(photo)
        with progress(upscaling.total_steps(raster)) as step:
            done = upscaling.upscale(raster, photo, target, enlarger, step)
    tell(as_json, report.document(done), [report.line(done)])


def tell(as_json: bool, document: dict[str, Any], tables: Iterable[RenderableType]) -> None:
    """The report in the asked form."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        show(tables)
