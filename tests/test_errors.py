# SPDX-License-Identifier: Apache-2.0
"""Bad arguments: every message is read, and nothing hostile gets through."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Python

import backstride
from backstride import _native, nn
from backstride._backends import numpy as numpy_backend
from backstride.keras import backend

X = np.ones((2, 3, 4, 3), np.float32)
W = np.ones((3, 2, 5, 3), np.float32)
G = np.ones((2, 6, 8, 5), np.float32)
X1, W1 = X[:, :, 0], W[:, 0]
X3, W3 = X[:, None], W[None]

# A legal call of every function that takes arrays, by keywords.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "conv2d_transpose": (
        nn.conv2d_transpose,
        {"value": X, "filter": W, "output_shape": [2, 6, 8, 5], "strides": 2, "padding": "SAME"}
        | {"data_format": "NHWC", "dilations": 1},
    ),
    "conv1d_transpose": (
        nn.conv1d_transpose,
        {"input": X1, "filters": W1, "output_shape": [2, 6, 5], "strides": 2, "padding": "SAME"}
        | {"data_format": "NWC", "dilations": 1},
    ),
    "conv3d_transpose": (
        nn.conv3d_transpose,
        {"value": X3, "filter": W3, "output_shape": [2, 2, 6, 8, 5], "strides": 2, "padding": "SAME"}
        | {"data_format": "NDHWC", "dilations": 1},
    ),
    "conv_transpose": (
        nn.conv_transpose,
        {"input": X, "filters": W, "output_shape": [2, 6, 8, 5], "strides": 2, "padding": "SAME"}
        | {"data_format": "NHWC", "dilations": 1},
    ),
    "atrous_conv2d_transpose": (
        nn.atrous_conv2d_transpose,
        {"value": X, "filters": W, "output_shape": [2, 3, 4, 5], "rate": 2, "padding": "SAME"},
    ),
    "conv2d": (
        nn.conv2d,
        {"input": G, "filter": W, "strides": 2, "padding": "SAME", "data_format": "NHWC", "dilations": 1},
    ),
    "conv2d_backprop_input": (
        nn.conv2d_backprop_input,
        {"input_sizes": [2, 6, 8, 5], "filter": W, "out_backprop": X, "strides": 2, "padding": "SAME"}
        | {"data_format": "NHWC", "dilations": 1},
    ),
    "conv2d_backprop_filter": (
        nn.conv2d_backprop_filter,
        {"input": G, "filter_sizes": [3, 2, 5, 3], "out_backprop": X, "strides": 2, "padding": "SAME"}
        | {"data_format": "NHWC", "dilations": 1},
    ),
    "keras": (
        backend.conv2d_transpose,
        {"x": X, "kernel": W, "output_shape": (2, 6, 8, 5), "strides": (2, 2), "padding": "same"}
        | {"data_format": "channels_last", "dilation_rate": (1, 1)},
    ),
}


def call(function: str, **changes: Any) -> Any:
    target, arguments = FUNCTIONS[function]
    return target(**arguments | changes)


def arguments_like(*names: str) -> Any:
    """Every (function, argument) of these names, for parametrize."""
    return [
        pytest.param(function, name, id=f"{function}-{name}")
        for function, (_, arguments) in FUNCTIONS.items()
        for name in names
        if name in arguments
    ]


ARRAYS = arguments_like("value", "input", "x", "filter", "filters", "kernel", "out_backprop")
WINDOWS = arguments_like("strides", "dilations", "dilation_rate")
SIZES = arguments_like("output_shape", "input_sizes", "filter_sizes")


def shape_of(function: str, name: str) -> list[int]:
    return list(FUNCTIONS[function][1][name])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_calls_that_are_made_wrong_below_are_right(function: str) -> None:
    assert call(function).dtype == np.float32


# Arrays


class Foreign:
    """Another library's array, with every protocol that NumPy understands."""

    shape, ndim, dtype, size = (2, 3, 4, 3), 4, np.dtype(np.float32), 72

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("an array of an unknown library must not be converted")


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_array_of_unknown_type(function: str, name: str) -> None:
    with pytest.raises(TypeError, match=f"^`{name}` must be a NumPy array, .* or a buffer; got test_errors.Foreign$"):
        call(function, **{name: Foreign()})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_array_of_wrong_rank(function: str, name: str) -> None:
    rank = FUNCTIONS[function][1][name].ndim
    for shape in ((), (3,), (3,) * (rank - 1), (3,) * (rank + 1)):
        with pytest.raises(ValueError) as caught:
            call(function, **{name: np.ones(shape, np.float32)})
        assert str(caught.value) == f"`{name}` must have {rank} dimensions; got shape {shape}"


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_array_of_another_dtype(function: str, name: str) -> None:
    array = FUNCTIONS[function][1][name].astype(np.float64)
    with pytest.raises(TypeError, match=r"^`\w+` and `\w+` must have one dtype; got float(32|64) and float(32|64) "):
        call(function, **{name: array})


def test_dtypes_are_named_in_the_order_of_their_arguments() -> None:
    with pytest.raises(TypeError, match=r"^`value` and `filter` .* got float16 and float32 \(convert one with .astype"):
        call("conv2d_transpose", value=X.astype(np.float16))
    with pytest.raises(TypeError, match=r"^`input` and `filters` .* got float32 and int32"):
        nn.conv2d_transpose(input=X, filters=W.astype(int).tolist(), output_shape=[6, 8], strides=2)


UNSUPPORTED = ["?", "c8", "c16", "S3", "U3", "O", "M8[s]", "m8[s]", "V4", "g", "f4,f4"]


@pytest.mark.parametrize("dtype", UNSUPPORTED)
@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_dtype_that_is_not_supported(function: str, name: str, dtype: str) -> None:
    array = np.zeros(FUNCTIONS[function][1][name].shape, dtype)
    with pytest.raises(TypeError, match=rf"^`{name}` has dtype .*; it must be one of float16, bfloat16, .* uint64$"):
        call(function, **{name: array})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_masked_array(function: str, name: str) -> None:
    array = np.ma.masked_less(FUNCTIONS[function][1][name], 0)
    with pytest.raises(TypeError, match=rf"^`{name}` is a masked array, .*; fill it first: {name}\.filled\(0\)$"):
        call(function, **{name: array})


@pytest.mark.parametrize(
    "value",
    [[*np.ma.masked_less(X, 0)], [[[[np.ma.masked]] * 3]], [[*image] for image in np.ma.masked_greater(X, 0)]],
    ids=["array", "constant", "nested"],
)
def test_masked_array_in_a_list(value: Any) -> None:
    with pytest.raises(TypeError, match=r"`value` .*mask"):
        call("conv2d_transpose", value=value)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
def test_ragged_list(function: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"^`{name}` is not a rectangular array of numbers: "):
        call(function, **{name: [[[[1.0], [2.0, 3.0]]]]})


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63)])
def test_list_of_ints_beyond_int32(number: int) -> None:
    with pytest.raises(ValueError, match=r"^`value` holds numbers beyond int32, .* pass a NumPy array instead$"):
        nn.conv2d_transpose([[[[number]]]], [[[[1]]]], (1, 1), 1)
    with pytest.raises(ValueError, match=r"^`filter` holds numbers beyond int32"):
        nn.conv2d_transpose([[[[1]]]], [[[[number]]]], (1, 1), 1)


@pytest.mark.parametrize("number", [2**64, -(2**70), 10**400])
def test_list_of_ints_beyond_any(number: int) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^`value` "):
        nn.conv2d_transpose([[[[number]]]], [[[[1]]]], (1, 1), 1)


# Aliases


@pytest.mark.parametrize("function", [nn.conv2d_transpose, nn.conv3d_transpose])
def test_aliases(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"^`value` or `input` is required; got None$"):
        function(filter=W, output_shape=[6, 8])
    with pytest.raises(ValueError, match=r"^`filter` or `filters` is required; got None$"):
        function(value=X, output_shape=[6, 8])
    with pytest.raises(ValueError, match=r"^`value` or `input`: .* two names of one argument; give only one of them$"):
        function(value=X, input=X, filter=W, output_shape=[6, 8])
    with pytest.raises(ValueError, match=r"^`filter` or `filters`: .* give only one of them$"):
        function(value=X, filter=W, filters=W, output_shape=[6, 8])


def test_aliases_of_convolutions() -> None:
    for function in ("conv2d", "conv2d_backprop_input"):
        with pytest.raises(ValueError, match=r"^`filter` or `filters` is required; got None$"):
            call(function, filter=None)
        with pytest.raises(ValueError, match=r"^`filter` or `filters`: .* two names"):
            call(function, filters=W)
    with pytest.raises(ValueError, match=r"^`out_backprop` is required; got None$"):
        call("conv2d_backprop_input", out_backprop=None)


REQUIRED = [
    ("conv1d_transpose", "input"),
    ("conv1d_transpose", "filters"),
    ("conv_transpose", "input"),
    ("atrous_conv2d_transpose", "value"),
    ("conv2d", "input"),
    ("conv2d_backprop_filter", "input"),
    ("conv2d_backprop_filter", "out_backprop"),
    ("keras", "x"),
    ("keras", "kernel"),
]


@pytest.mark.parametrize(("function", "name"), REQUIRED)
def test_no_array(function: str, name: str) -> None:
    with pytest.raises(TypeError, match=f"^`{name}` must be a NumPy array, .*; got NoneType$"):
        call(function, **{name: None})


# Strides and dilations


@pytest.mark.parametrize("value", [2.0, 1.5, "2", b"2", {2}, {2: 2}, 2j, np.float32(2), np.array(2.0), X], ids=repr)
@pytest.mark.parametrize(("function", "name"), WINDOWS)
def test_window_that_is_no_int(function: str, name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError) if value is X else TypeError, match=f"^`{name}` "):
        call(function, **{name: value})


@pytest.mark.parametrize("entry", [2.0, "2", None, [2], np.float64(2)], ids=repr)
@pytest.mark.parametrize(("function", "name"), WINDOWS)
def test_window_with_an_entry_that_is_no_int(function: str, name: str, entry: Any) -> None:
    kind, text = (ValueError, "every entry of `{}` must be known") if entry is None else (TypeError, "`{}` takes ints")
    with pytest.raises(kind, match=f"^{text.format(name)}; got {name}=.*$"):
        call(function, **{name: [2, entry]})


@pytest.mark.parametrize(("function", "name"), WINDOWS + SIZES)
def test_floats_that_equal_ints_which_were_read_before(function: str, name: str) -> None:
    right = FUNCTIONS[function][1][name]
    wrong = float(right) if isinstance(right, int) else [*right[:-1], float(right[-1])]
    call(function)
    assert wrong == (right if isinstance(right, int) else list(right))
    for value in (wrong, tuple(wrong) if isinstance(wrong, list) else np.float64(wrong)):
        with pytest.raises(TypeError, match=f"^`{name}` takes ints; got {name}="):
            call(function, **{name: value})


@pytest.mark.parametrize(("function", "name"), WINDOWS)
def test_window_of_wrong_length(function: str, name: str) -> None:
    rank = FUNCTIONS[function][1].get("value", FUNCTIONS[function][1].get("input", X)).ndim - 2
    right = {2} if function == "keras" else {1, rank, rank + 2}
    for length in {*range(6)} - right:
        with pytest.raises(ValueError, match=f"^`{name}` must be .* ints.*; got {name}=") as caught:
            call(function, **{name: [1] * length})
    with pytest.raises(ValueError, match=f"^`{name}` has too many entries; got {name}="):
        call(function, **{name: [1] * 100})
    with pytest.raises(ValueError, match=rf"^`{name}` must be one-dimensional; got shape \(2, 1\)$"):
        call(function, **{name: np.ones((2, 1), int)})
    assert len(str(caught.value)) < 200


def test_legal_lengths_of_windows_are_listed() -> None:
    for function, lengths in {
        "conv1d_transpose": "1 or 3",
        "conv2d": "1, 2 or 4",
        "conv3d_transpose": "1, 3 or 5",
    }.items():
        with pytest.raises(ValueError, match=f"^`strides` must be an int or {lengths} ints; got strides=\\[\\]$"):
            call(function, strides=[])


@pytest.mark.parametrize("value", [0, -1, [0, 1], [1, -2], -(10**30)], ids=repr)
@pytest.mark.parametrize(("function", "name"), WINDOWS)
def test_window_below_one(function: str, name: str, value: Any) -> None:
    if function in ("conv1d_transpose", "conv3d_transpose") and isinstance(value, list):
        value = value[:1] if 0 in value else [min(value)]
    with pytest.raises(ValueError, match=f"^`{name}` must be .*positive.*; got {name}="):
        call(function, **{name: value})


@pytest.mark.parametrize("entries", [(2, 1), (1, 2), (0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("name", ["strides", "dilations"])
def test_window_of_batch_or_channels(name: str, entries: tuple[int, int]) -> None:
    batch, channels = entries
    rule = r"positive and below 2\*\*31" if 0 in entries else "1 for batch and channels"
    with pytest.raises(ValueError, match=f"^`{name}` must be {rule}; got {name}="):
        call("conv2d_transpose", **{name: [batch, 2, 2, channels]})
    with pytest.raises(ValueError, match=f"^`{name}` must be {rule}; got {name}="):
        call("conv2d_transpose", value=np.moveaxis(X, -1, 1), data_format="NCHW", **{name: [batch, channels, 2, 2]})


@pytest.mark.parametrize("rate", [0, -3])
def test_rate_below_one(rate: int) -> None:
    with pytest.raises(ValueError, match=rf"^`rate` must be positive and below 2\*\*31; got rate={rate}$"):
        call("atrous_conv2d_transpose", rate=rate)


@pytest.mark.parametrize("rate", [2.0, "2", None, [2, 2], (2,)], ids=repr)
def test_rate_that_is_no_int(rate: Any) -> None:
    with pytest.raises(TypeError, match=r"^`rate` takes ints; got rate="):
        call("atrous_conv2d_transpose", rate=rate)


def test_keras_pair() -> None:
    for name in ("strides", "dilation_rate"):
        for value in ((2,), (1, 2, 3), (0, 1), (1, -1), 0):
            with pytest.raises(
                ValueError, match=f"^`{name}` must be a pair of positive ints below 2\\*\\*31; got {name}="
            ):
                call("keras", **{name: value})


# Names


@pytest.mark.parametrize(
    "value", ["same", "Same", "SAME ", "FULL", "", b"SAME", None, 0, True, ["SAME"], ("S",) * 4, X]
)
@pytest.mark.parametrize(("function", "name"), [p for p in arguments_like("padding") if "keras" not in p.id])
def test_padding(function: str, name: str, value: Any) -> None:
    rank = 3 if "3d" in function else 1 if "1d" in function else 2
    with pytest.raises(ValueError, match=f"^`padding` must be 'SAME', 'VALID' or {rank + 2} .* pairs; got padding="):
        call(function, padding=value)


@pytest.mark.parametrize(
    "value", ["SAME", "Same", "VALID", "full", "causal", "", b"same", None, 0, ["same"], [[0, 0]] * 4]
)
def test_keras_padding(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^`padding` must be 'same' or 'valid'; got padding="):
        call("keras", padding=value)


@pytest.mark.parametrize("entry", [(1,), (1, 2, 3), 1, "ab", None, {1, 2}], ids=repr)
def test_explicit_padding_that_is_no_pair(entry: Any) -> None:
    with pytest.raises(ValueError, match=r"^`padding` must be .* 4 \(before, after\) pairs; got padding="):
        call("conv2d_transpose", padding=[(0, 0), (0, 0), entry, (0, 0)])


@pytest.mark.parametrize("pair", [(1.0, 0), (0, "1"), (np.float32(0), 0)], ids=repr)
def test_explicit_padding_that_is_no_int(pair: Any) -> None:
    with pytest.raises(TypeError, match=r"^`padding` takes ints; got padding="):
        call("conv2d_transpose", padding=[(0, 0), (0, 0), pair, (0, 0)])


def test_explicit_padding_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^the pairs of `padding` must be from 0 to below 2\*\*31; got padding="):
        call("conv2d_transpose", padding=[(0, 0), (0, -1), (0, 0), (0, 0)])
    with pytest.raises(ValueError, match=r"^every entry of `padding` must be known; got padding="):
        call("conv2d_transpose", padding=[(0, 0), (0, None), (0, 0), (0, 0)])
    for wrong in (0, 3):
        pairs = [(0, 0)] * 4
        pairs[wrong] = (0, 1)
        with pytest.raises(ValueError, match=r"^`padding` must be \(0, 0\) for batch and channels; got padding="):
            call("conv2d_transpose", padding=pairs)
    with pytest.raises(ValueError, match=r"^`padding` must be \(0, 0\) for batch and channels"):
        call(
            "conv2d_transpose",
            value=np.moveaxis(X, -1, 1),
            data_format="NCHW",
            padding=[(0, 0), (1, 1), (0, 0), (0, 0)],
        )


@pytest.mark.parametrize("value", ["nhwc", "NHWC ", "channels_last", "", b"NHWC", 0, ["NHWC"], X])
@pytest.mark.parametrize(("function", "name"), [p for p in arguments_like("data_format") if "keras" not in p.id])
def test_data_format(function: str, name: str, value: Any) -> None:
    last, first = {"1": ("NWC", "NCW"), "3": ("NDHWC", "NCDHW")}.get(function[4], ("NHWC", "NCHW"))
    with pytest.raises(ValueError, match=f"^`data_format` must be '{last}' or '{first}'; got data_format="):
        call(function, data_format=value)


def test_data_format_of_another_rank() -> None:
    for function, wrong in {"conv1d_transpose": "NHWC", "conv2d_transpose": "NDHWC", "conv3d_transpose": "NWC"}.items():
        with pytest.raises(ValueError, match=f"^`data_format` must be .*; got data_format='{wrong}'$"):
            call(function, data_format=wrong)
    with pytest.raises(ValueError, match=r"^`data_format` must be 'NHWC' or 'NCHW'; got data_format='NWC'$"):
        call("conv_transpose", data_format="NWC")


@pytest.mark.parametrize(
    "value", ["Channels_Last", "CHANNELS_FIRST", "NHWC", "", b"channels_last", 0, ["channels_last"], X]
)
def test_keras_data_format(value: Any) -> None:
    message = "^`data_format` must be 'channels_last' or 'channels_first'; got data_format="
    with pytest.raises(ValueError, match=message):
        call("keras", data_format=value)
    with pytest.raises(ValueError, match=message):
        backend.set_image_data_format(value)
    assert backend.image_data_format() == "channels_last"


def test_image_data_format_cannot_be_set_to_none() -> None:
    with pytest.raises(ValueError, match=r"^`data_format` must be .*; got data_format=None$"):
        backend.set_image_data_format(None)  # type: ignore[arg-type]


# Shapes


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_no_shape(function: str, name: str) -> None:
    if function == "keras":
        with pytest.raises(TypeError, match=r"^`output_shape` must be a tuple of ints; got None$"):
            call(function, **{name: None})
    else:
        with pytest.raises(ValueError, match=f"^`{name}` is required; got None$"):
            call(function, **{name: None})


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize(("function", "name"), SIZES)
def test_unknown_or_negative_length(function: str, name: str, position: int) -> None:
    shape = shape_of(function, name)
    if position >= len(shape):
        pytest.skip("this shape has fewer entries")
    if function != "keras" or position > 0:
        with pytest.raises(ValueError, match=f"^every entry of `{name}` must be known; got {name}=.*None"):
            call(function, **{name: [*shape[:position], None, *shape[position + 1 :]]})
    for wrong in (-1, -(2**63), -(10**30)):
        with pytest.raises(
            ValueError, match=rf"^the entries of `{name}` must be at least 0 and below 2\*\*63; got {name}="
        ):
            call(function, **{name: [*shape[:position], wrong, *shape[position + 1 :]]})
    for wrong in (float(shape[position]), str(shape[position]), [shape[position]], 1j, np.float32(2), object()):
        with pytest.raises(TypeError, match=f"^`{name}` takes ints; got {name}="):
            call(function, **{name: [*shape[:position], wrong, *shape[position + 1 :]]})


@pytest.mark.parametrize(("function", "name"), SIZES)
def test_shape_of_wrong_length(function: str, name: str) -> None:
    right = len(shape_of(function, name))
    also = {} if function in ("keras", "conv2d_backprop_filter") else {right - 2}
    if function == "conv_transpose":
        also = {3, 5}
    allowed = "3, 4 or 5" if function == "conv_transpose" else " or ".join(map(str, [right, *also]))
    for length in {*range(6)} - {right, *also}:
        with pytest.raises(ValueError, match=f"^`{name}` must have {allowed} entries; got {name}="):
            call(function, **{name: [1] * length})
    with pytest.raises(ValueError, match=f"^`{name}` has too many entries; got {name}="):
        call(function, **{name: [1] * 6})


@pytest.mark.parametrize(
    "value", [8, 8.0, "2685", b"2685", {2, 6, 8, 5}, {2: 6}, np.int32(8), np.array(8), object()], ids=type
)
@pytest.mark.parametrize(("function", "name"), SIZES)
def test_shape_that_is_no_sequence(function: str, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^`{name}` must be a list or tuple of ints; got {name}="):
        call(function, **{name: value})


@pytest.mark.parametrize(("function", "name"), [p for p in SIZES if "keras" not in p.id])
def test_shape_of_two_dimensions(function: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^`{name}` must be one-dimensional; got shape \(1, 4\)$"):
        call(function, **{name: np.array([[2, 6, 8, 5]])})


@pytest.mark.parametrize(("function", "name"), [p for p in SIZES if "filter_sizes" not in p.id])
def test_batch_that_differs(function: str, name: str) -> None:
    shape = shape_of(function, name)
    for batch in (0, 1, 3):
        with pytest.raises(
            ValueError, match=rf"^`{name}` has batch {batch}, but `\w+` has batch 2; they must be equal$"
        ):
            call(function, **{name: [batch, *shape[1:]]})


def test_batch_of_gradients_that_differs() -> None:
    with pytest.raises(ValueError, match=r"^`input` has batch 1, but `out_backprop` has batch 2; they must be equal$"):
        call("conv2d_backprop_filter", input=G[:1])


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if "transpose" in name or name == "keras"])
def test_channels_that_differ(function: str) -> None:
    arguments = FUNCTIONS[function][1]
    source, filter = [*arguments][:2]
    with pytest.raises(
        ValueError,
        match=f"^`{source}` has 2 channels, but the last dimension of `{filter}` is 3; they must be equal$",
    ):
        call(function, **{source: arguments[source][..., :2]})
    for channels in (1, 4, 6, 10):
        message = (
            rf"^`output_shape` has {channels} channels, but `{filter}` of shape \(.*5, 3\) makes 5; they must be equal$"
        )
        with pytest.raises(ValueError, match=message):
            call(function, output_shape=[*arguments["output_shape"][:-1], channels])


def test_channels_first_are_the_second_dimension() -> None:
    with pytest.raises(ValueError, match=r"^`value` has 4 channels, but the last dimension of `filter` is 3"):
        call("conv2d_transpose", value=np.ones((2, 4, 3, 3), np.float32), data_format="NCHW")
    with pytest.raises(ValueError, match=r"^`output_shape` has 6 channels, but `filter`"):
        call("conv2d_transpose", value=np.moveaxis(X, -1, 1), data_format="NCHW")


@pytest.mark.parametrize("channels", [1, 4, 6, 9])
def test_channels_that_make_no_groups(channels: int) -> None:
    message = (
        rf"^`\w+` has {channels} channels, but `\w+` of shape \(3, 2, 5, 3\) takes 5; .* \(a grouped convolution\)$"
    )
    with pytest.raises(ValueError, match=message):
        call("conv2d", input=np.ones((2, 6, 8, channels), np.float32))
    with pytest.raises(ValueError, match=message):
        call("conv2d_backprop_input", input_sizes=[2, 6, 8, channels])
    with pytest.raises(ValueError, match=message):
        call("conv2d_backprop_filter", input=np.ones((2, 6, 8, channels), np.float32))


def test_groups_that_do_not_divide_the_result() -> None:
    with pytest.raises(ValueError, match=r"^`input` has 10 channels, .* that also divides the 3 output channels"):
        call("conv2d", input=np.ones((2, 6, 8, 10), np.float32))


def test_gradient_of_other_channels_than_the_filter() -> None:
    with pytest.raises(
        ValueError, match=r"^`out_backprop` has 3 channels, but the last dimension of `filter_sizes` is 4"
    ):
        call("conv2d_backprop_filter", filter_sizes=[3, 2, 5, 4])


# Lengths that do not fit


def test_length_that_does_not_fit() -> None:
    with pytest.raises(ValueError) as caught:
        call("conv2d_transpose", padding="VALID", output_shape=[2, 12, 8, 5])
    assert str(caught.value) == (
        "`output_shape` height 12 does not fit `value` of height 3: with padding='VALID', `filter` height 3 and "
        "stride 2, heights 7 to 8 would fit; 12 would need `value` of height 5"
    )


def test_length_that_does_not_fit_a_dilation() -> None:
    with pytest.raises(ValueError) as caught:
        call("keras", strides=(1, 1), output_shape=(2, 4, 4, 5), dilation_rate=(3, 2))
    assert str(caught.value) == (
        "`output_shape` height 4 does not fit `x` of height 3: with padding='same', `kernel` height 3, dilation 3 and "
        "stride 1, only height 3 would fit; 4 would need `x` of height 4"
    )


def test_stride_one_shape_with_larger_strides_in_keras() -> None:
    """TensorFlow drops the strides where there is a dilation; here such a call is refused, never reinterpreted."""
    with pytest.raises(
        ValueError, match=r"height 3 does not fit `x` of height 3: .* stride 2, heights 5 to 6 would fit"
    ):
        call("keras", strides=(2, 2), output_shape=(2, 3, 4, 5), dilation_rate=(2, 2))


def test_length_where_none_fits() -> None:
    with pytest.raises(ValueError, match=r"width 0 does not fit `value` of width 4: .*, no width would fit; "):
        call("conv2d_transpose", strides=1, padding=[(0, 0), (1, 1), (5, 5), (0, 0)], output_shape=[3, 0])


@pytest.mark.parametrize("axis", range(3))
def test_axes_are_called_depth_height_and_width(axis: int) -> None:
    names = ["depth", "height", "width"][axis:]
    function = ["conv3d_transpose", "conv2d_transpose", "conv1d_transpose"][axis]
    shape = shape_of(function, "output_shape")
    for n, name in enumerate(names):
        with pytest.raises(ValueError, match=f"^`output_shape` {name} 99 does not fit `.*` of {name} \\d: "):
            call(function, output_shape=[*shape[: n + 1], 99, *shape[n + 2 :]])
        with pytest.raises(ValueError, match=f"^`output_shape` {name} 99 "):
            call(function, output_shape=[*shape[1 : n + 1], 99, *shape[n + 2 : -1]]) if axis != 1 or n else call(
                function, output_shape=[99, 8]
            )


def test_lengths_of_gradients_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^`input_sizes` height 9 does not fit `out_backprop` of height 3: "):
        call("conv2d_backprop_input", input_sizes=[9, 8])
    with pytest.raises(
        ValueError, match=r"^`input` width 8 does not fit `out_backprop` of width 3: .*`filter_sizes` width 2"
    ):
        call("conv2d_backprop_filter", out_backprop=X[:, :, :3])


# Sizes beyond the machine

HUGE = 5 * 10**6
PIXEL, TAP = X[:1, :1, :1, :1], W[:1, :1, :1, :1]


@pytest.fixture
def no_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be allocated."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("allocated before it was checked")

    monkeypatch.setattr(numpy_backend.np, "empty", refuse)
    monkeypatch.setattr(numpy_backend.np, "zeros", refuse)


@pytest.mark.usefixtures("no_arrays")
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (nn.conv2d_transpose, (PIXEL, TAP, (1, HUGE, HUGE, 1), HUGE)),
        (nn.conv2d_transpose, (PIXEL, TAP, (HUGE, HUGE), HUGE)),
        (backend.conv2d_transpose, (PIXEL, TAP, (None, HUGE, HUGE, 1), (HUGE, HUGE), "same")),
        (nn.conv2d_backprop_input, ((1, HUGE, HUGE, 1), TAP, PIXEL, HUGE, "SAME")),
        (nn.conv2d_backprop_filter, (PIXEL, (HUGE, HUGE, 1, 1), PIXEL, 1, "SAME")),
    ],
    ids=["transpose", "lengths", "keras", "backprop-input", "backprop-filter"],
)
def test_100_terabytes_are_a_memory_error(function: Callable[..., Any], arguments: Any) -> None:
    message = (
        r"^the result of shape \(.*5000000, 5000000.*\) and dtype float32 would take 93,132\.3 GiB; "
        r"this machine has [\d,]+\.\d GiB of memory$"
    )
    with pytest.raises(MemoryError, match=message):
        function(*arguments)


@pytest.mark.usefixtures("no_arrays")
@pytest.mark.parametrize("dtype", ["int8", "float64"])
def test_result_just_beyond_the_memory(dtype: str) -> None:
    rows = 64
    length = _native.physical_memory() // np.dtype(dtype).itemsize // rows + 1
    with pytest.raises(MemoryError, match="would take"):
        nn.conv2d_transpose(PIXEL.astype(dtype), TAP.astype(dtype), (rows, length), (rows, length))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_packed_filter_beyond_the_memory(dtype: str) -> None:
    """One number, broadcast to more than the machine holds."""
    side = 2**22
    wide = np.broadcast_to(np.ones((), dtype), (1, 1, side, side))
    with pytest.raises(MemoryError, match=r"^a result, packed filter, native copy or sum would take .* GiB; "):
        backstride.plan(wide)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_source_beyond_the_memory_is_converted_in_parts(dtype: str) -> None:
    """The same as an input, of which the result has one pixel."""
    side = 2**22
    wide = np.broadcast_to(np.ones((), dtype), (1, side, side, 1))
    assert nn.conv2d(wide, TAP.astype(dtype), side, "SAME") == TAP.astype(dtype)


@pytest.mark.parametrize(
    "step", [2**31, 2**62, 2**63, 2**64, 10**30, 10**5000], ids=lambda step: f"{step.bit_length()}-bits"
)
def test_windows_are_below_2_to_31(step: int) -> None:
    with pytest.raises(ValueError, match=r"^`strides` must be positive and below 2\*\*31; got strides="):
        nn.conv2d_transpose(PIXEL, TAP, (1, 1), step)
    with pytest.raises(ValueError, match=r"^`dilations` must be positive and below 2\*\*31; got dilations="):
        nn.conv2d(X, W, 1, "SAME", dilations=step)
    with pytest.raises(ValueError, match=r"^`strides` must be a pair of positive ints below 2\*\*31; got strides="):
        call("keras", strides=(step, 1))


@pytest.mark.parametrize("length", [2**63, 10**30, 10**5000], ids=lambda length: f"{length.bit_length()}-bits")
def test_lengths_are_below_2_to_63(length: int) -> None:
    with pytest.raises(ValueError, match=r"^the entries of `output_shape` must be at least 0 and below 2\*\*63; got "):
        call("conv2d_transpose", output_shape=(length, 8))


def test_axis_that_is_too_long_to_count() -> None:
    taps = np.broadcast_to(np.float32(1), (2**40, 1, 1))
    with pytest.raises(
        ValueError, match=r"^input length 1, filter length 1099511627776, .* together span .* cells; fewer"
    ):
        nn.conv1d_transpose(np.ones((1, 1, 1), np.float32), taps, (1,), 1, dilations=2**30)


# Settings


@pytest.mark.parametrize("count", [0, -1, 1025, 10**30, 10**5000], ids=lambda count: f"{count.bit_length()}-bits")
def test_thread_count_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match=r"^`count` must be from 1 to 1024; got count="):
        backstride.set_num_threads(count)


@pytest.mark.parametrize("count", [2.0, "2", None, [2], np.float64(2)], ids=repr)
def test_thread_count_that_is_no_int(count: Any) -> None:
    with pytest.raises(TypeError, match=r"^`count` takes ints; got count="):
        backstride.set_num_threads(count)


@pytest.mark.parametrize("count", ["0", "-1", "1025", "two", "1.5", " 2", "²", "9" * 50])
def test_thread_count_of_the_environment(python: Python, count: str) -> None:
    message = python("import backstride", fails=True, BACKSTRIDE_NUM_THREADS=count, PYTHONIOENCODING="utf-8")
    assert f"ValueError: BACKSTRIDE_NUM_THREADS must be an int from 1 to 1024; got {count!r}" in message


# The table of the specification, row by row: what is wrong, the class, the gist

TABLE = {
    "padding-name": ("conv2d_transpose", {"padding": "FULL"}, ValueError, "'SAME', 'VALID'"),
    "data-format-name": ("conv2d_transpose", {"data_format": "HWCN"}, ValueError, "'NHWC' or 'NCHW'"),
    "value-depth": ("conv2d_transpose", {"value": X[..., :1]}, ValueError, "channels.*must be equal"),
    "output-depth": ("conv2d_transpose", {"output_shape": [2, 6, 8, 10]}, ValueError, "channels.*must be equal"),
    "output-shape-length": ("conv2d_transpose", {"output_shape": [2, 6, 8]}, ValueError, "4 or 2 entries"),
    "output-shape-none": ("conv2d_transpose", {"output_shape": None}, ValueError, "required; got None"),
    "output-shape-with-none": ("conv2d_transpose", {"output_shape": [2, None, 8, 5]}, ValueError, "must be known"),
    "batch": ("conv2d_transpose", {"output_shape": [1, 6, 8, 5]}, ValueError, "batch.*must be equal"),
    "height": ("conv2d_transpose", {"output_shape": [2, 7, 8, 5]}, ValueError, "heights 5 to 6 would fit"),
    "width": ("conv2d_transpose", {"output_shape": [2, 6, 9, 5]}, ValueError, "widths 7 to 8 would fit"),
    "negative-length": ("conv2d_transpose", {"output_shape": [2, -6, 8, 5]}, ValueError, "must be at least 0"),
    "stride-0": ("conv2d_transpose", {"strides": 0}, ValueError, "must be positive"),
    "negative-stride": ("conv2d_transpose", {"strides": [1, -2, 2, 1]}, ValueError, "must be positive"),
    "stride-of-batch": ("conv2d_transpose", {"strides": [2, 2, 2, 1]}, ValueError, "batch and channels"),
    "stride-of-channels": ("conv2d_transpose", {"strides": [1, 2, 2, 2]}, ValueError, "batch and channels"),
    "strides-length": ("conv2d_transpose", {"strides": [2, 2, 2]}, ValueError, "1, 2 or 4"),
    "dilations-length": ("conv2d_transpose", {"dilations": [2, 2, 2]}, ValueError, "1, 2 or 4"),
    "dilation-0": ("conv2d_transpose", {"dilations": 0}, ValueError, "must be positive"),
    "dilation-of-batch": ("conv2d_transpose", {"dilations": [2, 1, 1, 1]}, ValueError, "batch and channels"),
    "dilation-of-channels": ("conv2d_transpose", {"dilations": [1, 1, 1, 2]}, ValueError, "batch and channels"),
    "both-aliases": ("conv2d_transpose", {"input": X}, ValueError, "give only one"),
    "no-alias": ("conv2d_transpose", {"value": None}, ValueError, "required"),
    "rank-of-value": ("conv2d_transpose", {"value": X[None]}, ValueError, "must have 4 dimensions"),
    "rank-of-filter": ("conv2d_transpose", {"filter": W[0]}, ValueError, "must have 4 dimensions"),
    "dtypes-differ": ("conv2d_transpose", {"filter": W.astype("f8")}, TypeError, "must have one dtype"),
    "dtype-unsupported": ("conv2d_transpose", {"value": X.astype("c8")}, TypeError, "must be one of float16"),
    "keras-padding": ("keras", {"padding": "SAME"}, ValueError, "'same' or 'valid'"),
    "keras-data-format": ("keras", {"data_format": "NHWC"}, ValueError, "'channels_last' or 'channels_first'"),
    "keras-output-shape-none": ("keras", {"output_shape": None}, TypeError, "tuple of ints"),
    "keras-output-shape-2": ("keras", {"output_shape": (6, 8)}, ValueError, "must have 4 entries"),
    "keras-unknown-height": ("keras", {"output_shape": (None, None, 8, 5)}, ValueError, "must be known"),
    "keras-dilation-0": ("keras", {"dilation_rate": (0, 0)}, ValueError, "pair of positive ints"),
    "float-stride": ("conv2d_transpose", {"strides": 2.0}, TypeError, "takes ints"),
    "float-output-shape": ("conv2d_transpose", {"output_shape": [2, 6.0, 8, 5]}, TypeError, "takes ints"),
    "float-output-array": ("conv2d_transpose", {"output_shape": np.array([2.0, 6, 8, 5])}, TypeError, "takes ints"),
    "explicit-padding-of-keras": ("keras", {"padding": [[0, 0]] * 4}, ValueError, "'same' or 'valid'"),
}


@pytest.mark.parametrize("row", TABLE)
def test_table_of_errors(row: str) -> None:
    function, changes, kind, gist = TABLE[row]
    with pytest.raises(kind, match=gist):
        call(function, **changes)


# Hostile values: for any argument, in any function


class Liar:
    """Says that it has four entries and never ends."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        for n in itertools.count(1):
            assert n < 1000, "it would never have ended"
            yield 2


class Shapeless:
    """Has two dimensions but no shape."""

    ndim = 2

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        return iter([7, 7, 7, 7])


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class WrongIndex:
    def __index__(self) -> Any:
        return 2.0


def itself() -> list[Any]:
    result: list[Any] = []
    result.append(result)
    return result


def deep(levels: int) -> Any:
    result: Any = 1.0
    for _ in range(levels):
        result = [result]
    return result


HOSTILE = {
    "object": object(),
    "class": int,
    "function": len,
    "ellipsis": ...,
    "not-implemented": NotImplemented,
    "module": np,
    "string": "2685",
    "empty-string": "",
    "bytes": b"\x02\x06\x08\x05",
    "bytearray": bytearray(4),
    "float": 2.0,
    "nan": float("nan"),
    "infinity": float("inf"),
    "complex": 2j,
    "zero": 0,
    "minus-one": -1,
    "int-of-63-bits": 2**63,
    "minus-2-to-the-63": -(2**63),
    "int-of-400-digits": 10**400,
    "int-of-5000-digits": 10**5000,
    "empty-list": [],
    "empty-tuple": (),
    "empty-dict": {},
    "set": {1, 2},
    "generator": (n for n in ()),
    "list-of-zeros": [0, 0, 0, 0],
    "list-of-none": [None] * 4,
    "list-of-strings": ["2", "6", "8", "5"],
    "list-of-floats": [2.0, 6.0, 8.0, 5.0],
    "list-of-huge": [2**62] * 4,
    "list-of-huger": [2**64] * 4,
    "list-of-400-digits": [10**400] * 4,
    "list-of-5000-digits": [10**5000] * 4,
    "list-of-negative": [-1, -1, -1, -1],
    "list-of-lists": [[1, 2], [3, 4]],
    "ragged": [[1, 2], [3]],
    "list-in-itself": itself(),
    "very-deep-list": deep(100),
    "long-list": [1] * 10**5,
    "long-range": range(10**12),
    "endless": Liar(),
    "shapeless": Shapeless(),
    "unprintable": Unprintable(),
    "unprintable-entries": [Unprintable()] * 4,
    "wrong-index": WrongIndex(),
    "wrong-index-entries": [WrongIndex()] * 4,
    "foreign-array": Foreign(),
    "empty-array": np.zeros(0, np.float32),
    "scalar-array": np.array(2.5, np.float32),
    "5-d-array": np.zeros((1, 1, 1, 1, 1, 1), np.float32),
    "object-array": np.array([1, None], object),
    "string-array": np.array(["2", "6", "8", "5"]),
    "bool-array": np.ones((2, 3, 4, 3), bool),
    "complex-array": np.ones((2, 3, 4, 3), complex),
    "time-array": np.zeros((2, 3, 4, 3), "M8[s]"),
    "structured-array": np.zeros((2, 3, 4, 3), "f4,i4"),
    "masked-array": np.ma.masked_all((2, 3, 4, 3), np.float32),
    "masked-constant": np.ma.masked,
    "nan-array": np.full(4, np.nan),
    "numpy-bool": np.bool_(True),
    "numpy-float": np.float32(2),
    "time": np.datetime64("2000-01-01"),
    "void": np.void(b"abcd"),
    "memoryview": memoryview(b"abcd"),
    "released-memoryview": memoryview(b"abcd"),
}
HOSTILE["released-memoryview"].release()

# Python's own words, which do not name the argument, will do for these.
UNNAMED = {"int-of-5000-digits", "list-of-5000-digits", "released-memoryview", "long-range"}
# Of sizes that can be counted but not held, the message is about the result or the axis, not about an argument.
SIZE = ("an axis that reaches over ", "the result of shape ")

EVERY_ARGUMENT = [(function, name) for function, (_, arguments) in FUNCTIONS.items() for name in arguments]


def verdict(function: str, name: str, hostile: str) -> str:
    """What is wrong with the way in which a hostile value is taken; empty if nothing is."""
    try:
        call(function, **{name: HOSTILE[hostile]})
    except (ValueError, TypeError, MemoryError) as error:
        message = str(error)
        if hostile in UNNAMED or f"`{name}`" in message or message.startswith(SIZE):
            return "" if len(message) < 3000 else f"says too much: {message[:100]} ..."
        return f"does not name the argument: {message}"
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    return "is taken"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_value_of_any_argument(hostile: str) -> None:
    verdicts = {f"{function}({name})": verdict(function, name, hostile) for function, name in EVERY_ARGUMENT}
    assert len(verdicts) > 50
    assert {place: wrong for place, wrong in verdicts.items() if wrong} == {}


def test_there_are_enough_hostile_values() -> None:
    assert len(HOSTILE) >= 60
    assert len(HOSTILE) * len(EVERY_ARGUMENT) >= 3000


def test_inputs_survive_errors() -> None:
    before = [array.tobytes() for array in (X, W, G)]
    for function in FUNCTIONS:
        with pytest.raises(ValueError):
            call(function, padding="FULL")
    assert [array.tobytes() for array in (X, W, G)] == before
