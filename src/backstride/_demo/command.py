# SPDX-License-Identifier: Apache-2.0
"""The typer app: arguments, progress, files and exit codes around `enlarge`."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

import backstride
from backstride._demo.enlarge import STEPS, Step, dense_layer, enlarge
from backstride._demo.photo import PhotoError, read_photo, sample_photos
from backstride._demo.picture import side_by_side, write_png
from backstride._demo.report import PhotoReport, Report, document, photo_report, tables
from backstride._native import fma_peak

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


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
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PHOTO", help="Image files; without any, photos from scikit-image."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the pictures.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, no tables.")] = False,
) -> None:
    """Reduce photographs to 1/32, enlarge them again through FCN-8s's upsampling, and measure it.

    Writes PHOTO-backstride.png for each: the original, the input, the result, and SciPy's bilinear zoom.
    """
    paths = photos or sample_photos()
    try:
        with progress(total_steps(len(paths))) as step:
            report = run(paths, output, step)
    except PhotoError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"cannot write to {str(output)!r}: {error.strerror or error}")
    except MemoryError:
        refuse("not enough memory for a photo of this size")
    if as_json:
        typer.echo(json.dumps(document(report), indent=2, allow_nan=False))
    else:
        show(report)


def run(paths: list[Path], output: Path, step: Step) -> Report:
    """Measures the machine, then every photo, then the dense layer; writes the pictures on the way.

    All photos are read once before any work is done or written, so that a bad one among many is known early.
    """
    for path in paths:
        step(f"checking {path.name}")
        read_photo(path)
    output.mkdir(parents=True, exist_ok=True)
    step("FMA peak")
    peak = max(fma_peak() for _ in range(3))
    reports: list[PhotoReport] = []
    for path, picture in zip(paths, picture_paths(paths, output), strict=True):
        step(f"reading {path.name}")
        enlargement = enlarge(read_photo(path), peak, step)
        write_png(side_by_side(enlargement), picture)
        reports.append(photo_report(path, picture, enlargement))
    step("dense layer")
    return Report(backstride.get_num_threads(), peak / 1e9, tuple(reports), dense_layer(peak))


def total_steps(photos: int) -> int:
    """How many steps `run` announces."""
    return photos * (2 + STEPS) + 2


def picture_paths(paths: list[Path], output: Path) -> list[Path]:
    """A name in `output` for each photo's picture, none of them another's or that of a photo."""
    taken = {path.resolve() for path in paths}
    pictures: list[Path] = []
    for path in paths:
        names = (f"{path.stem}-backstride{'' if n == 1 else f'-{n}'}.png" for n in count(1))
        picture = next(output / name for name in names if (output / name).resolve() not in taken)
        taken.add(picture.resolve())
        pictures.append(picture)
    return pictures


def show(report: Report) -> None:
    """Prints the tables; where no terminal says how wide it is, at the width they need."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what stdout can't encode
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    for table in tables(report):
        console.print(table)


def refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    typer.echo(f"backstride: {message}", err=True)
    raise typer.Exit(2)


@contextmanager
def progress(total: int, delay: float = 1.0) -> Iterator[Step]:
    """Yields what announces the next of `total` steps on a bar.

    The bar comes up on stderr after `delay` seconds, and only where a person looks on: a log gets nothing. It
    vanishes at the end.
    """
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task, steps = bar.add_task("", total=total), count()
    timer = threading.Timer(delay, bar.start)
    timer.start()
    try:
        yield lambda what: bar.update(task, description=escape(what), completed=next(steps))
    finally:
        timer.cancel()
        timer.join()
        if bar.live.is_started:
            bar.stop()
