# SPDX-License-Identifier: Apache-2.0
"""The three operations, and why no other is ever needed.

A transposed convolution, its input gradient and its filter gradient are the partial derivatives of one form,

    F(input, filter, output) = sum input[i] * filter[k] * output[i * stride + k * dilation - pad]

by `output`, by `input` and by `filter`. F is linear in each operand, so each derivative is linear in the two
operands that remain, and the derivative of a derivative is again one of the three, with the cotangent standing
where the first one's result stood. An array library wires `derivative` and this table; it derives nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

from backstride import _backends
from backstride._geometry import Geometry, Operand

# What else an operation needs to know, in the library's own form; this file only hands it on.
Sized = TypeVar("Sized")

OPERANDS: tuple[Operand, Operand, Operand] = ("input", "filter", "output")


def given(wrt: Operand) -> tuple[Operand, Operand]:
    """The two operands which the derivative by `wrt` takes, in their fixed order."""
    first, second = (operand for operand in OPERANDS if operand != wrt)
    return first, second


def derivative(wrt: Operand, geometry: Geometry, first: Any, second: Any) -> Any:
    """dF/d`wrt`, from the other two operands in the order of `given(wrt)`; both arrays of one library."""
    return _backends.of(first, second).derivative(wrt, geometry, first, second)


def transpose(
    wrt: Operand, by: Operand, geometry: Sized, first: Any, second: Any, cotangent: Any
) -> tuple[Operand, Sized, Any, Any]:
    """The derivative of <cotangent, dF/d`wrt`(first, second)> by its operand `by`, as arguments for `derivative`."""
    operands = dict(zip(given(wrt), (first, second), strict=True)) | {wrt: cotangent}
    one, other = given(by)
    return by, geometry, operands[one], operands[other]
