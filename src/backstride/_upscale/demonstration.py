# SPDX-License-Identifier: Apache-2.0
"""Train, measure on photographs that were not trained on, and show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import fmean

import numpy as np

from backstride._command.files import FileError, paths_for, write_png
from backstride._command.photo import read_photo
from backstride._command.terminal import Step
from backstride._upscale import cubic, training
from backstride._upscale.cubic import Floats
from backstride._upscale.enlargement import HALO, Enlarger
from backstride._upscale.photographs import Pair, Patches, pair, read_luma, resized
from backstride._upscale.picture import side_by_side
from backstride._upscale.quality import WINDOW, Quality, psnr, quality, spline
from backstride._upscale.tiles import bands

EVERY = 100  # steps between measurements while training


@dataclass(frozen=True)
class Comparison:
    """A photograph, and how close each enlargement of its reduction comes to it."""

    photo: str
    picture: str
    size: tuple[int, ...]
    bicubic: Quality
    spline: Quality
    ours: Quality

    @property
    def gain(self) -> float:
        """Over bicubic, in dB."""
        return self.ours.psnr - self.bicubic.psnr


@dataclass(frozen=True)
class Report:
    """What one run of the demo found."""

    scale: int
    steps: int
    seed: int
    seconds: float
    weights: str
    photos: tuple[Comparison, ...]


def run(photos: list[Path], output: Path, scale: int, steps: int, seed: int, step: Step) -> Report:
    """Trains, measures on `photos`, writes the weights and a picture of each photo.

    All photos are read once before any work is done or written, so that a bad one among many is known early.
    """
    step("reading photographs")
    pairs = [read_pair(path, scale) for path in photos]
    patches = Patches(scale)
    output.mkdir(parents=True, exist_ok=True)
    enlarger, begin = Enlarger(scale, seed), time.perf_counter()
    training.train(enlarger.store, enlarger.network, patches.batches(seed), steps, watch(enlarger, pairs, step))
    seconds, weights = time.perf_counter() - begin, output / f"x{scale}.npz"
    enlarger.store.save(weights)
    comparisons: list[Comparison] = []
    for photo, known, picture in zip(photos, pairs, paths_for(photos, output, f"-x{scale}"), strict=True):
        step(f"measuring {photo.name}")
        comparisons.append(compare(photo, known, enlarger, picture))
    return Report(scale, steps, seed, seconds, str(weights), tuple(comparisons))


def total_steps(photos: int, steps: int) -> int:
    """How many steps `run` announces."""
    return 1 + steps + photos


def read_pair(path: Path, scale: int) -> Pair:
    """The photograph's luma and its reduction, if it is large enough to compare."""
    luma, least = read_luma(path), WINDOW + 3 * scale
    if min(luma.shape) < least:
        raise FileError(f"cannot measure on {str(path)!r}: it is smaller than {least}x{least} pixels")
    return pair(luma, scale)


def watch(enlarger: Enlarger, pairs: list[Pair], step: Step) -> training.After:
    """What announces each step with its loss and, measured now and then, the mean PSNR on the photographs."""
    steps, mean_psnr = count(), 0.0

    def after(loss: float) -> None:
        nonlocal mean_psnr
        if next(steps) % EVERY == 0:
            mean_psnr = fmean(psnr(enlarged(known, enlarger), known.truth, enlarger.scale) for known in pairs)
        step(f"loss {loss:.4f}, PSNR {mean_psnr:.2f} dB")

    return after


def enlarged(known: Pair, enlarger: Enlarger) -> Floats:
    """The reduction's luma, enlarged."""
    return np.concatenate([*bands(enlarger.floats, known.small[..., None], enlarger.scale, HALO)])[..., 0]


def compare(photo: Path, known: Pair, enlarger: Enlarger, picture: Path) -> Comparison:
    """Measures on luma; the picture shows the same in colour."""
    scale, size = enlarger.scale, known.truth.shape
    by_cubic, by_spline, ours = (
        quality(image, known.truth, border=scale)
        for image in (
            cubic.enlarged(known.small[None, ..., None], scale)[0, ..., 0],
            spline(known.small, size),
            enlarged(known, enlarger),
        )
    )
    truth = read_photo(photo)[: size[0], : size[1]]
    small = resized(truth, known.small.shape)
    large = np.concatenate([*bands(enlarger.levels, small, scale, HALO)])
    write_png(side_by_side(truth, small, large, (by_cubic, ours)), picture)
    return Comparison(str(photo), str(picture), size, by_cubic, by_spline, ours)
