# SPDX-License-Identifier: Apache-2.0
"""What holds for every legal call: agreement with the definition, adjointness, linearity, symmetries bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cases
import numpy as np
import pytest
import reference
from cases import Call
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from backstride import nn
from backstride._arguments import FORMATS
from backstride._geometry import Layer
from backstride.keras import backend

MORE = settings(max_examples=4 * settings().max_examples)
ANY = cases.calls()
PLANE = cases.calls(ranks=(2,))


def window(call: Call) -> dict[str, Any]:
    return {
        "strides": call.strides,
        "padding": call.padding,
        "data_format": call.data_format,
        "dilations": call.dilations,
    }


def transposed(call: Call, x: np.ndarray, w: np.ndarray, **changes: Any) -> np.ndarray:
    function = {1: nn.conv1d_transpose, 2: nn.conv2d_transpose, 3: nn.conv3d_transpose}[call.rank]
    return function(x, w, **{"output_shape": call.output_shape} | window(call) | changes)


def reals(call: Call, operand: str, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Numbers whose sums round, so that bits tell in which order they were added."""
    shape = replace(call, channels_first=False).geometry.shape(operand)
    array = np.random.default_rng([seed, len(operand)]).standard_normal(shape).astype(dtype)
    return np.moveaxis(array, -1, 1) if call.channels_first and operand != "filter" else array


def wide_integers(call: Call, operand: str, seed: int = 0) -> np.ndarray:
    """Integers of 20 bits: sums of products of three are exact in int64."""
    shape = call.geometry.shape(operand)
    return np.random.default_rng([seed, len(operand)]).integers(-(2**19), 2**19, shape)


# Agreement with the definition


@MORE
@given(call=ANY, dtype=st.sampled_from([np.float32, np.float64, np.int32, np.int8, np.float16]))
def test_transpose_is_the_definition(call: Call, dtype: Any) -> None:
    x, w = call.integers("input", dtype), call.integers("filter", dtype)
    got = transposed(call, x, w)
    assert got.dtype == dtype
    assert_array_equal(got, reference.derivative("output", x, w, call.geometry))


@MORE
@given(call=ANY)
def test_every_legal_length_and_no_other_is_taken(call: Call) -> None:
    crop = None if call.padding == "SAME" else (0, 0)
    sizes = call.input[0], call.kernel[0], call.strides[0], call.dilations[0]
    legal = reference.legal_lengths(*sizes, crop)
    assert len(legal) == call.strides[0]
    x, w = call.integers("input"), call.integers("filter")
    for length in range(legal[-1] + 3):
        each = replace(call, output=(length, *call.output[1:]))
        if length in legal:
            assert_array_equal(transposed(each, x, w), reference.derivative("output", x, w, each.geometry))
        else:
            with pytest.raises(ValueError, match=f"`output_shape` .* {length} does not fit"):
                transposed(each, x, w)


@given(
    input=st.integers(0, 6),
    kernel=st.integers(0, 6),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 3),
    crop=st.none() | st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
@settings(max_examples=10 * settings().max_examples)
def test_lengths_and_pads_of_a_layer(input: int, kernel: int, stride: int, dilation: int, crop: Any) -> None:
    layer = Layer((kernel,), (stride,), (dilation,), None if crop is None else (crop,))
    outputs = layer.outputs(0, input)
    extent = max((kernel - 1) * dilation + 1, 0) if kernel else 1 - dilation
    if input > 0 and kernel > 0:
        assert [*outputs] == reference.legal_lengths(input, kernel, stride, dilation, crop)
    elif input == 0 and crop is None:
        assert [*outputs] == [0]
    elif input == 0:
        assert [*outputs] == [*range(extent - sum(crop))]
    for output in outputs:
        axis = layer.axis(0, input, output)
        assert (axis.input, axis.kernel, axis.output, axis.stride, axis.dilation) == (
            input,
            kernel,
            output,
            stride,
            dilation,
        )
        assert axis.pad == reference.pad_before(input, output, kernel, stride, dilation, crop)
        if input > 0 and kernel > 0:
            assert layer.input(0, output) == input


@given(call=PLANE)
def test_keras_is_the_same_convolution(call: Call) -> None:
    x, w = reals(call, "input"), reals(call, "filter")
    got = backend.conv2d_transpose(
        x,
        w,
        tuple(call.output_shape),
        call.strides,
        call.padding.lower(),
        "channels_first" if call.channels_first else "channels_last",
        call.dilations,
    )
    assert_array_equal(got, transposed(call, x, w))


@given(call=PLANE)
def test_gradients_are_the_definition(call: Call) -> None:
    x, w, g = (call.integers(name) for name in cases.OPERANDS)
    assert_array_equal(nn.conv2d(g, w, **window(call)), reference.derivative("input", w, g, call.geometry))
    got = nn.conv2d_backprop_filter(g, w.shape, x, **window(call))
    assert_array_equal(got, reference.derivative("filter", x, g, call.geometry))
    got = nn.conv2d_backprop_input(g.shape, w, x, **window(call))
    assert_array_equal(got, transposed(call, x, w))


# Algebra, exact on integers


@MORE
@given(call=PLANE)
def test_the_three_operations_are_adjoint(call: Call) -> None:
    """<transpose(x, w), g> = <x, convolution(g, w)> = <w, filter gradient(x, g)>."""
    x, w, g = (wide_integers(call, name) for name in cases.OPERANDS)
    with np.errstate(over="ignore"):
        products = {
            int((transposed(call, x, w) * g).sum()),
            int((nn.conv2d(g, w, **window(call)) * x).sum()),
            int((nn.conv2d_backprop_filter(g, w.shape, x, **window(call)) * w).sum()),
        }
    assert len(products) == 1


@given(call=ANY, factor=st.integers(-(2**31), 2**31))
def test_linear_in_both_operands(call: Call, factor: int) -> None:
    (x, u), (w, v) = ([wide_integers(call, name, seed) for seed in range(2)] for name in ("input", "filter"))
    with np.errstate(over="ignore"):
        want = transposed(call, x, w) + factor * transposed(call, u, w)
        assert_array_equal(transposed(call, x + factor * u, w), want)
        want = transposed(call, x, w) + factor * transposed(call, x, v)
        assert_array_equal(transposed(call, x, w + factor * v), want)


@given(call=PLANE)
def test_height_and_width_are_alike(call: Call) -> None:
    x, w = call.integers("input"), call.integers("filter")
    turned = replace(
        call,
        **{name: getattr(call, name)[::-1] for name in ("input", "kernel", "output", "strides", "dilations")},
    )
    h, v = (2, 3) if call.channels_first else (1, 2)
    got = transposed(turned, x.swapaxes(h, v), w.swapaxes(0, 1))
    assert_array_equal(got.swapaxes(h, v), transposed(call, x, w))


@given(call=ANY)
def test_a_kernel_of_one_after_another(call: Call) -> None:
    """Composing with a 1x1 convolution is multiplying the channels' matrices."""
    x, w = wide_integers(call, "input"), wide_integers(call, "filter")
    mix = np.random.default_rng(0).integers(-9, 9, (5, call.out_channels))
    point = replace(
        call,
        input=call.output,
        kernel=(1,) * call.rank,
        strides=(1,) * call.rank,
        dilations=(1,) * call.rank,
        in_channels=call.out_channels,
        out_channels=5,
    )
    got = transposed(point, transposed(call, x, w), mix.reshape(*point.kernel, *mix.shape))
    merged = np.einsum("po,...oc->...pc", mix, w)
    assert_array_equal(got, transposed(replace(call, out_channels=5), x, merged))


# Symmetries that no rounding disturbs, bit for bit


@MORE
@given(call=ANY, dtype=st.sampled_from([np.float32, np.float64, np.float16]))
def test_data_formats_are_the_same_bits(call: Call, dtype: Any) -> None:
    last, first = replace(call, channels_first=False), replace(call, channels_first=True)
    x, w = reals(last, "input", dtype), reals(last, "filter", dtype)
    want = transposed(last, x, w)
    got = transposed(first, np.moveaxis(x, -1, 1), w)
    assert_array_equal(np.moveaxis(got, 1, -1), want)
    got = transposed(first, np.ascontiguousarray(np.moveaxis(x, -1, 1)), w)
    assert_array_equal(np.moveaxis(got, 1, -1), want)


@given(call=PLANE)
def test_data_formats_of_gradients_are_the_same_bits(call: Call) -> None:
    last, first = replace(call, channels_first=False), replace(call, channels_first=True)
    x, w, g = (reals(last, name) for name in cases.OPERANDS)
    x_first, g_first = (np.ascontiguousarray(np.moveaxis(array, -1, 1)) for array in (x, g))
    got = nn.conv2d(g_first, w, **window(first))
    assert_array_equal(np.moveaxis(got, 1, -1), nn.conv2d(g, w, **window(last)))
    got = nn.conv2d_backprop_filter(g_first, w.shape, x_first, **window(first))
    assert_array_equal(got, nn.conv2d_backprop_filter(g, w.shape, x, **window(last)))


@given(call=ANY)
def test_images_of_a_batch_do_not_meet(call: Call) -> None:
    x, w = reals(call, "input"), reals(call, "filter")
    alone = [transposed(replace(call, batch=1), x[n : n + 1], w) for n in range(call.batch)]
    assert_array_equal(transposed(call, x, w), np.concatenate(alone))


@given(call=ANY, data=st.data())
def test_output_channels_do_not_meet(call: Call, data: Any) -> None:
    x, w = reals(call, "input"), reals(call, "filter")
    whole = transposed(call, x, w)
    order = data.draw(st.permutations(range(call.out_channels)))[: data.draw(st.integers(1, call.out_channels))]
    some = transposed(replace(call, out_channels=len(order)), x, w[..., order, :])
    assert_array_equal(some, whole.take(order, 1 if call.channels_first else -1))


@given(call=ANY)
def test_crops_cut_from_the_full_result(call: Call) -> None:
    """Whatever the padding: the output is a window into that of VALID, with zeros after its end."""
    x, w = reals(call, "input"), reals(call, "filter")
    full = replace(call, padding="VALID", output=tuple(axis_length(axis) for axis in call.geometry.axes))
    want = transposed(full, x, w)
    spatial = range(2, call.rank + 2) if call.channels_first else range(1, call.rank + 1)
    for position, axis in zip(spatial, call.geometry.axes, strict=True):
        margin = [(0, 0)] * (call.rank + 2)
        margin[position] = (0, max(axis.pad + axis.output - axis_length(axis), 0))
        want = np.pad(want, margin).take(range(axis.pad, axis.pad + axis.output), position)
    assert_array_equal(transposed(call, x, w), want)


def axis_length(axis: Any) -> int:
    """Of the full result, from the first to the last stamp."""
    return (axis.input - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1


@given(call=ANY)
def test_dilation_is_zeros_between_taps(call: Call) -> None:
    """An undilated kernel with zeros between the taps adds terms of zero, which change nothing."""
    x, w = reals(call, "input"), reals(call, "filter")
    extent = tuple((k - 1) * d + 1 for k, d in zip(call.kernel, call.dilations, strict=True))
    spread = np.zeros((*extent, *w.shape[-2:]), w.dtype)
    spread[tuple(slice(None, None, d) for d in call.dilations)] = w
    plain = replace(call, kernel=extent, dilations=(1,) * call.rank)
    assert_array_equal(transposed(plain, x, spread), transposed(call, x, w))


@given(call=ANY)
def test_a_row_of_zeros_before_moves_the_result(call: Call) -> None:
    call = replace(call, padding="VALID", output=tuple(axis_length(axis) for axis in call.geometry.axes))
    x, w = reals(call, "input"), reals(call, "filter")
    axis = 2 if call.channels_first else 1
    longer = replace(
        call,
        input=(call.input[0] + 1, *call.input[1:]),
        output=(call.output[0] + call.strides[0], *call.output[1:]),
    )
    margin = [(0, 0)] * (call.rank + 2)
    margin[axis] = (1, 0)
    got = transposed(longer, np.pad(x, margin), w)
    before, after = np.split(got, [call.strides[0]], axis)
    assert_array_equal(before, 0)
    assert_array_equal(after, transposed(call, x, w))


@given(call=ANY, power=st.integers(-20, 20))
def test_powers_of_two_scale_exactly(call: Call, power: int) -> None:
    x, w = reals(call, "input"), reals(call, "filter")
    assert_array_equal(transposed(call, x * np.float32(2.0**power), w), transposed(call, x, w) * np.float32(2.0**power))
    assert_array_equal(transposed(call, -x, w), -transposed(call, x, w))


@given(call=cases.calls(ranks=(1, 2)))
def test_an_axis_of_one_changes_nothing(call: Call) -> None:
    """A line is an image of height one, and an image a volume of depth one."""
    x, w = reals(call, "input"), reals(call, "filter")
    first = call.channels_first
    more = replace(
        call,
        input=(1, *call.input),
        kernel=(1, *call.kernel),
        output=(1, *call.output),
        strides=(1, *call.strides),
        dilations=(1, *call.dilations),
    )
    axis = 2 if first else 1
    got = transposed(more, np.expand_dims(x, axis), w[None])
    assert_array_equal(got.squeeze(axis), transposed(call, x, w))


@given(call=ANY)
def test_conv_transpose_is_the_one_of_its_rank(call: Call) -> None:
    x, w = reals(call, "input"), reals(call, "filter")
    assert call.data_format in FORMATS[call.rank]
    got = nn.conv_transpose(x, w, call.output_shape, **window(call))
    assert_array_equal(got, transposed(call, x, w))


@given(call=PLANE)
def test_explicit_padding_may_spell_any_crop(call: Call) -> None:
    """A named padding and the pairs that it amounts to are the same bits."""
    x, w = reals(call, "input"), reals(call, "filter")
    crop = []
    for axis in call.geometry.axes:
        after = axis_length(axis) - axis.pad - axis.output
        crop.append((axis.pad, max(after, 0)))
    pairs = [(0, 0), (0, 0), *crop] if call.channels_first else [(0, 0), *crop, (0, 0)]
    assert_array_equal(transposed(call, x, w, padding=pairs), transposed(call, x, w))


@given(call=PLANE)
def test_atrous_is_dilation_alone(call: Call) -> None:
    rate = call.dilations[0]
    crop = None if call.padding == "SAME" else (0, 0)
    plain = replace(call, strides=(1, 1), dilations=(rate, rate), channels_first=False)
    sizes = zip(plain.input, plain.kernel, strict=True)
    plain = replace(plain, output=tuple(reference.legal_lengths(*size, 1, rate, crop)[0] for size in sizes))
    x, w = reals(plain, "input"), reals(plain, "filter")
    got = nn.atrous_conv2d_transpose(x, w, plain.output_shape, rate, plain.padding)
    assert_array_equal(got, transposed(plain, x, w))
