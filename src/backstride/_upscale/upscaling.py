# SPDX-License-Identifier: Apache-2.0
"""The user's own image, enlarged from file to file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import backstride
from backstride._command import png
from backstride._command.photo import Raster
from backstride._command.terminal import Step
from backstride._files import whole_file
from backstride._upscale import tiles
from backstride._upscale.enlargement import HALO, Enlarger


@dataclass(frozen=True)
class Upscaled:
    """What became of an image; the size is height, width and channels."""

    photo: str
    output: str
    scale: int
    size: tuple[int, ...]
    bits: int
    seconds: float
    threads: int


def upscale(raster: Raster, photo: Path, output: Path, enlarger: Enlarger, step: Step) -> Upscaled:
    """Writes the enlarged image as a PNG file; announces each band of rows."""
    begin, scale = time.perf_counter(), enlarger.scale
    height, width, channels = raster.levels.shape
    size, bits = (height * scale, width * scale, channels), 8 * raster.levels.itemsize
    with whole_file(output) as file:
        writer = png.Writer(file, size, bits, raster.profile)
        for band in tiles.bands(enlarger.levels, raster.levels, scale, HALO):
            step(f"enlarging {photo.name}")
            writer.rows(band)
        writer.close()
    seconds = time.perf_counter() - begin
    return Upscaled(str(photo), str(output), scale, size, bits, seconds, backstride.get_num_threads())


def total_steps(raster: Raster) -> int:
    """How many steps `upscale` announces."""
    return ceil(len(raster.levels) / tiles.TILE)
