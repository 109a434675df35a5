# SPDX-License-Identifier: Apache-2.0
"""Layers: results, arguments, and gradients by the variables. Names, reuse and losses are in test_golden_layers."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import ml_dtypes  # noqa: F401
import numpy as np
import pytest
import reference
from autograd import grad
from numpy.testing import assert_allclose, assert_array_equal

import backstride
from backstride import layers, nn
from backstride._geometry import Axis, Geometry
from backstride.keras import backend
from backstride.layers import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose

CLASSES: dict[int, Any] = {1: Conv1DTranspose, 2: Conv2DTranspose, 3: Conv3DTranspose}


def integers(shape: Any, dtype: Any = None) -> np.ndarray:
    """An initializer of small integers, whose sums are exact; the same for one shape."""
    return np.random.default_rng(list(shape)).integers(-4, 5, shape).astype(dtype)


X = integers([2, 3, 4, 3], np.float32)


@pytest.fixture(autouse=True)
def store() -> Iterator[backstride.VariableStore]:
    with backstride.VariableStore(seed=0) as store:
        yield store


# Input length, kernel, stride, padding; then the output length that the layer chooses and the crop before it, from
# the worked examples of TensorFlow's behaviour.
LENGTHS = [
    *[(3, 3, 1, "same", 3, 1), (3, 3, 2, "same", 6, 0), (3, 4, 2, "same", 6, 1), (4, 7, 3, "same", 12, 2)],
    *[(3, 2, 3, "same", 9, 0), (1, 3, 4, "same", 4, 0), (0, 3, 1, "same", 0, 0)],
    *[(3, 3, 1, "valid", 5, 0), (3, 3, 2, "valid", 7, 0), (3, 2, 3, "valid", 9, 0), (3, 1, 4, "valid", 12, 0)],
    *[(1, 5, 4, "valid", 5, 0), (0, 3, 1, "valid", 2, 0), (0, 5, 2, "valid", 3, 0)],
]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("first", [False, True], ids=["channels_last", "channels_first"])
@pytest.mark.parametrize(("length", "kernel", "stride", "padding", "output", "pad"), LENGTHS)
def test_result_is_that_of_the_definition(
    rank: int, first: bool, length: int, kernel: int, stride: int, padding: str, output: int, pad: int
) -> None:
    """On the first axis; the others are of length 2, kernel 1 and stride 1."""
    axes = (Axis(length, kernel, output, stride, 1, pad), *(Axis(2, 1, 2),) * (rank - 1))
    geometry = Geometry(axes, 2, 3, 5, 1, first)
    layer = CLASSES[rank](
        5,
        [axis.kernel for axis in axes],
        [axis.stride for axis in axes],
        padding.upper(),
        "Channels_First" if first else "channels_last",
        nn.relu,
        kernel_initializer=integers,
        bias_initializer=integers,
    )
    x = integers(geometry.shape("input"), np.float32)
    result = layer(x)
    w, b = (variable.value for variable in layer.variables)
    exact = reference.wide_output(x, w, geometry)
    exact += b.reshape(-1, *(1,) * rank) if first else b
    assert result.dtype == np.float32
    assert_array_equal(result, np.maximum(exact, 0))
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *result.shape[1:])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "uint8"])
def test_dtype_is_that_of_the_inputs(dtype: str) -> None:
    x = X.astype(np.dtype(dtype))
    result = layers.conv2d_transpose(x, 4, 3, activity_regularizer=lambda y: y.sum())
    assert result.dtype.name == dtype
    assert {variable.dtype.name for variable in backstride.global_variables()} == {dtype}


@pytest.mark.parametrize("reused", [False, True])
def test_bias_initializer_of_none_is_no_bias(reused: bool) -> None:
    result = layers.conv2d_transpose(X, 4, 3, bias_initializer=None, kernel_initializer=integers, name="up")
    if reused:
        result = layers.conv2d_transpose(X, 4, 3, bias_initializer=None, name="up", reuse=True)
    assert [variable.name for variable in backstride.global_variables()] == ["up/kernel"]
    axes = (Axis(3, 3, 5), Axis(4, 3, 6))
    w = backstride.global_variables()[0].value
    assert_array_equal(result, reference.wide_output(X, w, Geometry(axes, 2, 3, 4)))


def test_data_format_of_none_is_the_setting() -> None:
    backend.set_image_data_format("channels_first")
    try:
        assert layers.conv2d_transpose(X, 4, 1, data_format=None).shape == (2, 4, 4, 3)
    finally:
        backend.set_image_data_format("channels_last")


def test_inputs_may_be_lists_and_variables() -> None:
    variable = backstride.get_variable("x", initializer=X)
    expected = layers.conv2d_transpose(X, 4, 3, name="up")
    for inputs in (variable, X.tolist()):
        assert_array_equal(layers.conv2d_transpose(inputs, 4, 3, name="up", reuse=True), expected)


def test_inputs_of_the_other_byte_order() -> None:
    expected = layers.conv2d_transpose(X, 4, 3, name="up")
    for reuse in (True, backstride.AUTO_REUSE):
        got = layers.conv2d_transpose(X.astype(X.dtype.newbyteorder()), 4, 3, name="up", reuse=reuse)
        assert_array_equal(got, expected, strict=True)
    layers.conv2d_transpose(X.astype(X.dtype.newbyteorder()), 4, 3, name="other")
    assert {variable.dtype for variable in backstride.global_variables()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("made", [False, True])
def test_what_makes_regularizers_and_constraints_may_stand_for_them(made: bool) -> None:
    """As initializers' classes do in TensorFlow."""
    l2, max_norm, ones = backstride.regularizers.l2, backstride.constraints.max_norm, backstride.ones_initializer
    layers.conv2d_transpose(
        X,
        4,
        3,
        kernel_initializer=ones() if made else ones,
        kernel_regularizer=l2() if made else l2,
        kernel_constraint=max_norm() if made else max_norm,
    )
    assert_allclose(backstride.losses.get_regularization_losses(), [0.01 * 3 * 3 * 4 * 3], rtol=1e-6)
    kernel = backstride.global_variables()[0]
    kernel.store.update({kernel.name: kernel.value * 10})
    assert_allclose(np.sqrt((kernel.value**2).sum(0)), 2, rtol=1e-5)


def test_nothing_is_written_to_the_inputs() -> None:
    x = X.copy()
    x.setflags(write=False)
    layers.conv2d_transpose(x, 4, 3, activation=nn.relu)
    assert_array_equal(x, X)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"inputs": None}, TypeError, "`inputs` must be a NumPy array, a list of numbers or a buffer; got NoneType"),
    ({"inputs": X[0]}, ValueError, r"`inputs` must have 4 dimensions; got shape \(3, 4, 3\)"),
    ({"filters": None}, ValueError, "`filters` is required; got None"),
    ({"filters": 0}, ValueError, r"`filters` must be positive and below 2\*\*63; got filters=0"),
    ({"filters": 2.0}, TypeError, "`filters` takes ints; got filters=2.0"),
    ({"filters": "2"}, TypeError, "`filters` takes ints; got filters='2'"),
    ({"kernel_size": 0}, ValueError, r"`kernel_size` must be a positive int, or 2 of them, .* got kernel_size=0"),
    ({"kernel_size": (3, -1)}, ValueError, r"`kernel_size` must be .* got kernel_size=\(3, -1\)"),
    ({"kernel_size": (3, 3, 3)}, ValueError, r"`kernel_size` must be .* got kernel_size=\(3, 3, 3\)"),
    ({"kernel_size": None}, ValueError, "`kernel_size` is required; got None"),
    ({"kernel_size": 3.0}, TypeError, "`kernel_size` takes ints; got kernel_size=3.0"),
    ({"strides": None}, ValueError, "`strides` is required; got None"),
    ({"strides": (0, 1)}, ValueError, r"`strides` must be a positive int, or 2 of them, .* got strides=\(0, 1\)"),
    ({"padding": "full"}, ValueError, "`padding` must be 'same' or 'valid'; got padding='full'"),
    ({"padding": None}, ValueError, "`padding` must be 'same' or 'valid'; got padding=None"),
    ({"data_format": "NHWC"}, ValueError, "`data_format` must be 'channels_last' or .*; got data_format='NHWC'"),
    ({"activation": "rleu"}, ValueError, "`activation` must be a function or one of elu, .*; got activation='rleu'"),
    ({"activation": 3}, ValueError, "`activation` must be a function or its name; got activation=3"),
    ({"kernel_initializer": "none"}, ValueError, "`kernel_initializer` must be a function or one of bilinear"),
    ({"kernel_initializer": lambda shape: 0}, TypeError, r"initializer of 'up/kernel' must take \(shape, dtype\)"),
    (
        {"kernel_initializer": lambda shape, dtype: np.zeros(3)},
        ValueError,
        r"the initializer of 'up/kernel' made shape \(3,\); it was asked for \(3, 3, 4, 3\)",
    ),
    ({"kernel_regularizer": "l3"}, ValueError, "`kernel_regularizer` must be a function or one of l1, l1_l2, l2"),
    ({"bias_regularizer": 1}, ValueError, "`bias_regularizer` must be a function or its name; got bias_regularizer=1"),
    ({"activity_regularizer": lambda y: None}, ValueError, "`activity_regularizer` must return a loss"),
    ({"kernel_constraint": "positive"}, ValueError, "`kernel_constraint` must be a function or one of max_norm"),
    ({"bias_constraint": []}, ValueError, "`bias_constraint` must be a function or its name"),
    ({"name": 3}, TypeError, "`name` must be a string or a scope object; got name=3"),
    ({"name": "a b"}, ValueError, "`name` must be of letters, digits and .*; got name='a b'"),
    ({"kernel_initializer": np.zeros(3)}, ValueError, "`kernel_initializer` must be a function or its name"),
    (
        {"kernel_initializer": lambda shape, dtype: None},
        ValueError,
        "'up/kernel' made None; it was asked for an array",
    ),
    (
        {"filters": 2**40},
        MemoryError,
        r"the variable 'up/kernel' of shape \(3, 3, 1099511627776, 3\) and dtype float32 would take",
    ),
    ({"reuse": 1}, ValueError, "`reuse` must be None, False, True or AUTO_REUSE; got reuse=1"),
    ({"reuse": "yes"}, ValueError, "`reuse` must be None, False, True or AUTO_REUSE; got reuse='yes'"),
    ({"reuse": True}, ValueError, "the variable 'up/kernel' does not exist, and reuse=True; AUTO_REUSE would make it"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=lambda value: repr(value)[:40])
def test_wrong_arguments_are_told(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"inputs": X, "filters": 4, "kernel_size": 3, "name": "up"} | change
    with pytest.raises(error, match=message):
        layers.conv2d_transpose(**arguments)
    wrong_after_the_variables = ("activity_regularizer",)
    assert bool(backstride.global_variables()) is (next(iter(change)) in wrong_after_the_variables)


def test_other_shape_or_dtype_under_reuse_is_told() -> None:
    layers.conv2d_transpose(X, 4, 3, name="up")
    with pytest.raises(ValueError, match=r"'up/kernel' exists with shape \(3, 3, 4, 3\); this call needs shape \(2, 2"):
        layers.conv2d_transpose(X, 4, 2, name="up", reuse=True)
    with pytest.raises(ValueError, match="'up/kernel' exists with dtype float32; this call needs float64"):
        layers.conv2d_transpose(X.astype(np.float64), 4, 3, name="up", reuse=True)
    with pytest.raises(ValueError, match="'up/kernel' already exists; to share it, use reuse=True or AUTO_REUSE"):
        layers.conv2d_transpose(X, 4, 3, name="up")


# Objects


def test_objects_share_their_variables_between_calls() -> None:
    layer = Conv2DTranspose(4, 3)
    assert layer.variables == []
    assert_array_equal(layer(X), layer(X))
    assert [variable.name for variable in layer.variables] == ["conv2d_transpose/kernel", "conv2d_transpose/bias"]
    assert layer.trainable_variables == layer.variables == backstride.global_variables()


def test_objects_make_their_names_unique() -> None:
    shapes = [Conv2DTranspose(4, 3, name="up") for _ in range(2)]
    for layer in shapes:
        layer.build((None, None, None, 3))
    assert [layer.kernel.name for layer in shapes if layer.kernel] == ["up/kernel", "up_1/kernel"]


def test_objects_refuse_other_channels_and_unknown_ones() -> None:
    layer = Conv2DTranspose(4, 3)
    with pytest.raises(ValueError, match="the number of channels in `input_shape` must be known"):
        layer.build((None, 3, 4, None))
    with pytest.raises(ValueError, match="`input_shape` must have 4 entries; got input_shape="):
        layer.build((3, 4, 3))
    with pytest.raises(ValueError, match="entries of `input_shape` must be at least 0"):
        layer.compute_output_shape((1, -3, 4, 3))
    layer(X)
    with pytest.raises(ValueError, match="`inputs` has 2 channels; the layer was built for 3"):
        layer(X[..., :2])


def test_object_keeps_its_variables_in_another_store() -> None:
    layer = Conv2DTranspose(4, 3)
    expected = layer(X)
    with backstride.VariableStore() as other:
        assert_array_equal(layer(X), expected)
        assert not other.values()


def test_object_that_is_not_trainable() -> None:
    layer = Conv2DTranspose(4, 3, trainable=False)
    layer(X)
    assert (len(layer.variables), layer.trainable_variables, backstride.trainable_variables()) == (2, [], [])


# Gradients


def loss_of(store: backstride.VariableStore, network: Any, x: np.ndarray) -> Any:
    def loss(values: dict[str, Any]) -> Any:
        run = store.run(network, x, values=values)
        return anp.sum(run.result**2) + sum(run.losses)

    return loss


def network(x: Any) -> Any:
    with backstride.variable_scope("net", regularizer=backstride.regularizers.l2(0.3)):
        x = layers.conv2d_transpose(x, 4, 3, 2, "same", activation="tanh", activity_regularizer="l2")
        layer = layers.Conv2DTranspose(2, (2, 3), padding="valid", bias_regularizer="l2")
        return layer(x)


def test_gradients_by_kernel_and_bias_are_those_of_finite_differences(store: backstride.VariableStore) -> None:
    """In float64, by central differences, whose truncation and rounding are about 1e-9 of the slope."""
    x = X.astype(np.float64)
    store.run(network, x)
    values, loss = store.trainable(), loss_of(store, network, x)
    gradient = grad(loss)(values)
    assert list(gradient) == list(values)
    for name in values:
        direction = integers(values[name].shape, np.float64)
        step = 1e-5
        ends = [loss(values | {name: values[name] + sign * step * direction}) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert_allclose(np.sum(gradient[name] * direction), slope, rtol=1e-7, err_msg=name)


def test_second_derivatives_by_the_variables(store: backstride.VariableStore) -> None:
    x = X.astype(np.float64)
    store.run(network, x)
    values, loss = store.trainable(), loss_of(store, network, x)
    direction = {name: integers(value.shape, np.float64) for name, value in values.items()}

    def along(values: dict[str, Any]) -> Any:
        gradient = grad(loss)(values)
        return sum(anp.sum(gradient[name] * direction[name]) for name in direction)

    product = grad(along)(values)
    step = 1e-5
    ends = [grad(loss)({name: values[name] + sign * step * direction[name] for name in values}) for sign in (1, -1)]
    for name in values:
        assert_allclose(product[name], (ends[0][name] - ends[1][name]) / (2 * step), rtol=1e-5, atol=1e-5)


def test_gradient_of_the_kernel_is_the_adjoint() -> None:
    """<y, conv(x, w)> is linear in w, and in the bias: its gradient, exact on integers, times w is itself."""
    with backstride.VariableStore() as store:
        pass

    def up(x: Any) -> Any:
        return layers.conv2d_transpose(x, 4, 3, 2, kernel_initializer=integers, bias_initializer=integers, name="up")

    result = store.run(up, X).result
    y = integers(result.shape, np.float32)
    gradient = grad(lambda values: anp.sum(y * store.run(up, X, values=values).result))(store.trainable())
    assert gradient["up/kernel"].dtype == np.float32
    assert sum((gradient[name] * value).sum() for name, value in store.values().items()) == (y * result).sum()
    assert_array_equal(gradient["up/bias"], y.sum((0, 1, 2)))


def test_example_of_a_dcgan_generator(tmp_path: Path) -> None:
    """A TF 1 script with only its import changed; the two calls share their variables, and so do other libraries."""
    script = Path(__file__).parent.parent / "examples" / "dcgan.py"
    names = runpy.run_path(str(script))
    images, again = names["images"], names["again"]
    assert images.shape == (16, 64, 64, 3)
    assert_array_equal(images, again)
    assert 0 < abs(images).max() < 1
    assert [variable.name for variable in names["variables"]] == [
        f"generator/up{n}/{kind}" for n in range(1, 5) for kind in ("kernel", "bias")
    ]
    names["variables"][0].store.save(tmp_path / "weights.npz")
    for run in names["LIBRARIES"].values():
        theirs = run(names["noise"], tmp_path / "weights.npz")
        assert not isinstance(theirs, np.ndarray)
        assert_allclose(np.asarray(theirs), images, rtol=0, atol=1e-6)


def test_copies_have_variables_of_their_own() -> None:
    x = np.ones((1, 4, 4, 2), np.float32)
    with backstride.VariableStore(seed=0):
        layer = Conv2DTranspose(4, 3)
        y = layer(x)
        other = copy.deepcopy(layer)
        assert_array_equal(other(x), y)
        assert other.kernel is not None
        other.kernel.assign(np.zeros(other.kernel.shape, np.float32))
        assert not other(x).any()
        assert_array_equal(layer(x), y)
