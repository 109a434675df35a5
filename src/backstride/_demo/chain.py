# SPDX-License-Identifier: Apache-2.0
"""The upsampling chain of FCN-8s, and the grid on which its result lies.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", bring scores up from
1/32 of the photograph's size by transposed convolutions with bilinear kernels: twice by 2, then by 8. Under
SAME a size that is no multiple of 32 is reached by odd output shapes on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from backstride._geometry import Axis, Geometry, Layer

Floats = NDArray[np.float32]

LAYERS = tuple(Layer((k, k), (s, s), (1, 1), crop=None) for k, s in ((4, 2), (4, 2), (16, 8)))


def chain(size: Sequence[int], channels: int) -> list[Geometry]:
    """The layers, first to last, sized backwards from the last output: each length is ceil(next / stride)."""
    geometries: list[Geometry] = []
    outputs = list(size)
    for layer in reversed(LAYERS):
        inputs = [layer.input(n, output) for n, output in enumerate(outputs)]
        geometries.insert(0, layer.resolve(1, channels, channels, inputs, outputs))
        outputs = inputs
    return geometries


def bilinear_filter(geometry: Geometry) -> Floats:
    """`[kh, kw, C, C]`: each channel to itself by the tent of a bilinear zoom. Exact in float32."""
    rows, columns = (_tent(axis)[:, None] for axis in geometry.axes)
    channels = np.eye(geometry.in_channels, dtype=np.float32)
    filter: Floats = (rows @ columns.T)[..., None, None] * channels
    return filter


def _tent(axis: Axis) -> Floats:
    distance = np.abs(np.arange(axis.kernel) - (axis.kernel - 1) / 2)
    tent: Floats = (1 - distance / axis.stride).astype(np.float32)
    return tent


def with_ones(image: Floats) -> Floats:
    """The image as a batch of one, with a last channel of ones for `normalised`."""
    return np.concatenate([image, np.ones_like(image[..., :1])], axis=-1)[None]


def normalised(value: Floats) -> Floats:
    """The image that `with_ones` made and the chain enlarged, divided by its own channel of ones.

    Outside the image a transposed convolution has nothing, which acts as black: the border of every plain
    result is too dark. What became of the ones is exactly the weight that each output pixel did receive, so
    dividing by it (overlap normalisation) leaves the inside alone, where that weight is 1, and repairs the
    border. The weight is never 0, because a bilinear kernel is positive wherever it reaches.
    """
    return value[0, ..., :-1] / value[0, ..., -1:]


@dataclass(frozen=True)
class Grid:
    """One axis of an enlargement: input pixel i is the `cell` output pixels from `begin + i * cell` on."""

    input: int
    output: int
    cell: int
    begin: int

    @property
    def cells(self) -> NDArray[np.intp]:
        """The output pixels of all cells in turn; where a cell hangs over, the pixel at the border again."""
        return np.clip(np.arange(self.input * self.cell) + self.begin, 0, self.output - 1)

    @property
    def owners(self) -> NDArray[np.intp]:
        """The input pixel in whose cell each output pixel lies."""
        return np.clip((np.arange(self.output) - self.begin) // self.cell, 0, self.input - 1)


def grid(axes: Sequence[Axis]) -> Grid:
    """The grid of one spatial axis through consecutive layers.

    A layer puts the centre of input pixel i at i * stride + (kernel - 1) / 2 - pad. Under SAME the pad grows
    as the output length falls short of input * stride, and the grid then is shifted by whole pixels against
    that of an ordinary zoom, whose first cell begins at 0.
    """
    centre = 0.0
    for axis in axes:
        centre = centre * axis.stride + (axis.kernel - 1) / 2 - axis.pad
    cell = prod(axis.stride for axis in axes)
    return Grid(axes[0].input, axes[-1].output, cell, begin=round(centre - (cell - 1) / 2))


def grids(layers: Iterable[Geometry]) -> tuple[Grid, Grid]:
    """The grids of rows and columns."""
    rows, columns = zip(*(geometry.axes for geometry in layers), strict=True)
    return grid(rows), grid(columns)


def reduced(photo: NDArray[np.uint8], onto: tuple[Grid, Grid]) -> Floats:
    """The photograph averaged over the cells of each input pixel."""
    rows, columns = onto
    tall = photo[rows.cells].reshape(rows.input, rows.cell, *photo.shape[1:])
    wide = tall.mean(axis=1, dtype=np.float32)[:, columns.cells]
    means: Floats = wide.reshape(rows.input, columns.input, columns.cell, -1).mean(axis=2)
    return means


def mosaic(image: Floats, onto: tuple[Grid, Grid]) -> Floats:
    """The image enlarged with nearest neighbours: each pixel fills its own cells."""
    rows, columns = onto
    return image[rows.owners][:, columns.owners]


def bilinear_zoom(image: Floats, onto: tuple[Grid, Grid]) -> Floats:
    """SciPy's bilinear interpolation between the centres of the cells, the border's values kept beyond it."""
    scale = [1 / axis.cell for axis in onto]
    offset = [-(axis.begin + (axis.cell - 1) / 2) / axis.cell for axis in onto]
    shape = (*(axis.output for axis in onto), image.shape[-1])
    zoomed: Floats = ndimage.affine_transform(image, [*scale, 1], [*offset, 0], shape, order=1, mode="nearest")
    return zoomed
