# SPDX-License-Identifier: Apache-2.0
"""One run of the chain over all photographs, its pictures, and the dense layer."""

from __future__ import annotations

from pathlib import Path

import backstride
from backstride._command.files import paths_for, write_png
from backstride._command.photo import read_photo
from backstride._command.terminal import Step
from backstride._demo.enlarge import STEPS, dense_layer, enlarge
from backstride._demo.picture import side_by_side
from backstride._demo.report import PhotoReport, Report, photo_report
from backstride._native import fma_peak

# The 300 x 451 of the cat make the chain's middle stages odd; the 512 x 512 of the astronaut keep them even.
SAMPLES = ("chelsea.png", "astronaut.png")


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
    for path, picture in zip(paths, paths_for(paths, output, "-backstride"), strict=True):
        step(f"reading {path.name}")
        enlargement = enlarge(read_photo(path), peak, step)
        write_png(side_by_side(enlargement), picture)
        reports.append(photo_report(path, picture, enlargement))
    step("dense layer")
    return Report(backstride.get_num_threads(), peak / 1e9, tuple(reports), dense_layer(peak))


def total_steps(photos: int) -> int:
    """How many steps `run` announces."""
    return photos * (2 + STEPS) + 2
