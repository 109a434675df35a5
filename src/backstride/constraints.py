# SPDX-License-Identifier: Apache-2.0
"""Constraints as `tf.keras.constraints` defines them: functions from an updated value to the allowed one near it.

Norms are taken along `axis`; for filters `[height, width, out_channels, in_channels]` Keras means axis (0, 1, 2).

>>> import numpy as np, backstride
>>> backstride.constraints.max_norm(1.0)(np.array([[3.0, 0.0], [4.0, 0.5]])).round(4)
array([[0.6, 0. ],
       [0.8, 0.5]])
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from backstride import _backends
from backstride._variables import plain

__all__ = ["max_norm", "min_max_norm", "non_neg", "unit_norm"]

Constraint = Callable[[Any], Any]
Axis = int | Sequence[int]

# What Keras adds to a norm before dividing by it.
_EPSILON = 1e-7


def max_norm(max_value: float = 2, axis: Axis = 0) -> Constraint:
    """Norms of at most `max_value`: vectors beyond are scaled back.

    >>> import backstride
    >>> backstride.constraints.max_norm(1.0)([3.0, 4.0]).round(4)
    array([0.6, 0.8], dtype=float32)

    Args:
        max_value: the largest norm that stays.
        axis: an int or ints: along which norms are taken.
    """
    return _scaling(axis, 0, max_value)


def min_max_norm(min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Axis = 0) -> Constraint:
    """Norms from `min_value` to `max_value`: vectors beyond are scaled.

    >>> import backstride
    >>> backstride.constraints.min_max_norm(10.0, 20.0, rate=0.5)([3.0, 4.0]).round(4)
    array([4.5, 6. ], dtype=float32)

    Args:
        min_value, max_value: the range of norms.
        rate: the share of the way that a norm outside the range is moved towards it.
        axis: an int or ints: along which norms are taken.
    """
    return _scaling(axis, min_value, max_value, rate)


def non_neg() -> Constraint:
    """No entry below zero.

    >>> import backstride
    >>> abs(backstride.constraints.non_neg()([3.0, -4.0]))
    array([3., 0.], dtype=float32)
    """
    return _non_neg


def unit_norm(axis: Axis = 0) -> Constraint:
    """Norms of 1.

    >>> import backstride
    >>> backstride.constraints.unit_norm()([3.0, 4.0]).round(4)
    array([0.6, 0.8], dtype=float32)

    Args:
        axis: an int or ints: along which norms are taken.
    """
    return _scaling(axis, 1, 1)


def _non_neg(w: Any) -> Any:
    w, _ = _array(w)
    return w * (w >= 0)


def _scaling(axis: Axis, low: float, high: float, rate: float = 1.0) -> Constraint:
    """The constraint that takes norms by the share `rate` of their way into a range. It can be pickled."""
    axis = tuple(map(operator.index, axis)) if isinstance(axis, Sequence) else operator.index(axis)
    return functools.partial(_scaled, axis=axis, low=low, high=high, rate=rate)


def _scaled(w: Any, axis: Axis, low: float, high: float, rate: float) -> Any:
    w, xp = _array(w)
    norms = xp.sqrt(xp.sum(xp.square(w), axis=axis, keepdims=True))
    wanted = xp.clip(norms, low, high)
    if rate != 1:
        wanted = rate * wanted + (1 - rate) * norms
    return w * (wanted / (_EPSILON + norms))


def _array(w: Any) -> tuple[Any, Any]:
    w = plain(w)
    backend = _backends.of(w)
    return backend.asarray("w", w), backend.namespace
