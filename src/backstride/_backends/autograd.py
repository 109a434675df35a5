# SPDX-License-Identifier: Apache-2.0
"""HIPS autograd: its boxes around NumPy arrays, differentiated to any order."""

from __future__ import annotations

from typing import Any

from autograd.extend import Box, defjvp, defvjp, primitive

from backstride import _ops
from backstride._backends import numpy
from backstride._geometry import Geometry, Operand


def asarray(name: str, value: Any) -> Any:
    """A box as it is, if its array would be accepted; anything else as a NumPy array."""
    if not isinstance(value, Box):
        return numpy.asarray(name, value)
    innermost = value
    while isinstance(innermost, Box):
        innermost = innermost._value
    numpy.asarray(name, innermost)
    return value


derivative = primitive(numpy.derivative)


def _vjp(index: int) -> Any:
    """The function from cotangents of the result to those of operand `index` of the two given."""

    def of(_: Any, wrt: Operand, geometry: Geometry, first: Any, second: Any) -> Any:
        def pull_back(cotangent: Any) -> Any:
            by, one, other = _ops.transpose(wrt, _ops.given(wrt)[index], first, second, cotangent)
            return derivative(by, geometry, one, other)

        return pull_back

    return of


defvjp(derivative, None, None, _vjp(0), _vjp(1))
defjvp(
    derivative,
    None,
    None,
    lambda tangent, _, wrt, geometry, first, second: derivative(wrt, geometry, tangent, second),
    lambda tangent, _, wrt, geometry, first, second: derivative(wrt, geometry, first, tangent),
)
