# SPDX-License-Identifier: Apache-2.0
"""Initializers under the names of TensorFlow 1: functions of (shape, dtype) that make a variable's first value.

Their random numbers come from the current `VariableStore` (`set_random_seed`, `VariableStore(seed=...)`), or, for an
initializer with a seed of its own, from that seed anew at every call. They are drawn in float64 and rounded once, so
a seed makes the same values in every dtype, and not those of TensorFlow, whose generator is another one.

>>> import backstride
>>> backstride.constant_initializer(0.5)([2], "float64")
array([0.5, 0.5])
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backstride._variables import current

__all__ = [
    "bilinear",
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "icnr",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "random_normal",
    "random_uniform",
    "truncated_normal",
    "variance_scaling",
    "zeros",
]

# The standard deviation of a standard normal distribution cut at two of its own.
_CUT_DEVIATION = 0.87962566103423978


class Initializer(ABC):
    """What all of them are: called with a shape and a dtype, they return an array."""

    def __init__(self, dtype: Any = np.float32) -> None:
        self.dtype = dtype

    def __call__(self, shape: Sequence[int], dtype: Any = None, partition_info: Any = None) -> np.ndarray:
        """An array of `shape`; a dtype of None is the initializer's own. `partition_info` is ignored."""
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        return np.asarray(self._values(tuple(shape), dtype)).astype(dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @abstractmethod
    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The numbers, of any dtype that rounds to `dtype`."""


class _Random(Initializer):
    def __init__(self, seed: int | None, dtype: Any) -> None:
        super().__init__(dtype)
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise ValueError(f"`seed` must be None or an int of at least 0; got seed={seed!r}")
        self._seed = seed

    def _generator(self) -> np.random.Generator:
        return current().store.random if self._seed is None else np.random.default_rng(self._seed)


class zeros_initializer(Initializer):
    """Zeros, as `tf.zeros_initializer`.

    >>> import backstride
    >>> backstride.zeros_initializer()([2])
    array([0., 0.], dtype=float32)
    """

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.zeros(shape)


class ones_initializer(Initializer):
    """Ones, as `tf.ones_initializer`.

    >>> import backstride
    >>> backstride.ones_initializer()([2])
    array([1., 1.], dtype=float32)
    """

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.ones(shape)


class constant_initializer(Initializer):
    """One number everywhere, or a list of numbers row by row, the last one repeated, as `tf.constant_initializer`.

    >>> import backstride
    >>> backstride.constant_initializer([1, 2, 3, 4])([2, 2])
    array([[1., 2.],
           [3., 4.]], dtype=float32)

    Raises:
        ValueError: when called for a shape of fewer entries than `value`; with `verify_shape`, of another shape.
    """

    def __init__(self, value: Any = 0, dtype: Any = np.float32, verify_shape: bool = False) -> None:
        super().__init__(dtype)
        self._value, self._verify = np.asarray(value), verify_shape

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if self._value.ndim == 0 and not self._verify:
            return np.full(shape, self._value)
        value, size = self._value.ravel(), math.prod(shape)
        if (self._verify and self._value.shape != shape) or value.size > size or (value.size == 0 and size):
            raise ValueError(f"`value` of constant_initializer has shape {self._value.shape}; the variable has {shape}")
        return np.append(value, np.repeat(value[-1:], size - value.size)).reshape(shape)


class random_uniform_initializer(_Random):
    """Uniform from `minval` to below `maxval`, as `tf.random_uniform_initializer`; 16-bit floats may round up to it.

    A `maxval` of None is 1; integers need one.

    >>> import backstride
    >>> backstride.random_uniform_initializer(-1, 1, seed=0)([2, 3]).shape
    (2, 3)
    """

    def __init__(
        self, minval: float = 0.0, maxval: float | None = None, seed: int | None = None, dtype: Any = np.float32
    ) -> None:
        super().__init__(seed, dtype)
        self._low, self._high = minval, maxval

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype.kind in "iu":
            if self._high is None:
                raise ValueError(f"random_uniform_initializer needs `maxval` for integers such as {dtype}")
            return self._generator().integers(math.ceil(self._low), math.ceil(self._high), shape)
        return self._generator().uniform(self._low, 1.0 if self._high is None else self._high, shape)


class random_normal_initializer(_Random):
    """Normal, as `tf.random_normal_initializer`.

    >>> import backstride
    >>> backstride.random_normal_initializer(stddev=0.02, seed=0)([2, 3]).shape
    (2, 3)
    """

    def __init__(
        self, mean: float = 0.0, stddev: float = 1.0, seed: int | None = None, dtype: Any = np.float32
    ) -> None:
        super().__init__(seed, dtype)
        self._mean, self._stddev = mean, stddev

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return self._mean + self._stddev * self._generator().standard_normal(shape)


class truncated_normal_initializer(random_normal_initializer):
    """Normal, drawn again while beyond two standard deviations, as `tf.truncated_normal_initializer`.

    >>> import backstride
    >>> bool(abs(backstride.truncated_normal_initializer(seed=0)([1000])).max() <= 2)
    True
    """

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        generator = self._generator()
        values = generator.standard_normal(shape)
        while (beyond := abs(values) > 2).any():
            values[beyond] = generator.standard_normal(np.count_nonzero(beyond))
        return self._mean + self._stddev * values


class variance_scaling_initializer(_Random):
    """Zero mean and the variance `scale / n`, as `tf.variance_scaling_initializer`.

    n is the fan of `mode`: 'fan_in', 'fan_out', or 'fan_avg', their mean. As TensorFlow counts them, fan_in is the
    product of all dimensions but the last, and fan_out of all but the one before the last; for the filters
    `[*kernel, out_channels, in_channels]` of a transposed convolution fan_in so counts output channels.

    >>> import backstride
    >>> backstride.variance_scaling_initializer(2.0, "fan_avg", "uniform", seed=0)([3, 3, 8, 4]).shape
    (3, 3, 8, 4)

    Args:
        scale: positive.
        mode: 'fan_in', 'fan_out' or 'fan_avg'.
        distribution: 'truncated_normal' (also 'normal'), 'untruncated_normal' or 'uniform'.
        seed: of this initializer, or None.
        dtype: of the arrays, where a call gives none.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(seed, dtype)
        if not scale > 0:
            raise ValueError(f"`scale` must be positive; got scale={scale!r}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"`mode` must be 'fan_in', 'fan_out' or 'fan_avg'; got mode={mode!r}")
        if distribution not in ("normal", "truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                f"`distribution` must be 'truncated_normal', 'untruncated_normal' or 'uniform'; "
                f"got distribution={distribution!r}"
            )
        self._scale, self._mode, self._distribution = scale, mode, distribution

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self._mode]
        deviation = math.sqrt(self._scale / max(1.0, fan))
        distribution: Initializer
        if self._distribution == "uniform":
            limit = math.sqrt(3) * deviation
            distribution = random_uniform_initializer(-limit, limit, self._seed)
        elif self._distribution == "untruncated_normal":
            distribution = random_normal_initializer(0.0, deviation, self._seed)
        else:
            distribution = truncated_normal_initializer(0.0, deviation / _CUT_DEVIATION, self._seed)
        return distribution._values(shape, dtype)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a filter as TensorFlow computes them; see `variance_scaling_initializer`."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    *kernel, inputs, outputs = shape
    return math.prod(kernel) * inputs, math.prod(kernel) * outputs


def _scaled(scale: float, mode: str, distribution: str, name: str, words: str) -> type[variance_scaling_initializer]:
    def __init__(self: Any, seed: int | None = None, dtype: Any = np.float32) -> None:
        variance_scaling_initializer.__init__(self, scale, mode, distribution, seed, dtype)

    document = f"""{words}: `variance_scaling_initializer({scale}, {mode!r}, {distribution!r})`.

    >>> import backstride
    >>> backstride.{name}(seed=0)([3, 3, 8, 4]).shape
    (3, 3, 8, 4)
    """
    body = {"__init__": __init__, "__doc__": document, "__module__": __name__}
    return type(name, (variance_scaling_initializer,), body)


glorot_uniform_initializer = _scaled(1.0, "fan_avg", "uniform", "glorot_uniform_initializer", "Glorot's, uniform")
glorot_normal_initializer = _scaled(1.0, "fan_avg", "truncated_normal", "glorot_normal_initializer", "Glorot's, normal")
he_uniform_initializer = _scaled(2.0, "fan_in", "uniform", "he_uniform_initializer", "He's, uniform")
he_normal_initializer = _scaled(2.0, "fan_in", "truncated_normal", "he_normal_initializer", "He's, normal")
lecun_uniform_initializer = _scaled(1.0, "fan_in", "uniform", "lecun_uniform_initializer", "LeCun's, uniform")
lecun_normal_initializer = _scaled(1.0, "fan_in", "truncated_normal", "lecun_normal_initializer", "LeCun's, normal")


class bilinear_initializer(Initializer):
    """Filters that enlarge every channel bilinearly, as FCN (Long, Shelhamer and Darrell, 2015) begins with.

    For an enlargement by s take stride s and a kernel of 2 s - s % 2. Input channel n goes to output channel n;
    between other channels there are zeros.

    >>> import backstride
    >>> backstride.bilinear_initializer()([4, 1, 1]).ravel()
    array([0.25, 0.75, 0.75, 0.25], dtype=float32)
    """

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        *kernel, outputs, inputs = _filter_shape("bilinear_initializer", shape)
        taps = np.ones(())
        for length in kernel:
            half = (length + 1) // 2
            taps = taps[..., None] * (1 - abs(np.arange(length) - (length - 1) / 2) / half)
        return taps[..., None, None] * np.eye(outputs, inputs)


class icnr_initializer(Initializer):
    """Filters whose result is an image enlarged by repetition, so that it begins without a checkerboard pattern.

    After Aitken et al. (2017), "Checkerboard artifact free sub-pixel convolution": tap k is tap `k // stride` of a
    smaller filter, so that all pixels of a cell of `strides` see the same weights. The taps left over where the
    kernel is not a multiple of the stride begin at zero. With 'same' padding the cells begin where the crop ends.

    >>> import backstride
    >>> random = backstride.random_normal_initializer(seed=0)
    >>> backstride.icnr_initializer(2, initializer=random)([5, 1, 1]).ravel().round(2)
    array([ 0.13,  0.13, -0.13, -0.13,  0.  ], dtype=float32)

    Args:
        strides: the layer's strides, an int or one per axis.
        initializer: makes the smaller filter; None is he_normal.
        dtype: of the arrays, where a call gives none.
    """

    def __init__(
        self,
        strides: int | Sequence[int],
        initializer: Callable[..., Any] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(dtype)
        self._strides = strides
        if isinstance(initializer, type):
            initializer = initializer()
        if initializer is not None and not callable(initializer):
            raise TypeError(f"`initializer` must be a function of (shape, dtype); got initializer={initializer!r}")
        self._initializer = he_normal_initializer() if initializer is None else initializer

    def _values(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        *kernel, outputs, inputs = _filter_shape("icnr_initializer", shape)
        strides = tuple(self._strides) if isinstance(self._strides, Sequence) else (self._strides,) * len(kernel)
        strides = tuple(map(operator.index, strides))
        if len(strides) != len(kernel) or min(strides) < 1:
            raise ValueError(f"`strides` must be positive, one per axis of {shape}; got strides={self._strides!r}")
        whole = [max(length // stride, min(length, 1)) for length, stride in zip(kernel, strides, strict=True)]
        values = np.asarray(self._initializer([*whole, outputs, inputs], dtype=np.float64))
        for axis, (length, stride) in enumerate(zip(kernel, strides, strict=True)):
            values = values.repeat(stride, axis=axis).take(range(min(length, whole[axis] * stride)), axis=axis)
        missing = [(0, length - held) for length, held in zip(shape, values.shape, strict=True)]
        return np.pad(values, missing)


def _filter_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3:
        raise ValueError(f"{name} makes filters [*kernel, out_channels, in_channels]; it was asked for shape {shape}")
    return shape


bilinear = bilinear_initializer
constant = constant_initializer
glorot_normal = glorot_normal_initializer
glorot_uniform = glorot_uniform_initializer
he_normal = he_normal_initializer
he_uniform = he_uniform_initializer
icnr = icnr_initializer
lecun_normal = lecun_normal_initializer
lecun_uniform = lecun_uniform_initializer
ones = ones_initializer
random_normal = random_normal_initializer
random_uniform = random_uniform_initializer
truncated_normal = truncated_normal_initializer
variance_scaling = variance_scaling_initializer
zeros = zeros_initializer
