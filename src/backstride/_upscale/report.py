# SPDX-License-Identifier: Apache-2.0
"""What the demo and `upscale` say: one JSON document for machines, tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from backstride._upscale.demonstration import Report
from backstride._upscale.quality import Quality
from backstride._upscale.upscaling import Upscaled


def document(report: Report | Upscaled) -> dict[str, Any]:
    """The report as JSON's own types, of which none is infinite."""
    return {name: _finite(value) for name, value in asdict(report).items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def tables(report: Report) -> Iterable[RenderableType]:
    """A table with a row for each photograph and one for the mean, and where the files are."""
    yield _table(report)
    yield Text(f"weights: {report.weights}")
    for photo in report.photos:
        yield Text(f"picture: {photo.picture}")


def line(report: Upscaled) -> Text:
    """Where the result is."""
    height, width, _ = report.size
    return Text(f"{report.output}: {height}x{width} pixels of {report.bits} bits, in {report.seconds:.1f} s")


def _table(report: Report) -> Table:
    found = Table(
        title=Text(f"Enlarged by {report.scale} from an antialiased reduction", style="bold"),
        caption=Text(_caption(report), style="dim"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    found.add_column("photo")
    for heading in ("bicubic", "cubic spline", "backstride"):
        found.add_column(f"{heading}\nPSNR / SSIM", justify="right")
    found.add_column("over bicubic\ndB", justify="right")
    for photo in report.photos:
        scores = (_score(score) for score in (photo.bicubic, photo.spline, photo.ours))
        found.add_row(Text(Path(photo.photo).name), *scores, f"{photo.gain:+.2f}")
    found.add_row("mean", "", "", "", f"{fmean(photo.gain for photo in report.photos):+.2f}")
    return found


def _caption(report: Report) -> str:
    return (
        f"PSNR in dB and SSIM of the luma, {report.scale} pixels cut from the border. "
        f"Trained for {report.steps} steps in {report.seconds:.0f} s, seed {report.seed}."
    )


def _score(score: Quality) -> str:
    return f"{score.psnr:.2f} / {score.ssim:.4f}"
