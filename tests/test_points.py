# SPDX-License-Identifier: Apache-2.0
"""Winograd's algorithm by a matrix unit, on machines that have one; see test_kernels.py and test_nonfinite.py, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import Case, case, given, same
from conftest import Python
from numpy.testing import assert_array_equal
from test_matrix import (
    SIGNALS,
    assert_all_may_be_nan,
    assert_infinity_times_subnormal_is_infinite,
    assert_nonfinite_values_stay,
    assert_small_errors,
    reals,
)

import backstride
from backstride import _native
from backstride._backends import numpy as backend
from backstride._geometry import Geometry
from backstride._plan import plan

KERNELS = [name for name, *_ in _native.kernels() if name.endswith(("_winograd3_amx", "_winograd4_amx"))]
pytestmark = pytest.mark.parametrize("kernel", KERNELS)

# Depths of one chunk, of several, of padded ones, and one that is cut; streams together, and one in parts; few tiles,
# rounds that each thread makes for itself, and rounds that all make; chunks of taps.
LARGE = [
    case("k4-s2", same(40, 4, 2, 80), same(41, 4, 2, 82), channels=(96, 64), batch=2),
    case("k5-s2", same(16, 5, 2, 32), same(17, 5, 2, 34), channels=(70, 33), batch=2),
    case("k3-s1", same(24, 3, 1, 24), same(40, 3, 1, 40), channels=(32, 16), batch=1),
    case("k3-s2", same(9, 3, 2, 18), same(9, 3, 2, 18), channels=(128, 40), batch=1),
    case("k16-s8", same(900, 16, 8, 7200), channels=(64, 48), batch=1),
    case("k25-s4", same(70, 25, 4, 280), channels=(100, 20), batch=3),
    case("groups", same(20, 4, 2, 40), channels=(64, 96), batch=2, groups=4),
    case("depth", same(20, 4, 2, 40), channels=(6000, 16), batch=9),
    case("columns", same(8, 4, 2, 16), same(9, 4, 2, 18), channels=(40, 800), batch=1),
]
WRT = ["output", "input"]


@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize("wrt", WRT)
def test_it_computes_them(wrt: Any, large: Case, kernel: str) -> None:
    assert plan(wrt, large.geometry, "float32", "default", kernel=kernel).kernel == kernel
    assert plan("filter", large.geometry, "float32", "default", kernel=kernel).kernel != kernel
    assert plan(wrt, large.geometry, "float32", "default", isa="avx512", algorithm="winograd4").kernel != kernel


def test_it_is_taken_where_it_pays_unless_precision_is_strict(kernel: str) -> None:
    geometry = case("", same(32, 5, 2, 64), same(32, 5, 2, 64), channels=(256, 128), batch=4).geometry
    for wrt in WRT:
        taken = plan(wrt, geometry, "float32", "default", packed=True)
        assert taken.algorithm == "winograd4"
        assert taken.kernel == "f32_winograd4_amx"
        assert plan(wrt, geometry, "float32", "strict").algorithm == "tiles"
    assert plan("output", geometry, "bfloat16", "default", packed=True).algorithm == "matrix"


@pytest.mark.parametrize("distribution", ["normal", "non-negative", "heavy-tailed", "offset"])
@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize("wrt", WRT)
def test_errors_are_within_the_bound_of_default(wrt: str, large: Case, distribution: str, kernel: str) -> None:
    assert_small_errors(wrt, large.geometry, kernel, distribution)


@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize("wrt", WRT)
def test_bits_do_not_depend_on_threads_memory_or_layout(wrt: Any, large: Case, kernel: str) -> None:
    operands = reals(large.geometry, kernel)
    arrays = [operands[name] for name in given(wrt)]
    first = replace(large.geometry, channels_first=True)
    turned = [
        array if name == "filter" else np.moveaxis(array, -1, 1).copy()
        for name, array in zip(given(wrt), arrays, strict=True)
    ]

    def computed(geometry: Geometry, arrays: list[np.ndarray], workspace: int) -> np.ndarray:
        algorithm = kernel.split("_")[1]
        sized = plan(wrt, geometry, "float32", "default", algorithm=algorithm, workspace=workspace)
        assert sized.kernel == kernel
        result = np.empty(geometry.shape(wrt), np.float32)
        sized.run(*arrays, result)
        return np.moveaxis(result, 1, -1).copy() if geometry.channels_first else result

    threads, found = backstride.get_num_threads(), []
    try:
        for count in (1, 2, 16):
            backstride.set_num_threads(count)
            for workspace in (64 << 20, 1 << 20, 1 << 10):
                found.append(computed(large.geometry, arrays, workspace))
                found.append(computed(first, turned, workspace))
    finally:
        backstride.set_num_threads(threads)
    assert len({each.tobytes() for each in found}) == 1


@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize(("wrt", "name"), [("output", "input"), ("output", "filter"), ("input", "output")])
def test_nonfinite_values_stay_with_their_terms(wrt: str, name: str, large: Case, kernel: str) -> None:
    assert_nonfinite_values_stay(wrt, name, large.geometry, kernel)


def test_everything_may_be_not_finite(kernel: str) -> None:
    for large in LARGE[:-2]:
        assert_all_may_be_nan(large.geometry, kernel)


def test_infinity_times_a_subnormal_number_is_infinite(kernel: str) -> None:
    assert_infinity_times_subnormal_is_infinite(LARGE[0].geometry, kernel)


def test_integers_are_exact(kernel: str) -> None:
    rng = np.random.default_rng(0)
    for large in LARGE:
        for wrt in WRT:
            arrays = [rng.integers(-4, 5, large.geometry.shape(name)).astype(np.float32) for name in given(wrt)]  # type: ignore[arg-type]
            found = backend.derivative(wrt, large.geometry, *arrays, kernel)
            with backstride.precision("strict"):
                assert_array_equal(found, backend.derivative(wrt, large.geometry, *arrays))


def test_a_signal_may_be_handled_by_the_unit(python: Python, kernel: str) -> None:
    code = SIGNALS.format(dtype="'f4'", algorithm=kernel.split("_")[1])
    assert python(code).split() == ["True", "True"]
