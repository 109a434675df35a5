# SPDX-License-Identifier: Apache-2.0
"""One more axis over the calls of a derivative, as `vmap` asks for it: many small calls made one large one.

The input has no output channels, the filter no batch and the output no input channels; of everything else each has a
share. So if one operand is the same in all calls, the others' new axis is more of just what that one lacks. If all
three differ, each call is a group of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backstride import _ops
from backstride._geometry import Geometry, Operand


def mapped(
    call: Callable[[Operand, Geometry, Any, Any], Any],
    moveaxis: Callable[[Any, int, int], Any],
    wrt: Operand,
    geometry: Geometry,
    arrays: tuple[Any, Any],
    axes: tuple[int | None, int | None],
) -> Any:
    """What `call`, which is `_ops.derivative` for one library, makes of each entry along the new axis: its results,
    stacked along the first axis.

    Args:
        moveaxis: that of the library.
        arrays: the operands of all calls.
        axes: of each operand the new axis, or None if it is the same in all calls.
    """
    same = next((operand for operand, axis in zip(_ops.given(wrt), axes, strict=True) if axis is None), None)
    count = next(x.shape[n] for x, n in zip(arrays, axes, strict=True) if n is not None)
    larger = _enlarged(geometry, same, count)
    first, second = (
        x if n is None else _fold(moveaxis, moveaxis(x, n, 0), *_place(operand, same, geometry))
        for operand, x, n in zip(_ops.given(wrt), arrays, axes, strict=True)
    )
    result = call(wrt, larger, first, second)
    return _unfold(moveaxis, result, (count, *geometry.shape(wrt)), *_place(wrt, same, geometry))


def _enlarged(geometry: Geometry, same: Operand | None, count: int) -> Geometry:
    """The geometry of `count` calls in one."""
    match same:
        case "input":
            return replace(geometry, out_channels=geometry.out_channels * count)
        case "filter":
            return replace(geometry, batch=geometry.batch * count)
        case "output":
            return replace(geometry, in_channels=geometry.in_channels * count)
    return replace(
        geometry,
        in_channels=geometry.in_channels * count,
        out_channels=geometry.out_channels * count,
        groups=geometry.groups * count,
    )


def _place(operand: Operand, same: Operand | None, geometry: Geometry) -> tuple[int, int]:
    """The axis of an operand that the new one becomes part of, and into how many shares that is cut, in each of which
    the calls follow one another."""
    rank = len(geometry.axes)
    if same == "filter":
        return 0, 1
    if operand == "filter":
        return (rank, 1) if same == "input" else (rank + 1, 1 if same is None else geometry.groups)
    return 1 if geometry.channels_first else rank + 1, 1 if same is None else geometry.groups


def _fold(moveaxis: Any, x: Any, axis: int, shares: int) -> Any:
    """Makes the first axis of `x` part of `axis`, which is counted without it."""
    count, *shape = x.shape
    before, length, after = shape[:axis], shape[axis], shape[axis + 1 :]
    if shares > 1:
        x, axis = x.reshape((count, *before, shares, length // shares, *after)), axis + 1
    return moveaxis(x, 0, axis).reshape((*before, count * length, *after))


def _unfold(moveaxis: Any, x: Any, whole: tuple[int, ...], axis: int, shares: int) -> Any:
    """The reverse, to the shape `whole`."""
    count, *shape = whole
    before, length, after = shape[:axis], shape[axis], shape[axis + 1 :]
    if shares == 1:
        return moveaxis(x.reshape((*before, count, length, *after)), axis, 0)
    x = x.reshape((*before, shares, count, length // shares, *after))
    return moveaxis(x, axis + 1, 0).reshape(whole)
