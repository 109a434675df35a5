# SPDX-License-Identifier: Apache-2.0
"""Every compiled kernel against the definition, and the element types that the kernels are used with."""

from __future__ import annotations

import itertools
import platform
import re
from typing import Any

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import GEOMETRIES, OPERANDS, SELECTED, Case, exact, given, integers
from conftest import Python
from hypothesis import given as over
from hypothesis import settings
from numpy.testing import assert_array_equal

import backstride
from backstride import _native
from backstride._backends import numpy as backend
from backstride._geometry import Axis, Geometry
from backstride._plan import plan

KERNELS = {
    name: np.dtype(ml_dtypes.bfloat16 if element == "bfloat16" else element)
    for name, _, element, _, _ in _native.kernels()
}
MATRIX = [name for name in KERNELS if "_matrix_" in name]  # whose factors are of 16 bits
LANES = [name for name in KERNELS if "_lanes_" in name]
WINOGRAD = [name for name in KERNELS if "_winograd" in name]
SIX = [name for name in WINOGRAD if "_winograd6_" in name]  # by numbers that are not exact
EXACT = [name for name in KERNELS if name not in SIX]
# Sums in one order, each product and sum rounded once, or both.
FUSED = [name for name, isa, *_ in _native.kernels() if isa != "portable" and name not in [*WINOGRAD, *MATRIX]]
PLAIN = [name for name, isa, *_ in _native.kernels() if isa == "portable" and name not in WINOGRAD]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = ["float16", "bfloat16", "float32", "float64"]

# The element type in which a dtype is summed.
SUMS = dict.fromkeys(["float16", "bfloat16", "float32"], "float32") | {"float64": "float64"}
SUMS |= {name: "uint64" if name.endswith("64") else "uint32" for name in INTEGERS}


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def kernels_for(dtype: Any, names: Any = KERNELS) -> list[str]:
    """The kernels in `names` that sum what `dtype` holds; a matrix unit takes bfloat16 as it is."""
    own = np.dtype(dtype).name == "bfloat16"
    return [
        name for name in names if KERNELS[name] == (dtype if own and name in MATRIX else SUMS[np.dtype(dtype).name])
    ]


# By how much the three transforms of an axis can make rounding errors grow, by the number of points: the product of the
# largest sums of a row's absolute values. That of three points, say, is 2 * 2 * 2.
GROWTH = {3: 8.0, 4: 9.0, 6: 213.0}


def rounding(geometry: Geometry, wrt: str, dtype: Any, kernel: str, largest: float) -> np.ndarray:
    """How far a sum of products up to `largest` may be off: each term is rounded at most twice. In Winograd's algorithm
    the errors of a neighbourhood's sums are in each of them, after three more roundings for every transform."""
    terms = counts(geometry, wrt)
    found = re.search(r"_winograd(\d)_", kernel)
    if found:
        terms = (terms.max() + 6) * GROWTH[int(found[1])] ** len(geometry.axes) * np.ones_like(terms)
    return 2 * np.finfo(dtype).eps * terms * largest


def run(wrt: str, geometry: Geometry, dtype: Any, kernel: str = "") -> np.ndarray:
    """The library's derivative of small integers."""
    return backend.derivative(wrt, geometry, *(integers(geometry, name, dtype) for name in given(wrt)), kernel)


def check(wrt: str, geometry: Geometry, dtype: Any, kernel: str = "") -> None:
    got = run(wrt, geometry, dtype, kernel)
    assert got.dtype == dtype
    assert_array_equal(got, reference.narrow(exact(geometry, wrt), dtype))


def kernel_of(wrt: str, geometry: Geometry, element: str, kernel: str = "") -> str:
    """What computes it, by default or if this kernel is asked for."""
    return plan(wrt, geometry, element, "default", kernel=kernel).kernel


def test_this_machine_has_kernels_of_every_element_type() -> None:
    assert {str(dtype) for name, dtype in KERNELS.items() if name not in MATRIX} == set(SUMS.values())
    assert PLAIN, "the portable kernels are on every machine"


def test_kernels_are_named_after_what_they_are() -> None:
    short = {"bfloat16": "bf16", "float32": "f32", "float64": "f64", "uint32": "u32", "uint64": "u64"}
    for name, isa, element, rows, columns in _native.kernels():
        algorithms = [f"{rows}x{columns}"] if rows else ["lanes", "matrix", "winograd3", "winograd4", "winograd6"]
        assert name in [f"{short[element]}_{algorithm}_{isa}" for algorithm in algorithms]


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
@pytest.mark.parametrize("kernel", EXACT)
def test_kernel_is_exact_on_small_integers(kernel: str, case: Case) -> None:
    for wrt in OPERANDS:
        check(wrt, case.geometry, KERNELS[kernel], kernel)


@pytest.mark.parametrize("case", SELECTED, ids=str)
@pytest.mark.parametrize("kernel", EXACT)
def test_kernel_is_exact_on_channels_first(kernel: str, case: Case) -> None:
    for wrt in OPERANDS:
        check(wrt, case.channels_first.geometry, KERNELS[kernel], kernel)


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
@pytest.mark.parametrize("kernel", SIX)
def test_six_points_are_within_their_bound(kernel: str, case: Case) -> None:
    """In float64 that is some 1e-9, so that nothing else than rounding could be off."""
    for wrt, layout in itertools.product(OPERANDS, (case, case.channels_first)):
        bound = rounding(case.geometry, wrt, KERNELS[kernel], kernel, cases.LARGEST**2)
        bound = np.moveaxis(bound, -1, 1) if layout is not case and wrt != "filter" else bound
        assert (abs(run(wrt, layout.geometry, KERNELS[kernel], kernel) - layout.exact(wrt)) <= bound).all()


@settings(max_examples=4 * settings().max_examples)
@over(geometry=cases.geometries())
def test_every_kernel_is_exact_on_any_geometry(geometry: Geometry) -> None:
    for wrt in OPERANDS:
        want = reference.derivative(wrt, *(integers(geometry, name, np.int64) for name in given(wrt)), geometry)
        for kernel in EXACT:
            got = run(wrt, geometry, KERNELS[kernel], kernel)
            assert_array_equal(got, want.astype(KERNELS[kernel]), err_msg=f"{kernel} {wrt}")


def test_lanes_are_used_where_they_can_be() -> None:
    """So the tests above have tested them, in the geometries that are theirs alone: see `cases`."""
    used = [case for case in GEOMETRIES if kernel_of("output", case.geometry, "float32", LANES[0]) == LANES[0]]
    assert len(used) > 40
    assert all(case in used for case in cases.FEW)


def vectors(kernel: str) -> str:
    """What stands in for a kernel where the matrix unit can't be used."""
    return kernel.replace("_amx", "_avx512")


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("wrt", OPERANDS)
def test_winograd_is_used_where_it_can_be(name: str, wrt: str) -> None:
    want = vectors(name) if wrt == "filter" else name
    used = [case for case in GEOMETRIES if kernel_of(wrt, case.geometry, KERNELS[name].name, name) == want]
    assert len(used) > (10 if name in SIX else 20)


@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_refuses_what_is_not_its(name: str) -> None:
    """One tap, more taps than eight chunks have, dilation, streams of no taps, depthwise layers, three axes."""
    for wrt, axes, groups in [
        ("output", (Axis(4, 2, 8, 2),), 1),
        ("filter", (Axis(4, 2, 8, 2),), 1),
        ("filter", (Axis(4, 1, 8, 2), Axis(4, 2, 4)), 1),
        ("output", (Axis(30, 25, 30),), 1),
        ("input", (Axis(30, 25, 30),), 1),
        ("filter", (Axis(4, 3, 4), Axis(40, 49, 80, 2)), 1),
        ("output", (Axis(4, 2, 4, 1, 2),), 1),
        ("output", (Axis(4, 1, 8, 2), Axis(4, 2, 4)), 1),
        ("output", (Axis(4, 2, 4),), 2),
        ("output", (Axis(4, 2, 4), Axis(4, 2, 4), Axis(4, 2, 4)), 1),
    ]:
        chosen = kernel_of(wrt, Geometry(axes, 1, 2, 2, groups), KERNELS[name].name, name)
        assert "_winograd" not in chosen
        assert chosen.endswith(vectors(name).rpartition("_")[2])


@pytest.mark.parametrize("name", LANES)
def test_lanes_refuse_what_is_not_theirs(name: str) -> None:
    """Other operands, wide results, dilation along the width, and rows that no cache holds."""
    element = KERNELS[name].name
    for wrt, geometry in [
        ("input", Geometry((Axis(4, 2, 8, 2, 1, 0),), 1, 16, 3)),
        ("filter", Geometry((Axis(4, 2, 8, 2, 1, 0),), 1, 16, 3)),
        ("output", Geometry((Axis(4, 2, 8, 2, 1, 0),), 1, 16, 7)),
        ("output", Geometry((Axis(4, 2, 8, 2, 2, 0),), 1, 16, 3)),
        ("output", Geometry((Axis(19, 9999, 19, 1, 1, 9), Axis(9, 3, 9, 1, 1, 1)), 1, 999, 3)),
    ]:
        chosen = kernel_of(wrt, geometry, element, name)
        assert "_lanes_" not in chosen
        assert chosen.endswith(name.rpartition("_")[2])


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_default_choice_is_exact(case: Case) -> None:
    for wrt, layout in itertools.product(OPERANDS, (case, case.channels_first)):
        check(wrt, layout.geometry, np.dtype("float32"))
        check(wrt, layout.geometry, np.dtype("float64"))


@pytest.mark.parametrize("case", SELECTED, ids=str)
@pytest.mark.parametrize("name", FLOATS + INTEGERS)
def test_default_choice_is_exact_for_every_dtype(name: str, case: Case) -> None:
    for wrt, layout in itertools.product(OPERANDS, (case, case.channels_first)):
        check(wrt, layout.geometry, dtype_of(name))


@pytest.mark.parametrize("channels", cases.WIDTHS)
@pytest.mark.parametrize("element", [*FLOATS, "uint8", "uint16", "uint32", "uint64"])
def test_default_choice_is_of_the_instruction_set_in_use(element: str, channels: int) -> None:
    isas = {name: isa for name, isa, *_ in _native.kernels()}
    of_element = {isas[name] for name in kernels_for(dtype_of(element))}
    usable = [isa for isa in _native.ISAS[: _native.ISAS.index(_native.isa()) + 1] if isa in of_element]
    geometry = Geometry((Axis(2**16, 2, 2**17, 2, 1, 0),), 1, channels, channels)
    for wrt in OPERANDS:
        kernel = kernel_of(wrt, geometry, element)
        assert isas[kernel] == usable[-1] or (usable[-1] == "amx" and kernel not in MATRIX)
    tiny = Geometry((Axis(2, 2, 4, 2, 1, 0),), 1, channels, channels)
    for wrt in OPERANDS:
        assert isas[kernel_of(wrt, tiny, element)] in {*usable} - {"avx512", "amx"}
        named = plan(wrt, tiny, element, "default", isa=usable[-1])
        assert isas[named.kernel] == usable[-1] or (usable[-1] == "amx" and named.kernel not in MATRIX)


# Real numbers


def reals(geometry: Geometry, operand: str, dtype: Any) -> np.ndarray:
    rng = np.random.default_rng([len(operand), *geometry.shape(operand)])
    return rng.standard_normal(geometry.shape(operand)).astype(dtype)


def counts(geometry: Geometry, wrt: str) -> np.ndarray:
    """How many terms each cell of the result has."""
    ones = (np.ones(geometry.shape(name), np.int64) for name in given(wrt))
    return reference.derivative(wrt, *ones, geometry)


@pytest.mark.parametrize("case", SELECTED, ids=str)
@pytest.mark.parametrize("name", FLOATS)
def test_rounding_of_real_numbers(name: str, case: Case) -> None:
    """Each of the terms rounds at most twice in the type of the sums, and the result once more in its own."""
    dtype, geometry = dtype_of(name), case.geometry
    for wrt in OPERANDS:
        first, second = (reals(geometry, operand, dtype) for operand in given(wrt))
        want = reference.wide_derivative(wrt, first, second, geometry)
        largest = float(abs(first).max()) * float(abs(second).max())
        for kernel in ["", *kernels_for(dtype)]:
            bound = rounding(geometry, wrt, SUMS[name], kernel, largest)
            bound = bound + ml_dtypes.finfo(dtype).eps * (abs(want) + bound)
            got = backend.derivative(wrt, geometry, first, second, kernel)
            assert got.dtype == dtype
            assert (abs(got.astype(np.float64) - want) <= bound).all(), f"{kernel or 'default'} {wrt}"


@pytest.mark.parametrize("case", [*SELECTED, *cases.GROUPS[1:3], *cases.FEW[:5], *cases.CHANNELS[4:7]], ids=str)
@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("family", [FUSED, PLAIN], ids=["fused", "not-fused"])
def test_bits_depend_on_fusing_alone(family: list[str], name: str, case: Case) -> None:
    dtype = dtype_of(name)
    if not kernels_for(dtype, family):
        pytest.skip("this machine fuses nothing")
    for wrt, layout in itertools.product(OPERANDS, (case, case.channels_first)):
        first, second = (reals(case.geometry, operand, dtype) for operand in given(wrt))
        if layout is not case:
            first, second = (
                np.moveaxis(array, -1, 1) if operand != "filter" else array
                for operand, array in zip(given(wrt), (first, second), strict=True)
            )
        results = [
            backend.derivative(wrt, layout.geometry, first, second, kernel).tobytes()
            for kernel in kernels_for(dtype, family)
        ]
        assert len(set(results)) == 1
        if kernel_of(wrt, layout.geometry, name) in family:
            assert backend.derivative(wrt, layout.geometry, first, second).tobytes() == results[0]


# Integers wrap


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_wrap(name: str) -> None:
    case, dtype = cases.SELECTED[0], np.dtype(name)
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    for wrt, layout in itertools.product(OPERANDS, (case, case.channels_first)):
        shapes = [layout.geometry.shape(operand) for operand in given(wrt)]
        first, second = (rng.integers(limits.min, limits.max, shape, dtype, endpoint=True) for shape in shapes)
        want = reference.derivative(wrt, first, second, layout.geometry)
        assert want.dtype == dtype
        assert_array_equal(backend.derivative(wrt, layout.geometry, first, second), want)


# The 16-bit floats, number by number

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def every(name: str) -> np.ndarray:
    """All 65536 bit patterns of a 16-bit float."""
    return np.arange(2**16, dtype=np.uint16).view(HALVES[name])


# A 16-bit float, and a kernel that widens every one: a matrix unit takes some of bfloat16 for zero.
WIDENING = [
    (name, kernel) for name in HALVES for kernel in kernels_for("float32") if kernel in kernels_for(HALVES[name])
]


def scaled(values: np.ndarray, factors: np.ndarray, wrt: str = "output", kernel: str = "") -> np.ndarray:
    """values[:, None] * factors, computed as a convolution of one tap."""
    geometry = Geometry((Axis(len(values), 1, len(values)),), 1, 1, len(factors))
    weights = factors.reshape(1, -1, 1)
    if wrt == "output":
        return backend.derivative("output", geometry, values.reshape(1, -1, 1), weights, kernel)[0]
    turned = Geometry(geometry.axes, 1, len(factors), 1)
    return backend.derivative("input", turned, weights.reshape(1, 1, -1), values.reshape(1, -1, 1), kernel)[0]


def is_nan(array: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a signalling NaN among them
        return np.isnan(array)


def check_same_numbers(got: np.ndarray, want: np.ndarray) -> None:
    """Bit for bit, but for the sign of zero (a sum starts at +0) and what kind of NaN it is."""
    nan = is_nan(want)
    assert_array_equal(is_nan(got), nan)
    got, want = got[~nan], want[~nan]
    got, want = (np.where(array == 0, np.zeros((), array.dtype), array) for array in (got, want))
    assert_array_equal(got.view(np.uint16), want.view(np.uint16))


@pytest.mark.parametrize(("name", "kernel"), WIDENING)
@pytest.mark.parametrize("wrt", ["output", "input"])
def test_identity_keeps_every_16_bit_float(name: str, wrt: str, kernel: str) -> None:
    values = every(name)
    assert is_nan(values).sum() == {"float16": 2 * 1023, "bfloat16": 2 * 127}[name]
    check_same_numbers(scaled(values, np.ones(1, values.dtype), wrt, kernel), values[:, None])


@pytest.mark.parametrize(("name", "kernel"), WIDENING)
def test_identity_keeps_every_16_bit_float_as_a_filter(name: str, kernel: str) -> None:
    values = every(name)
    check_same_numbers(scaled(np.ones(1, values.dtype), values, "output", kernel), values[None])


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(("name", "kernel"), WIDENING)
def test_identity_of_channels_keeps_every_16_bit_float(name: str, kernel: str, channels_first: bool) -> None:
    """Rows of many channels, and their transposition, for all three operations."""
    values = every(name).reshape((1, 64, 1024) if channels_first else (1, 1024, 64))
    pixels = Geometry((Axis(1024, 1, 1024),), 1, 64, 64, 64, channels_first)
    ones = np.ones((1, 1, 64), values.dtype)
    for wrt, first, second in [("output", values, ones), ("input", ones, values)]:
        check_same_numbers(backend.derivative(wrt, pixels, first, second, kernel), values)
    taps = Geometry((Axis(1, 1024, 1024),), 1, 64, 64, 64, channels_first)
    ones = np.ones((1, 64, 1) if channels_first else (1, 1, 64), values.dtype)
    filters = values[0].T if channels_first else values[0]
    check_same_numbers(backend.derivative("output", taps, ones, filters[:, None], kernel), values)
    check_same_numbers(backend.derivative("filter", taps, ones, values, kernel), filters[:, None])


FACTORS = [
    1 + 2**-7,
    1.5,
    -1.25,
    0.5,
    2**-7,
    2**-10,
    2**-14,
    3 * 2**-12,
    2**10,
    1000,
    1 - 2**-7,
    1 + 5 * 2**-7,
]


@pytest.mark.parametrize(("name", "kernel"), WIDENING)
@pytest.mark.parametrize("wrt", ["output", "input"])
def test_products_of_every_16_bit_float_round_once(name: str, wrt: str, kernel: str) -> None:
    """A product of two of these is exact in float32 (but for bfloat16's smallest); so is the rounding of ties,
    of subnormals and to infinity, wherever a sum can fall."""
    values, factors = every(name), np.resize(FACTORS, 35).astype(HALVES[name])
    with np.errstate(all="ignore"):
        sums = values.astype(np.float32)[:, None] * factors.astype(np.float32)
        want = sums.astype(values.dtype)
        rounded = np.isfinite(sums) & (sums != want.astype(np.float32))
    assert rounded.sum() > 2**16, "products must be rounded"
    check_same_numbers(scaled(values, factors, wrt, kernel), want)


@pytest.mark.parametrize("name", HALVES)
def test_filter_gradient_rounds_sums_of_16_bit_floats_once(name: str) -> None:
    """A pair of pixels, 1 and a small one: their sum is rounded when it is complete and not before."""
    dtype = HALVES[name]
    ulp = float(ml_dtypes.finfo(dtype).eps)
    small = np.array([ulp / 2, ulp / 4, ulp * 0.75, ulp / 2 * (1 + ulp), -ulp / 4, -ulp / 2]).astype(dtype)
    for first in (1.0, 1.0 + ulp, 2.0 - ulp):
        x = np.array([first, 1, 1]).astype(dtype).reshape(1, 3, 1)
        g = np.stack([np.ones(len(small)), small.astype(float), small.astype(float)]).astype(dtype)
        geometry = Geometry((Axis(3, 1, 3),), 1, 1, len(small))
        want = (first + 2 * small.astype(np.float64)).astype(dtype)
        assert_array_equal(backend.derivative("filter", geometry, x, g[None])[0, :, 0], want)


@pytest.mark.parametrize("name", HALVES)
def test_16_bit_floats_sum_in_float32(name: str) -> None:
    """4096 ones and a half: a sum kept in 16 bits would stop growing at 2048 or 256."""
    dtype = HALVES[name]
    geometry = Geometry((Axis(1, 1, 1),), 1, 4097, 1)
    x = np.ones((1, 1, 4097), dtype)
    assert backend.derivative("output", geometry, x, np.ones((1, 1, 4097), dtype)).item() == 4096


@pytest.mark.parametrize("wrt", OPERANDS)
@pytest.mark.parametrize("case", cases.LARGER, ids=str)
@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("mode", ["strict", "default"])
def test_copies_change_no_bit(mode: str, name: str, case: Case, wrt: str) -> None:
    """Whatever kernels can't read or write in place is copied, in parts or as a whole: 16-bit floats to float32, which
    then has the sums of float32 itself, unless a matrix unit multiplies them as they are, and channels that are not
    neighbours, for which only the algorithm may be another unless the mode is strict."""
    dtype = dtype_of(name)
    arrays = [reals(case.geometry, operand, dtype) for operand in given(wrt)]
    turned = [
        np.ascontiguousarray(np.moveaxis(array, -1, 1)) if operand != "filter" else array
        for operand, array in zip(given(wrt), arrays, strict=True)
    ]
    with backstride.precision(mode), np.errstate(over="ignore"):
        results, matrix = [], []
        for geometry, operands in ((case.geometry, arrays), (case.channels_first.geometry, turned)):
            got = backend.derivative(wrt, geometry, *operands)
            assert np.isfinite(got.astype(np.float32)).all()
            matrix.append(plan(wrt, geometry, name, mode).algorithm == "matrix")
            if not matrix[-1] or name != "bfloat16":
                wide = (array.astype(SUMS[name]) for array in operands)
                assert got.tobytes() == backend.derivative(wrt, geometry, *wide).astype(dtype).tobytes()
            results.append(got if wrt == "filter" or geometry is case.geometry else np.moveaxis(got, 1, -1))
    if mode == "strict" or all(matrix):
        assert results[0].tobytes() == results[1].tobytes()


# BACKSTRIDE_ISA


CHOICE = """
import backstride
from backstride import _native
from backstride._geometry import Axis, Geometry
from backstride._plan import plan
print(_native.isa(), plan("output", Geometry((Axis(2**10, 2, 2**11, 2, 1, 0),), 1, 3, 20), "float32", "default").kernel)
"""


def test_instruction_sets_are_those_of_the_processor() -> None:
    vectors = {"x86_64": ["avx2", "avx512", "amx"], "aarch64": ["neon"]}
    assert list(_native.ISAS) == ["portable", *vectors.get(platform.machine(), [])]


@pytest.mark.skipif(platform.machine() != "aarch64", reason="other processors need not have theirs")
def test_every_aarch64_has_neon(python: Python) -> None:
    assert python(CHOICE).split()[0] == "neon"


@pytest.mark.parametrize("wanted", _native.ISAS)
def test_environment_lowers_the_instruction_set(python: Python, wanted: str) -> None:
    best = python(CHOICE).split()[0]
    lower = min(best, wanted, key=_native.ISAS.index)
    isa, kernel = python(CHOICE, BACKSTRIDE_ISA=wanted).split()
    assert isa == lower
    assert kernel.endswith("_avx512" if lower == "amx" else f"_{lower}")  # which has no kernels of float32


def test_environment_lowers_nothing_when_empty(python: Python) -> None:
    assert python(CHOICE, BACKSTRIDE_ISA="") == python(CHOICE)


@pytest.mark.parametrize("wrong", ["sse", "AVX2", "avx512 ", "NEON", "0"])
def test_unknown_instruction_set_is_refused(python: Python, wrong: str) -> None:
    message = f"ValueError: BACKSTRIDE_ISA must be one of {', '.join(_native.ISAS)}; got {wrong!r}"
    assert message in python("import backstride", fails=True, BACKSTRIDE_ISA=wrong)


# What the core itself refuses, should the package ever hand it something wrong


def one_axis(**changes: Any) -> dict[str, Any]:
    arguments = {
        "wrt": "output",
        "element": "float32",
        "axes": [3, 2, 6, 2, 1, 0],
        "batch": 1,
        "in_channels": 2,
        "out_channels": 2,
        "groups": 1,
    }
    return arguments | {"channels_first": False} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "f32_1x1_abacus"}, "no kernel named f32_1x1_abacus"),
        ({"kernel": "u32_4x8_portable"}, "does not fit these elements"),
        ({"wrt": "bias"}, "unknown name: bias"),
        ({"element": "float8"}, "unknown name: float8"),
        ({"axes": []}, "one to three spatial axes"),
        ({"axes": [1, 1, 1, 1, 1, 0] * 4}, "one to three spatial axes"),
    ],
    ids=["kernel", "element of kernel", "operand", "element", "no axes", "four axes"],
)
def test_core_refuses_plans(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.Plan(**one_axis(**changes))


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 3, 2), (2, 2, 2), (1, 7, 2)],
        [(1, 3, 2), (2, 2, 2), (2, 6, 2)],
        [(1, 3, 2), (2, 2, 3), (1, 6, 2)],
        [(1, 3, 1), (2, 2, 2), (1, 6, 2)],
        [(1, 3), (2, 2, 2), (1, 6, 2)],
        [(1, 2, 3), (2, 2, 2), (1, 6, 2)],
    ],
    ids=["output length", "output batch", "filter channels", "input channels", "rank", "layout"],
)
def test_core_refuses_arrays_that_do_not_match(shapes: list[tuple[int, ...]]) -> None:
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(ValueError, match="does not match the plan"):
        _native.Plan(**one_axis()).run(*arrays)


def test_core_refuses_elements_of_another_size() -> None:
    arrays = [np.zeros(shape, np.float64) for shape in [(1, 3, 2), (2, 2, 2), (1, 6, 2)]]
    with pytest.raises(ValueError, match="rank or element type"):
        _native.Plan(**one_axis()).run(*arrays)


def test_core_writes_to_no_read_only_array() -> None:
    arrays = [np.zeros(shape, np.float32) for shape in [(1, 3, 2), (2, 2, 2), (1, 6, 2)]]
    arrays[2].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        _native.Plan(**one_axis()).run(*arrays)


def test_core_refuses_what_is_no_array() -> None:
    arrays = [np.zeros(shape, np.float32) for shape in [(1, 3, 2), (2, 2, 2), (1, 6, 2)]]
    for n in range(3):
        with pytest.raises(TypeError):
            _native.Plan(**one_axis()).run(*arrays[:n], None, *arrays[n + 1 :])


def test_core_refuses_arrays_that_it_cannot_address() -> None:
    right = [np.zeros(shape, np.float32) for shape in [(1, 3, 2), (2, 2, 2), (1, 6, 2)]]
    rows = np.zeros((3, 9), np.uint8)[None, :, :8].view(np.float32)  # 9 bytes apart
    for wrong in (rows, np.zeros((1, 1, 1, 1, 3, 2), np.float32)):
        with pytest.raises(ValueError, match="too many dimensions or is not aligned"):
            _native.Plan(**one_axis()).run(wrong, *right[1:])
    one = np.zeros((1, 9), np.uint8)[None, :, :8].view(np.float32)  # strides of single cells may be of any size
    _native.Plan(**one_axis(axes=[1, 2, 2, 2, 1, 0])).run(one, right[1], np.zeros((1, 2, 2), np.float32))
