# SPDX-License-Identifier: Apache-2.0
"""backstride beside other libraries on the layers of published networks (workloads.toml).

    make bench ARGS="--only dcgan pix2pix --threads 1 2"

Each library runs in a process of its own, in its best layout, with the same number of threads; the processes take
turns, call by call, so that what else the machine does hits all alike. Every result is compared with one in float64.

    packed      libraries that compile or pack a filter beforehand may do so
    eager       a new filter in every call
    gradients   the layer and both its gradients, as training takes them
    scaling     one layer, grown along one axis at a time; packed
    overhead    a layer so small that what a call costs besides its work is seen

Finished layers are kept in the JSON file, and a run that was stopped goes on where it was; a layer is measured again
for another build of backstride, for libraries that it lacks, and where it was --quick and now is not. Markdown and
pictures are written beside it, also by report.py without measuring.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from pathlib import Path

from measure import measure
from peers import PEERS, WITH_GRADIENTS
from report import console, report
from results import DTYPES, Entry, Results
from rich.console import Console
from rich.progress import Progress
from worker import Worker
from workload import MODES, Task, tasks

import backstride
from backstride import _native


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="layers whose names hold one of these")
    parser.add_argument("--quick", action="store_true", help="three rounds of each layer")
    parser.add_argument("--threads", type=int, nargs="+", default=[backstride.get_num_threads()])
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=DTYPES)
    parser.add_argument("--modes", nargs="+", default=["packed", "eager", "gradients"], choices=MODES)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--patience", type=float, default=120, help="seconds after which a library has hung")
    parser.add_argument("--tensorflow-python", default=sys.executable, help="the interpreter that has TensorFlow")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    options = parser.parse_args()
    options.peers = ["backstride", *(name for name in options.peers if name != "backstride")]
    options.tasks = tasks(options.modes, options.only)
    if not options.tasks:
        parser.error(f"no layer's name holds one of {options.only}")
    return options


def run(options: argparse.Namespace, results: Results, shown: Console) -> None:
    """Measures what `results` lacks."""
    build = hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest()[:12]
    python = {"tensorflow": options.tensorflow_python}
    settings = [(threads, dtype) for threads in options.threads for dtype in options.dtype]
    with Progress(console=shown, transient=True) as progress:
        bar = progress.add_task("", total=len(settings) * len(options.tasks))
        for threads, dtype in settings:
            workers = [
                Worker(name, python.get(name, sys.executable), threads, dtype, options.patience)
                for name in options.peers
            ]
            about = {"dtype": dtype, "threads": threads, "build": build, "quick": options.quick, "machine": machine()}
            try:
                for task in options.tasks:
                    progress.update(bar, description=f"{task.mode} {dtype} x{threads} {task.work.name}")
                    old = results.find(task.mode, dtype, threads, task.work.name)
                    if not old or not still_good(old, task, about, options.peers):
                        results.add({"mode": task.mode} | about | measure(task, dtype, workers, options.quick))
                    progress.advance(bar)
            finally:
                for worker in workers:
                    worker.stop()


def still_good(old: Entry, task: Task, about: Entry, names: list[str]) -> bool:
    """Whether a layer that was measured need not be again."""
    wanted = {name for name in names if task.how != "gradients" or name in WITH_GRADIENTS}
    same = all(old[key] == about[key] for key in ("build", "machine"))
    return same and wanted <= set(old["peers"]) and (about["quick"] or not old["quick"])


def machine() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    options = arguments()
    results, shown = Results(options.output), console()
    try:
        run(options, results, shown)
    except KeyboardInterrupt:
        shown.print(f"stopped; the same command goes on where it was, in {options.output}")
        sys.exit(130)
    report(results, shown)


if __name__ == "__main__":
    main()
