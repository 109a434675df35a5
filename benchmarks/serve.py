# SPDX-License-Identifier: Apache-2.0
"""A library in a process of its own: `python serve.py NAME THREADS DTYPE` answers orders, one line of JSON each.

The first line says the version. {"order": NAME, ...} calls the method of `Server` of that name; whatever it raises is
answered as {"error": ...}.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, Make, Run, Unsupported, peer
from workload import Workload

# Samples of one turn, at most.
MOST = 200


class Server:
    """One library, and the layer that was prepared last."""

    def __init__(self, name: str, threads: int, dtype: str) -> None:
        self._peer, self._dtype = peer(name, threads, dtype), dtype
        self._rehearsed: set[tuple[str, int]] = set()
        self._make: Make | None = None
        self._run: Run | None = None

    def prepare(self, work: dict[str, Any], how: str, result: str) -> dict[str, Any]:
        """Writes what a call computes to `result`, and answers the algorithm and the memory, in bytes."""
        layer = Workload.read(work)
        if (how, layer.rank) not in self._rehearsed:  # so that code is loaded and threads run before memory is measured
            n = layer.rank
            self._build(Workload("", "", 1, (4,) * n, (16, 16), (4,) * n, (2,) * n), how)
            self._rehearsed.add((how, layer.rank))
        memory = self._build(layer, how)
        assert self._run
        results = self._run()
        y, *gradients = results if how == "gradients" else [results]
        arrays = [self._peer.plain(y)]
        if gradients:
            arrays += [self._peer.plain(gradients[0]), self._peer.plain_filter(gradients[1])]
        np.savez(result, *arrays)
        return {"algorithm": self._peer.algorithm, "memory": memory}

    def time(self, seconds: float) -> dict[str, Any]:
        """The seconds of single calls, for about so long, after one that warms up the caches."""
        self._timed()
        end = time.perf_counter() + seconds
        samples = [self._timed()]
        while time.perf_counter() < end and len(samples) < MOST:
            samples.append(self._timed())
        return {"seconds": samples}

    def peak(self) -> dict[str, Any]:
        """Only backstride can."""
        return {"peak": self._peer.peak(), "bandwidth": self._peer.bandwidth()}  # type: ignore[attr-defined]

    def _build(self, work: Workload, how: str) -> int | None:
        """Makes the layer, and tells by how much memory peaks from before the filter is given until after two calls.

        So filters in another layout or packed, scratch memory and the result count; the input and what compiling takes
        for a moment do not.
        """
        self._make = self._run = None
        value, self._filter, cotangent = work.arrays(self._dtype)
        x = self._peer.input(value)
        del value
        g = self._peer.input(cotangent) if how == "gradients" else None
        del cotangent
        self._peer.release()
        before = resident_from_now()
        self._fixed = how == "packed"
        if how == "gradients":
            self._make = self._peer.gradients(work, x, g)
        else:
            self._make = self._peer.forward(work, x, packed=self._fixed)
        self._run = self._make(self._filter)
        gc.collect()
        resident_from_now()
        self._run()
        self._run()
        return None if before is None else max(peak_resident() - before, 0)

    def _timed(self) -> float:
        assert self._run and self._make
        run = self._run if self._fixed else self._make(self._filter.copy())
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin


def resident_from_now() -> int | None:
    """This process's memory after all that is free was given back; forgets the peak. None if the system can't."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (OSError, AttributeError):
        return None


def peak_resident() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def answer(server: Server, order: str, **arguments: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = getattr(server, order)(**arguments)
        return found
    except Unsupported as error:
        return {"error": str(error)}
    except Exception as error:  # whatever a library raises ends this layer, not the comparison
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def main(name: str, threads: int, dtype: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    server = Server(name, threads, dtype)
    gc.disable()
    print(json.dumps({"version": importlib.metadata.version(PEERS[name].package)}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(server, **json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
