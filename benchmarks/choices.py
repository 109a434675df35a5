# SPDX-License-Identifier: Apache-2.0
"""What the cost model chooses, and what each algorithm that can compute a layer takes: expected, and measured in turns.

    make bench-choices ARGS="--only pose --modes eager"

Milliseconds. A time is the median of calls; the layer's last number is that of the algorithm that is taken over the
least. Expected times are those of one thread of the machine that the model was measured on, divided by the threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import geometric_mean, median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from peers.backstride import geometry
from results import DTYPES
from workload import Workload, published

import backstride
from backstride import _native, _plan, _precision
from backstride._backends import numpy as core

# What may be chosen in place of the fastest.
BOUND = 1.15


class Candidate(NamedTuple):
    algorithm: str
    expected: float
    call: Callable[[], object]


def candidates(work: Workload, dtype: str, packed: bool) -> tuple[str, list[Candidate]]:
    """The algorithm that is taken, and all that can compute the layer."""
    sized, mode = geometry(work), _precision.current()
    x, filter, _ = work.arrays(dtype)
    result = np.empty(sized.shape("output"), x.dtype)
    found = []
    for algorithm in _precision.admitted(mode):
        plan = _plan.plan("output", sized, dtype, mode, packed, algorithm=algorithm)
        costs = dict(plan.costs())
        if plan.algorithm != algorithm or algorithm not in costs:
            continue
        expected = costs[algorithm] / backstride.get_num_threads()
        if packed:
            filters = core.packed(plan, filter, None, "none", 0)
            found.append(Candidate(algorithm, expected, lambda f=filters, p=plan: core.run(f, p, x, result)))
        else:
            found.append(Candidate(algorithm, expected, lambda p=plan: core.compute(p, x, filter, result)))
    return _plan.plan("output", sized, dtype, mode, packed).algorithm, found


def measured(found: list[Candidate], quick: bool) -> list[float]:
    """The median times of the candidates, which take turns; the first turn does not count."""
    times: list[list[float]] = [[] for _ in found]
    calls, seconds = (3, 0.2) if quick else (9, 2)
    begin = perf_counter()
    while len(times[0]) <= calls or perf_counter() - begin < seconds:
        for kept, candidate in zip(times, found, strict=True):
            start = perf_counter()
            candidate.call()
            kept.append(perf_counter() - start)
    return [median(kept[1:]) for kept in times]


def row(taken: str, found: list[Candidate], times: list[float]) -> str:
    """Of each candidate the name, with a star if it is taken, the expected time and the measured one."""
    return "   ".join(
        f"{each.algorithm}{'*' * (each.algorithm == taken)} {each.expected / 1e6:.3g} {time * 1e3:.3g}"
        for each, time in zip(found, times, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="PART", help="layers whose names hold one of these")
    parser.add_argument("--modes", nargs="+", default=["packed", "eager"], choices=["packed", "eager"])
    parser.add_argument("--precision", default="default", choices=_precision.MODES)
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    parser.add_argument("--threads", type=int, default=backstride.get_num_threads())
    options = parser.parse_args()
    backstride.set_num_threads(options.threads)
    works = [work for work in published() if any(part in work.name for part in options.only)]
    for mode in options.modes:
        print(f"{mode}, {options.dtype}, precision {options.precision!r}, {options.threads} threads, {_native.isa()}")
        losses = []
        with backstride.precision(options.precision):
            for work in works:
                taken, found = candidates(work, options.dtype, mode == "packed")
                times = measured(found, options.quick)
                loss = dict(zip((each.algorithm for each in found), times, strict=True))[taken] / min(times)
                losses.append(loss)
                print(f"{work.name:16} {row(taken, found, times)}   {loss:.2f}", flush=True)
        beyond = sum(loss > BOUND for loss in losses)
        print(f"geometric mean {geometric_mean(losses):.3f}; {beyond} of {len(losses)} above {BOUND}\n")


if __name__ == "__main__":
    main()
