# SPDX-License-Identifier: Apache-2.0
"""Plans of the compiled core, kept by what they depend on: sizes and element type, never values."""

from __future__ import annotations

import functools
from typing import Any

from backstride import _native
from backstride._geometry import Geometry, Operand


@functools.lru_cache(maxsize=1024)
def plan(
    wrt: Operand,
    geometry: Geometry,
    element: str,
    precision: str,
    packed: bool = False,
    *,
    algorithm: str = "",
    kernel: str = "",
) -> _native.Plan:
    """How the core computes the derivative by `wrt` at these sizes, with a filter that is packed already or not. An
    algorithm or a kernel that is named is taken whatever the cost."""
    return _native.Plan(
        **description(wrt, geometry, element, precision), packed=packed, algorithm=algorithm, kernel=kernel
    )


def description(wrt: Operand, geometry: Geometry, element: str, precision: str) -> dict[str, Any]:
    """What the core must be told of the derivative by `wrt` at these sizes, by the names of native/call.h."""
    return {
        "wrt": wrt,
        "element": element,
        "axes": [n for a in geometry.axes for n in (a.input, a.kernel, a.output, a.stride, a.dilation, a.pad)],
        "batch": geometry.batch,
        "in_channels": geometry.in_channels,
        "out_channels": geometry.out_channels,
        "groups": geometry.groups,
        "channels_first": geometry.channels_first,
        "precision": precision,
    }
