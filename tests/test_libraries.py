# SPDX-License-Identifier: Apache-2.0
"""Every public function takes the arrays of every library, gives the same kind back, and says the same of bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autograd
import autograd.numpy as anp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import test_errors
import torch
from autograd.numpy.numpy_boxes import ArrayBox
from numpy.testing import assert_allclose, assert_array_equal
from test_autograd import EVERY, Differentiable

import backstride as tf
from backstride import nn


@dataclass(frozen=True)
class Library:
    """How a library makes its arrays, reads them and differentiates.

    `gradient(function, at, *arrays)` is the derivative of the sum of `function(*arrays)` by its argument `at`.
    """

    name: str
    kind: type
    array: Callable[[np.ndarray], Any]
    numpy: Callable[[Any], np.ndarray]
    gradient: Callable[..., np.ndarray] | None

    def __str__(self) -> str:
        return self.name


def autograd_gradient(function: Callable[..., Any], at: int, *arrays: np.ndarray) -> np.ndarray:
    gradient: np.ndarray = autograd.grad(lambda *given: anp.sum(function(*given)), at)(*arrays)
    return gradient


def torch_gradient(function: Callable[..., Any], at: int, *arrays: np.ndarray) -> np.ndarray:
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    return torch.autograd.grad(function(*tensors).sum(), tensors[at])[0].numpy()


NUMPY = Library("numpy", np.ndarray, lambda array: array, lambda array: array, None)
AUTOGRAD = Library("autograd", np.ndarray, lambda array: array, lambda array: array, autograd_gradient)


def jax_gradient(function: Callable[..., Any], at: int, *arrays: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.grad(lambda *given: function(*given).sum(), at))(*arrays))


TORCH = Library("torch", torch.Tensor, torch.from_numpy, lambda array: array.detach().numpy(), torch_gradient)
JAX = Library("jax", jax.Array, jnp.asarray, np.asarray, jax_gradient)
LIBRARIES = [NUMPY, TORCH, JAX]
DIFFERENTIATING = [AUTOGRAD, TORCH, JAX]


@pytest.fixture(autouse=True)
def jax_has_wide_types() -> Iterator[None]:
    """By default JAX makes float32 of float64."""
    with jax.enable_x64(True):
        yield


library = pytest.mark.parametrize("library", LIBRARIES, ids=str)
differentiating = pytest.mark.parametrize("library", DIFFERENTIATING, ids=str)


@EVERY
@library
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "uint8"])
def test_values_are_the_definition(function: Differentiable, library: Library, dtype: str) -> None:
    one, other = (function.integers(name, dtype) for name in (function.first, function.second))
    result = function.apply(library.array(one), library.array(other))
    assert isinstance(result, library.kind)
    assert library.numpy(result).dtype == dtype
    assert_array_equal(library.numpy(result), reference.derivative(function.wrt, one, other, function.call.geometry))


@EVERY
@differentiating
def test_gradients_are_the_definition(function: Differentiable, library: Library) -> None:
    assert library.gradient is not None
    ones = np.ones(function.cotangent().shape)
    for at, operand in enumerate((function.first, function.second)):
        gradient = library.gradient(function.apply, at, *function.operands)
        assert_array_equal(gradient, function.gradient(operand, ones))


@EVERY
@differentiating
def test_second_derivatives_are_the_same(function: Differentiable, library: Library) -> None:
    """By one argument, of the square of the derivative by the other, as autograd has it for NumPy."""
    assert library.gradient is not None

    def loss(x: Any, w: Any) -> Any:
        return function.apply(x * x, w * w)

    gradient = library.gradient(loss, 0, *function.reals)
    assert_allclose(gradient, autograd_gradient(loss, 0, *function.reals), rtol=1e-12, atol=1e-10)


@differentiating
@pytest.mark.parametrize("name", [name for name in nn.__all__ if "conv" not in name and name != "bias_add"])
def test_activations(name: str, library: Library) -> None:
    assert library.gradient is not None
    x = np.linspace(-8, 8, 33)
    function = getattr(nn, name)
    result = function(library.array(x))
    assert isinstance(result, library.kind)
    assert_allclose(library.numpy(result), function(x), rtol=1e-14, atol=1e-15)
    weights = np.linspace(1, 2, 33)  # so that the sum of a softmax is not constant
    want = autograd_gradient(lambda x: function(x) * weights, 0, x)
    got = library.gradient(lambda x: function(x) * library.array(weights), 0, x)
    assert_allclose(got, want, rtol=1e-12, atol=1e-15)


@library
def test_bias(library: Library) -> None:
    x, bias = np.arange(24.0).reshape(2, 3, 4), np.array([1.0, 2.0, 3.0])
    result = nn.bias_add(library.array(x), library.array(bias), "NCW")
    assert_array_equal(library.numpy(result), x + bias[:, None])


@library
def test_constraints_and_regularizers(library: Library) -> None:
    w = np.array([[3.0, -4.0], [0.5, 0.25]])
    for function in (
        tf.constraints.non_neg(),
        tf.constraints.unit_norm((0, 1)),
        tf.constraints.max_norm(1.0),
        tf.constraints.min_max_norm(2.0, 3.0, 0.5, axis=1),
        tf.regularizers.l1_l2(0.5, 0.25),
    ):
        result = function(library.array(w))
        assert isinstance(result, library.kind | np.floating)
        assert_allclose(library.numpy(result), function(w), rtol=1e-14)


def generator(z: Any, reuse: Any = None) -> Any:
    """A small DCGAN decoder, the same body for all libraries."""
    with tf.variable_scope("generator", reuse=reuse):
        net = tf.layers.conv2d_transpose(z, 8, 5, 2, padding="same", kernel_regularizer="l2", name="up1")
        net = tf.nn.relu(net)
        net = tf.layers.conv2d_transpose(net, 3, 5, 2, padding="same", name="up2")
        return tf.tanh(net)


@library
def test_one_body_and_one_file_of_weights(library: Library, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 4, 4, 6))
    store = tf.VariableStore(seed=0)
    want = store.run(generator, noise)
    store.save(tmp_path / "weights.npz")
    other = tf.VariableStore()
    other.load(tmp_path / "weights.npz")
    got = other.run(generator, library.array(noise))
    assert isinstance(got.result, library.kind)
    assert all(isinstance(value, library.kind) for value in other.values().values())
    assert_allclose(library.numpy(got.result), want.result, rtol=1e-12)
    assert_allclose(library.numpy(got.losses[0]), want.losses[0], rtol=1e-12)
    other.save(tmp_path / "again.npz")
    again = tf.VariableStore()
    again.load(tmp_path / "again.npz")
    for name, value in again.values().items():
        assert_array_equal(value, store.values()[name])


# What is said of bad arguments

WRONG: dict[str, dict[str, Any]] = {
    "rank": {"value": np.ones((2, 3), np.float32)},
    "dtypes": {"filter": test_errors.W.astype(np.float64)},
    "complex": {"value": test_errors.X.astype(np.complex64)},
    "bool": {"value": test_errors.X.astype(bool)},
    "channels": {"filter": np.ones((3, 2, 5, 4), np.float32)},
    "depth": {"output_shape": [2, 6, 8, 4]},
    "length": {"output_shape": [2, 7, 8, 5]},
    "batch": {"output_shape": [3, 6, 8, 5]},
    "padding": {"padding": "FULL"},
    "strides": {"strides": 0},
    "format": {"data_format": "NHCW"},
    "none": {"value": None},
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("library", LIBRARIES[1:], ids=str)
def test_messages_are_those_for_numpy(wrong: str, library: Library) -> None:
    function, arguments = test_errors.FUNCTIONS["conv2d_transpose"]
    arguments = arguments | WRONG[wrong]
    with pytest.raises((ValueError, TypeError)) as want:
        function(**arguments)
    converted = {
        name: library.array(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
    }
    with pytest.raises(want.type) as got:
        function(**converted)
    assert str(got.value) == str(want.value)


@pytest.mark.parametrize("library", LIBRARIES[1:], ids=str)
def test_lists_and_numpy_arrays_may_stand_beside(library: Library) -> None:
    x, w = test_errors.X, test_errors.W
    want = nn.conv2d_transpose(x, w, [6, 8], 2)
    for pair in (
        (library.array(x), w),
        (x, library.array(w)),
        (library.array(x), w.tolist()),
        (x[::-1], library.array(w)),
    ):
        result = nn.conv2d_transpose(*pair, [6, 8], 2)
        assert isinstance(result, library.kind)
        assert_array_equal(library.numpy(result), want)


@pytest.mark.parametrize("library", LIBRARIES[1:], ids=str)
def test_plans_give_the_same_back(library: Library) -> None:
    x, w = test_errors.X, test_errors.W
    bias = np.arange(w.shape[-2], dtype=w.dtype)
    want = tf.plan(w, 2, bias=bias, activation="relu")(x)
    for filters, b in (library.array(w), library.array(bias)), (w, bias):
        result = tf.plan(filters, 2, bias=b, activation="relu")(library.array(x))
        assert isinstance(result, library.kind)
        assert_array_equal(library.numpy(result), want)
    out = np.empty_like(want)
    assert tf.plan(w, 2, bias=bias, activation="relu")(library.array(x), out=out) is out
    assert_array_equal(out, want)
    assert isinstance(tf.plan(library.array(w), 2)(x), np.ndarray)


@pytest.mark.parametrize("library", LIBRARIES[1:], ids=str)
def test_streams_give_the_same_back(library: Library) -> None:
    plan = tf.plan(np.arange(24, dtype=np.float32).reshape(4, 2, 3), 2)
    x = np.arange(2 * 7 * 3, dtype=np.float32).reshape(2, 7, 3)
    stream = plan.stream()
    parts = [stream(library.array(x[:, :3])), stream(library.array(x[:, 3:])), stream.finish()]
    assert all(isinstance(part, library.kind) for part in parts)
    assert_array_equal(np.concatenate([library.numpy(part) for part in parts], 1), plan(x))


def test_plans_have_no_gradient() -> None:
    x, plan = torch.from_numpy(test_errors.X).requires_grad_(), tf.plan(test_errors.W, 2)
    with pytest.raises(TypeError, match=r"`x` requires a gradient, and a plan has none; use nn.conv2d_transpose"):
        plan(x)
    with torch.no_grad():
        assert_array_equal(plan(x), plan(test_errors.X))
    with pytest.raises(TypeError, match="`x` is traced by JAX, and a plan has no gradient"):
        jax.jit(plan)(test_errors.X)
    with pytest.raises(TypeError, match="`x` is on meta, and a plan computes on CPUs"):
        plan(torch.from_numpy(test_errors.X).to("meta"))


def test_plans_take_16_bits_of_pytorch() -> None:
    x, w = torch.ones(1, 4, 3, dtype=torch.bfloat16), torch.ones(2, 5, 3, dtype=torch.bfloat16)
    result = tf.plan(w, 2)(x)
    assert result.dtype == torch.bfloat16
    assert_array_equal(result.float(), np.full((1, 8, 5), 3))


def test_autograd_boxes_are_tested() -> None:
    """What autograd gives functions are arrays of its own, so that its tests are not NumPy's again."""
    seen = []
    autograd.grad(lambda x: seen.append(type(x)) or anp.sum(x))(np.ones(1))
    assert seen == [ArrayBox]
