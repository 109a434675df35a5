# SPDX-License-Identifier: Apache-2.0
"""Initializers: distributions by their moments, and the two that upsampling layers begin with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import backstride
from backstride import VariableStore, initializers, layers, nn

SHAPE = (5, 4, 30, 50)
FAN_IN, FAN_OUT = 5 * 4 * 30, 5 * 4 * 50
# The variance of a standard normal distribution cut at two deviations.
CUT = 0.7741130364


def scaled(scale: float, fan: float, kind: str) -> Any:
    """The distribution of this variance."""
    deviation = math.sqrt(scale / fan)
    if kind == "uniform":
        return stats.uniform(-math.sqrt(3) * deviation, 2 * math.sqrt(3) * deviation)
    return stats.truncnorm(-2, 2, scale=deviation / math.sqrt(CUT)) if kind == "cut" else stats.norm(scale=deviation)


MEAN = (FAN_IN + FAN_OUT) / 2
DISTRIBUTIONS = {
    "uniform": (initializers.random_uniform(-1, 3), stats.uniform(-1, 4)),
    "uniform_default": (initializers.random_uniform(), stats.uniform(0, 1)),
    "normal": (initializers.random_normal(1, 2), stats.norm(1, 2)),
    "truncated": (initializers.truncated_normal(1, 2), stats.truncnorm(-2, 2, 1, 2)),
    "glorot_uniform": (initializers.glorot_uniform(), scaled(1, MEAN, "uniform")),
    "glorot_normal": (initializers.glorot_normal(), scaled(1, MEAN, "cut")),
    "he_uniform": (initializers.he_uniform(), scaled(2, FAN_IN, "uniform")),
    "he_normal": (initializers.he_normal(), scaled(2, FAN_IN, "cut")),
    "lecun_uniform": (initializers.lecun_uniform(), scaled(1, FAN_IN, "uniform")),
    "lecun_normal": (initializers.lecun_normal(), scaled(1, FAN_IN, "cut")),
    "fan_out": (initializers.variance_scaling(3.0, "fan_out", "untruncated_normal"), scaled(3, FAN_OUT, "normal")),
    "old_name": (initializers.variance_scaling(3.0, "fan_in", "normal"), scaled(3, FAN_IN, "cut")),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str) -> None:
    """By the Kolmogorov-Smirnov test on 30,000 numbers, always the same ones."""
    initializer, distribution = DISTRIBUTIONS[name]
    with VariableStore(seed=0):
        values = initializer(list(SHAPE), dtype=np.float64)
    assert (values.shape, values.dtype) == (SHAPE, np.float64)
    assert stats.kstest(values.ravel(), distribution.cdf).pvalue > 0.01
    wrong = stats.kstest(values.ravel() * 1.05, distribution.cdf).pvalue
    assert wrong < 0.01, "the test could not see a deviation of 5 %"


@pytest.mark.parametrize("name", [name for name in initializers.__all__ if name not in ("bilinear", "icnr")])
def test_dtypes(name: str) -> None:
    initializer = getattr(initializers, name)()
    assert initializer([2, 3]).dtype == np.float32
    assert initializer([2, 3], np.float16).dtype == np.float16
    assert getattr(initializers, name)(dtype="float64")([2, 3]).dtype == np.float64
    assert initializer([]).shape == ()
    assert initializer([0, 3]).shape == (0, 3)


def test_uniform_integers() -> None:
    values = initializers.random_uniform(-3, 3, seed=0)([60_000], np.int8)
    assert_allclose(np.bincount(values + 3) / 10_000, 1, atol=0.05)
    assert values.max() == 2
    with pytest.raises(ValueError, match="random_uniform_initializer needs `maxval` for integers such as int32"):
        initializers.random_uniform()([3], np.int32)


def test_a_seed_of_its_own_makes_the_same_numbers_every_time() -> None:
    one, other = initializers.he_normal(seed=1), initializers.he_normal(seed=2)
    assert_array_equal(one(SHAPE), one(SHAPE))
    assert (one(SHAPE) != other(SHAPE)).any()


def test_a_seed_makes_the_same_numbers_in_every_dtype() -> None:
    one = initializers.random_normal(seed=1)
    assert_array_equal(one(SHAPE, np.float64).astype(np.float32), one(SHAPE, np.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.variance_scaling(0.0), "`scale` must be positive; got scale=0.0"),
        (lambda: initializers.variance_scaling(mode="fan"), "`mode` must be 'fan_in', 'fan_out' or 'fan_avg'; got"),
        (
            lambda: initializers.variance_scaling(distribution="beta"),
            "`distribution` must be .*; got distribution='beta'",
        ),
        (
            lambda: initializers.constant([1, 2, 3])([2]),
            r"constant_initializer has shape \(3,\); the variable has",
        ),
        (
            lambda: initializers.constant([1, 2], verify_shape=True)([2, 1]),
            r"has shape \(2,\); the variable has \(2, 1",
        ),
        (lambda: initializers.bilinear()([2, 2]), r"bilinear_initializer makes filters .* for shape \(2, 2\)"),
        (lambda: initializers.icnr(2)([2, 2]), r"icnr_initializer makes filters .* for shape \(2, 2\)"),
        (lambda: initializers.he_normal(seed=-1), "`seed` must be None or an int of at least 0; got seed=-1"),
        (lambda: initializers.icnr((2, 2))([4, 1, 1]), r"`strides` must be positive, one per axis of \(4, 1, 1\)"),
    ],
)
def test_wrong_arguments_are_told(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_bilinear_enlarges_ramps_to_ramps(stride: int, rank: int) -> None:
    """A linear image stays linear where no border is near, and every channel by itself."""
    kernel = 2 * stride - stride % 2
    x = np.arange(8.0).reshape(1, 8, *(1,) * (rank - 1), 1) * np.ones((1, 8, *(4,) * (rank - 1), 1))
    x = np.concatenate([x, -3 * x], axis=-1)
    layer = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}[rank](
        2, kernel, stride, "same", use_bias=False, kernel_initializer="bilinear"
    )
    with VariableStore():
        result = layer(x)
    inner = result[(0, slice(2 * stride, -2 * stride), *(2 * stride,) * (rank - 1))]
    centers = (np.arange(8 * stride) + 0.5) / stride - 0.5 if stride % 2 == 0 else None
    steps = np.diff(inner[:, 0])
    assert_allclose(steps, 1 / stride, rtol=1e-12)
    assert_allclose(inner[:, 1], -3 * inner[:, 0], rtol=1e-12)
    if centers is not None:
        assert_allclose(inner[:, 0], centers[2 * stride : -2 * stride], rtol=1e-12)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (2, 2), (5, 2), (6, 3), (7, 3), (3, 3), (4, 1), (9, 4)])
def test_icnr_results_are_constant_on_cells(kernel: int, stride: int, padding: str) -> None:
    """No checkerboard: every cell of stride x stride pixels has one value. The crop cuts through the first ones."""
    initializer = initializers.icnr(stride, initializers.random_normal(seed=0))
    x = np.random.default_rng(0).standard_normal((1, 5, 6, 3))
    with VariableStore():
        y = layers.conv2d_transpose(x, 4, kernel, stride, padding, kernel_initializer=initializer)
    first = -((kernel - stride) // 2) % stride if padding == "same" else 0
    y = y[0, first : first + 4 * stride, first : first + 4 * stride]
    cells = y.reshape(4, stride, 4, stride, 4)
    assert_allclose(cells, np.broadcast_to(cells[:, :1, :, :1], cells.shape), rtol=1e-12, atol=1e-14)
    assert y.std() > 0.1


def test_icnr_of_a_kernel_below_the_stride_is_constant_where_it_reaches() -> None:
    values = initializers.icnr(3, initializers.random_normal(seed=0))([2, 2, 4, 5])
    assert_array_equal(values, np.broadcast_to(values[:1, :1], values.shape))
    assert initializers.icnr(2)([0, 3, 1, 1]).shape == (0, 3, 1, 1)


def test_icnr_is_a_convolution_then_repetition() -> None:
    base = np.random.default_rng(0).standard_normal((3, 3, 4, 2))
    x = np.random.default_rng(1).standard_normal((1, 5, 6, 2))
    with VariableStore():
        y = layers.conv2d_transpose(
            x, 4, 6, 2, "same", kernel_initializer=initializers.icnr(2, initializer=lambda shape, dtype: base)
        )
    small = nn.conv2d_transpose(x, base, [5, 6], 1)
    assert_allclose(y, small.repeat(2, axis=1).repeat(2, axis=2), rtol=1e-12, atol=1e-13)


def test_names_of_tensorflow_1() -> None:
    for name in initializers.__all__:
        assert getattr(backstride, f"{name}_initializer") is getattr(initializers, name)
        assert getattr(backstride.compat.v1, f"{name}_initializer") is getattr(initializers, name)
