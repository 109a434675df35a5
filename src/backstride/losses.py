# SPDX-License-Identifier: Apache-2.0
"""Regularization losses of the current program, as `tf.losses` documents them."""

from __future__ import annotations

from typing import Any

from backstride._programs import GraphKeys
from backstride._scopes import get_collection

__all__ = ["get_regularization_loss", "get_regularization_losses"]


def get_regularization_losses(scope: str | None = None) -> list[Any]:
    """The losses that regularizers have made, of weights at their current values, in the order of their making.

    >>> import numpy as np, backstride
    >>> with backstride.VariableStore():
    ...     w = backstride.get_variable("w", [3], initializer=np.ones, regularizer=backstride.regularizers.l2(0.5))
    ...     w.assign([2.0, 0.0, 0.0])
    ...     backstride.losses.get_regularization_losses()
    [np.float32(2.0)]

    Args:
        scope: None, or a pattern that the names of variables and scopes must match from their start.
    """
    return get_collection(GraphKeys.REGULARIZATION_LOSSES, scope)


def get_regularization_loss(scope: str | None = None, name: str | None = None) -> Any:
    """Their sum; 0.0 if there are none.

    >>> import backstride
    >>> with backstride.VariableStore():
    ...     backstride.losses.get_regularization_loss()
    0.0

    Args:
        scope: as in `get_regularization_losses`.
        name: ignored.
    """
    losses = get_regularization_losses(scope)
    return sum(losses[1:], start=losses[0]) if losses else 0.0
