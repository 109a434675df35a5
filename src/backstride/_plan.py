# SPDX-License-Identifier: Apache-2.0
"""Plans of the compiled core, kept by what they depend on: sizes and element type, never values."""

from __future__ import annotations

import functools
from typing import Any

from backstride import _native
from backstride._geometry import Geometry, Operand

# Bytes that a call takes besides its arrays and the packed filter, about and at most, and a stream's.
WORKSPACE, STREAM_WORKSPACE = 64 << 20, 4 << 20


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
    workspace: int = WORKSPACE,
    binding: bool = False,
    isa: str = "",
) -> _native.Plan:
    """How the core computes the derivative by `wrt` at these sizes, with a filter that is packed already or not. An
    algorithm or a kernel that is named is taken whatever the cost, and an instruction set that is named may be poorer
    than the one in use. `workspace` is about how many bytes a call may take
    besides its arrays; if it is `binding`, a call that takes more is refused."""
    return _native.Plan(
        **description(wrt, geometry, element, precision),
        packed=packed,
        algorithm=algorithm,
        kernel=kernel,
        workspace=workspace,
        binding=binding,
        isa=isa,
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
