# SPDX-License-Identifier: Apache-2.0
"""The documented functions: worked examples, every spelling of every argument, signatures, sizes of zero, dtypes."""

from __future__ import annotations

import array
import ctypes
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import Call
from numpy.testing import assert_array_equal

import backstride
from backstride import _activations, _native, layers, nn
from backstride._geometry import Axis, Geometry
from backstride.compat import v1
from backstride.keras import backend

# Worked examples, one axis each, as observed in TensorFlow


def line(values: Any, axis: int, dtype: Any = np.float32) -> np.ndarray:
    """A one-channel image that is one line along `axis`."""
    shape = [1, 1, 1, 1]
    shape[1 + axis] = len(values)
    return np.array(values, dtype).reshape(shape)


def taps(values: Any, axis: int, dtype: Any = np.float32) -> np.ndarray:
    """A one-channel filter that is one line along `axis`."""
    shape = [1, 1, 1, 1]
    shape[axis] = len(values)
    return np.array(values, dtype).reshape(shape)


def pair(value: int, axis: int) -> list[int]:
    return [value, 1] if axis == 0 else [1, value]


def transposed_line(x: Any, w: Any, s: int, d: int, padding: str, output: int, axis: int) -> np.ndarray:
    return nn.conv2d_transpose(
        line(x, axis), taps(w, axis), pair(output, axis), pair(s, axis), padding, dilations=pair(d, axis)
    ).ravel()


# input, kernel, stride, dilation, padding: legal outputs from .. to, pad before of each, length a layer chooses
LENGTHS = [
    (3, 3, 1, 1, "SAME", range(3, 4), [1], 3),
    (3, 3, 2, 1, "SAME", range(5, 7), [1, 0], 6),
    (3, 2, 2, 1, "SAME", range(5, 7), [0, 0], 6),
    (3, 4, 2, 1, "SAME", range(5, 7), [1, 1], 6),
    (3, 5, 2, 1, "SAME", range(5, 7), [2, 1], 6),
    (3, 1, 2, 1, "SAME", range(5, 7), [0, 0], 6),
    (3, 2, 3, 1, "SAME", range(7, 10), [0, 0, 0], 9),
    (4, 7, 3, 1, "SAME", range(10, 13), [3, 2, 2], 12),
    (1, 3, 4, 1, "SAME", range(1, 5), [1, 0, 0, 0], 4),
    (3, 7, 1, 1, "SAME", range(3, 4), [3], 3),
    (3, 3, 1, 2, "SAME", range(3, 4), [2], None),
    (4, 3, 2, 2, "SAME", range(7, 9), [2, 1], None),
    (2, 2, 2, 3, "SAME", range(3, 5), [1, 1], None),
    (3, 3, 1, 1, "VALID", range(5, 6), [0], 5),
    (3, 3, 2, 1, "VALID", range(7, 9), [0, 0], 7),
    (3, 2, 2, 1, "VALID", range(6, 8), [0, 0], 6),
    (3, 2, 3, 1, "VALID", range(8, 11), [0, 0, 0], 9),
    (3, 1, 4, 1, "VALID", range(9, 13), [0, 0, 0, 0], 12),
    (1, 5, 4, 1, "VALID", range(5, 9), [0, 0, 0, 0], 5),
    (3, 3, 1, 2, "VALID", range(7, 8), [0], None),
    (4, 3, 2, 2, "VALID", range(11, 13), [0, 0], None),
    (2, 2, 2, 3, "VALID", range(6, 8), [0, 0], None),
    (0, 3, 1, 1, "SAME", range(1), None, None),
    (0, 3, 1, 1, "VALID", range(3), None, 2),
    (0, 5, 2, 1, "VALID", range(5), None, 3),
]


def row_id(row: Any) -> str:
    return "-".join(map(str, row[:5]))


@pytest.mark.parametrize("axis", [0, 1], ids=["height", "width"])
@pytest.mark.parametrize("row", LENGTHS, ids=row_id)
def test_worked_example_of_lengths(row: Any, axis: int) -> None:
    i, k, s, d, padding, legal, pads, layer = row
    x, w = range(1, i + 1), [10.0**n for n in range(k)]
    for output in range(2 * (i + k) * s):
        if output in legal:
            pad = pads[output - legal[0]] if pads else 0
            sized = Geometry((Axis(i, k, output, s, d, pad),), 1, 1, 1)
            want = reference.wide_output(np.reshape([*map(float, x)], (1, -1, 1)), np.reshape(w, (-1, 1, 1)), sized)
            assert_array_equal(transposed_line(x, w, s, d, padding, output, axis), want.ravel(), err_msg=f"{output=}")
        else:
            with pytest.raises(ValueError, match=f"`output_shape` {('height', 'width')[axis]} {output} does not fit"):
                transposed_line(x, w, s, d, padding, output, axis)
    assert layer is None or layer in legal


VALUES = [
    ([1, 2, 3], [1, 10, 100], 1, 1, "SAME", [12, 123, 230]),
    ([1, 2, 3], [1, 10, 100], 2, 1, "SAME", [10, 102, 20, 203, 30]),
    ([1, 2, 3], [1, 10, 100], 2, 1, "SAME", [1, 10, 102, 20, 203, 30]),
    ([1, 2, 3], [1, 10, 100], 2, 1, "VALID", [1, 10, 102, 20, 203, 30, 300, 0]),
    ([1, 2, 3], [1, 10, 100, 1000], 2, 1, "SAME", [10, 102, 1020, 203, 2030, 300]),
    ([1, 2, 3], [1, 10], 3, 1, "VALID", [1, 10, 0, 2, 20, 0, 3, 30, 0]),
    ([1, 2, 3], [1, 10, 100], 1, 2, "SAME", [13, 20, 130]),
    ([1, 2], [1, 10, 100], 2, 2, "SAME", [0, 12, 0, 120]),
    ([1, 2], [1, 10, 100], 2, 3, "SAME", [10, 0, 20]),
    ([1], [1, 10, 100], 4, 1, "SAME", [1, 10, 100, 0]),
]


@pytest.mark.parametrize("axis", [0, 1], ids=["height", "width"])
@pytest.mark.parametrize("row", VALUES, ids=[f"{row[2:5]}-to-{len(row[5])}" for row in VALUES])
def test_worked_example_of_values(row: Any, axis: int) -> None:
    *call, want = row
    assert_array_equal(transposed_line(*call, len(want), axis), want)


# Spellings

BASE = Call(
    input=(3, 4),
    kernel=(3, 2),
    output=(6, 12),
    strides=(2, 3),
    dilations=(1, 1),
    padding="SAME",
    batch=2,
    in_channels=3,
    out_channels=4,
    channels_first=False,
)


def longest(call: Call) -> Call:
    """The call with the longest legal output."""
    crop = None if call.padding == "SAME" else (0, 0)
    sizes = zip(call.input, call.kernel, call.strides, call.dilations, strict=True)
    return replace(call, output=tuple(reference.legal_lengths(*size, crop)[-1] for size in sizes))


def layouts(call: Call) -> Iterator[Call]:
    yield call
    yield replace(call, channels_first=True)


def operands(call: Call) -> tuple[np.ndarray, np.ndarray]:
    return call.integers("input"), call.integers("filter")


def expected(call: Call) -> np.ndarray:
    return reference.derivative("output", *operands(call), call.geometry)


def check(call: Call, **arguments: Any) -> None:
    """conv2d_transpose with `arguments` in place of those that spell the call out is the call."""
    value, filter = operands(call)
    plain = {
        "value": value,
        "filter": filter,
        "output_shape": call.output_shape,
        "strides": call.strides,
        "padding": call.padding,
        "data_format": call.data_format,
        "dilations": call.dilations,
    }
    merged = {name: value for name, value in (plain | arguments).items() if value is not ...}
    got = nn.conv2d_transpose(**merged)
    assert got.dtype == np.float32
    assert_array_equal(got, expected(call))


class Dimensions:
    """A shape object as array libraries have them: ordered, sized and iterable, but neither list nor tuple."""

    def __init__(self, *entries: Any) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)


class Dimension:
    """An int in disguise."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_plain_call(channels_first: bool, padding: str) -> None:
    check(longest(replace(BASE, padding=padding, channels_first=channels_first, dilations=(2, 3))))


# a spelling, in NCHW where that differs, and what it says of height and width
WINDOWS = {
    "int": (2, None, (2, 2)),
    "numpy-int": (np.int8(2), None, (2, 2)),
    "0-d-array": (np.array(2), None, (2, 2)),
    "index": (Dimension(2), None, (2, 2)),
    "None": (None, None, (1, 1)),
    "list-1": ([2], None, (2, 2)),
    "tuple-1": ((3,), None, (3, 3)),
    "list-2": ([2, 3], None, (2, 3)),
    "tuple-2": ((3, 1), None, (3, 1)),
    "list-4": ([1, 2, 3, 1], [1, 1, 2, 3], (2, 3)),
    "tuple-4": ((1, 3, 1, 1), (1, 1, 3, 1), (3, 1)),
    "array-1": (np.array([2]), None, (2, 2)),
    "array-2": (np.array([2, 3], np.uint8), None, (2, 3)),
    "array-4": (np.array([1, 2, 3, 1]), np.array([1, 1, 2, 3]), (2, 3)),
    "range": (range(2, 4), None, (2, 3)),
    "list-of-numpy-ints": ([np.int64(2), np.uint8(3)], None, (2, 3)),
    "list-of-0-d-arrays": ([np.array(2), np.array(3)], None, (2, 3)),
    "shape-object": (Dimensions(1, 2, 3, 1), Dimensions(1, 1, 2, 3), (2, 3)),
    "list-of-index": ([Dimension(2), Dimension(3)], None, (2, 3)),
    "array-view": (np.arange(6)[3:1:-1], None, (3, 2)),
    "big-endian-array": (np.array([2, 3], ">i4"), None, (2, 3)),
}


@pytest.mark.parametrize("name", ["strides", "dilations"])
@pytest.mark.parametrize("spelling", WINDOWS)
def test_spelling_of_windows(name: str, spelling: str) -> None:
    last, first, meaning = WINDOWS[spelling]
    for call in layouts(longest(replace(BASE, **{name: meaning}))):
        check(call, **{name: first if call.channels_first and first is not None else last})


def test_windows_may_be_left_out() -> None:
    plain = longest(replace(BASE, strides=(1, 1)))
    for call in layouts(plain):
        check(call, strides=..., dilations=...)


SHAPES = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "uint8-array": lambda entries: np.array(entries, np.uint8),
    "big-endian-array": lambda entries: np.array(entries, ">u2"),
    "object-array": lambda entries: np.array(entries, object),
    "shape-object": lambda entries: Dimensions(*entries),
    "list-of-index": lambda entries: [Dimension(entry) for entry in entries],
    "list-of-0-d-arrays": lambda entries: [np.array(entry) for entry in entries],
    "list-of-numpy-ints": lambda entries: list(np.array(entries)),
    "array-object": lambda entries: array.array("l", entries),
}


@pytest.mark.parametrize("spelling", SHAPES)
def test_spelling_of_output_shape(spelling: str) -> None:
    for call in layouts(BASE):
        check(call, output_shape=SHAPES[spelling](call.output_shape))


@pytest.mark.parametrize("spelling", SHAPES)
def test_output_shape_may_be_height_and_width_alone(spelling: str) -> None:
    for call in layouts(BASE):
        check(call, output_shape=SHAPES[spelling](call.output))


def test_aliases() -> None:
    value, filter = operands(BASE)
    check(BASE, value=..., input=value)
    check(BASE, filter=..., filters=filter)
    check(BASE, value=..., input=value, filter=..., filters=filter)
    check(BASE, value=None, input=value, filter=None, filters=filter)


def test_first_documented_call() -> None:
    """As TensorFlow 1 documents it: four required arguments in this order, the rest by default."""
    value, filter = operands(BASE)
    assert_array_equal(nn.conv2d_transpose(value, filter, BASE.output_shape, [1, 2, 3, 1]), expected(BASE))


def test_positional_order() -> None:
    """The name comes seventh, before `input`."""
    for call in layouts(longest(replace(BASE, padding="VALID", dilations=(2, 1)))):
        value, filter = operands(call)
        spelled = call.output_shape, call.strides, call.padding, call.data_format, "any name"
        assert_array_equal(nn.conv2d_transpose(value, filter, *spelled, None, None, call.dilations), expected(call))


def test_name_is_ignored() -> None:
    for name in ("a name", None, 7, object(), b"?"):
        check(BASE, name=name)


def test_data_format_none_is_channels_last() -> None:
    check(BASE, data_format=None)
    check(BASE, data_format=...)


def test_default_padding_is_same() -> None:
    check(BASE, padding=...)


def test_filter_axes_are_height_width_out_in() -> None:
    """In both data formats; a filter of four different lengths fits in one order only."""
    for call in layouts(longest(replace(BASE, kernel=(5, 2), in_channels=7, out_channels=3))):
        assert operands(call)[1].shape == (5, 2, 3, 7)
        check(call)


# Explicit paddings


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("crop", [(0, 0), (1, 0), (0, 2), (2, 1), (4, 3)], ids=str)
@pytest.mark.parametrize("first", [False, True], ids=["NHWC", "NCHW"])
def test_explicit_padding(crop: tuple[int, int], stride: int, first: bool) -> None:
    x, w = [1, 2, 3, 4], [1, 10, 100]
    pairs = [(0, 0), (0, 0), (0, 0), crop] if first else [(0, 0), (0, 0), crop, (0, 0)]
    data_format, value = ("NCHW", line(x, 2)) if first else ("NHWC", line(x, 1))
    legal = reference.legal_lengths(4, 3, stride, 1, crop)
    assert len(legal) == stride or crop == (4, 3)
    for output in legal:
        geometry = Geometry((Axis(4, 3, output, stride, 1, crop[0]),), 1, 1, 1)
        want = reference.wide_output(np.reshape(x, (1, 4, 1)), np.reshape(w, (3, 1, 1)), geometry)
        for padding in (pairs, tuple(map(list, pairs)), np.array(pairs), [np.array(each) for each in pairs]):
            got = nn.conv2d_transpose(value, taps(w, 1), [1, output], (1, stride), padding, data_format)
            assert_array_equal(got.ravel(), want.ravel())


@pytest.mark.parametrize("crop", [(0, 0), (1, 0), (0, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_legal_lengths_of_explicit_padding(crop: tuple[int, int], stride: int) -> None:
    legal = reference.legal_lengths(4, 3, stride, 1, crop)
    for output in {*range(20)} - {*legal}:
        with pytest.raises(ValueError, match=f"width {output} does not fit.*widths? {legal[0]}.* would fit"):
            nn.conv2d_transpose(
                line([1] * 4, 1), taps([1] * 3, 1), [1, output], (1, stride), [(0, 0), (0, 0), crop, (0, 0)]
            )


# Keras


def check_keras(call: Call, function: Any = backend.conv2d_transpose, **arguments: Any) -> None:
    x, kernel = operands(call)
    plain = {
        "x": x,
        "kernel": kernel,
        "output_shape": tuple(call.output_shape),
        "strides": call.strides,
        "padding": call.padding.lower(),
        "data_format": "channels_first" if call.channels_first else "channels_last",
        "dilation_rate": call.dilations,
    }
    merged = {name: value for name, value in (plain | arguments).items() if value is not ...}
    assert_array_equal(function(**merged), expected(call))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)], ids=str)
def test_keras_honours_strides_and_dilation(strides: Any, dilations: Any, padding: str) -> None:
    for call in layouts(longest(replace(BASE, strides=strides, dilations=dilations, padding=padding))):
        check_keras(call)


def test_keras_defaults() -> None:
    call = longest(replace(BASE, strides=(1, 1), padding="VALID"))
    check_keras(call, strides=..., padding=..., data_format=..., dilation_rate=...)
    x, kernel = operands(call)
    assert_array_equal(backend.conv2d_transpose(x, kernel, tuple(call.output_shape)), expected(call))


def test_keras_positional_order() -> None:
    call = longest(replace(BASE, channels_first=True, dilations=(2, 2)))
    x, kernel = operands(call)
    spelled = tuple(call.output_shape), (2, 3), "same", "channels_first", (2, 2)
    assert_array_equal(backend.conv2d_transpose(x, kernel, *spelled), expected(call))


@pytest.mark.parametrize("name", ["strides", "dilation_rate"])
@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ((2, 3), (2, 3)),
        ([2, 3], (2, 3)),
        ([1, 1], (1, 1)),
        ((1, 1), (1, 1)),
        (np.array([2, 2]), (2, 2)),
        ((np.int8(3), np.int64(1)), (3, 1)),
        (2, (2, 2)),
    ],
    ids=repr,
)
def test_spelling_of_keras_windows(name: str, spelling: Any, meaning: tuple[int, int]) -> None:
    """A list of ones, too: TensorFlow drops the strides where the dilation is a list."""
    field = {"strides": "strides", "dilation_rate": "dilations"}[name]
    for call in layouts(longest(replace(BASE, **{field: meaning}))):
        check_keras(call, **{name: spelling})


@pytest.mark.parametrize("spelling", [name for name in SHAPES if "int" not in name])
def test_spelling_of_keras_output_shape(spelling: str) -> None:
    for call in layouts(BASE):
        check_keras(call, output_shape=SHAPES[spelling](call.output_shape))


def test_keras_batch_may_be_unknown() -> None:
    for call in layouts(BASE):
        check_keras(call, output_shape=(None, *call.output_shape[1:]))
        check_keras(call, output_shape=[None, *call.output_shape[1:]])
        check_keras(call, output_shape=Dimensions(None, *call.output_shape[1:]))


@pytest.fixture
def channels_first_by_default() -> Iterator[None]:
    backend.set_image_data_format("channels_first")
    yield
    backend.set_image_data_format("channels_last")


def test_keras_data_format_setting_is_channels_last_at_first() -> None:
    assert backend.image_data_format() == "channels_last"


@pytest.mark.usefixtures("channels_first_by_default")
def test_keras_reads_the_data_format_setting() -> None:
    assert v1.keras.backend.image_data_format() == "channels_first"
    call = replace(BASE, channels_first=True)
    check_keras(call, data_format=None)
    check_keras(call, data_format=...)
    check_keras(BASE, data_format="channels_last")
    check(BASE)


def test_keras_takes_lists() -> None:
    x, kernel = operands(BASE)
    check_keras(BASE, x=x.tolist(), kernel=kernel.tolist())


# Neighbours of other ranks and names


def transposed(call: Call, *arguments: Any, **keywords: Any) -> np.ndarray:
    function = {1: nn.conv1d_transpose, 2: nn.conv2d_transpose, 3: nn.conv3d_transpose}[call.rank]
    return function(*operands(call), *arguments, **keywords)


LINE = Call((5,), (4,), (10,), (2,), (1,), "SAME", 2, 3, 4, False)
CUBE = Call((3, 2, 4), (2, 3, 3), (6, 2, 12), (2, 1, 3), (1, 1, 1), "SAME", 2, 3, 2, False)
RANKS = pytest.mark.parametrize("call", [LINE, BASE, CUBE], ids=["1d", "2d", "3d"])


@RANKS
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_every_rank(call: Call, padding: str) -> None:
    for each in layouts(longest(replace(call, padding=padding, dilations=(2,) * call.rank))):
        got = transposed(each, each.output_shape, each.strides, padding, each.data_format, dilations=each.dilations)
        assert_array_equal(got, expected(each))
        got = nn.conv_transpose(
            *operands(each),
            each.output_shape,
            each.strides,
            padding,
            each.data_format,
            each.dilations,
            "name",
        )
        assert_array_equal(got, expected(each))


@RANKS
def test_spellings_at_every_rank(call: Call) -> None:
    for each in layouts(call):
        whole = [1, 1, *call.strides] if each.channels_first else [1, *call.strides, 1]
        for strides in (whole, call.strides, np.array(whole)):
            keywords = {"strides": strides, "data_format": each.data_format}
            for output_shape in (each.output_shape, each.output):
                assert_array_equal(transposed(each, output_shape, **keywords), expected(each))
            assert_array_equal(nn.conv_transpose(*operands(each), each.output_shape, **keywords), expected(each))


@RANKS
def test_conv_transpose_takes_the_rank_from_output_shape(call: Call) -> None:
    got = nn.conv_transpose(*operands(call), tuple(call.output_shape), call.strides)
    assert_array_equal(got, expected(call))
    got = nn.conv_transpose(*operands(call), call.output_shape, call.strides, data_format=call.data_format)
    assert_array_equal(got, expected(call))


@RANKS
def test_explicit_padding_at_every_rank(call: Call) -> None:
    """One cell cut off before each axis and two after; the kernels are two cells or more."""
    longer = longest(replace(call, padding="VALID", kernel=tuple(k + 1 for k in call.kernel)))
    axes = tuple(
        replace(axis, pad=1, output=(axis.input - 1) * axis.stride + axis.kernel - 3) for axis in longer.geometry.axes
    )
    crop, call = [(1, 2)] * call.rank, longer
    for each in layouts(call):
        geometry = replace(each.geometry, axes=axes)
        pairs = [(0, 0), (0, 0), *crop] if each.channels_first else [(0, 0), *crop, (0, 0)]
        got = transposed(each, geometry.shape("output"), call.strides, pairs, each.data_format)
        assert_array_equal(got, reference.derivative("output", *operands(each), geometry))


def test_aliases_in_3d() -> None:
    value, filter = operands(CUBE)
    got = nn.conv3d_transpose(output_shape=CUBE.output_shape, strides=CUBE.strides, input=value, filters=filter)
    assert_array_equal(got, expected(CUBE))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("rate", [1, 2, np.int64(3)])
def test_atrous(rate: int, padding: str) -> None:
    call = longest(replace(BASE, strides=(1, 1), dilations=(rate, rate), padding=padding))
    got = nn.atrous_conv2d_transpose(*operands(call), call.output_shape, rate, padding, name="any")
    assert_array_equal(got, expected(call))


# Convolutions and their gradients


def cotangent(call: Call) -> np.ndarray:
    return call.integers("output")


def gradient(call: Call, wrt: str) -> np.ndarray:
    first, second = (call.integers(name) for name in cases.given(wrt))
    return reference.derivative(wrt, first, second, call.geometry)


CONVOLUTIONS = [
    longest(BASE),
    replace(BASE, output=(5, 10)),
    longest(replace(BASE, padding="VALID")),
    longest(replace(BASE, padding="VALID", dilations=(3, 2), strides=(2, 2))),
    longest(replace(BASE, dilations=(2, 4), kernel=(4, 3))),
]


@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("call", CONVOLUTIONS, ids=["same", "odd", "valid", "dilated", "same-dilated"])
def test_convolution_is_the_input_gradient(call: Call, channels_first: bool) -> None:
    call = replace(call, channels_first=channels_first)
    keywords = {"strides": call.strides, "padding": call.padding, "data_format": call.data_format}
    keywords |= {"dilations": call.dilations}
    want = gradient(call, "input")
    assert_array_equal(nn.conv2d(cotangent(call), call.integers("filter"), **keywords), want)
    assert_array_equal(nn.conv2d(cotangent(call), filters=call.integers("filter"), **keywords), want)


@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("call", CONVOLUTIONS, ids=["same", "odd", "valid", "dilated", "same-dilated"])
def test_gradients_of_the_convolution(call: Call, channels_first: bool) -> None:
    call = replace(call, channels_first=channels_first)
    window = {"strides": call.strides, "padding": call.padding, "data_format": call.data_format}
    window |= {"dilations": call.dilations}
    x, w = operands(call)
    assert_array_equal(nn.conv2d_backprop_input(call.output_shape, w, x, **window), expected(call))
    assert_array_equal(nn.conv2d_backprop_input(call.output, filters=w, out_backprop=x, **window), expected(call))
    want = gradient(call, "filter")
    assert_array_equal(nn.conv2d_backprop_filter(cotangent(call), w.shape, x, **window), want)


@pytest.mark.parametrize("groups", [2, 4], ids=["grouped", "depthwise"])
@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_grouped_convolution(groups: int, channels_first: bool) -> None:
    """Groups are what the input channels are a multiple of."""
    call = longest(replace(BASE, in_channels=8, out_channels=4, channels_first=channels_first))
    geometry = replace(call.geometry, groups=groups)
    x, w, g = (cases.integers(geometry, name, np.float32) for name in cases.OPERANDS)
    assert w.shape == (3, 2, 4 // groups, 8)
    window = {"strides": call.strides, "padding": call.padding, "data_format": call.data_format}
    got = nn.conv2d(g, w, **window)
    assert_array_equal(got, reference.derivative("input", w, g, geometry))
    got = nn.conv2d_backprop_input(g.shape, w, x, **window)
    assert_array_equal(got, reference.derivative("output", x, w, geometry))
    got = nn.conv2d_backprop_filter(g, w.shape, x, **window)
    assert_array_equal(got, reference.derivative("filter", x, g, geometry))


def test_convolution_of_explicit_padding() -> None:
    g, w = line([1, 2, 3, 4, 5], 1), taps([1, 10, 100], 1)
    got = nn.conv2d(g, w, [1, 1, 2, 1], [(0, 0), (0, 0), (1, 2), (0, 0)])
    assert_array_equal(got.ravel(), [210, 432, 54])


def test_positional_order_of_convolutions() -> None:
    call = longest(replace(BASE, channels_first=True, padding="VALID", dilations=(2, 1)))
    x, w = operands(call)
    rest = (1, 1, 2, 3), "VALID", False, "NCHW", (1, 1, 2, 1), "name"
    assert_array_equal(nn.conv2d(cotangent(call), w, *rest), gradient(call, "input"))
    assert_array_equal(nn.conv2d_backprop_input(call.output_shape, w, x, *rest), expected(call))
    assert_array_equal(nn.conv2d_backprop_filter(cotangent(call), w.shape, x, *rest), gradient(call, "filter"))


# Signatures

BACKPROP = "strides=None, padding=None, use_cudnn_on_gpu=True, data_format='NHWC', dilations=(1, 1, 1, 1), name=None"
SIGNATURES = {
    nn.conv2d_transpose: "value=None, filter=None, output_shape=None, strides=None, padding='SAME', "
    "data_format='NHWC', name=None, input=None, filters=None, dilations=None",
    nn.conv3d_transpose: "value=None, filter=None, output_shape=None, strides=None, padding='SAME', "
    "data_format='NDHWC', name=None, input=None, filters=None, dilations=None",
    nn.conv1d_transpose: "input, filters, output_shape, strides, padding='SAME', data_format='NWC', dilations=None, "
    "name=None",
    nn.conv_transpose: "input, filters, output_shape, strides, padding='SAME', data_format=None, dilations=None, "
    "name=None",
    nn.atrous_conv2d_transpose: "value, filters, output_shape, rate, padding, name=None",
    nn.conv2d: f"input, filter=None, {BACKPROP}, filters=None",
    nn.conv2d_backprop_input: f"input_sizes, filter=None, out_backprop=None, {BACKPROP}, filters=None",
    nn.conv2d_backprop_filter: "input, filter_sizes, out_backprop, strides, padding, use_cudnn_on_gpu=True, "
    "data_format='NHWC', dilations=(1, 1, 1, 1), name=None",
    backend.conv2d_transpose: "x, kernel, output_shape, strides=(1, 1), padding='valid', data_format=None, "
    "dilation_rate=(1, 1)",
    backend.image_data_format: "",
    nn.bias_add: "value, bias, data_format=None, name=None",
    layers.conv2d_transpose: "inputs, filters, kernel_size, strides=(1, 1), padding='valid', "
    "data_format='channels_last', activation=None, use_bias=True, kernel_initializer=None, "
    f"bias_initializer={layers._ZEROS!r}, kernel_regularizer=None, bias_regularizer=None, activity_regularizer=None, "
    "kernel_constraint=None, bias_constraint=None, trainable=True, name=None, reuse=None",
    backend.set_image_data_format: "data_format",
    backstride.set_num_threads: "count",
    backstride.get_num_threads: "",
    backstride.show_config: "",
    backstride.release_memory: "",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_signature(function: Any) -> None:
    bare = [
        parameter.replace(annotation=parameter.empty) for parameter in inspect.signature(function).parameters.values()
    ]
    assert str(inspect.Signature(bare)) == f"({SIGNATURES[function]})"


def test_every_public_function_is_in_the_list_of_signatures() -> None:
    public = {getattr(module, name) for module in (nn, backend, layers) for name in module.__all__}
    public |= {
        getattr(backstride, name)
        for name in backstride.__all__
        if name in ("release_memory", "show_config") or "threads" in name
    }
    activations = {getattr(nn, name) for name in _activations.__all__}
    assert {item for item in public - activations if not inspect.isclass(item)} == {*SIGNATURES}


def test_compat_v1_is_the_same_functions() -> None:
    assert v1.nn.__all__ == nn.__all__
    assert v1.keras.backend.__all__ == backend.__all__
    for name in nn.__all__:
        assert getattr(v1.nn, name) is getattr(nn, name)
    for name in backend.__all__:
        assert getattr(v1.keras.backend, name) is getattr(backend, name)


@pytest.mark.parametrize("data_format", [None, "N...C", "NHWC", "NC...", "NCHW"])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_bias_add(data_format: str | None, rank: int) -> None:
    value = np.arange(2 * 3 ** (rank - 1), dtype=np.float32).reshape(2, *(3,) * (rank - 1))
    bias = np.float32([10, 20, 30])
    axis = 1 if data_format in ("NC...", "NCHW") else -1
    got = nn.bias_add(value.tolist(), bias, data_format)
    assert_array_equal(got, np.moveaxis(np.moveaxis(value, axis, -1) + bias, -1, axis), strict=True)


@pytest.mark.parametrize(
    ("value", "bias", "data_format", "error", "message"),
    [
        (np.ones((2, 3)), np.ones(2), None, ValueError, "`value` has 3 channels, but `bias` has 2 entries"),
        (np.ones(3), np.ones(3), None, ValueError, r"at least 2 dimensions and `bias` 1; got shapes \(3,\) and \(3,\)"),
        (np.ones((2, 3)), np.ones((1, 3)), None, ValueError, r"got shapes \(2, 3\) and \(1, 3\)"),
        (np.ones((2, 3)), np.ones(3), "C", ValueError, "`data_format` must be a name such as .*; got data_format='C'"),
        (np.ones((2, 3)), np.ones(3, np.float32), None, TypeError, "`value` and `bias` must have one dtype"),
        (
            None,
            np.ones(3),
            None,
            TypeError,
            "`value` must be a NumPy array, a list of numbers or a buffer; got NoneType",
        ),
    ],
)
def test_bias_add_tells_what_is_wrong(value: Any, bias: Any, data_format: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nn.bias_add(value, bias, data_format)


def test_documented_places() -> None:
    assert backstride.compat.v1.nn.conv2d_transpose is backstride.nn.conv2d_transpose
    assert backstride.compat.v1.keras.backend is not backstride.keras.backend
    assert backstride.compat.v1.keras.backend.conv2d_transpose is backstride.keras.backend.conv2d_transpose


# Sizes of zero


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# value, filter, output_shape, padding
EMPTY = {
    "batch": (ones(0, 3, 3, 2), ones(3, 3, 4, 2), (0, 3, 3, 4), "SAME"),
    "height": (ones(2, 0, 3, 2), ones(3, 3, 4, 2), (2, 0, 3, 4), "SAME"),
    "width": (ones(2, 3, 0, 2), ones(3, 3, 4, 2), (2, 5, 2, 4), "VALID"),
    "height-and-width": (ones(2, 0, 0, 2), ones(3, 2, 4, 2), (2, 1, 0, 4), "VALID"),
    "in-channels": (ones(2, 3, 3, 0), ones(3, 3, 4, 0), (2, 3, 3, 4), "SAME"),
    "out-channels": (ones(2, 3, 3, 2), ones(3, 3, 0, 2), (2, 3, 3, 0), "SAME"),
    "all-channels": (ones(2, 3, 3, 0), ones(3, 3, 0, 0), (2, 3, 3, 0), "SAME"),
    "kernel-height-same": (ones(2, 3, 3, 2), ones(0, 3, 4, 2), (2, 3, 3, 4), "SAME"),
    "kernel-height-valid": (ones(2, 3, 3, 2), ones(0, 3, 4, 2), (2, 2, 5, 4), "VALID"),
    "kernel-width": (ones(2, 3, 3, 2), ones(3, 0, 4, 2), (2, 5, 2, 4), "VALID"),
    "everything": (zeros(0, 0, 0, 0), zeros(0, 0, 0, 0), (0, 0, 0, 0), "SAME"),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_empty_arrays(name: str, channels_first: bool) -> None:
    value, filter, output_shape, padding = EMPTY[name]
    layout = (lambda a: np.moveaxis(a, -1, 1)) if channels_first else (lambda a: a)
    data_format = "NCHW" if channels_first else "NHWC"
    want = layout(zeros(*output_shape))
    value, g = layout(value), layout(ones(*output_shape))
    got = nn.conv2d_transpose(value, filter, want.shape, 1, padding, data_format)
    assert got.dtype == np.float32
    assert_array_equal(got, want)
    got = nn.conv2d_backprop_filter(g, filter.shape, value, 1, padding, data_format=data_format)
    assert_array_equal(got, zeros(*filter.shape))
    got = nn.conv2d(g, filter, 1, padding, data_format=data_format)
    assert_array_equal(got, np.zeros_like(value))


@pytest.mark.parametrize("output", range(5))
def test_no_input_makes_any_length_shorter_than_the_kernel(output: int) -> None:
    got = nn.conv2d_transpose(zeros(1, 0, 1, 1), ones(5, 1, 1, 1), (output, 1), 2, "VALID")
    assert_array_equal(got, zeros(1, output, 1, 1))


def test_stride_wider_than_the_kernel_leaves_zeros() -> None:
    got = nn.conv2d_transpose(ones(1, 2, 2, 1), ones(1, 1, 1, 1), (6, 6), 3)
    assert got.sum() == 4


# Dtypes

DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)))]
DTYPES.append(np.dtype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("channels_first", [False, True], ids=["NHWC", "NCHW"])
def test_dtype_is_kept(dtype: np.dtype, channels_first: bool) -> None:
    """In both formats, dilated or not."""
    for dilations in ((1, 1), (2, 2)):
        call = longest(replace(BASE, channels_first=channels_first, dilations=dilations))
        x, w, g = (abs(call.integers(name, np.int8)).astype(dtype) for name in cases.OPERANDS)
        window = {"strides": call.strides, "data_format": call.data_format, "dilations": dilations}
        results = {
            "output": (x, w, nn.conv2d_transpose(x, w, call.output_shape, **window)),
            "input": (w, g, nn.conv2d(g, w, padding="SAME", **window)),
            "filter": (x, g, nn.conv2d_backprop_filter(g, w.shape, x, padding="SAME", **window)),
        }
        for wrt, (first, second, got) in results.items():
            assert got.dtype == dtype
            assert_array_equal(got, reference.derivative(wrt, first, second, call.geometry))
        got = backend.conv2d_transpose(
            x,
            w,
            call.output_shape,
            call.strides,
            "same",
            data_format=("channels_first" if channels_first else "channels_last"),
            dilation_rate=dilations,
        )
        assert got.dtype == dtype


def test_result_is_native_and_contiguous() -> None:
    x, w = operands(BASE)
    for dtype in (">f4", "<f4"):
        got = nn.conv2d_transpose(x.astype(dtype), w.astype(dtype), BASE.output_shape, BASE.strides)
        assert got.dtype.isnative
        assert got.flags.c_contiguous
        assert got.flags.owndata
        assert got.flags.writeable


# Lists, numbers and buffers


@pytest.mark.parametrize(
    ("value", "filter", "dtype"),
    [
        ([[[[1.0], [2.0]]]], [[[[2.0]]]], "float32"),
        ([[[[1], [2]]]], [[[[2]]]], "int32"),
        ([[[[1], [2.0]]]], [[[[2.5]]]], "float32"),
        ((((((1.0,), (2.0,)),)),), [[((2.0,),)]], "float32"),
        ([[[[-(2**31)], [2**31 - 1]]]], [[[[1]]]], "int32"),
        ([[[np.array([1.0, 2.0])]]], [[np.array([[2.0, 1.0]])]], "float64"),
        ([[[[np.float16(1)]]]], [[[[np.float16(1)]]]], "float16"),
        ([[[[np.int64(1)]]]], [[[[np.int64(1)]]]], "int64"),
        ([np.ones((2, 2, 1), np.float32)], [np.ones((1, 1, 1), np.float32)], "float32"),
        ([[[[1.0], [2.0]]]], np.full((1, 1, 1, 1), 2, np.float32), "float32"),
        ([[[[1], [2]]]], np.full((1, 1, 1, 1), 2, np.int32), "int32"),
    ],
    ids=[
        "floats", "ints", "mixed", "tuples", "largest-ints", "float64-arrays", "float16-numbers", "int64-numbers",
        "float32-arrays", "list-and-float32-array", "list-and-int32-array",
    ],
)  # fmt: skip
def test_lists(value: Any, filter: Any, dtype: str) -> None:
    x, w = np.array(value), np.array(filter)
    shape = (*x.shape[:3], w.shape[2])
    got = nn.conv2d_transpose(value, filter, shape, 1)
    assert got.dtype == dtype
    assert_array_equal(got, nn.conv2d_transpose(x.astype(dtype), w.astype(dtype), shape, 1))


def test_buffers() -> None:
    x, w = operands(BASE)
    want = expected(BASE)
    assert_array_equal(nn.conv2d_transpose(memoryview(x), memoryview(w), BASE.output_shape, BASE.strides), want)
    shaped = memoryview(array.array("f", x.ravel())).cast("B").cast("f", list(x.shape))
    assert_array_equal(nn.conv2d_transpose(shaped, w, BASE.output_shape, BASE.strides), want)
    block: Any = ctypes.c_float
    for length in reversed(x.shape):
        block = block * length
    assert_array_equal(nn.conv2d_transpose(block.from_buffer(x), w, BASE.output_shape, BASE.strides), want)


@pytest.mark.parametrize("code", ["d", "q", "h"])
def test_buffers_keep_their_dtype(code: str) -> None:
    buffer = memoryview(array.array(code, [1, 2])).cast("B").cast(code, [1, 1, 2, 1])
    got = nn.conv2d_transpose(buffer, np.ones((1, 1, 1, 1), code), (1, 1, 2, 1), 1)
    assert got.dtype == np.dtype(code)
    assert_array_equal(got.ravel(), [1, 2])


def test_configuration_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    backstride.show_config()
    shown = dict(
        row.split(maxsplit=1) for row in capsys.readouterr().out.replace("instruction set", "isa").splitlines()
    )
    assert shown["backstride"] == backstride.__version__
    assert shown["isa"] in _native.ISAS
    assert shown["threads"] == str(backstride.get_num_threads())
    assert shown["numpy"] == np.__version__
    assert {"autograd", "ml_dtypes"} <= shown.keys()
