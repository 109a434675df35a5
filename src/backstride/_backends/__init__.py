# SPDX-License-Identifier: Apache-2.0
"""Array libraries, one file each, found by the type of an array without importing any of them."""

from __future__ import annotations

import sys
from typing import Any, Protocol, cast

import numpy as np

from backstride._geometry import Geometry, Operand

# By NumPy's names, what arrays may hold.
DTYPES = (
    "float16",
    "bfloat16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)

# The package in which an array type is defined, and the file that serves it. Lists, buffers and numbers become
# NumPy arrays; numbers only to be told that they have the wrong rank.
_HOMES = {
    "numpy": "numpy",
    "builtins": "numpy",
    "array": "numpy",
    "_ctypes": "numpy",
    "autograd": "autograd",
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
}


class Backend(Protocol):
    """What the file of an array library offers."""

    def asarray(self, name: str, value: Any) -> Any:
        """`value` as an array with shape and dtype, or a TypeError or ValueError that names it `name`."""

    def dtype_name(self, array: Any) -> str:
        """NumPy's name of an array's dtype, such as 'float32'; of an accepted array one of `DTYPES`."""

    def same_dtype(self, one: Any, other: Any) -> bool:
        """Whether two arrays are of one dtype, or will be as soon as they are used."""

    def astype(self, array: Any, dtype: str) -> Any:
        """`array` with its numbers converted to the dtype of this name."""

    def scalar(self, x: Any, value: float) -> Any:
        """`value` as a number that leaves an array like `x` its dtype in arithmetic."""

    def derivative(self, wrt: Operand, geometry: Geometry, first: Any, second: Any) -> Any:
        """See `backstride._ops.derivative`; the arrays fit the geometry and are of one dtype."""

    namespace: Any
    """The module that has the library's `exp`, `where`, `sum` and so on under NumPy's names."""

    def leaky_relu(self, x: Any, alpha: float) -> Any:
        """`x` where it is positive, elsewhere `alpha * x`, or 0 if `alpha` is 0; the derivative at 0 is `alpha`."""

    def elu(self, x: Any, alpha: float) -> Any:
        """`x` where it is positive, elsewhere `alpha * expm1(x)`; the derivative at 0 is 1."""

    def erfc(self, x: Any) -> Any:
        """The complementary error function."""

    def exp(self, x: Any) -> Any:
        """The exponential function, without warnings."""

    def softplus(self, x: Any) -> Any:
        """`log(1 + exp(x))`, without overflow and warnings."""

    def clip(self, x: Any, high: float) -> Any:
        """`x` cut to the range from 0 to `high`; the derivative at both ends is 0."""

    def like(self, name: str, value: Any, template: Any) -> Any:
        """`value`, an array of this library or NumPy's, as a new array for a variable `name` to hold.

        It is of this library and, if that rounds floats at most, of the dtype of `template`, or else a TypeError.
        """

    def assigned(self, held: Any, new: Any) -> Any:
        """What a variable holds after it held `held` and is to hold `new`, which was made by `like`: `new`, or, where
        others keep hold of a variable's array to write to it, as optimizers do, `held` with the numbers of `new`."""

    def to_numpy(self, value: Any) -> np.ndarray:
        """What a variable holds, as a NumPy array."""

    def lent(self, name: str, array: Any) -> np.ndarray:
        """The memory of `array`, for what has no gradient, or a TypeError that names it `name`."""

    def given_back(self, result: np.ndarray) -> Any:
        """An array of this library in the memory of `result`, which nobody else holds."""

    def borrowed(self) -> int:
        """How many threads of the library's own the core computes on, or 0 for the core's."""


# What was found so far: dicts, and imports by statements, since PyTorch's compiler, which traces calls, knows them. It
# does not know modules that come out of a call, so each file says by itself that it was loaded.
_homes: dict[type, str | None] = {}
_loaded: dict[str, Backend] = {}


def home(value: Any) -> str | None:
    """The file that serves arrays like `value`, or None if there is none."""
    cls = type(value)
    if cls not in _homes:
        _homes[cls] = _home(cls)
    return _homes[cls]


def _home(cls: type) -> str | None:
    """The file that serves `cls`: its own library's, or the one of the nearest library it derives from."""
    for base in cls.__mro__[:-1]:
        if home := _HOMES.get(base.__module__.partition(".")[0]):
            return home
    return None


def of(*arrays: Any) -> Backend:
    """The file that serves all of `arrays`, which are served: the one of those that are not NumPy's, if any is not."""
    for array in arrays:
        if (name := _homes.get(type(array)) or home(array)) != "numpy":
            break
    return _loaded.get(name or "") or _load(name)


def loaded(file: str) -> None:
    """Makes known that the file of this module name is there."""
    _loaded[file.rpartition(".")[2]] = cast(Backend, sys.modules[file])


def _load(name: str | None) -> Backend:
    """The file of this name."""
    if name == "autograd":
        from backstride._backends import autograd

        return cast(Backend, autograd)
    if name == "jax":
        from backstride._backends import jax

        return cast(Backend, jax)
    if name == "torch":
        from backstride._backends import torch

        return cast(Backend, torch)
    from backstride._backends import numpy

    return cast(Backend, numpy)
