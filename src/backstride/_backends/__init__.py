# SPDX-License-Identifier: Apache-2.0
"""Array libraries, one file each, found by the type of an array without importing any of them."""

from __future__ import annotations

import functools
import importlib
from typing import Any, Protocol, cast

from backstride._geometry import Geometry, Operand

# The package in which an array type is defined, and the file that serves it. Lists, buffers and numbers become
# NumPy arrays; numbers only to be told that they have the wrong rank.
_HOMES = {"numpy": "numpy", "builtins": "numpy", "array": "numpy", "_ctypes": "numpy", "autograd": "autograd"}


class Backend(Protocol):
    """What the file of an array library offers."""

    def asarray(self, name: str, value: Any) -> Any:
        """`value` as an array with shape and dtype, or a TypeError or ValueError that names it `name`."""

    def derivative(self, wrt: Operand, geometry: Geometry, first: Any, second: Any) -> Any:
        """See `backstride._ops.derivative`; the arrays fit the geometry and are of one dtype."""


@functools.cache
def _home(cls: type) -> str | None:
    """The file that serves `cls`: its own library's, or the one of the nearest library it derives from."""
    for base in cls.__mro__[:-1]:
        if home := _HOMES.get(base.__module__.partition(".")[0]):
            return home
    return None


def serves(value: Any) -> bool:
    """Whether there is a file for arrays of this type."""
    return _home(type(value)) is not None


def of(*arrays: Any) -> Backend:
    """The file that serves all of `arrays`: the one of the first that is not NumPy's, if there is one."""
    homes = {_home(type(array)) or "numpy" for array in arrays}
    home = next(iter(homes - {"numpy"}), "numpy")
    return cast(Backend, importlib.import_module(f"backstride._backends.{home}"))
