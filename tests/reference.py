# SPDX-License-Identifier: Apache-2.0
"""The definition of a transposed convolution and of its gradients, as loops that nobody can doubt.

Every input cell `i` and filter tap `k` meet one output cell, `i * stride + k * dilation - pad` along each axis; where
that cell exists, the three make a term, and nothing else does:

    output[..., o] += input[..., c] * filter[..., o, c]        and likewise for the two gradients.

Floats are computed in float64 and integers modulo 2**64, of which narrower wrapping integers are the low bits. So
results are exact for integers, NaN and Inf stand where a term of the definition puts them, and nothing of the
library is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

Cell = tuple[int, ...]


def terms(axes: Any) -> Iterator[tuple[Cell, Cell, Cell]]:
    """The input cell, tap and output cell of every term. An axis has the names of the definition."""
    for cell in product(*(range(axis.input) for axis in axes)):
        for tap in product(*(range(axis.kernel) for axis in axes)):
            place = tuple(
                i * axis.stride + k * axis.dilation - axis.pad for i, k, axis in zip(cell, tap, axes, strict=True)
            )
            if all(0 <= y < axis.output for y, axis in zip(place, axes, strict=True)):
                yield cell, tap, place


def wide(array: np.ndarray) -> np.ndarray:
    """The elements as the loops compute with them."""
    return np.asarray(array).astype(np.uint64 if array.dtype.kind in "iu" else np.float64)


def narrow(array: np.ndarray, dtype: Any) -> np.ndarray:
    """The elements in the dtype of the result; integers keep their low bits."""
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def channels_last(array: np.ndarray, first: bool) -> np.ndarray:
    return np.moveaxis(array, 1, -1) if first else array


def channels_back(array: np.ndarray, first: bool) -> np.ndarray:
    return np.moveaxis(array, -1, 1) if first else array


def shares(channels: int, groups: int) -> list[slice]:
    """The channels of each group."""
    size = channels // groups
    return [slice(n * size, (n + 1) * size) for n in range(groups)]


def wide_output(x: np.ndarray, w: np.ndarray, geometry: Any) -> np.ndarray:
    """The transposed convolution."""
    x, w = wide(channels_last(x, geometry.channels_first)), wide(w)
    lengths = [axis.output for axis in geometry.axes]
    y = np.zeros((geometry.batch, *lengths, geometry.out_channels), x.dtype)
    groups = list(zip(shares(x.shape[-1], geometry.groups), shares(y.shape[-1], geometry.groups), strict=True))
    with np.errstate(all="ignore"):
        for cell, tap, place in terms(geometry.axes):
            for c, o in groups:
                products = x[:, *cell, None, c] * w[*tap, :, c]
                y[:, *place, o] += products.sum(axis=2)
    return channels_back(y, geometry.channels_first)


def wide_input(w: np.ndarray, g: np.ndarray, geometry: Any) -> np.ndarray:
    """The gradient by the input: a convolution of `g`."""
    w, g = wide(w), wide(channels_last(g, geometry.channels_first))
    lengths = [axis.input for axis in geometry.axes]
    x = np.zeros((geometry.batch, *lengths, geometry.in_channels), g.dtype)
    groups = list(zip(shares(x.shape[-1], geometry.groups), shares(g.shape[-1], geometry.groups), strict=True))
    with np.errstate(all="ignore"):
        for cell, tap, place in terms(geometry.axes):
            for c, o in groups:
                products = g[:, *place, o, None] * w[*tap, :, c]
                x[:, *cell, c] += products.sum(axis=1)
    return channels_back(x, geometry.channels_first)


def wide_filter(x: np.ndarray, g: np.ndarray, geometry: Any) -> np.ndarray:
    """The gradient by the filter."""
    x, g = (wide(channels_last(array, geometry.channels_first)) for array in (x, g))
    lengths = [axis.kernel for axis in geometry.axes]
    w = np.zeros((*lengths, geometry.out_channels // geometry.groups, geometry.in_channels), x.dtype)
    groups = list(zip(shares(x.shape[-1], geometry.groups), shares(g.shape[-1], geometry.groups), strict=True))
    with np.errstate(all="ignore"):
        for cell, tap, place in terms(geometry.axes):
            for c, o in groups:
                products = g[:, *place, o, None] * x[:, *cell, None, c]
                w[*tap, :, c] += products.sum(axis=0)
    return w


def wide_derivative(wrt: str, first: np.ndarray, second: np.ndarray, geometry: Any) -> np.ndarray:
    """The derivative by `wrt`, of the two other operands in the order input, filter, output; not yet rounded."""
    return {"output": wide_output, "input": wide_input, "filter": wide_filter}[wrt](first, second, geometry)


def derivative(wrt: str, first: np.ndarray, second: np.ndarray, geometry: Any) -> np.ndarray:
    """`wide_derivative` in the dtype of its operands."""
    return narrow(wide_derivative(wrt, first, second, geometry), first.dtype)


def forward_length(output: int, kernel: int, stride: int, dilation: int, crop: tuple[int, int] | None) -> int:
    """How many windows a forward convolution lays over a line of `output` cells; a crop of None is SAME."""
    if crop is None:
        return len(range(0, output, stride))
    extent = (kernel - 1) * dilation + 1
    cells = range(-crop[0], output + crop[1])
    return sum(window + extent <= cells.stop for window in cells[::stride])


def legal_lengths(input: int, kernel: int, stride: int, dilation: int, crop: tuple[int, int] | None) -> list[int]:
    """The output lengths over which a forward convolution would lay `input` windows."""
    longest = (input + 1) * stride + kernel * dilation
    return [n for n in range(longest + 1) if forward_length(n, kernel, stride, dilation, crop) == input]


def pad_before(input: int, output: int, kernel: int, stride: int, dilation: int, crop: tuple[int, int] | None) -> int:
    """The cells cut off before the first; for SAME half of all that are cut off, the odd one being cut after."""
    if crop is not None:
        return crop[0]
    full = (input - 1) * stride + (kernel - 1) * dilation + 1
    return max(full - output, 0) // 2
