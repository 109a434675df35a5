# SPDX-License-Identifier: Apache-2.0
"""Regularizers as `tf.keras.regularizers` defines them: functions from an array to a loss, without a half.

>>> import numpy as np, backstride
>>> float(backstride.regularizers.l1_l2(l1=1.0, l2=0.5)(np.array([1.0, -2.0])))
5.5
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backstride import _backends
from backstride._variables import plain

__all__ = ["l1", "l1_l2", "l2"]

Regularizer = Callable[[Any], Any]


def l1(l: float = 0.01) -> Regularizer:  # noqa: E741
    """`l * sum(abs(x))`.

    >>> import backstride
    >>> float(backstride.regularizers.l1(0.5)([1.0, -2.0]))
    1.5

    Args:
        l: the factor.
    """
    return l1_l2(l, 0.0)


def l2(l: float = 0.01) -> Regularizer:  # noqa: E741
    """`l * sum(x ** 2)`.

    >>> import backstride
    >>> float(backstride.regularizers.l2(0.5)([1.0, -2.0]))
    2.5

    Args:
        l: the factor.
    """
    return l1_l2(0.0, l)


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> Regularizer:
    """`l1 * sum(abs(x)) + l2 * sum(x ** 2)`.

    >>> import backstride
    >>> float(backstride.regularizers.l1_l2(0.5, 0.5)([1.0, -2.0]))
    4.0

    Args:
        l1, l2: the factors.
    """

    def regularizer(x: Any) -> Any:
        x = plain(x)
        backend = _backends.of(x)
        x, xp = backend.asarray("x", x), backend.namespace
        loss = xp.zeros((), x.dtype)
        if l1:
            loss = loss + l1 * xp.sum(xp.abs(x))
        if l2:
            loss = loss + l2 * xp.sum(xp.square(x))
        return loss

    return regularizer
