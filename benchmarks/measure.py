# SPDX-License-Identifier: Apache-2.0
"""One layer, measured: each library's result against float64, then their times, in turns."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers import PEERS, WITH_GRADIENTS
from peers.backstride import geometry
from worker import Worker
from workload import Task, Workload, number_type

from backstride import _ops, precision

# Layers are timed for about so long in all, at least and at most so many rounds; `--quick` takes QUICK rounds.
SECONDS, FEWEST, MOST, QUICK = 6.0, 7, 60, 3
# So long is a library's turn in a round, or one call if that is longer.
TURN = 0.005
# Libraries let their threads spin after a call; the next one should not compete with them.
PAUSE = 0.02
EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}


def measure(task: Task, dtype: str, workers: list[Worker], quick: bool) -> dict[str, Any]:
    """Each peer's times, memory and largest difference from float64; and, in between, the machine's limits."""
    if task.how == "gradients":
        workers = [worker for worker in workers if worker.name in WITH_GRADIENTS]
    peers = check(task, dtype, workers)
    able = [worker for worker in workers if "error" not in peers[worker.name]]
    samples: dict[str, list[float]] = {worker.name: [] for worker in able}
    limits: dict[str, list[float]] = {"peak": [], "bandwidth": []}
    began, rounds = time.perf_counter(), 0
    while rounds < (QUICK if quick else FEWEST) or (
        not quick and time.perf_counter() - began < SECONDS and rounds < MOST
    ):
        for worker in able:
            time.sleep(PAUSE)
            answer = worker.ask("time", seconds=TURN)
            samples[worker.name] += answer.get("seconds", [])
            if worker.name == "backstride" and "error" not in answer:
                answer = worker.ask("peak")
                for name, values in limits.items():
                    values += [answer[name]] if name in answer else []
            if "error" in answer:
                peers[worker.name]["error"] = answer["error"]
        able = [worker for worker in able if "error" not in peers[worker.name]]
        rounds += 1
    for worker in able:
        peers[worker.name] |= summary(samples[worker.name])
    return {
        "layer": task.work.name,
        "work": asdict(task.work),
        "operations": task.work.operations * (3 if task.how == "gradients" else 1),
        "bytes": task.work.elements * number_type(dtype).itemsize * (3 if task.how == "gradients" else 1),
        **{name: median(values) if values else None for name, values in limits.items()},
        "peers": peers,
    }


def summary(seconds: list[float]) -> dict[str, Any]:
    low, high = (1e3 * float(np.quantile(seconds, q)) for q in (0.1, 0.9))
    return {"ms": 1e3 * median(seconds), "spread": [low, high], "calls": len(seconds)}


def check(task: Task, dtype: str, workers: list[Worker]) -> dict[str, dict[str, Any]]:
    """Each peer's algorithm, memory and difference, or its error."""
    want, allowed = exact(task.work, task.how, dtype), tolerances(task.work, dtype)
    peers = {}
    with tempfile.TemporaryDirectory() as folder:
        for worker in workers:
            file = Path(folder) / f"{worker.name}.npz"
            if PEERS[worker.name].hoards:
                worker.stop()
            answer = worker.ask("prepare", work=asdict(task.work), how=task.how, result=str(file))
            if "error" not in answer:
                with np.load(file) as results:
                    answer |= compared(list(results.values()), want, allowed)
                file.unlink()
            peers[worker.name] = answer | {"version": worker.version}
    return peers


def exact(work: Workload, how: str, dtype: str) -> list[np.ndarray]:
    """The result in float64, and for gradients those by the input and by the filter; by backstride's own kernels.

    Whose errors in float64 can therefore not be seen: they are tested against the definition elsewhere.
    """
    value, filter, cotangent = (array.astype(np.float64) for array in work.arrays(dtype))
    sized = geometry(work)
    with precision("strict"):
        found = [_ops.derivative("output", sized, value, filter)]
        if how == "gradients":
            found.append(_ops.derivative("input", sized, filter, cotangent))
            found.append(_ops.derivative("filter", sized, value, cotangent))
    return found


def tolerances(work: Workload, dtype: str) -> tuple[float, float, float]:
    """The largest differences, relative to the largest result, that rounding explains; for result and gradients.

    n roundings, each of half a spacing of a partial sum, make sqrt(n) / 2 spacings of the sum; Winograd's transforms
    make up to ten times as many. Sums of float32 and float64 are rounded at every term, those of 16 bits, which are
    in float32 inside, where a library stores them in between: per tap or per image, at most.
    """
    inputs, outputs = (channels // work.groups for channels in work.channels)
    taps, pixels = prod(work.kernel), prod(work.size)
    stored = (work.taps, taps, work.batch)
    terms = (work.taps * inputs, taps * outputs, work.batch * pixels)
    roundings = stored if dtype in ("bfloat16", "float16") else terms
    first, second, third = (8 * EPSILON[dtype] * n**0.5 for n in roundings)
    return first, second, third


def compared(results: list[np.ndarray], want: list[np.ndarray], allowed: tuple[float, float, float]) -> dict[str, Any]:
    """The largest difference of all, relative to the largest result; an error if one is too large."""
    differences = []
    for result, right, limit in zip(results, want, allowed, strict=False):
        if result.shape != right.shape:
            return {"error": f"shape {result.shape}, not {right.shape}"}
        differences.append(float(abs(result - right).max() / abs(right).max()))
        if not differences[-1] <= limit:
            return {"error": f"wrong by {differences[-1]:.1e}, where {limit:.1e} is rounding"}
    return {"difference": max(differences)}
