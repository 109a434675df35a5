# SPDX-License-Identifier: Apache-2.0
"""What one call of a layer takes: arithmetic, memory, and the time that the cost model expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from backstride import _plan, _precision
from backstride._settings import get_num_threads
from backstride.convert import ConvTranspose

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Cost:
    """Of one image in float32, with a filter that is packed already.

    Attributes:
        flops: twice the multiply-adds of the definition, also of those whose result is cut off.
        input, filter, output: bytes.
        seconds: what the cost model expects of so many threads, besides the few microseconds of a call by itself; None
            if there is no result.
        threads: how many there are.
        algorithm: what is taken.
    """

    flops: int
    input: int
    filter: int
    output: int
    seconds: float | None
    threads: int
    algorithm: str | None


def cost(layer: ConvTranspose, input: Sequence[int]) -> Cost:
    """The cost of `layer` at an input of these lengths."""
    geometry, output = layer.geometry(1, input), layer.output(input)
    pairs = layer.in_channels * layer.out_channels // layer.groups
    threads, seconds, algorithm = get_num_threads(), None, None
    if prod(output):
        plan = _plan.plan("output", geometry, "float32", _precision.current(), packed=True)
        algorithm = plan.algorithm
        seconds = dict(plan.costs())[algorithm] / threads / 1e9
    return Cost(
        flops=2 * prod(input) * prod(layer.kernel) * pairs,
        input=prod(input) * layer.in_channels * FLOAT,
        filter=prod(layer.filter_shape) * FLOAT,
        output=prod(output) * layer.out_channels * FLOAT,
        seconds=seconds,
        threads=threads,
        algorithm=algorithm,
    )
