# SPDX-License-Identifier: Apache-2.0
"""NumPy arrays: what is accepted as one, and the call into the compiled core."""

from __future__ import annotations

from typing import Any

import numpy as np

from backstride import _native, _plan
from backstride._geometry import Geometry, Operand

DTYPES = (
    "float16",
    "bfloat16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)

# Python's own numbers become what TensorFlow makes of them.
_DEFAULTS = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}


def asarray(name: str, value: Any) -> np.ndarray:
    """`value`, an array, a nested list of numbers or a buffer, as an array of a dtype that the core computes in."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` is a masked array, whose mask would be lost; fill it first: {name}.filled(0)")
    array = value if isinstance(value, np.ndarray) else _from_python(name, value)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"`{name}` has dtype {array.dtype}; it must be one of {', '.join(DTYPES)}")
    return array


def _from_python(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{name}` is not a rectangular array of numbers: {error}") from None
    leaf = value
    while isinstance(leaf, list | tuple) and leaf:
        leaf = leaf[0]
    if isinstance(leaf, np.ndarray | np.generic) or array.dtype not in _DEFAULTS or _is_buffer(value):
        return array
    narrow = _DEFAULTS[array.dtype]
    if narrow.kind == "i" and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"`{name}` holds ints beyond int32, which a list of ints becomes; pass a NumPy array of int64")
    return array.astype(narrow)


def _is_buffer(value: Any) -> bool:
    return not isinstance(value, list | tuple | int | float)


def derivative(wrt: Operand, geometry: Geometry, first: np.ndarray, second: np.ndarray, kernel: str = "") -> np.ndarray:
    """See `backstride._ops.derivative`. `kernel` takes one kernel by name instead of the best."""
    shape, dtype = geometry.shape(wrt), first.dtype.newbyteorder("=")
    _check_size(wrt, shape, dtype)
    if first.size == 0 or second.size == 0 or 0 in shape:
        return np.zeros(shape, dtype)
    result = np.empty(shape, dtype)
    plan = _plan.plan(wrt, geometry, _element(dtype), kernel)
    plan.run(_plain(first), _plain(second), _plain(result))
    return result


def _check_size(wrt: Operand, shape: tuple[int, ...], dtype: np.dtype) -> None:
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size > _native.physical_memory():
        raise MemoryError(
            f"the result of shape {shape} and dtype {dtype} would take {size / 2**30:,.1f} GiB; "
            f"this machine has {_native.physical_memory() / 2**30:,.1f} GiB of memory"
        )


def _element(dtype: np.dtype) -> str:
    """The core's name of a dtype. Signed integers are computed as unsigned ones: wrapping has the same bits."""
    return dtype.name if dtype.kind != "i" else f"u{dtype.name}"


def _plain(array: np.ndarray) -> np.ndarray:
    """The array as the core can address it: native byte order, aligned, of a dtype that DLPack can name."""
    array = np.asarray(array)
    if not (array.dtype.isnative and array.flags.aligned):
        array = array.astype(array.dtype.newbyteorder("="))
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array
