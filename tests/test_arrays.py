# SPDX-License-Identifier: Apache-2.0
"""Arrays as they come: whatever they look like in memory, results are right, and the arrays are left as they were."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import Case, given
from numpy.testing import assert_array_equal

from backstride import nn
from backstride._backends import numpy as backend
from backstride.keras import backend as keras

Make = Callable[[np.ndarray], np.ndarray]


class Subclass(np.ndarray):
    """As any library derives one; what it does to indexing and arithmetic must not matter."""

    def __getitem__(self, _: Any) -> Any:
        raise AssertionError("elements were read through the subclass")

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("computed with the subclass")


def filler(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A larger array to cut views out of; what must not be read is not zero."""
    return np.full(shape, 77, array.dtype)


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def strided(array: np.ndarray) -> np.ndarray:
    larger = filler(array, tuple(3 * length for length in array.shape))
    view = larger[tuple(slice(1, None, 3) for _ in array.shape)]
    view[...] = array
    return view


def sliced(array: np.ndarray) -> np.ndarray:
    """Cut out of a larger array, as a crop of an image or some of its channels."""
    larger = filler(array, tuple(length + 3 for length in array.shape))
    view = larger[tuple(slice(1, 1 + length) for length in array.shape)]
    view[...] = array
    return view


def negative_strided(array: np.ndarray) -> np.ndarray:
    turn = tuple(slice(None, None, -1) for _ in array.shape)
    return array[turn].copy()[turn]


def rows_backwards(array: np.ndarray) -> np.ndarray:
    """All axes but the last run backwards, so that rows can be read in place."""
    turn = (*(slice(None, None, -1) for _ in array.shape[1:]), slice(None))
    return array[turn].copy()[turn]


def transposed(array: np.ndarray) -> np.ndarray:
    """The axes lie in memory in some other order."""
    order = np.roll(np.arange(array.ndim), 1)
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def unaligned(array: np.ndarray) -> np.ndarray:
    buffer = np.empty(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert array.itemsize == 1 or not view.flags.aligned
    return view


def in_records(array: np.ndarray) -> np.ndarray:
    """A field of packed records: strides that are no multiple of the element's size."""
    records = np.zeros(array.shape, [("pad", "u1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def big_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder(">"))


def big_endian_strided(array: np.ndarray) -> np.ndarray:
    return strided(big_endian(array))


def little_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"))


def fortran(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def subclass(array: np.ndarray) -> np.ndarray:
    return array.copy().view(Subclass)


def record_array(array: np.ndarray) -> np.ndarray:
    return array.copy().view(np.recarray)


MAKES = [
    read_only,
    strided,
    sliced,
    negative_strided,
    rows_backwards,
    transposed,
    unaligned,
    in_records,
    big_endian,
    big_endian_strided,
    little_endian,
    fortran,
    subclass,
]
NO_BYTE_ORDER = {big_endian, big_endian_strided, little_endian}  # for ml_dtypes
DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u8")] + [
    np.dtype(ml_dtypes.bfloat16)
]
CASES = [
    each for each in cases.SELECTED if str(each) in ("fcn-k4-s2-odd", "negative-crop", "1d", "3d-mixed", "groups-2")
]


def plain(array: np.ndarray) -> np.ndarray:
    return np.array(np.asarray(array), array.dtype.newbyteorder("="), order="C")


def check(wrt: str, case: Case, first: np.ndarray, second: np.ndarray) -> None:
    """The result is right, native and new, and the inputs are as they were."""
    before = first.tobytes(), second.tobytes()
    got = backend.derivative(wrt, case.geometry, first, second)
    want = reference.derivative(wrt, plain(first), plain(second), case.geometry)
    assert type(got) is np.ndarray
    assert got.dtype == first.dtype.newbyteorder("=")
    assert got.dtype.isnative
    assert_array_equal(got, want)
    assert (first.tobytes(), second.tobytes()) == before
    assert not np.shares_memory(got, np.asarray(first))
    assert not np.shares_memory(got, np.asarray(second))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_memory_layout(make: Make, dtype: np.dtype) -> None:
    if make in NO_BYTE_ORDER and dtype.name == "bfloat16":
        pytest.skip("bfloat16 has no byte order but the machine's")
    for case, wrt in itertools.product(CASES, cases.OPERANDS):
        for layout in (case, case.channels_first):
            arrays = [layout.integers(name, dtype) for name in given(wrt)]
            assert_array_equal(np.asarray(make(arrays[0])), arrays[0])
            check(wrt, layout, make(arrays[0]), make(arrays[1]))


@pytest.mark.parametrize("second", MAKES[:7], ids=lambda make: make.__name__)
@pytest.mark.parametrize("first", MAKES[:7], ids=lambda make: make.__name__)
def test_mixed_memory_layouts(first: Make, second: Make) -> None:
    for wrt in cases.OPERANDS:
        one, other = (CASES[0].integers(name, np.float32) for name in given(wrt))
        check(wrt, CASES[0], first(one), second(other))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,), (1, 2), (0, 3), (0, 1, 2, 3)], ids=str)
def test_broadcast_arrays(axes: tuple[int, ...], dtype: np.dtype) -> None:
    """Strides of zero along any axes."""
    case = CASES[0]
    for wrt, layout in itertools.product(cases.OPERANDS, (case, case.channels_first)):
        arrays = []
        for name in given(wrt):
            array = layout.integers(name, dtype)
            thin = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(4))]
            arrays.append(np.broadcast_to(thin, array.shape))
        check(wrt, layout, *arrays)


def test_one_array_may_be_both_operands() -> None:
    both = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
    got = nn.conv2d_transpose(both.reshape(4, 1, 1, 4), both.reshape(2, 2, 1, 4), (4, 2, 2, 1), 1, "VALID")
    assert_array_equal(got[:, :, :, 0].reshape(4, 4), both.reshape(4, 4) @ both.reshape(4, 4).T)
    assert_array_equal(both.ravel(), np.arange(1, 17))


def test_overlapping_windows_of_one_array() -> None:
    """A view in which elements appear many times, as sliding windows do."""
    line = np.arange(20, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(line, 5)[None, :, None, :]
    w = np.ones((1, 1, 3, 5), np.float32)
    got = nn.conv2d_transpose(windows, w, (16, 1), 1)
    assert_array_equal(got[0, :, 0, 1], windows[0, :, 0].sum(axis=1))


def test_memory_map(tmp_path: Path) -> None:
    case = CASES[0]
    x, w = case.integers("input", np.float32), case.integers("filter", np.float32)
    x.tofile(tmp_path / "x")
    for mode in ("r", "r+", "c"):
        check("output", case, np.memmap(tmp_path / "x", np.float32, mode, shape=x.shape), w)
    assert (tmp_path / "x").read_bytes() == x.tobytes()


def test_record_array() -> None:
    case = CASES[0]
    check("output", case, *(record_array(case.integers(name, np.float32)) for name in given("output")))


def call(value: Any, filter: Any) -> np.ndarray:
    return nn.conv2d_transpose(value, filter, (4, 4), 2)


VALUE, FILTER = np.ones((1, 2, 2, 3), np.float32), np.ones((2, 2, 1, 3), np.float32)


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_public_functions_take_them(make: Make) -> None:
    value, filter = make(VALUE), make(FILTER)
    assert_array_equal(call(value, filter), np.full((1, 4, 4, 1), 3))
    assert_array_equal(keras.conv2d_transpose(value, filter, (1, 4, 4, 1), (2, 2)), np.full((1, 4, 4, 1), 3))
    g = np.ones((1, 4, 4, 1), np.float32)
    assert_array_equal(nn.conv2d(make(g), filter, 2, "VALID"), np.full((1, 2, 2, 3), 4))
    assert_array_equal(nn.conv2d_backprop_filter(make(g), (2, 2, 1, 3), value, 2, "VALID"), np.full((2, 2, 1, 3), 4))
    assert_array_equal(VALUE, 1)


def test_byte_orders_are_one_dtype() -> None:
    assert_array_equal(call(big_endian(VALUE), FILTER), call(VALUE, FILTER))
    assert call(big_endian(VALUE), FILTER).dtype == np.float32


# Not taken


@pytest.mark.parametrize("dtype", ["?", "c8", "c16", "O", "S1", "U1", "M8[D]", "m8[D]", "V1", "g"])
def test_dtypes_that_are_refused(dtype: str) -> None:
    for value, filter in ((VALUE.astype("i4").astype(dtype), FILTER), (VALUE, np.zeros(FILTER.shape, dtype))):
        with pytest.raises(TypeError, match=r"has dtype .*; it must be one of"):
            call(value, filter)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "int4", "uint4", "float4_e2m1fn"])
def test_narrower_dtypes_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"`value` has dtype {name}; it must be one of"):
        call(VALUE.astype(getattr(ml_dtypes, name)), FILTER)


@pytest.mark.parametrize("mask", [False, True, VALUE > 0], ids=["no-mask", "whole", "array"])
def test_masked_arrays_are_refused(mask: Any) -> None:
    with pytest.raises(TypeError, match=r"`value` is a masked array, .*value\.filled\(0\)"):
        call(np.ma.array(VALUE, mask=mask), FILTER)
    with pytest.raises(TypeError, match="`filter` is a masked array"):
        call(VALUE, np.ma.array(FILTER, mask=False))


class MaskedSubclass(np.ma.MaskedArray):
    pass


def test_subclasses_of_masked_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="`value` is a masked array"):
        call(VALUE.view(MaskedSubclass), FILTER)


class Foreign:
    """Another library's array. It offers every door, and none may be opened."""

    shape, ndim, size, dtype = VALUE.shape, 4, VALUE.size, VALUE.dtype
    __array_priority__ = 1000

    def opened(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("an array of an unknown library must not be converted")

    __array__ = __dlpack__ = __array_ufunc__ = __array_function__ = __iter__ = __len__ = __getitem__ = opened
    __array_interface__ = __cuda_array_interface__ = property(opened)


def test_arrays_of_other_libraries_are_refused() -> None:
    for value, filter, name in (
        (Foreign(), FILTER, "value"),
        (VALUE, Foreign(), "filter"),
        (Foreign(), Foreign(), "value"),
    ):
        with pytest.raises(TypeError, match=f"^`{name}` must be a NumPy array, .*; got test_arrays.Foreign$"):
            call(value, filter)
    with pytest.raises(TypeError, match=r"^`x` must be a NumPy array, .*; got test_arrays.Foreign$"):
        keras.conv2d_transpose(Foreign(), FILTER, (1, 4, 4, 1))


def test_a_type_named_like_numpy_is_another_library() -> None:
    """The library is known by the package in which a type is defined, not by a likeness of the name."""
    kind = type("ndarray", (Foreign,), {"__module__": "numpy_like.core"})
    with pytest.raises(TypeError, match=r"got numpy_like.core.ndarray$"):
        call(kind(), FILTER)


def test_results_are_new_arrays() -> None:
    first, second = call(VALUE, FILTER), call(VALUE, FILTER)
    first[...] = 7
    assert_array_equal(second, 3)
    assert_array_equal(call(VALUE, FILTER), 3)


def test_identity_does_not_return_its_input() -> None:
    eye = np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)
    got = nn.conv2d_transpose(VALUE, eye, VALUE.shape, 1)
    assert_array_equal(got, VALUE)
    assert not np.shares_memory(got, VALUE)


def test_views_are_not_read_beyond_their_elements() -> None:
    """The cells around and between a view's elements are NaN, and none arrives in the result."""
    case = CASES[0]
    for make in (strided, sliced, negative_strided):
        arrays = []
        for name in given("output"):
            view = make(case.integers(name, np.float32))
            base = view.base if isinstance(view.base, np.ndarray) else view
            keep = view.copy()
            base[...] = np.nan
            view[...] = keep
            arrays.append(view)
        check("output", case, *arrays)
