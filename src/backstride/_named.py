# SPDX-License-Identifier: Apache-2.0
"""Functions given as arguments: themselves, or by the names that Keras gives them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

from backstride import _activations, constraints, initializers, regularizers
from backstride._arguments import shown

Function = Callable[..., Any]


def activation(name: str, value: Any) -> Function | None:
    """A function of one array, such as `nn.relu`, or its name; None is linear."""
    return _function(name, value, _activations)


def constraint(name: str, value: Any) -> Function | None:
    """A function from a variable's updated value to an allowed one, or its name in `constraints`."""
    return _function(name, value, constraints)


def regularizer(name: str, value: Any) -> Function | None:
    """A function from an array to a loss, or its name in `regularizers`."""
    return _function(name, value, regularizers)


def initializer(name: str, value: Any) -> Function | None:
    """A function of (shape, dtype), or its name in `initializers`."""
    return _function(name, value, initializers)


def _function(name: str, value: Any, module: ModuleType) -> Function | None:
    """`value` if it is None or callable, or what `module` offers by that name."""
    if isinstance(value, str):
        if value not in module.__all__:
            raise ValueError(
                f"`{name}` must be a function or one of {', '.join(module.__all__)}; got {name}={shown(value)}"
            )
        value = getattr(module, value)
    if value is not None and not callable(value):
        raise ValueError(f"`{name}` must be a function or its name; got {name}={shown(value)}")
    makers = [] if module is _activations else [getattr(module, maker) for maker in module.__all__]
    if isinstance(value, type) or value in makers:
        value = value()  # what makes such functions is meant to make one
    return cast(Function | None, value)
