# SPDX-License-Identifier: Apache-2.0
"""Activations against their definitions in float64, and their derivatives. In TensorFlow: test_golden_layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import ml_dtypes
import numpy as np
import pytest
from autograd import elementwise_grad
from autograd.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from backstride import _activations, nn

# The definitions, of one float.
DEFINITIONS: dict[str, Callable[[float], float]] = {
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "exponential": math.exp,
    "gelu": lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)),
    "hard_sigmoid": lambda x: min(max(0.2 * x + 0.5, 0.0), 1.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "linear": lambda x: x,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "selu": lambda x: 1.05070098735548049 * (x if x > 0 else 1.67326324235437728 * math.expm1(x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
}
GRID = np.array([-30, -7, -3, -1.5, -1, -0.3, -1e-3, 0, 1e-3, 0.3, 1, 1.5, 3, 5.5, 7, 30])


def test_every_activation_is_tested() -> None:
    assert {*DEFINITIONS, "softmax"} == set(_activations.__all__)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values(name: str, dtype: str) -> None:
    """Within a few roundings of the largest number on the way, which for all of them is at most 1 + |x|, or exp(x)."""
    x = (GRID if dtype in ("float64", "float32") else GRID[1:-1]).astype(dtype)
    result = getattr(nn, name)(x)
    assert result.dtype == x.dtype
    exact = np.array([DEFINITIONS[name](float(value)) for value in x])
    epsilon = float(ml_dtypes.finfo(dtype).eps)
    assert_allclose(result.astype(float), exact, rtol=32 * epsilon, atol=8 * epsilon)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_extremes_are_limits_and_nan_stays(name: str) -> None:
    at = {x: getattr(nn, name)(np.array([x]))[0] for x in (-1e4, 1e4, np.nan)}
    below = {"leaky_relu": -2e3, "linear": -1e4, "elu": -1, "selu": -1.7580993408473766, "softsign": -1, "tanh": -1}
    above = {"exponential": np.inf, "relu6": 6, "selu": 1.0507009873554805e4}
    above |= dict.fromkeys(("hard_sigmoid", "sigmoid", "softsign", "tanh"), 1)
    assert_allclose(at[-1e4], below.get(name, 0), rtol=1e-3)
    assert_allclose(at[1e4], above.get(name, 1e4), rtol=1e-3)
    assert np.isnan(at[np.nan])


def test_infinities_of_rectifiers() -> None:
    x = np.array([-np.inf, np.inf])
    assert_array_equal(nn.relu(x), [0, np.inf])
    assert_array_equal(nn.relu6(x), [0, 6])
    assert_array_equal(nn.leaky_relu(x), x)


@pytest.mark.parametrize("name", [*DEFINITIONS, "softmax"])
def test_derivatives_to_second_order(name: str) -> None:
    """By finite differences, in both modes, at points where they exist."""
    x = np.array([[-2.1, -0.4, 0.7], [1.9, 3.2, -1.3]])
    check_grads(lambda x: getattr(nn, name)(x), modes=["fwd", "rev"], order=2)(x)


def test_derivatives_of_other_forms() -> None:
    x = np.array([-2.1, -0.4, 0.7])
    check_grads(lambda x: nn.gelu(x, approximate=True), order=2)(x)
    check_grads(lambda x: nn.leaky_relu(x, alpha=3.0), order=2)(x)
    check_grads(lambda x: nn.softmax(x, axis=0), order=2)(x)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("relu", 0), ("relu6", 0), ("leaky_relu", 0.2), ("elu", 1), ("softsign", 1), ("sigmoid", 0.25), ("gelu", 0.5)],
)
def test_slope_at_zero_is_tensorflows(name: str, slope: float) -> None:
    assert_allclose(elementwise_grad(getattr(nn, name))(anp.zeros(3)), slope)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_gradients_keep_float32(name: str) -> None:
    assert elementwise_grad(getattr(nn, name))(np.ones(3, np.float32)).dtype == np.float32


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0, 3.0, -0.5])
def test_leaky_relu_has_any_slope(alpha: float) -> None:
    assert_array_equal(nn.leaky_relu(np.array([-2.0, 0.0, 3.0]), alpha), [-2 * alpha, 0, 3])


def test_integers_where_they_make_sense() -> None:
    x = np.array([-2, 0, 9], np.int16)
    for function, expected in [(nn.relu, [0, 0, 9]), (nn.relu6, [0, 0, 6])]:
        assert_array_equal(function(x), np.array(expected, np.int16), strict=True)
    for name in ("tanh", "leaky_relu", "softmax"):
        with pytest.raises(TypeError, match="this activation takes floats; got dtype int16"):
            getattr(nn, name)(x)


@pytest.mark.parametrize("value", [None, "relu", object()])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"activations take a NumPy array|must be an array of numbers|has dtype"):
        nn.relu(value)


def test_softmax_sums_to_one_without_overflow() -> None:
    x = np.array([[1e4, 0, 1e4], [-1e4, -1e4, -2e4]])
    assert_array_equal(nn.softmax(x), [[0.5, 0, 0.5], [0.5, 0.5, 0]])
    assert_array_equal(nn.softmax(x, axis=0), [[1, 1, 1], [0, 0, 0]])
