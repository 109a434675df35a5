# SPDX-License-Identifier: Apache-2.0
"""Layers of floats of 16 and 32 bits by a matrix unit, on machines that have one; see test_kernels.py, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cases
import ml_dtypes
import numpy as np
import pytest
from cases import Case, case, given, same
from conftest import Python
from numpy.testing import assert_array_equal

import backstride
from backstride import _native
from backstride._backends import numpy as backend
from backstride._geometry import Axis, Geometry
from backstride._plan import plan

DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "f32": np.dtype(np.float32)}
KERNELS = [name for name, *_ in _native.kernels() if "_matrix_" in name]
pytestmark = pytest.mark.parametrize("kernel", KERNELS)


def dtype_of(kernel: str) -> np.dtype:
    return DTYPES[kernel.partition("_")[0]]


# Depths of one chunk, of several, of padded ones; one and two halves of columns, and several panels; long lines.
LARGE = [
    case("k4-s2", same(20, 4, 2, 40), same(21, 4, 2, 42), channels=(96, 64), batch=2),
    case("k5-s2", same(16, 5, 2, 32), same(17, 5, 2, 34), channels=(70, 33), batch=2),
    case("k3-s1", same(24, 3, 1, 24), same(40, 3, 1, 40), channels=(32, 16), batch=1),
    case("k2-s2", same(14, 2, 2, 28), same(14, 2, 2, 28), channels=(256, 96), batch=3),
    case("k1-s2", same(9, 1, 2, 18), same(9, 1, 2, 18), channels=(40, 7), batch=1),
    case("k16-s8", same(300, 16, 8, 2400), channels=(128, 48), batch=1),
    case("3-d", same(4, 3, 2, 8), same(5, 3, 2, 10), same(18, 3, 2, 36), channels=(33, 5), batch=1),
    case("groups", same(20, 4, 2, 40), channels=(64, 96), batch=2, groups=4),
    case("filter-beyond-caches", same(6, 5, 2, 12), same(5, 5, 2, 10), channels=(512, 104), batch=2),
]
# Few channels, whose cells are columns together; the edges cut through these.
FEW = [
    case("k5-s2", same(21, 5, 2, 41), same(40, 5, 2, 80), channels=(64, 3), batch=2),
    case("k9-s3", same(20, 9, 3, 60), same(33, 9, 3, 97), channels=(56, 1), batch=1),
    case("k16-s8", Axis(9, 16, 80), Axis(23, 16, 192, 8, 1, 0), channels=(21, 21), batch=1),
    case("k25-s4", same(310, 25, 4, 1240), channels=(64, 1), batch=3),
    case("k1024-s256", same(30, 1024, 256, 7680), channels=(70, 1), batch=1),
    case("k3-s1", same(24, 3, 1, 24), same(40, 3, 1, 40), channels=(32, 2), batch=1),
    case("k2-s3", Axis(15, 2, 47, 3, 1, 1), Axis(30, 2, 88, 3, 1, 2), channels=(40, 4), batch=2),
    case("3-d-few", same(4, 3, 2, 8), same(5, 3, 2, 10), same(18, 3, 2, 36), channels=(33, 1), batch=2),
]
LARGE += FEW
# Of the filter gradient, whose depth is of pixels: images of a row, rows that end within chunks and far beyond them,
# images of which several make a chain, taps that meet only a few cells or none, many pieces.
PIXELS = [
    case("one-row", same(16, 25, 4, 64), channels=(70, 40), batch=33),
    case("long", same(5000, 8, 4, 20000), channels=(34, 50), batch=2),
    case("small", same(4, 5, 2, 8), same(4, 5, 2, 8), channels=(96, 130), batch=37),
    case("wide", same(3, 3, 1, 3), same(700, 4, 3, 2100), channels=(20, 17), batch=2),
    case("beyond", Axis(40, 7, 90, 2, 1, 5), Axis(31, 4, 99, 3, 1, -2), channels=(37, 50), batch=3),
    case("far", Axis(9, 30, 12, 2, 1, 9), Axis(9, 2, 40, 5, 1, 0), channels=(37, 50), batch=3),
    case("3-d", same(5, 3, 2, 10), same(6, 2, 2, 12), same(7, 3, 1, 7), channels=(33, 66), batch=2),
    case("groups", same(20, 4, 2, 40), same(30, 3, 2, 60), channels=(64, 96), batch=2, groups=2),
    # The longest chain here, and the shortest of plain sums.
    case("chain", same(27, 2, 2, 54), same(28, 2, 2, 56), channels=(512, 512), batch=1),
]
OPERATIONS = [(wrt, large) for wrt in ("output", "input") for large in LARGE]
OPERATIONS += [("filter", large) for large in LARGE + PIXELS]


def reals(geometry: Geometry, kernel: str, distribution: str = "normal") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(distribution))
    make = {
        "normal": rng.standard_normal,
        "non-negative": rng.random,
        "heavy-tailed": lambda shape: rng.standard_t(3, shape),
        "offset": lambda shape: rng.standard_normal(shape) + 10,
    }[distribution]
    return {name: make(geometry.shape(name)).astype(dtype_of(kernel)) for name in ("input", "filter", "output")}


def derivative(wrt: str, geometry: Geometry, operands: dict[str, np.ndarray], kernel: str) -> np.ndarray:
    return backend.derivative(wrt, geometry, *(operands[name] for name in given(wrt)), kernel)


def exact(wrt: str, geometry: Geometry, operands: dict[str, np.ndarray]) -> np.ndarray:
    with backstride.precision("strict"):
        return derivative(wrt, geometry, {name: a.astype(np.float64) for name, a in operands.items()}, "")


def without_unit(wrt: str, geometry: Geometry, operands: dict[str, np.ndarray]) -> np.ndarray:
    """By plain sums of float32."""
    with backstride.precision("strict"):
        return derivative(wrt, geometry, operands, "")


def assert_small_errors(wrt: str, geometry: Geometry, kernel: str, distribution: str) -> None:
    operands = reals(geometry, kernel, distribution)
    want = exact(wrt, geometry, operands)
    ours, plain = (
        np.sqrt(np.mean((found.astype(np.float64) - want) ** 2))
        for found in (derivative(wrt, geometry, operands, kernel), without_unit(wrt, geometry, operands))
    )
    assert 0 < ours <= 1.25 * plain


def assert_nonfinite_values_stay(wrt: str, name: str, geometry: Geometry, kernel: str) -> None:
    """Of any operand, where plain sums have them."""
    operands = reals(geometry, kernel)
    for value in (np.nan, np.inf, 3e38):
        placed = operands[name].copy()
        placed.flat[np.random.default_rng(1).integers(placed.size, size=5)] = value
        placed.flat[[0, -1]] = value
        with np.errstate(all="ignore"):
            found, want = (
                by(wrt, geometry, operands | {name: placed}) for by in (lambda *a: derivative(*a, kernel), without_unit)
            )
            assert_array_equal(np.isnan(found), np.isnan(want))
            assert_array_equal(np.isinf(found), np.isinf(want))


def assert_infinity_times_subnormal_is_infinite(geometry: Geometry, kernel: str) -> None:
    """The unit takes it for infinity times zero, which is NaN."""
    operands = {name: np.ones(geometry.shape(name), dtype_of(kernel)) for name in ("input", "filter")}
    operands["input"][...] = 1e-39
    operands["filter"].flat[5] = np.inf
    found, want = derivative("output", geometry, operands, kernel), without_unit("output", geometry, operands)
    assert np.isinf(want).any()
    assert_array_equal(np.isinf(found), np.isinf(want))
    assert not np.isnan(found).any()


def assert_all_may_be_nan(geometry: Geometry, kernel: str) -> None:
    operands = reals(geometry, kernel)
    operands["input"][...] = np.nan
    found, want = (
        by("output", geometry, operands).astype(np.float32) for by in (lambda *a: derivative(*a, kernel), without_unit)
    )
    assert_array_equal(found, want)


def test_it_is_taken_where_it_pays_unless_precision_is_strict(kernel: str) -> None:
    element = dtype_of(kernel).name
    geometry = LARGE[3].geometry
    for wrt in ("output", "input", "filter"):
        assert plan(wrt, geometry, element, "default", packed=True).kernel == kernel
        assert plan(wrt, geometry, element, "strict").algorithm != "matrix"
    assert plan("output", geometry, "float64", "fast").algorithm != "matrix"
    assert plan("output", geometry, "float16", "fast").kernel == "f32_matrix_amx"
    assert plan("output", geometry, element, "fast", isa="avx512").algorithm != "matrix"
    few = case("", same(64, 5, 2, 128), same(64, 5, 2, 128), channels=(64, 3), batch=16).geometry
    assert plan("output", few, element, "default", packed=True).kernel == kernel


@pytest.mark.parametrize("distribution", ["normal", "non-negative", "heavy-tailed", "offset"])
@pytest.mark.parametrize(("wrt", "large"), OPERATIONS, ids=str)
def test_errors_are_within_the_bound_of_default(wrt: str, large: Case, distribution: str, kernel: str) -> None:
    assert_small_errors(wrt, large.geometry, kernel, distribution)


@pytest.mark.parametrize(("wrt", "large"), OPERATIONS, ids=str)
def test_bits_do_not_depend_on_threads_or_memory(wrt: str, large: Case, kernel: str) -> None:
    """Channels first are copied; lines that begin within a cache line may be."""
    operands = reals(large.geometry, kernel)
    threads, found = backstride.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            backstride.set_num_threads(count)
            found.append(derivative(wrt, large.geometry, operands, kernel))
    finally:
        backstride.set_num_threads(threads)
    for offset in (0, 2, 16):
        moved = {name: at(array, offset) for name, array in operands.items()}
        found.append(derivative(wrt, large.geometry, moved, kernel))
    turned = {name: a if name == "filter" else np.moveaxis(a, -1, 1).copy() for name, a in operands.items()}
    result = derivative(wrt, replace(large.geometry, channels_first=True), turned, kernel)
    found.append(result if wrt == "filter" else np.moveaxis(result, 1, -1).copy())
    assert len({each.tobytes() for each in found}) == 1


def at(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins so many bytes after a cache line."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize(
    ("wrt", "name"),
    [("output", "input"), ("output", "filter"), ("input", "output"), ("filter", "input"), ("filter", "output")],
)
def test_nonfinite_values_stay_with_their_terms(wrt: str, name: str, large: Case, kernel: str) -> None:
    assert_nonfinite_values_stay(wrt, name, large.geometry, kernel)


def test_infinity_times_a_subnormal_number_is_infinite(kernel: str) -> None:
    assert_infinity_times_subnormal_is_infinite(LARGE[0].geometry, kernel)


def test_subnormal_numbers_may_count_as_zeros_but_not_if_it_is_strict(kernel: str) -> None:
    geometry = LARGE[0].geometry
    operands = {name: np.ones(geometry.shape(name), dtype_of(kernel)) for name in ("input", "filter")}
    operands["input"][...] = 1e-39
    assert (derivative("output", geometry, operands, kernel) == 0).all()
    assert (without_unit("output", geometry, operands) > 0).all()


@pytest.mark.parametrize("activation", [None, "relu", ("leaky_relu", 0.1), "tanh"])
def test_plans_add_bias_and_activation_before_they_round(activation: Any, kernel: str) -> None:
    rng, dtype = np.random.default_rng(0), dtype_of(kernel)
    x = rng.standard_normal((2, 19, 21, 64)).astype(dtype)
    w = (rng.standard_normal((4, 4, 40, 64)) / 32).astype(dtype)
    b = rng.standard_normal(40).astype(dtype)
    got = backstride.plan(w, 2, bias=b, activation=activation)(x)
    assert kernel in repr(backstride.plan(w, 2))
    wide = backstride.plan(
        w.astype(np.float64), 2, bias=b.astype(np.float64), activation=activation, precision="strict"
    )
    want = wide(x.astype(np.float64))
    assert (abs(got.astype(np.float64) - want) <= float(ml_dtypes.finfo(dtype).eps) * abs(want) + 1e-5).all()


def test_cells_that_no_tap_reaches_have_the_bias_alone(kernel: str) -> None:
    dtype = dtype_of(kernel)
    p = backstride.plan(np.ones((1, 1, 40, 64), dtype), 2, bias=np.arange(40).astype(dtype), algorithm="matrix")
    y = p(np.ones((1, 20, 20, 64), dtype))
    assert_array_equal(y[0, 1, 1], np.arange(40).astype(dtype))
    assert_array_equal(y[0, 0, 0], (64 + np.arange(40)).astype(dtype))


def test_large_results_that_go_around_the_caches_are_the_same(kernel: str) -> None:
    """Results of 16 MB and more, of whole cache lines."""
    geometry = case("large", same(200, 2, 2, 400), same(200, 2, 2, 400), channels=(32, 64), batch=1).geometry
    x, w = (cases.integers(geometry, name, dtype_of(kernel)) for name in ("input", "filter"))
    assert x.size and geometry.shape("output") == (1, 400, 400, 64)
    result, strict = (
        by("output", geometry, {"input": x, "filter": w}) for by in (lambda *a: derivative(*a, kernel), without_unit)
    )
    assert result.nbytes >= 16 << 20
    assert result.tobytes() == strict.tobytes()


def test_workspace_is_kept(kernel: str) -> None:
    rng = np.random.default_rng(0)
    x = np.moveaxis(rng.standard_normal((1, 64, 64, 128)).astype(dtype_of(kernel)), -1, 1).copy()
    w = rng.standard_normal((4, 4, 64, 128)).astype(dtype_of(kernel))
    plans = [
        backstride.plan(w, 2, data_format="NCHW", workspace_bytes=size, algorithm="matrix") for size in (1 << 19, None)
    ]
    assert kernel in repr(plans[0])
    assert plans[0](x).tobytes() == plans[1](x).tobytes()


def test_factors_have_all_their_digits(kernel: str) -> None:
    """Three planes of eight bits are the 24 of float32: one product is off by less than a rounding."""
    geometry = Geometry((Axis(16, 1, 16),), 1, 2, 32)
    x = np.zeros((1, 16, 2), dtype_of(kernel))
    x[..., 0] = np.nextafter(np.float32(1), np.float32(2)) * (1 + np.arange(16) / 16)
    w = np.zeros((1, 32, 2), dtype_of(kernel))
    w[..., 0] = np.random.default_rng(0).random(32) + 1
    want = x[0, :, :1].astype(np.float64) * w[0, :, 0].astype(np.float64)
    got = backend.derivative("output", geometry, x, w, kernel)[0].astype(np.float64)
    assert (abs(got - want) <= float(ml_dtypes.finfo(dtype_of(kernel)).eps) * want).all()
    assert (backend.derivative("output", geometry, x, np.ones_like(w), kernel)[0] == x[0, :, :1]).all()


def test_products_that_are_left_out_are_small(kernel: str) -> None:
    """Sums of 512 products: without the least of the six that are made, their errors would be ten times as large."""
    geometry = Geometry((Axis(64, 1, 64),), 1, 512, 32)
    operands = reals(geometry, kernel)
    want = exact("output", geometry, operands)
    errors = [
        np.sqrt(np.mean((found.astype(np.float64) - want) ** 2))
        for found in (
            derivative("output", geometry, operands, kernel),
            without_unit("output", geometry, operands),
        )
    ]
    assert 0 < errors[0] <= 1.01 * errors[1]


def test_sums_that_overflow_in_between_are_finite(kernel: str) -> None:
    """2e38 + 2e38 - 3e38 pixels of one filter gradient; those of the first two are one chain."""
    geometry = Geometry((Axis(2000, 1, 2000),), 1, 64, 64)
    operands = {name: np.zeros(geometry.shape(name), dtype_of(kernel)) for name in ("input", "output")}
    operands["input"][0, [0, 1300, 1400]] = np.array([[2e38], [2e38], [-3e38]])
    operands["output"][...] = 1
    with np.errstate(all="ignore"):
        found = derivative("filter", geometry, operands, kernel).astype(np.float64)
    assert_array_equal(np.isfinite(without_unit("filter", geometry, operands).astype(np.float64)), np.isfinite(found))
    assert_array_equal(found, exact("filter", geometry, operands).astype(dtype_of(kernel)).astype(np.float64))


def test_large_planes_of_a_chain_make_it_shorter(kernel: str) -> None:
    """Of 512 channels and 16 phases, images that could be one chain take more memory than there is for them."""
    geometry = Geometry((Axis(8, 4, 32, 4, 1, 0),) * 2, 4, 512, 512)
    assert_small_errors("filter", geometry, kernel, "normal")
    operands = reals(geometry, kernel)
    found = derivative("filter", geometry, operands, kernel)
    assert (found != without_unit("filter", geometry, operands)).any()  # it has not fallen back


def test_boxes_that_miss_the_source_are_zeros(kernel: str) -> None:
    """Cells of the result that lie so far off the source that blocks of them read none of it."""
    for pad in (0, -30000):
        geometry = Geometry((Axis(8, 5, 40000, 4, 1, pad),), 1, 64, 1)
        operands = {name: cases.integers(geometry, name, dtype_of(kernel)) for name in ("input", "filter")}
        found, want = derivative("output", geometry, operands, kernel), without_unit("output", geometry, operands)
        assert want.any()
        assert found.tobytes() == want.tobytes()


def test_a_value_that_is_not_finite_changes_no_other_bits(kernel: str) -> None:
    """Nor whether memory is of another layout, in which blocks are others."""
    geometry = case("", same(48, 4, 2, 96), same(48, 4, 2, 96), channels=(64, 64), batch=1).geometry
    operands = reals(geometry, kernel)
    plain = derivative("output", geometry, operands, kernel)
    operands["input"][0, 24, 16, 0] = np.nan
    found = derivative("output", geometry, operands, kernel)
    finite = np.isfinite(found)
    assert 0 < (~finite).sum() <= 16 * 64
    assert_array_equal(found[finite], plain[finite])
    turned = {name: a if name == "filter" else np.moveaxis(a, -1, 1).copy() for name, a in operands.items()}
    first = derivative("output", replace(geometry, channels_first=True), turned, kernel)
    assert_array_equal(np.moveaxis(first, 1, -1).astype(np.float32), found.astype(np.float32))


def test_everything_may_be_not_finite(kernel: str) -> None:
    for large in LARGE:
        assert_all_may_be_nan(large.geometry, kernel)


def test_huge_strides_end(kernel: str) -> None:
    for stride in (1 << 40, 1 << 60):
        geometry = Geometry((Axis(1, 3, 5, stride, 1, 0),), 64, 64, 40)
        operands = reals(geometry, kernel)
        for wrt in ("output", "filter"):
            found, want = derivative(wrt, geometry, operands, kernel), without_unit(wrt, geometry, operands)
            assert (abs(found - want).astype(np.float32) <= 0.1).all()


SIGNALS = """
import signal, numpy as np, backstride
big = backstride.plan(np.ones((4, 4, 256, 256), {dtype}), 2, algorithm="{algorithm}")
small = backstride.plan(np.ones((2, 2, 32, 32), {dtype}), 2, algorithm="matrix")
x, s, calls = np.ones((4, 48, 48, 256), {dtype}), np.ones((1, 8, 8, 32), {dtype}), []
want = big(x)
signal.signal(signal.SIGALRM, lambda *_: calls.append(small(s).sum()))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
for _ in range(20):
    assert (big(x) == want).all()
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(calls) > 0, set(map(float, calls)) == {{float(small(s).sum())}})
"""


def test_a_signal_may_be_handled_by_the_unit(python: Python, kernel: str) -> None:
    dtype = {"bf16": "__import__('ml_dtypes').bfloat16", "f32": "'f4'"}[kernel.partition("_")[0]]
    assert python(SIGNALS.format(dtype=dtype, algorithm="matrix")).split() == ["True", "True"]


def test_many_taps_of_few_pixels_end(kernel: str) -> None:
    """Phases of a long kernel are not looked for one by one."""
    geometry = Geometry((Axis(70, 1 << 20, (1 << 20) + 69, 1, 1, 0),), 1, 1, 1)
    assert plan("filter", geometry, dtype_of(kernel).name, "default").algorithm != "matrix"
    geometry = Geometry((Axis(70, 1 << 20, 70 << 19, 1 << 19, 1, 0),), 1, 1, 1)
    assert plan("filter", geometry, dtype_of(kernel).name, "default").algorithm != "matrix"


def test_a_row_that_the_tap_does_not_meet_adds_nothing(kernel: str) -> None:
    """Images of one row are rows of one image only where it does."""
    for pad, nothing in ((1, True), (0, False)):
        geometry = Geometry((Axis(1, 1, 1, 2, 1, pad), same(13, 7, 1, 13)), 19, 20, 33)
        operands = reals(geometry, kernel)
        found, want = derivative("filter", geometry, operands, kernel), without_unit("filter", geometry, operands)
        assert (found == 0).all() == nothing
        assert (abs(found - want).astype(np.float32) <= 0.01 * abs(want).max().astype(np.float32)).all()


def test_few_pixels_are_refused(kernel: str) -> None:
    for batch, algorithm in ((3, "tiles"), (4, "matrix")):
        geometry = Geometry((Axis(16, 3, 16, 1, 1, 1),), batch, 64, 64)
        assert plan("filter", geometry, dtype_of(kernel).name, "fast", algorithm="matrix").algorithm == algorithm


def test_few_channels_are_refused(kernel: str) -> None:
    """Six additions for one product would have a larger error than plain sums."""
    for channels, algorithm in ((3, "tiles"), (4, "matrix")):
        geometry = Geometry((Axis(16, 3, 16, 1, 1, 1),), 1, channels, 64)
        assert plan("output", geometry, dtype_of(kernel).name, "fast", algorithm="matrix").algorithm == algorithm
