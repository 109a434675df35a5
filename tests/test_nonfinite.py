# SPDX-License-Identifier: Apache-2.0
"""NaN and Inf appear where the definition's own terms put them, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import Call, Case, given
from hypothesis import given as over
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from backstride import _native, nn
from backstride._backends import numpy as backend
from backstride._geometry import Geometry

FLOAT32 = [name for name, _, element, _, _ in _native.kernels() if element == "float32"]
FLOAT64 = [name for name, _, element, _, _ in _native.kernels() if element == "float64"]
DTYPES = {np.dtype("f4"): ["", *FLOAT32], np.dtype("f8"): ["", *FLOAT64]}
# 16-bit floats are widened and rounded by each instruction set in its own way.
LAST = list({isa: name for name, isa, element, _, _ in _native.kernels() if element == "float32"}.values())
# A matrix unit takes bfloat16 as it is.
OWN = [name for name, _, element, _, _ in _native.kernels() if element == "bfloat16"]
DTYPES |= {
    np.dtype("f2"): ["", *LAST],
    np.dtype(ml_dtypes.bfloat16): ["", *(name for name in LAST if "_matrix_" not in name), *OWN],
}

# Products with these are NaN or infinite, and their signs cancel to NaN; zero times infinity is NaN too.
VALUES = [np.nan, np.inf, -np.inf]

# The reference sums a long line once per placement; the long cases add nothing here.
GEOMETRIES = [case for case in cases.GEOMETRIES if not str(case).startswith("1d-long")]


def placements(shape: tuple[int, ...]) -> Iterator[list[tuple[int, float]]]:
    """Which elements, by flat index, become what: the first, the last, some, and all."""
    size = int(np.prod(shape))
    middle = np.random.default_rng(size).integers(size, size=3)
    yield [(0, np.nan)]
    yield [(size - 1, np.inf)]
    yield [(int(where), value) for where, value in zip(middle, VALUES, strict=True)]
    yield [(where, np.inf) for where in range(size)]


def small(geometry: Geometry, operand: str) -> np.ndarray:
    """Small integers with zeros among them."""
    return cases.integers(geometry, operand, np.float64)


def placed(array: np.ndarray, placement: list[tuple[int, float]]) -> np.ndarray:
    result = array.copy()
    for where, value in placement:
        result.flat[where] = value
    return result


def check(wrt: str, geometry: Geometry, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Every kernel of every dtype agrees with the definition; returns what that is."""
    want = reference.derivative(wrt, first, second, geometry)
    for dtype, kernels in DTYPES.items():
        arrays = first.astype(dtype), second.astype(dtype)
        for kernel in kernels:
            got = backend.derivative(wrt, geometry, *arrays, kernel).astype(np.float64)
            rounded = reference.narrow(want, dtype).astype(np.float64)
            if "_winograd6_" in kernel:  # whose numbers are not exact, not even of integers
                with np.errstate(invalid="ignore"):  # of infinities
                    near = abs(got - rounded) <= 0.25 + 2 * float(ml_dtypes.finfo(dtype).eps) * abs(rounded)
                got = np.where(near, rounded, got)
            assert_array_equal(got, rounded, f"{wrt} {dtype} {kernel}")
    return want


@pytest.mark.parametrize("wrt", cases.OPERANDS)
@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_nonfinite_values_stay_with_their_terms(case: Case, wrt: str) -> None:
    arrays = {name: small(case.geometry, name) for name in given(wrt)}
    for name, array in arrays.items():
        for placement in placements(array.shape):
            check(wrt, case.geometry, *(arrays | {name: placed(array, placement)}).values())


@pytest.mark.parametrize("wrt", cases.OPERANDS)
@pytest.mark.parametrize("case", cases.SELECTED, ids=str)
def test_channels_first(case: Case, wrt: str) -> None:
    geometry = case.channels_first.geometry
    arrays = {name: small(geometry, name) for name in given(wrt)}
    for name, array in arrays.items():
        for placement in placements(array.shape):
            check(wrt, geometry, *(arrays | {name: placed(array, placement)}).values())


@pytest.mark.parametrize("case", cases.EDGES, ids=str)
def test_infinite_filter_shows_which_cells_have_terms(case: Case) -> None:
    """Padding is multiplied by nothing: with ones as input, a cell is infinite if any term reaches it, else zero."""
    x = np.ones(case.geometry.shape("input"))
    w = np.full(case.geometry.shape("filter"), np.inf)
    want = check("output", case.geometry, x, w)
    reached = reference.derivative("output", x, np.ones_like(w), case.geometry) > 0
    assert_array_equal(want, np.where(reached, np.inf, 0))


@over(geometry=cases.geometries(), data=st.data())
def test_any_geometry(geometry: Geometry, data: Any) -> None:
    wrt = data.draw(st.sampled_from(cases.OPERANDS))
    arrays = [small(geometry, name) for name in given(wrt)]
    for index, array in enumerate(arrays):
        where = st.integers(0, array.size - 1)
        placement = data.draw(st.lists(st.tuples(where, st.sampled_from(VALUES)), max_size=4))
        arrays[index] = placed(array, placement)
    check(wrt, geometry, *arrays)


@over(call=cases.calls(ranks=(2,)), data=st.data())
def test_public_functions(call: Call, data: Any) -> None:
    """With the crops and lengths that the functions derive."""
    x, w, g = (small(call.geometry, name) for name in cases.OPERANDS)
    w = placed(w, [(data.draw(st.integers(0, w.size - 1)), data.draw(st.sampled_from(VALUES)))])
    window = {"strides": call.strides, "padding": call.padding, "dilations": call.dilations}
    window |= {"data_format": call.data_format}
    got = nn.conv2d_transpose(x, w, call.output_shape, **window)
    assert_array_equal(got, reference.derivative("output", x, w, call.geometry))
    assert_array_equal(nn.conv2d(g, w, **window), reference.derivative("input", w, g, call.geometry))
    g = placed(g, [(data.draw(st.integers(0, g.size - 1)), np.nan)])
    got = nn.conv2d_backprop_filter(g, w.shape, x, **window)
    assert_array_equal(got, reference.derivative("filter", x, g, call.geometry))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_sums_beyond_the_largest_number_are_infinite(dtype: np.dtype) -> None:
    case = replace(cases.SELECTED[0])
    largest = float(ml_dtypes.finfo(dtype).max)
    for wrt in cases.OPERANDS:
        first, second = (np.full(case.geometry.shape(name), largest, dtype) for name in given(wrt))
        got = backend.derivative(wrt, case.geometry, first, second)
        reached = reference.derivative(wrt, *(np.ones(array.shape) for array in (first, second)), case.geometry) > 0
        assert_array_equal(got.astype(np.float64), np.where(reached, np.inf, 0))
