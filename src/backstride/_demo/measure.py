# SPDX-License-Identifier: Apache-2.0
"""A layer's result, checked against the definition and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from backstride import nn
from backstride._demo.chain import Floats
from backstride._geometry import Geometry

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """One row of the table. Sizes are NHWC, `padding` is (before, after) for rows and columns."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    input: tuple[int, ...]
    output: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    milliseconds: float
    gflops: float
    share_of_peak: float
    largest_difference: float


def measured(geometry: Geometry, value: Floats, filter: Floats, peak: float) -> tuple[Floats, Measurement]:
    """The layer's output and its row; `peak` is in FLOP/s.

    FLOPs are those of the plain definition, 2 * N * H * W * Cin * Cout * kh * kw, whatever the kernel does.
    """
    strides = tuple(axis.stride for axis in geometry.axes)
    output_shape = geometry.shape("output")

    def layer() -> Floats:
        result: Floats = nn.conv2d_transpose(value, filter, output_shape, [1, *strides, 1])
        return result

    result = layer()
    seconds = median_seconds(layer)
    speed = 2 * prod(value.shape[:-1]) * filter.size / seconds
    return result, Measurement(
        kernel=filter.shape[:2],
        strides=strides,
        input=value.shape,
        output=result.shape,
        padding=tuple(padding(axis.input, axis.kernel, axis.stride, axis.output) for axis in geometry.axes),
        milliseconds=seconds * 1e3,
        gflops=speed / 1e9,
        share_of_peak=speed / peak,
        largest_difference=largest_difference(result, definition(value, filter, output_shape, strides)),
    )


def median_seconds(call: Callable[[], object], least: int = 5, budget: float = 0.1) -> float:
    """The median time of `call`, of at least `least` runs and more while they fit the budget."""
    times: list[float] = []
    while len(times) < least or (sum(times) < budget and len(times) < 100):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def padding(input: int, kernel: int, stride: int, output: int) -> tuple[int, int]:
    """What SAME cuts off before and after one axis; it follows from the output length."""
    total = max((input - 1) * stride + kernel - output, 0)
    return total // 2, total - total // 2


def definition(value: Floats, filter: Floats, output_shape: tuple[int, ...], strides: tuple[int, ...]) -> Doubles:
    """The transposed convolution under SAME as documented, in float64, one tap of the filter at a time.

    Written here once more, from the documentation and on NumPy alone, so that it can't share a mistake with
    the library's own geometry and kernels.
    """
    result = np.zeros(output_shape)
    value, filter = value.astype(np.float64), filter.astype(np.float64)
    for tap in np.ndindex(*filter.shape[:2]):
        rows, columns = (
            _landing(value.shape[n], filter.shape[n - 1], strides[n - 1], output_shape[n], tap[n - 1]) for n in (1, 2)
        )
        result[:, rows[1], columns[1]] += value[:, rows[0], columns[0]] @ filter[tap].T
    return result


def _landing(input: int, kernel: int, stride: int, output: int, tap: int) -> tuple[slice, slice]:
    """The inputs whose stamp puts `tap` inside the output, and where: at input * stride + tap - before."""
    shift = tap - padding(input, kernel, stride, output)[0]
    first = max(ceil(-shift / stride), 0)
    last = min((output - 1 - shift) // stride, input - 1)
    if last < first:
        return slice(0), slice(0)
    return slice(first, last + 1), slice(first * stride + shift, last * stride + shift + 1, stride)


def largest_difference(result: Floats, exact: Doubles) -> float:
    """The largest absolute difference, or NaN; by rows, as another copy of a large photograph is felt."""
    rows = zip(result.reshape(-1, *result.shape[2:]), exact.reshape(-1, *exact.shape[2:]), strict=True)
    return float(np.max([np.abs(one - other).max() for one, other in rows]))
