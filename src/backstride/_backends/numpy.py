# SPDX-License-Identifier: Apache-2.0
"""NumPy arrays: what is accepted as one, and the call into the compiled core."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backstride import _files, _native, _plan, _precision
from backstride._backends import DTYPES, loaded
from backstride._geometry import Geometry, Operand
from backstride._ops import OPERANDS

_LIMITS = {
    np.dtype(np.float32): (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)),
    np.dtype(np.int32): (-(2**31), 2**31 - 1),
}


def asarray(name: str, value: Any) -> np.ndarray:
    """`value`, an array, a nested list of numbers or a buffer, as an array of a dtype that the core computes in."""
    array = value if isinstance(value, np.ndarray) else _from_python(name, value)
    if type(array) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` is a masked array, whose mask would be lost; fill it first: {name}.filled(0)")
    if _element(array.dtype) is None:
        raise TypeError(f"`{name}` has dtype {array.dtype}; it must be one of {', '.join(DTYPES)}")
    return array


def _from_python(name: str, value: Any) -> np.ndarray:
    """A nested list or a buffer as an array; Python's own floats become float32 and ints int32, as in TensorFlow."""
    leaves = {type(leaf) for leaf in _leaves(value)} if isinstance(value, list | tuple) else {type(value)}
    for leaf in leaves:
        if issubclass(leaf, np.ma.MaskedArray):
            raise TypeError(f"`{name}` holds masked arrays, whose mask would be lost; fill them first")
        if leaf.__module__.partition(".")[0] == "autograd":
            raise TypeError(f"`{name}` is a list of arrays under autograd; make it one, by autograd.numpy.array")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{name}` is not a rectangular array of numbers: {error}") from None
    if array.dtype.hasobject:
        raise TypeError(
            f"`{name}` must be an array of numbers; got {', '.join(sorted(leaf.__name__ for leaf in leaves))}"
        )
    if not leaves <= {bool, int, float} or array.dtype.kind not in "iuf":
        return array
    dtype = np.dtype(np.float32 if float in leaves else np.int32)
    finite = array[np.isfinite(array)]
    low, high = _LIMITS[dtype]
    if finite.size and not low <= finite.min() <= finite.max() <= high:
        raise ValueError(
            f"`{name}` holds numbers beyond {dtype}, which such a list becomes; pass a NumPy array instead"
        )
    return array.astype(dtype)


def _leaves(value: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    """What nested lists hold in the end. Every list is opened once, so that one within itself has an end."""
    pending: list[Any] = [value]
    opened = set()
    while pending:
        entries = pending.pop()
        if id(entries) in opened:
            continue
        opened.add(id(entries))
        for entry in entries:
            if type(entry) in (list, tuple):
                pending.append(entry)
            else:
                yield entry


def dtype_name(array: np.ndarray) -> str:
    """See `backstride._backends.Backend`."""
    return _dtype_name(array.dtype)


def astype(array: Any, dtype: str) -> Any:
    """See `backstride._backends.Backend`."""
    return array.astype(named(dtype))


def same_dtype(one: Any, other: Any) -> bool:
    """See `backstride._backends.Backend`."""
    return dtype_name(one) == dtype_name(other)


def scalar(x: Any, value: float) -> Any:
    """See `backstride._backends.Backend`."""
    return x.dtype.type(value)


def derivative(wrt: Operand, geometry: Geometry, first: np.ndarray, second: np.ndarray, kernel: str = "") -> np.ndarray:
    """See `backstride._ops.derivative`. `kernel` takes one kernel by name instead of the best."""
    shape, dtype, plan = _sized(wrt, geometry, first.dtype, _precision.current(), kernel)
    if plan is None:
        return np.zeros(shape, dtype)
    result = empty(shape, dtype)
    compute(plan, first, second, result)
    return result


@functools.lru_cache(maxsize=1024)
def _sized(
    wrt: Operand, geometry: Geometry, dtype: np.dtype, precision: str, kernel: str
) -> tuple[tuple[int, ...], np.dtype, _native.Plan | None]:
    """The result's shape and dtype, and the core's plan for it unless an array is empty."""
    shape, dtype = geometry.shape(wrt), dtype.newbyteorder("=")
    check_size("the result", shape, dtype)
    if any(0 in geometry.shape(operand) for operand in OPERANDS):
        return shape, dtype, None
    return shape, dtype, _plan.plan(wrt, geometry, element(dtype), precision, kernel=kernel)


def compute(plan: _native.Plan, first: np.ndarray, second: np.ndarray, result: np.ndarray, borrowed: int = 0) -> None:
    """Computes `result`, which must be native and aligned, with the core's threads or so many `borrowed` ones."""
    plan.run(_plain(first), _plain(second), result, borrowed)


def packed(
    plan: _native.Plan, filters: np.ndarray, bias: np.ndarray | None, activation: str, parameter: float
) -> _native.Packed:
    """A filter packed for the layer of `plan`, with what is done to its sums."""
    if filters.dtype.kind == "u":
        activation = "none"  # relu, the only one that there is, changes nothing
    elif filters.dtype.kind == "i":
        parameter = 2.0 ** (8 * filters.dtype.itemsize - 1)  # the sign bit, which the core does not know
    return _native.Packed(plan, _plain(filters), None if bias is None else _plain(bias), activation, parameter)


def run(packed: _native.Packed, plan: _native.Plan, x: np.ndarray, out: np.ndarray, borrowed: int = 0) -> None:
    """Computes `out`, which must be native and aligned, with the core's threads or so many `borrowed` ones."""
    packed.run(plan, _plain(x), out, borrowed)


# From this size on, the pages of fresh memory cost more than a look for memory that is kept.
LARGE = 1 << 20


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array; a large one in memory that earlier results have given back, if there is any."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    return _native.result(size).view(dtype).reshape(shape)


namespace = np


def leaky_relu(x: np.ndarray, alpha: float) -> np.ndarray:
    """See `backstride._backends.Backend`. `np.where` would take three times as long."""
    scaled = x.dtype.type(alpha) * x if alpha else 0
    result: np.ndarray = np.maximum(x, scaled) if alpha <= 1 else np.minimum(x, scaled)
    return result


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))


def erfc(x: np.ndarray) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    wide: NDArray[Any] = np.array(x, np.float64 if x.dtype == np.float64 else np.float32, order="C")
    _native.erfc(wide.reshape(-1))
    return wide.astype(x.dtype, copy=False)


def exp(x: Any, namespace: Any = np) -> Any:
    """See `backstride._backends.Backend`."""
    with np.errstate(over="ignore"):
        return namespace.exp(x)


def softplus(x: Any, namespace: Any = np) -> Any:
    """See `backstride._backends.Backend`."""
    with np.errstate(invalid="ignore"):
        return namespace.logaddexp(x, namespace.zeros((), x.dtype))


def clip(x: Any, high: float, namespace: Any = np) -> Any:
    """See `backstride._backends.Backend`. NumPy makes float32 of bfloat16."""
    result = namespace.clip(x, scalar(x, 0), scalar(x, high))
    return result if result.dtype == x.dtype else result.astype(x.dtype)


def like(name: str, value: Any, template: Any) -> np.ndarray:
    """See `backstride._backends.Backend`. The array is read-only, so that what is handed out stays what is held."""
    if home := _foreign(value):
        raise TypeError(
            f"the variable {name!r} holds NumPy arrays; got an array of {home} "
            f"(convert it first, or give it as `values` to a run)"
        )
    array = asarray(name, value)
    dtype = template.dtype.newbyteorder("=")
    if array.dtype.kind == "f" and dtype.kind not in "fV":
        raise TypeError(f"the variable {name!r} holds {dtype}; got {array.dtype}")
    with np.errstate(over="ignore"):
        held = np.array(array, dtype)
    if held.dtype != array.dtype and not _same_range(array, held):
        raise ValueError(
            f"the variable {name!r} holds {dtype}, in which some of these numbers of {array.dtype} don't fit"
        )
    held.setflags(write=False)
    return held


def _same_range(array: np.ndarray, converted: np.ndarray) -> bool:
    """Whether integers stayed the same and finite numbers finite."""
    if converted.dtype.kind in "iu":
        return bool((converted == array).all())
    return bool((np.isfinite(converted) | ~np.isfinite(array)).all())


def _foreign(value: Any) -> str | None:
    """The library of an array that is not NumPy's to convert."""
    library = type(value).__module__.partition(".")[0]
    return None if library in ("numpy", "builtins", "array", "_ctypes", "ml_dtypes") else library


def assigned(held: np.ndarray, new: np.ndarray) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    return new


def to_numpy(value: np.ndarray) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    return value


def named(dtype: str) -> np.dtype:
    """The dtype of this name."""
    if dtype == "bfloat16":
        _files.know_bfloat16()
    return np.dtype(dtype)


def check_size(what: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuses an array that the machine can't hold; the operating system might grant it, and kill the process later."""
    size, memory = math.prod(shape) * dtype.itemsize, _native.physical_memory()
    if size > memory:
        raise MemoryError(
            f"{what} of shape {shape} and dtype {dtype} would take {size / 2**30:,.1f} GiB; "
            f"this machine has {memory / 2**30:,.1f} GiB of memory"
        )


def element(dtype: np.dtype) -> str:
    """The core's name of a dtype that `asarray` lets pass."""
    name = _element(dtype)
    assert name is not None
    return name


@functools.cache
def _element(dtype: np.dtype) -> str | None:
    """The core's name of a dtype, or None. Signed integers are computed as unsigned ones, whose wrapping is theirs."""
    name = _dtype_name(dtype)
    if name not in DTYPES:
        return None
    return name if dtype.kind != "i" else f"u{name}"


@functools.cache
def _dtype_name(dtype: np.dtype) -> str:
    """Cached because NumPy takes 5 us to name a dtype."""
    return dtype.name


def _plain(array: np.ndarray) -> np.ndarray:
    """The array as the core can address it: native byte order, aligned."""
    if array.flags.aligned and array.dtype.isnative:
        return array
    array = np.asarray(array)
    plain = np.empty(array.shape, array.dtype.newbyteorder("="))
    for index in np.ndindex(array.shape[:-2]):  # in steps, between which Ctrl-C is answered
        plain[index] = array[index]
    return plain


def lent(name: str, array: np.ndarray) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    return array


def given_back(result: np.ndarray) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    return result


def borrowed() -> int:
    """See `backstride._backends.Backend`."""
    return 0


loaded(__name__)
