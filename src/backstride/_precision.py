# SPDX-License-Identifier: Apache-2.0
"""How far results may be from those of plain sums: a setting of the code that runs, of its thread and its tasks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from backstride import _native
from backstride._arguments import shown

MODES = ("strict", "default", "fast")


def read_environment() -> str:
    """The mode of BACKSTRIDE_PRECISION, or 'default'."""
    mode = os.environ.get("BACKSTRIDE_PRECISION") or "default"
    if mode not in MODES:
        raise ValueError(f"BACKSTRIDE_PRECISION must be one of {', '.join(MODES)}; got {mode!r}")
    return mode


_INITIAL = read_environment()
_mode = ContextVar("precision", default=_INITIAL)


current = _mode.get
"""The mode in which calls compute."""


def checked(argument: str, mode: object) -> str:
    """The value of `argument`, if it is a mode."""
    return _one_of(argument, mode, MODES)


def algorithm(name: object, mode: str) -> str:
    """The name of an algorithm that the mode admits."""
    name = _one_of("algorithm", name, _native.ALGORITHMS)
    names = admitted(mode)
    if name not in names:
        raise ValueError(f"precision {mode!r} admits the algorithms {', '.join(names)}; got algorithm={name!r}")
    return name


def admitted(mode: str) -> list[str]:
    """The names of the algorithms that the mode admits."""
    refused = {"strict": ("winograd", "matrix"), "default": ("winograd6",)}.get(mode, ())
    return [name for name in _native.ALGORITHMS if not name.startswith(refused)]


def _one_of(argument: str, name: object, names: Sequence[str]) -> str:
    if not isinstance(name, str):
        raise TypeError(f"`{argument}` must be one of {', '.join(names)}; got {argument}={shown(name)}")
    if name not in names:
        raise ValueError(f"`{argument}` must be one of {', '.join(names)}; got {argument}={shown(name)}")
    return name


@contextlib.contextmanager
def precision(mode: str) -> Iterator[None]:
    """The rounding errors that calls within may have, forward and in gradients, and plans that are made within.

    - 'strict': every element is the sum of its own terms, one after the other.
    - 'default': large layers are computed by Winograd's algorithm with three or four points, which needs fewer
      multiplications. The rounding error, in the root of the mean square, is at most 1.25 times that of 'strict'; on
      most layers it is smaller, since each sum has fewer terms. But it is relative to the largest numbers of a
      neighbourhood of some pixels, so an element that would be zero may be off by a rounding error of these.
      Layers of float16, bfloat16 and float32 may be computed by the processor's matrix unit, if it has one. There the
      errors are smaller still, but factors, products and sums below 1.2e-38 are zeros, and below 3e-33 lose digits.
    - 'fast': with six points, too, and at most 4 times the error.

    In every mode NaN and Inf are exactly where the definition's own terms put them, integers are exact, and a result
    has the same bits whatever the number of threads; a sum of finite terms that overflows in 'strict' on the way may be
    finite in the other modes. The measured errors are in docs/performance.md.

    >>> import numpy as np, backstride
    >>> x, filters = np.ones((1, 32, 32, 64), np.float32), np.ones((4, 4, 64, 64), np.float32)
    >>> with backstride.precision("strict"):
    ...     backstride.nn.conv2d_transpose(x, filters, (1, 64, 64, 64), 2).shape
    (1, 64, 64, 64)

    Args:
        mode: 'strict', 'default' or 'fast'. Initially it is BACKSTRIDE_PRECISION, or else 'default'.

    Raises:
        ValueError: there is no such mode.
        TypeError: `mode` is not a string.
    """
    token = _mode.set(checked("mode", mode))
    try:
        yield
    finally:
        _mode.reset(token)
