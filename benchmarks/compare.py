# SPDX-License-Identifier: Apache-2.0
"""backstride beside other libraries on the layers of published networks (workloads.toml).

    make bench ARGS="--only dcgan pix2pix --threads 2"

Each library runs in a process of its own, in its best layout, with the same number of threads; the processes take
turns, call by call, so that what else the machine does hits all alike. Every result is compared with one in float64.
Two tables: `packed`, where libraries that compile or pack a filter beforehand may do so, and `eager`, with a new filter
in every call. Ratios are the best peer's median time over backstride's; the peak is that of float32 multiply-adds,
measured beside each layer.

Finished layers are kept in the JSON file, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers import PEERS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from workload import Workload, workloads

import backstride
from backstride import _native
from backstride._backends import numpy as core
from backstride._geometry import Axis, Geometry

HERE = Path(__file__).parent
# Layers are timed for about so long in all, at least and at most so many times.
SECONDS, FEWEST, MOST = 6.0, 7, 60
# Libraries let their threads spin after a call; the next one should not compete with them.
PAUSE = 0.02
# Sums in float32 of as many terms as here differ by less than this from float64, relative to the largest result.
TOLERANCE = 1e-4


class Worker:
    """A peer's process."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        variables = {
            "OMP_NUM_THREADS": str(threads),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_NUM_INTRAOP_THREADS": str(threads),
        }
        variables["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={threads}"
        self.name = name
        self._process = subprocess.Popen(
            [python, str(HERE / "peers.py"), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | variables,
            text=True,
        )
        self.version = self._answer()["version"]

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self._process.kill()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended", "version": "none"}


def exact(work: Workload) -> np.ndarray:
    """The result in float64."""
    value, filter = (array.astype(np.float64) for array in work.arrays())
    sizes = zip(work.size, work.kernel, work.output, work.stride, work.crop, strict=True)
    axes = tuple(Axis(i, k, o, s, 1, before) for i, k, o, s, (before, _) in sizes)
    return core.derivative("output", Geometry(axes, work.batch, *work.channels, work.groups), value, filter)


def measure(work: Workload, packed: bool, workers: list[Worker], quick: bool) -> dict[str, Any]:
    """Each peer's times and its largest difference from float64, relative to the largest result."""
    want = exact(work)
    peers: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for worker in workers:
            file = Path(folder) / f"{worker.name}.npy"
            answer = worker.ask(prepare=work.name, packed=packed, result=str(file))
            if "error" not in answer:
                result = np.load(file)
                if result.shape != want.shape:
                    answer = {"error": f"shape {result.shape}, not {want.shape}"}
                else:
                    difference = float(abs(result - want).max() / abs(want).max())
                    answer = {"difference": difference}
                    if not difference < TOLERANCE:
                        answer["error"] = f"wrong by {difference:.1e}"
            peers[worker.name] = answer | {"version": worker.version}
    able = [worker for worker in workers if "error" not in peers[worker.name]]
    times: dict[str, list[float]] = {worker.name: [] for worker in able}
    began, rounds = time.perf_counter(), 0
    while rounds < (3 if quick else FEWEST) or (not quick and time.perf_counter() - began < SECONDS and rounds < MOST):
        for worker in able:
            time.sleep(PAUSE)
            times[worker.name] += worker.ask(time=2)["seconds"][1:]  # the first warms up the caches
        rounds += 1
    for name, seconds in times.items():
        peers[name]["ms"] = 1e3 * median(seconds)
        peers[name]["spread"] = [1e3 * float(np.quantile(seconds, q)) for q in (0.1, 0.9)]
    return {"peers": peers, "operations": work.operations, "peak": _native.fma_peak()}


def ratio(found: dict[str, Any]) -> float | None:
    """The best peer's time over ours."""
    others = [peer["ms"] for name, peer in found["peers"].items() if name != "backstride" and "ms" in peer]
    ours = found["peers"]["backstride"].get("ms")
    return min(others) / ours if ours and others else None


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def table(mode: str, found: dict[str, Any]) -> Table:
    names = [name for name in PEERS if any(name in entry["peers"] for entry in found.values())]
    result = Table("layer", *names, "ratio", "of peak", title=f"{mode}: ms, median", caption=caption(found))
    for layer, entry in found.items():
        times = milliseconds(entry, names)
        ours, best = entry["peers"]["backstride"].get("ms"), ratio(entry)
        share = f"{entry['operations'] / (ours / 1e3) / entry['peak']:.0%}" if ours else "-"
        result.add_row(layer, *times, f"{best:.2f}" if best else "-", share)
    return result


def milliseconds(entry: dict[str, Any], names: list[str]) -> list[str]:
    """The median times of these peers."""
    times = (entry["peers"].get(name, {}).get("ms") for name in names)
    return ["-" if time is None else f"{time:.3g}" for time in times]


def caption(found: dict[str, Any]) -> str:
    ratios = [value for entry in found.values() if (value := ratio(entry))]
    return f"geometric mean of {len(ratios)} ratios: {geometric_mean(ratios):.2f}" if ratios else "no ratios"


def markdown(everything: dict[str, dict[str, Any]]) -> str:
    """The tables of all modes, with the versions."""
    lines = []
    for mode, found in everything.items():
        names = [name for name in PEERS if any(name in entry["peers"] for entry in found.values())]
        versions = {name: entry["peers"][name]["version"] for entry in found.values() for name in entry["peers"]}
        lines += [f"## {mode}", "", "| layer | " + " | ".join(f"{n} {versions[n]}" for n in names) + " | ratio |"]
        lines += ["|---" * (len(names) + 2) + "|"]
        for layer, entry in found.items():
            cells = [
                f"{entry['peers'].get(name, {}).get('ms', float('nan')):.3g}".replace("nan", "-") for name in names
            ]
            best = ratio(entry)
            lines.append(f"| {layer} | {' | '.join(cells)} | {f'{best:.2f}' if best else '-'} |")
        lines += ["", caption(found), ""]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="layers whose names hold one of these")
    parser.add_argument("--quick", action="store_true", help="three rounds of each layer")
    parser.add_argument("--threads", type=int, default=backstride.get_num_threads())
    parser.add_argument("--modes", nargs="+", default=["packed", "eager"], choices=["packed", "eager"])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--tensorflow-python", default=sys.executable, help="the interpreter that has TensorFlow")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    options = parser.parse_args()
    backstride.set_num_threads(options.threads)

    everything = json.loads(options.output.read_text()) if options.output.exists() else {}
    chosen = workloads(options.only)
    if not chosen:
        parser.error(f"no layer's name holds one of {options.only}")
    python = {"tensorflow": options.tensorflow_python}
    names = ["backstride", *(name for name in options.peers if name != "backstride")]
    workers = [Worker(name, python.get(name, sys.executable), options.threads) for name in names]
    console = Console(width=150)
    try:
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("", total=len(options.modes) * len(chosen))
            for mode in options.modes:
                found = everything.setdefault(mode, {})
                for work in chosen:
                    progress.update(bar, description=f"{mode} {work.name}")
                    if work.name not in found:
                        found[work.name] = measure(work, mode == "packed", workers, options.quick)
                        write(options.output, json.dumps(everything, indent=1))
                    progress.advance(bar)
    finally:
        for worker in workers:
            worker.stop()
    for mode in options.modes:
        shown = {work.name: everything[mode][work.name] for work in chosen}
        console.print(table(mode, shown))
        for layer, entry in shown.items():
            for name, peer in entry["peers"].items():
                if "error" in peer:
                    console.print(f"{layer}, {name}: {peer['error']}", highlight=False)
    write(options.output.with_suffix(".md"), markdown(everything))


if __name__ == "__main__":
    main()
