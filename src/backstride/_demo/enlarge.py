# SPDX-License-Identifier: Apache-2.0
"""The experiment: one photograph down and up again, and one dense layer for the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backstride._command.terminal import Step
from backstride._demo.chain import (
    Floats,
    bilinear_filter,
    bilinear_zoom,
    chain,
    grids,
    mosaic,
    normalised,
    reduced,
    with_ones,
)
from backstride._demo.measure import Measurement, measured
from backstride._geometry import Geometry, Layer

STEPS = 4  # announced by `enlarge`: three layers and SciPy

# Below 1 by more than rounding: some of the weight of such a pixel fell on the zeros outside.
FULL_WEIGHT = 1 - 1e-5


@dataclass(frozen=True)
class Agreement:
    """Differences between the chain and SciPy's bilinear zoom of the same input, in grey levels of 0..255.

    They are taken where no zeros from outside reach, which is the share `interior` of the picture; None where
    that is nowhere. `same_steps` compares with zooms by 2, 2 and 8, which are the chain in other words.
    `one_step` compares with a single zoom by 32, and there the two really differ: the bends of the first zoom
    lie between its samples, so the second one cuts across them.
    """

    interior: float
    same_steps_max: float | None
    one_step_max: float | None
    one_step_mean: float | None


@dataclass(frozen=True)
class Enlargement:
    """The images to look at, all of the photograph's size and in grey levels, and what was measured.

    `mosaic` is the chain's input with each pixel shown as its cell, `zoom` is SciPy's in the same steps.
    `cells_begin` is the (row, column) of the photograph where the cell of the first input pixel begins.
    """

    original: NDArray[np.uint8]
    mosaic: Floats
    result: Floats
    zoom: Floats
    cells_begin: tuple[int, int]
    stages: tuple[Measurement, ...]
    agreement: Agreement


def enlarge(photo: NDArray[np.uint8], peak: float, step: Step) -> Enlargement:
    """The photograph at 1/32, brought back through the chain; announces each piece by `step`."""
    layers = chain(photo.shape[:2], channels=4)
    whole = grids(layers)
    small = reduced(photo, whole)
    value, stages = with_ones(small), []
    for geometry in layers:
        step(f"{geometry.axes[0].input} to {geometry.axes[0].output} rows")
        value, row = measured(geometry, value, bilinear_filter(geometry), peak)
        stages.append(row)
    step("SciPy's zoom")
    result, zoom = normalised(value), stepwise_zoom(small, layers)
    return Enlargement(
        original=photo,
        mosaic=mosaic(small, whole),
        result=result,
        zoom=zoom,
        cells_begin=(whole[0].begin, whole[1].begin),
        stages=tuple(stages),
        agreement=agreement(result, zoom, bilinear_zoom(small, whole), value[0, ..., -1]),
    )


def stepwise_zoom(image: Floats, layers: list[Geometry]) -> Floats:
    """SciPy's bilinear zoom in the chain's three steps, each on its layer's own grid."""
    for geometry in layers:
        image = bilinear_zoom(image, grids([geometry]))
    return image


def agreement(result: Floats, same_steps: Floats, one_step: Floats, weight: Floats) -> Agreement:
    """How far the result is from both zooms where `weight`, the enlarged channel of ones, is whole."""
    interior = weight > FULL_WEIGHT
    if not interior.any():
        return Agreement(0.0, None, None, None)
    corners = np.abs(result - one_step)[interior]
    return Agreement(
        interior=float(interior.mean()),
        same_steps_max=float(np.abs(result - same_steps)[interior].max()),
        one_step_max=float(corners.max()),
        one_step_mean=float(corners.mean(dtype=np.float64)),
    )


def dense_layer(peak: float) -> Measurement:
    """A layer with enough arithmetic to show the kernel: 64x64x256 to 128x128x64 on random numbers."""
    geometry = Layer((4, 4), (2, 2), (1, 1), crop=None).resolve(1, 256, 64, (64, 64), (128, 128))
    random = np.random.default_rng(0)
    value, filter = (random.standard_normal(geometry.shape(name), np.float32) for name in ("input", "filter"))
    return measured(geometry, value, filter, peak)[1]
