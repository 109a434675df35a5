# SPDX-License-Identifier: Apache-2.0
"""HIPS autograd: its boxes around NumPy arrays, differentiated to any order."""

from __future__ import annotations

import functools
import math
from typing import Any

import autograd.numpy
import numpy as np
from autograd.extend import Box, defjvp, defvjp, primitive

from backstride import _ops
from backstride._backends import loaded, numpy
from backstride._geometry import Geometry, Operand


def asarray(name: str, value: Any) -> Any:
    """A box as it is, if its array would be accepted; anything else as a NumPy array."""
    if not isinstance(value, Box):
        return numpy.asarray(name, value)
    innermost = value
    while isinstance(innermost, Box):
        innermost = innermost._value
    if isinstance(innermost, list | tuple | dict):
        kind = type(innermost).__name__
        raise TypeError(f"`{name}` is a {kind} under autograd; make it one array, by autograd.numpy.array")
    numpy.asarray(name, innermost)
    return value


# Boxes have the dtype of their array and its methods.
dtype_name = numpy.dtype_name
same_dtype = numpy.same_dtype
astype = numpy.astype
scalar = numpy.scalar
derivative = primitive(numpy.derivative)


def _vjp(index: int) -> Any:
    """The function from cotangents of the result to those of operand `index` of the two given."""

    def of(result: Any, wrt: Operand, geometry: Geometry, first: Any, second: Any) -> Any:
        def pull_back(cotangent: Any) -> Any:
            cotangent = _in_dtype_of(result, cotangent)
            return derivative(*_ops.transpose(wrt, _ops.given(wrt)[index], geometry, first, second, cotangent))

        return pull_back

    return of


def _in_dtype_of(result: Any, cotangent: Any) -> Any:
    """autograd starts every gradient in float64, and mixes dtypes freely after that."""
    return cotangent if cotangent.dtype == result.dtype else cotangent.astype(result.dtype)


defvjp(derivative, None, None, _vjp(0), _vjp(1))
defjvp(
    derivative,
    None,
    None,
    lambda tangent, result, wrt, geometry, first, second: derivative(
        wrt, geometry, _in_dtype_of(result, tangent), second
    ),
    lambda tangent, result, wrt, geometry, first, second: derivative(
        wrt, geometry, first, _in_dtype_of(result, tangent)
    ),
)


namespace = autograd.numpy

leaky_relu = primitive(numpy.leaky_relu)


# The derivative of `leaky_relu`, itself without one. `np.where` would take twice as long.
_slope = primitive(lambda x, alpha: np.array([alpha, 1], x.dtype)[(x > 0).view(np.uint8)])
defvjp(_slope, None)
defjvp(_slope, None)
defvjp(leaky_relu, lambda result, x, alpha: lambda cotangent: cotangent * _slope(x, alpha))
defjvp(leaky_relu, lambda tangent, result, x, alpha: tangent * _slope(x, alpha))

elu = primitive(numpy.elu)


def _elu_slope(x: Any, alpha: float) -> Any:
    negative = _slope(-x, 0)
    return 1 - negative + x.dtype.type(alpha) * negative * namespace.exp(-leaky_relu(-x, 0))


defvjp(elu, lambda result, x, alpha: lambda cotangent: cotangent * _elu_slope(x, alpha))
defjvp(elu, lambda tangent, result, x, alpha: tangent * _elu_slope(x, alpha))

erfc = primitive(numpy.erfc)
_BELL = -2 / math.sqrt(math.pi)
defvjp(erfc, lambda result, x: lambda cotangent: cotangent * (_BELL * namespace.exp(-(x * x))))
defjvp(erfc, lambda tangent, result, x: tangent * (_BELL * namespace.exp(-(x * x))))


exp = functools.partial(numpy.exp, namespace=namespace)
softplus = functools.partial(numpy.softplus, namespace=namespace)
clip = functools.partial(numpy.clip, namespace=namespace)


# A variable holds NumPy arrays; boxes are only given to runs.
like = numpy.like
assigned = numpy.assigned
to_numpy = numpy.to_numpy


def lent(name: str, array: Any) -> Any:
    """See `backstride._backends.Backend`: boxes only exist where something is differentiated."""
    raise TypeError(f"`{name}` is traced by autograd, and a plan has no gradient; use nn.conv2d_transpose")


given_back = numpy.given_back
borrowed = numpy.borrowed


loaded(__name__)
