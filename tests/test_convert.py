# SPDX-License-Identifier: Apache-2.0
"""Layers in the terms of other frameworks: the arithmetic, without the frameworks. See also test_convert_frameworks."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from layers import layers
from numpy.testing import assert_array_equal

from backstride import convert
from backstride.convert import FRAMEWORKS, LAYOUTS, ConvTranspose, Port

# Kernel, stride and the pixels by which the usual recipe for PyTorch is off TensorFlow's SAME.
SHIFTS = {
    (2, 2): 0,
    (4, 2): 0,
    (8, 4): 0,
    (16, 8): 0,
    (3, 2): 1,
    (5, 2): 1,
    (9, 2): 1,
    (5, 3): 1,
    (9, 3): 1,
    (10, 5): 1,
    (9, 4): 2,
    (25, 4): 2,
}


def read(port: Port) -> ConvTranspose:
    """What the framework makes of a port's arguments, given what it is told elsewhere."""
    said, function = port.said, port.framework.read
    lengths = (4,) * said.rank
    shape = said.output(lengths)
    shape = (1, said.out_channels, *shape) if port.channels_first else (1, *shape, said.out_channels)
    known = inspect.signature(function).parameters
    arguments = dict(port.arguments)
    if known.get("output_shape", inspect.Parameter("x", 1, default=0)).default is inspect.Parameter.empty:
        arguments |= {"output_shape": shape, "input": lengths}
    told = {"in_channels": said.in_channels, "bias": said.bias, "rank": said.rank}
    arguments |= {name: value for name, value in told.items() if name in known and name not in arguments}
    return function(**arguments)


def test_every_framework_reads_what_it_writes() -> None:
    """And what is left to be cut then makes the layer, in every framework that has it."""
    seen = dict.fromkeys(FRAMEWORKS, 0)

    @given(layer=layers())
    def check(layer: ConvTranspose) -> None:
        for name, framework in FRAMEWORKS.items():
            if port := _written(framework, layer):
                again = read(port)
                assert again.replace(bias=port.said.bias) == port.said.replace(channels_first=port.channels_first)
                assert framework.told(layer).crop == again.cropped(port.crop).crop
                seen[name] += 1

    check()
    assert min(seen.values()) > 0, seen


def _written(framework: convert.Framework, layer: ConvTranspose) -> Port | None:
    try:
        port = framework.write(layer)
    except ValueError as error:
        assert "only" in str(error) or "one" in str(error)
        return None
    return port if min(port.said.output((4,) * layer.rank)) > 0 else None


@given(layer=layers(rank=2), names=st.tuples(*[st.sampled_from(sorted(set(FRAMEWORKS) - {"candle"}))] * 2))
def test_from_one_to_another_and_back(layer: ConvTranspose, names: tuple[str, str]) -> None:
    """Through every pair of frameworks: the crops, and the filter bit for bit."""
    there, back = (FRAMEWORKS[name] for name in names)
    layer = back.told(there.told(layer))
    first = there.write(layer)
    moved = read(first) if min(first.said.output((4, 4))) > 0 else first.said
    second = back.write(moved.cropped(first.crop))
    assert second.said.cropped(second.crop).crop == layer.crop
    filters = np.random.default_rng(0).standard_normal(layer.filter_shape)
    weights = first.weights(filters)
    again = second.weights(first.layout.read(weights, layer.groups))
    assert_array_equal(second.layout.read(again, layer.groups), filters)


@given(layer=layers())
def test_a_layer_is_the_definition(layer: ConvTranspose) -> None:
    lengths = (3,) * layer.rank
    geometry = layer.geometry(2, lengths)
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, geometry.shape("input")).astype(np.float32)
    filters = rng.integers(-4, 5, layer.filter_shape).astype(np.float32)
    bias = rng.integers(-4, 5, layer.out_channels).astype(np.float32)
    column = bias.reshape(-1, *[1] * layer.rank) if layer.channels_first else bias
    assert_array_equal(layer(x, filters, bias), reference.derivative("output", x, filters, geometry) + column)


@given(layer=layers(), more=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=1))
def test_cropped_cuts(layer: ConvTranspose, more: list[tuple[int, int]]) -> None:
    lengths, ((before, after),) = (4,) * layer.rank, more
    if min(layer.output(lengths)) <= max(before, 0) + max(after, 0):
        return
    x = np.random.default_rng(2).integers(-4, 5, layer.geometry(1, lengths).shape("input")).astype(np.float32)
    filters = np.ones(layer.filter_shape, np.float32)
    whole, cut = layer(x, filters), layer.cropped((before, after))(x, filters)
    inside = [slice(None)] * whole.ndim
    outside = [slice(None)] * whole.ndim
    for n in range(layer.rank):
        axis = n + 1 + layer.channels_first
        inside[axis] = slice(max(before, 0), whole.shape[axis] - max(after, 0))
        outside[axis] = slice(max(-before, 0), cut.shape[axis] - max(-after, 0))
    # Where cells are added that are no zeros, they have moved into a shorter crop, which shows them.
    if min(before, after) >= 0:
        assert_array_equal(cut, whole[tuple(inside)])
    else:
        assert_array_equal(cut[tuple(outside)], whole[tuple(inside)])


@pytest.mark.parametrize(("kernel", "stride"), SHIFTS, ids=lambda value: str(value))
def test_the_shift_of_the_usual_recipe(kernel: int, stride: int) -> None:
    layer = convert.from_keras(3, kernel, strides=stride, padding="same", rank=1)
    port = convert.to_torch(layer)
    assert port.shift == (SHIFTS[kernel, stride],)
    padding = kernel // 2 if kernel % 2 else -(-(kernel - stride) // 2)
    added = stride - 1 if kernel % 2 else (kernel - stride) % 2
    assert port.usual == convert.Usual(f"padding={padding}, output_padding={added}", ((padding, padding - added),))
    assert convert.from_torch(1, 3, kernel, stride, padding, added, rank=1).output(7) == layer.output(7)
    assert any("shifted" in note for note in port.notes) == (port.shift != (0,))


def test_the_shift_is_where_the_pixels_are() -> None:
    """An impulse through the usual recipe arrives so many pixels earlier."""
    layer = convert.from_keras(1, 9, strides=4, padding="same", rank=1)
    usual = convert.from_torch(1, 1, 9, 4, 4, 3, rank=1).replace(channels_first=False)
    impulse, filters = np.zeros((1, 8, 1)), np.arange(1.0, 10).reshape(9, 1, 1)
    impulse[0, 4] = 1
    right, wrong = layer(impulse, filters).ravel(), usual(impulse, filters).ravel()
    assert_array_equal(wrong[:-2], right[2:])


def test_which_hold_for_one_size_only() -> None:
    ports = [framework.write(ConvTranspose((3, 3), 2)) for framework in FRAMEWORKS.values()]
    assert [port.framework.name for port in ports if not port.every_size] == ["tflite"]
    assert any("one size" in note for note in convert.to_tflite(ConvTranspose((3, 3))).notes)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_layouts_are_inverted(name: str, groups: int) -> None:
    filters = np.random.default_rng(0).standard_normal((5, 4, 2, 6))
    layout = LAYOUTS[name]
    assert_array_equal(layout.read(layout.write(filters, groups), groups), filters)


@given(layer=layers())
def test_json_and_repr(layer: ConvTranspose) -> None:
    assert ConvTranspose.from_json(layer.to_json()) == layer
    assert eval(repr(layer)) == layer
    assert hash(layer) == hash(ConvTranspose.from_json(layer.to_json()))
    assert set(json.loads(layer.to_json())) == set(inspect.signature(ConvTranspose).parameters)


def test_weights_of_other_libraries() -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    layer = ConvTranspose((3, 2), 2, (1, 2), in_channels=4, out_channels=6, groups=2)
    filters = np.random.default_rng(0).standard_normal(layer.filter_shape).astype(np.float32)
    for name, framework in FRAMEWORKS.items():
        if name != "candle":
            port = framework.write(layer)
            want = port.weights(filters)
            for library in torch.from_numpy, jnp.asarray:
                got = port.weights(library(filters))
                assert type(got) is type(library(filters))
                assert_array_equal(np.asarray(got), want)


def test_weights_keep_their_gradients() -> None:
    torch = pytest.importorskip("torch")
    filters = torch.ones(3, 3, 2, 4, requires_grad=True)
    port = convert.to_lax(ConvTranspose((3, 3), in_channels=4, out_channels=4, groups=2))
    (port.weights(filters).sum() * 3).backward()
    assert_array_equal(filters.grad, np.full((3, 3, 2, 4), 3))


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: ConvTranspose(()), ValueError, "`kernel` must have one to three ints"),
    (lambda: ConvTranspose((1, 2, 3, 4)), ValueError, "`kernel` must have one to three ints"),
    (lambda: ConvTranspose(3.0), TypeError, "`kernel` takes ints; got kernel=3.0"),
    (lambda: ConvTranspose((3, 0)), ValueError, "`kernel` must be a positive int, or 2 of them"),
    (lambda: ConvTranspose((3, 3), stride=(2, 2, 2)), ValueError, "`stride` must be a positive int, or 2 of them"),
    (lambda: ConvTranspose((3, 3), crop=((1, 2, 3), (1, 2))), ValueError, "`crop` must be an int"),
    (lambda: ConvTranspose((3, 3), crop=[(1, 2)] * 3), ValueError, "`crop` must be an int"),
    (lambda: ConvTranspose((3, 3), crop=2**40), ValueError, "must be above -2**31"),
    (lambda: ConvTranspose((3, 3), crop="same"), TypeError, "`crop` takes ints"),
    (lambda: ConvTranspose(3, in_channels=0), ValueError, "`in_channels` must be positive"),
    (lambda: ConvTranspose(3, in_channels=4, out_channels=3, groups=2), ValueError, "must divide `out_channels`"),
    (lambda: ConvTranspose(3, bias=1), TypeError, "`bias` must be a bool"),
    (lambda: ConvTranspose((3, 3)).output((1, 2, 3)), ValueError, "`input` must be 2 lengths"),
    (lambda: ConvTranspose(3)(np.ones((1, 2, 2)), np.ones((3, 1, 1))), ValueError, "2 channels"),
    (lambda: ConvTranspose(3)(np.ones((1, 2, 1)), np.ones((2, 1, 1))), ValueError, "`filters` must have shape"),
    (lambda: ConvTranspose.from_json("{"), ValueError, "no JSON"),
    (lambda: ConvTranspose.from_json('{"stride": 2}'), ValueError, "JSON object"),
    (lambda: ConvTranspose.from_json('{"kernel": 2, "strides": 2}'), ValueError, "JSON object"),
    (lambda: convert.from_torch(1, 1, 3, 2, output_padding=2), ValueError, "`output_padding` must be below"),
    (lambda: convert.from_torch(1, 1, 3, padding=-1), ValueError, "`padding` must be a non-negative int"),
    (lambda: convert.from_torch(1, 1, 3, padding_mode="circular"), ValueError, "`padding_mode` must be 'zeros'"),
    (lambda: convert.from_torch(1, 1, 3, rank=4), ValueError, "`rank` must be 1, 2 or 3"),
    (lambda: convert.from_candle(1, 1, 3, rank=3), ValueError, "in 1-D, and in 2-D"),
    (lambda: convert.to_candle(ConvTranspose((3, 2))), ValueError, "one `kernel` for both axes"),
    (lambda: convert.from_keras(1, 3, padding="full"), ValueError, "`padding` must be 'same' or 'valid'"),
    (lambda: convert.from_keras(1, 3, strides=2, output_padding=2), ValueError, "`output_padding` must be below"),
    (lambda: convert.from_tf_nn((3, 3, 1), None, 2, "same"), ValueError, "`padding` must be"),
    (lambda: convert.from_tf_nn((3, 3), None, 2), ValueError, "`filters` must have 3 to 5 dimensions"),
    (lambda: convert.from_tf_nn((3, 1, 1), [8], 2), ValueError, "`input` is required"),
    (lambda: convert.from_tf_nn((3, 1, 1), [9], 2, input=4), ValueError, "widths 7 to 8 would fit"),
    (lambda: convert.from_tf_layers(1, (3,)), ValueError, "2-D and 3-D only"),
    (lambda: convert.to_tflite(ConvTranspose(3)), ValueError, "2-D only"),
    (lambda: convert.from_tflite((3, 3, 1), None), ValueError, "`weights` must have 4 dimensions"),
    (lambda: convert.from_lax((3, 1, 1), 2, "same"), ValueError, "`padding` must be 'SAME', 'VALID'"),
    (lambda: convert.from_lax((3, 1, 1), 2, [(1, 1)] * 2), ValueError, "`padding` must be a name, 1 (before, after)"),
    (lambda: convert.from_lax((3, 1, 1), 2, "SAME", None, ("NHC", "HIO", "NCH")), ValueError, "one layout"),
    (lambda: convert.from_lax((3, 1, 1), 2, "SAME", None, "NHC"), ValueError, "three strings"),
    (lambda: convert.from_flax_nnx(1, 1, 3, padding="CIRCULAR"), ValueError, "`padding` must be 'SAME', 'VALID'"),
    (lambda: convert.from_conv_general_dilated((3, 1, 1), 2, [(0, 0)]), ValueError, "`window_strides` must be 1"),
    (lambda: convert.from_conv_general_dilated((3, 1, 1), 1, "SAME"), ValueError, "`padding` must be pairs"),
    (lambda: convert.from_haiku(1, 3, 2, output_shape=9, input=4), ValueError, "would fit"),
    (lambda: convert.from_equinox(1, 1, 1, 3, padding_mode="CIRCULAR"), ValueError, "`padding_mode` must be 'ZEROS'"),
    (lambda: convert.from_equinox(1, 1, 1, 3, 2, output_padding=2), ValueError, "`output_padding` must be below"),
    (lambda: convert.from_onnx((1, 1, 3), "SAME"), ValueError, "`auto_pad` must be one of"),
    (lambda: convert.from_onnx((1, 1, 3), kernel_shape=[4]), ValueError, "`kernel_shape` must be that of `W`"),
    (lambda: convert.from_onnx((1, 1, 3), output_shape=[4]), ValueError, "`input` is required"),
    (lambda: convert.from_onnx((1, 1, 3), pads=[1]), ValueError, "`pads` must be"),
    (lambda: LAYOUTS["torch"].write(np.ones((2, 2))), ValueError, "`filters` must have one to three axes"),
    (lambda: LAYOUTS["jax"].write(np.ones((2, 2, 3)), 2), ValueError, "`groups` must divide"),
    (lambda: LAYOUTS["torch"].read(np.ones((5, 4, 3, 3)), 3), ValueError, "`groups` must divide the 5 channels"),
    (lambda: LAYOUTS["torch"].read(np.ones((5, 4, 3, 3)), 0), ValueError, "`groups` must be positive"),
    (lambda: LAYOUTS["torch"].read(np.ones((5, 4, 3, 3)), "1"), TypeError, "`groups` takes ints"),
    (lambda: convert.from_keras(3, 5, strides=2, dilation_rate=2), ValueError, "not both"),
    (lambda: convert.from_lax((5, 3, 4), 2, 5), TypeError, "`padding` must be a list or tuple"),
    (lambda: ConvTranspose.from_json(None), TypeError, "`text` must be what `to_json` wrote"),
    (lambda: ConvTranspose(3, groups=0), ValueError, "`groups` must be positive"),
    (lambda: convert.to_torch(ConvTranspose(3)).weights(np.ones((3, 2, 1))), ValueError, "`filters` must have shape"),
]


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("layer", [None, "x", (3, 3)], ids=repr)
def test_only_layers_are_written(name: str, layer: Any) -> None:
    with pytest.raises(TypeError, match="`layer` must be a ConvTranspose"):
        FRAMEWORKS[name].write(layer)


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=[message for *_, message in BAD])
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)
