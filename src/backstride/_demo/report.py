# SPDX-License-Identifier: Apache-2.0
"""What the demo says: one JSON document for machines, tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from backstride._demo.enlarge import Agreement, Enlargement
from backstride._demo.measure import Measurement


@dataclass(frozen=True)
class PhotoReport:
    """One photograph's part of the report: what is left to say once its picture is written."""

    photo: str
    size: tuple[int, ...]
    picture: str
    cells_begin: tuple[int, int]
    stages: tuple[Measurement, ...]
    agreement: Agreement


@dataclass(frozen=True)
class Report:
    """Everything that one run of the demo found."""

    threads: int
    peak_gflops: float
    photos: tuple[PhotoReport, ...]
    dense_layer: Measurement


def photo_report(photo: Path, picture: Path, enlargement: Enlargement) -> PhotoReport:
    """The numbers without the images."""
    return PhotoReport(
        photo=str(photo),
        size=enlargement.original.shape[:2],
        picture=str(picture),
        cells_begin=enlargement.cells_begin,
        stages=enlargement.stages,
        agreement=enlargement.agreement,
    )


def document(report: Report) -> dict[str, Any]:
    """The report as JSON's own types."""
    return asdict(report)


def tables(report: Report) -> Iterable[RenderableType]:
    """A table for each photograph, then one for the dense layer."""
    for photo in report.photos:
        title = f"{Path(photo.photo).name} to {photo.picture}"
        yield _table(title, photo.stages, _agreement(photo.agreement))
    yield _table("A dense layer on random numbers", [report.dense_layer], _notes(report))


def _agreement(agreement: Agreement) -> str:
    if agreement.same_steps_max is None:
        return "The photo is too small to compare with SciPy: zeros from outside reach every pixel."
    return (
        "Largest difference from SciPy's bilinear zoom in the same three steps: "
        f"{agreement.same_steps_max:.1e} of 255 grey levels, in the {agreement.interior:.0%} of the picture "
        f"that no zeros from outside reach. From its zoom in one step: {agreement.one_step_max:.1f}, mean "
        f"{agreement.one_step_mean:.1f}, because three linear steps round the corners of one."
    )


def _notes(report: Report) -> str:
    return (
        f"The FMA peak of this run is {report.peak_gflops:.0f} GFLOP/s with {report.threads} threads. "
        "GFLOP/s count the plain definition, 2*N*H*W*Cin*Cout*kh*kw; the last column is the largest "
        "difference from a float64 evaluation of it. A photo's layers have 4 channels, RGB and ones, with "
        "next to no arithmetic in them: their time goes into the call and the memory. Only the dense layer "
        "shows the kernel."
    )


def _table(title: str, rows: Iterable[Measurement], caption: str) -> Table:
    # Text rather than str, so that brackets in a file's name are not markup.
    table = Table(
        title=Text(title, style="bold"),
        caption=Text(caption, style="dim"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("layer")
    table.add_column("input")
    table.add_column("output")
    table.add_column("pad rows, cols\n(before/after)")
    for heading in ("ms", "GFLOP/s", "of\npeak", "largest\ndifference"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Measurement) -> tuple[str, ...]:
    return (
        f"k{row.kernel[0]} s{row.strides[0]}",
        _size(row.input[1:]),
        _size(row.output[1:]),
        ", ".join(f"{before}/{after}" for before, after in row.padding),
        f"{row.milliseconds:.3g}",
        f"{row.gflops:.3g}",
        f"{row.share_of_peak:.1%}",
        f"{row.largest_difference:.1e}" if row.largest_difference else "0",
    )


def _size(size: Iterable[int]) -> str:
    return "x".join(map(str, size))
