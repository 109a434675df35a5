# SPDX-License-Identifier: Apache-2.0
"""Threads change when a call ends and nothing else: not its bits, not what the rest of the program may do."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
from cases import given
from conftest import Python, environment
from numpy.testing import assert_array_equal

import backstride
from backstride import _plan, _settings
from backstride._backends import numpy as backend
from backstride._geometry import Axis, Geometry

# Large enough to be cut in many tasks: several images, many panels of columns, many pixels for one filter tap.
GEOMETRIES = {
    "images": Geometry((cases.same(20, 4, 2, 40), cases.same(24, 4, 2, 47)), 3, 24, 40),
    "columns": Geometry((cases.same(6, 3, 2, 12), cases.same(5, 3, 2, 10)), 2, 40, 300),
    "pixels": Geometry((cases.same(150, 3, 1, 150), cases.same(150, 2, 2, 300)), 2, 3, 5),
    "line": Geometry((cases.valid(20000, 5, 3, extra=2),), 1, 4, 4),
    "volume": Geometry((cases.same(9, 3, 2, 18), cases.same(10, 3, 1, 10), Axis(8, 2, 20, 3, 1, -2)), 2, 12, 8),
    "groups": Geometry((cases.same(16, 3, 2, 32), cases.same(16, 3, 2, 32)), 2, 24, 24, 6),
    "channels-first": Geometry((cases.same(20, 4, 2, 40), cases.same(24, 4, 2, 47)), 2, 24, 40, channels_first=True),
}
COUNTS = (1, 2, 3, 7)
DTYPES = ("float32", "float64", "float16", "int8")


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    count = backstride.get_num_threads()
    yield
    backstride.set_num_threads(count)


def operands(wrt: str, geometry: Geometry, dtype: str) -> list[np.ndarray]:
    """Numbers whose sums round, so that bits tell in which order they were added."""
    rng = np.random.default_rng(len(wrt))
    arrays = [rng.standard_normal(geometry.shape(name), np.float32) for name in given(wrt)]
    return [(100 * array).astype(dtype) if dtype == "int8" else array.astype(dtype) for array in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrt", cases.OPERANDS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_same_bits_for_any_number_of_threads(name: str, wrt: str, dtype: str) -> None:
    geometry = GEOMETRIES[name]
    first, second = operands(wrt, geometry, dtype)
    results = set()
    for count in COUNTS:
        backstride.set_num_threads(count)
        results.add(backend.derivative(wrt, geometry, first, second).tobytes())
    assert len(results) == 1


def test_a_call_is_the_same_every_time() -> None:
    backstride.set_num_threads(7)
    first, second = operands("filter", GEOMETRIES["pixels"], "float32")
    results = {backend.derivative("filter", GEOMETRIES["pixels"], first, second).tobytes() for _ in range(30)}
    assert len(results) == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_many_python_threads_at_once(count: int) -> None:
    """Each with its own calls, and others changing the number of threads meanwhile."""
    work = [
        (wrt, geometry, *operands(wrt, geometry, dtype))
        for wrt, geometry, dtype in itertools.product(cases.OPERANDS, GEOMETRIES.values(), ("float32", "float16"))
    ]
    want = [backend.derivative(*arguments).tobytes() for arguments in work]
    backstride.set_num_threads(count)
    stop = threading.Event()

    def disturb() -> None:
        for n in itertools.cycle((1, 3, 2, count)):
            if stop.wait(0.001):
                return
            backstride.set_num_threads(n)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            order = np.random.default_rng(0).permutation(np.tile(np.arange(len(work)), 3))
            results = list(pool.map(lambda n: (n, backend.derivative(*work[n]).tobytes()), order))
    finally:
        stop.set()
        disturber.join()
    assert len(results) == 3 * len(work)
    assert all(result == want[n] for n, result in results)


# The numbers of fenv.h, which are the processor's.
MODES = {"x86_64": [0x400, 0x800, 0xC00], "aarch64": [0x800000, 0x400000, 0xC00000]}


@pytest.mark.skipif(platform.machine() not in MODES, reason="the numbers of the modes are not known")
@pytest.mark.parametrize("mode", MODES.get(platform.machine(), [0, 0, 0]), ids=["down", "up", "towards-zero"])
def test_rounding_mode_of_the_caller_changes_no_bits(mode: int) -> None:
    """Threads of the pool would not have it, so that bits would depend on who computes what."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    for wrt, dtype in itertools.product(cases.OPERANDS, ("float32", "float16")):
        geometry = GEOMETRIES["channels-first"]
        first, second = operands(wrt, geometry, dtype)
        want = backend.derivative(wrt, geometry, first, second).tobytes()
        libm.fesetround(mode)
        try:
            got = backend.derivative(wrt, geometry, first, second).tobytes()
            left = libm.fegetround()
        finally:
            libm.fesetround(0)
        assert got == want
        assert left == mode, "the caller keeps its own mode"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says where threads may run")
def test_helpers_may_run_wherever_the_caller_may() -> None:
    """They are kept from the caller's processor while they wake, not longer."""
    backstride.set_num_threads(3)
    geometry = GEOMETRIES["images"]
    arrays = operands("output", geometry, "float32")
    for _ in range(3):
        time.sleep(0.01)  # so long that they sleep
        for _ in range(20):
            backend.derivative("output", geometry, *arrays)
    # Those that were woken for nothing have some time.
    time.sleep(0.05)
    allowed = {frozenset(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()}
    assert allowed == {frozenset(os.sched_getaffinity(0))}


def test_threads_are_not_started_again_and_again() -> None:
    backstride.set_num_threads(4)
    geometry = GEOMETRIES["images"]
    arrays = operands("output", geometry, "float32")
    backend.derivative("output", geometry, *arrays)
    tasks = len(os.listdir("/proc/self/task"))
    for _ in range(20):
        backend.derivative("output", geometry, *arrays)
    assert len(os.listdir("/proc/self/task")) == tasks


# The setting


def test_setting() -> None:
    for count in (1, 2, 1024, np.int64(3), np.array(5, np.uint8)):
        backstride.set_num_threads(count)
        assert backstride.get_num_threads() == count
        assert type(backstride.get_num_threads()) is int
    with pytest.raises(ValueError, match="`count` must be from 1 to 1024"):
        backstride.set_num_threads(0)
    assert backstride.get_num_threads() == 5


def test_as_many_threads_as_allowed() -> None:
    backstride.set_num_threads(1024)
    geometry = GEOMETRIES["images"]
    arrays = operands("output", geometry, "float32")
    many = backend.derivative("output", geometry, *arrays)
    backstride.set_num_threads(1)
    assert_array_equal(many, backend.derivative("output", geometry, *arrays))


COUNT = "import backstride; print(backstride.get_num_threads())"


@pytest.mark.parametrize("count", ["1", "3", "007", "1024"])
def test_environment_sets_the_number(python: Python, count: str) -> None:
    assert int(python(COUNT, BACKSTRIDE_NUM_THREADS=count)) == int(count)


def test_empty_environment_variable_sets_nothing(python: Python) -> None:
    assert python(COUNT, BACKSTRIDE_NUM_THREADS="") == python(COUNT)


def test_affinity_limits_the_number(python: Python) -> None:
    cpu = min(os.sched_getaffinity(0))
    limited = f"import os; os.sched_setaffinity(0, {{{cpu}}}); {COUNT}"
    assert int(python(limited)) == 1
    assert int(python(limited, BACKSTRIDE_NUM_THREADS="2")) == 2


def test_default_is_what_the_machine_grants(python: Python) -> None:
    assert int(python(COUNT)) == _settings.usable_cpus() <= len(os.sched_getaffinity(0))


# Control groups, made up


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "12:pids:/jobs\n4:cpu,cpuacct:/jobs/mine\n3:cpuset:/\n1:name=systemd:/jobs\n"
V2 = "0::/jobs/mine\n"
BOTH = f"{V1}0::/jobs/mine\n"

GROUPS: dict[str, tuple[str | None, dict[str, str], int]] = {
    "no-groups-at-all": (None, {}, 8),
    "empty-membership": ("", {}, 8),
    "v2-no-files": (V2, {}, 8),
    "v2-max": (V2, {"jobs/mine/cpu.max": "max 100000\n"}, 8),
    "v2-two": (V2, {"jobs/mine/cpu.max": "200000 100000\n"}, 2),
    "v2-rounds-up": (V2, {"jobs/mine/cpu.max": "210000 100000\n"}, 3),
    "v2-half-a-cpu": (V2, {"jobs/mine/cpu.max": "50000 100000\n"}, 1),
    "v2-more-than-there-are": (V2, {"jobs/mine/cpu.max": "6400000 100000\n"}, 8),
    "v2-other-period": (V2, {"jobs/mine/cpu.max": "30000 10000\n"}, 3),
    "v2-outer": (V2, {"jobs/cpu.max": "200000 100000\n", "jobs/mine/cpu.max": "max 100000\n"}, 2),
    "v2-inner-is-tighter": (V2, {"jobs/cpu.max": "500000 100000\n", "jobs/mine/cpu.max": "300000 100000\n"}, 3),
    "v2-outer-is-tighter": (V2, {"jobs/cpu.max": "200000 100000\n", "jobs/mine/cpu.max": "300000 100000\n"}, 2),
    "v2-inner-is-missing": (V2, {"jobs/cpu.max": "200000 100000\n"}, 2),
    "v2-root-of-a-container": (V2, {"cpu.max": "400000 100000\n"}, 4),
    "v2-at-the-root": ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
    "v2-group-of-others": (V2, {"jobs/yours/cpu.max": "100000 100000\n"}, 8),
    "v2-broken-file": (V2, {"jobs/mine/cpu.max": "what?\n", "jobs/cpu.max": "300000 100000\n"}, 3),
    "v2-empty-file": (V2, {"jobs/mine/cpu.max": ""}, 8),
    "v1-no-limit": (V1, {"cpu/jobs/mine/cpu.cfs_quota_us": "-1\n", "cpu/jobs/mine/cpu.cfs_period_us": "100000\n"}, 8),
    "v1-two": (V1, {"cpu/jobs/mine/cpu.cfs_quota_us": "200000\n", "cpu/jobs/mine/cpu.cfs_period_us": "100000\n"}, 2),
    "v1-rounds-up": (
        V1,
        {"cpu/jobs/mine/cpu.cfs_quota_us": "150000\n", "cpu/jobs/mine/cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "v1-outer": (
        V1,
        {
            "cpu/jobs/cpu.cfs_quota_us": "300000\n",
            "cpu/jobs/cpu.cfs_period_us": "100000\n",
            "cpu/jobs/mine/cpu.cfs_quota_us": "-1\n",
            "cpu/jobs/mine/cpu.cfs_period_us": "100000\n",
        },
        3,
    ),
    "v1-root-of-a-container": (V1, {"cpu/cpu.cfs_quota_us": "500000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 5),
    "v1-period-is-missing": (V1, {"cpu/jobs/mine/cpu.cfs_quota_us": "200000\n"}, 8),
    "both-versions": (
        BOTH,
        {
            "cpu/jobs/mine/cpu.cfs_quota_us": "300000\n",
            "cpu/jobs/mine/cpu.cfs_period_us": "100000\n",
            "jobs/mine/cpu.max": "max 100000\n",
        },
        3,
    ),
}


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("name", GROUPS)
def test_control_groups(name: str, tmp_path: Path) -> None:
    membership, files, want = GROUPS[name]
    groups = tree(tmp_path / "cgroup", files)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    assert _settings.usable_cpus(groups, tmp_path / "membership") == want


@pytest.mark.usefixtures("eight_cpus")
def test_limits_outside_the_hierarchy_are_not_read(tmp_path: Path) -> None:
    """The folders that enclose the hierarchy itself are not groups."""
    tree(tmp_path, {"cpu.max": "100000 100000\n", "cgroup/jobs/mine/cpu.max": "300000 100000\n"})
    (tmp_path / "membership").write_text(V2)
    assert _settings.usable_cpus(tmp_path / "cgroup", tmp_path / "membership") == 3


# Forks

FORK = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np, backstride
from backstride import nn

backstride.set_num_threads({threads})
x, w = np.ones((2, 40, 40, 24), np.float32), np.ones((4, 4, 40, 24), np.float32)

def call():
    return nn.conv2d_transpose(x, w, (80, 80), 2)

want = call().tobytes()

def child(depth):
    for _ in range(3):
        if call().tobytes() != want:
            os._exit(1)
    if depth:
        wait(fork(depth - 1))
    os._exit(0)

def fork(depth=1):
    pid = os.fork()
    return pid if pid else child(depth)

def wait(pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        print("a child exited with", status)
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_forked_child_computes_and_exits(python: Python, threads: int) -> None:
    """And so does its own child, and the parent afterwards."""
    code = "for _ in range(20): wait(fork())\nassert call().tobytes() == want\nprint('done')"
    assert python(FORK.format(threads=threads) + code) == "done\n"


@pytest.mark.parametrize("threads", [1, 4])
def test_fork_while_other_threads_compute(python: Python, threads: int) -> None:
    code = """
stop = threading.Event()

def busy():
    while not stop.is_set():
        assert call().tobytes() == want

others = [threading.Thread(target=busy) for _ in range(3)]
for other in others: other.start()
for _ in range(20): wait(fork())
stop.set()
for other in others: other.join()
print("done")
"""
    assert python(FORK.format(threads=threads) + code) == "done\n"


def test_forked_child_exits_through_the_interpreter(python: Python) -> None:
    """Not by os._exit, but with all that Python does at its end."""
    code = """
import multiprocessing
context = multiprocessing.get_context("fork")
def work(n): return call().tobytes() == want
with context.Pool(2) as pool:
    assert all(pool.map(work, range(8)))
process = context.Process(target=call)
process.start(); process.join()
assert process.exitcode == 0
print("done")
"""
    assert python(FORK.format(threads=4) + code) == "done\n"


def test_child_of_a_parent_that_never_computed(python: Python) -> None:
    code = """
import os, backstride
backstride.set_num_threads(3)
pid = os.fork()
got = backstride.nn.conv2d_transpose([[[[2.0]] * 64] * 64], [[[[3.0]]]], (64, 64), 1).sum()
if pid == 0: os._exit(0 if got == 64 * 64 * 6 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), got)
"""
    assert python(code).split() == ["0", "24576.0"]


# A long call

LONG = """
import os, signal, sys, threading, time
import numpy as np, backstride
from backstride import _native
from backstride._backends.numpy import derivative
from backstride._geometry import Axis, Geometry

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a parent in the background has ignored
backstride.set_num_threads({threads})
axis = Axis(256, 63, 256, 1, 1, 31)
geometry = Geometry((axis, axis), {batch}, 64, 64)
operands = [name for name in ("input", "filter", "output") if name != {wrt!r}]
arrays = [np.ones(geometry.shape(name), {dtype!r}) for name in operands]

def long(): return derivative({wrt!r}, geometry, *arrays)
"""
# Some minutes of work on a fast machine: a call that ends within seconds was stopped.
BATCH = 16


def interrupt(code: str, after: float, **variables: str) -> str:
    """What a program says that is sent a Ctrl-C so long after it said that it is ready."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        timer = threading.Timer(after, process.send_signal, [2])
        timer.start()
        try:
            return process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise


INTERRUPTED = """
print("ready", flush=True)
start = time.monotonic()
try:
    long()
except KeyboardInterrupt:
    print(time.monotonic() - start)
    # The next call is none the worse for it.
    print(backstride.nn.conv2d_transpose([[[[2.0]]]], [[[[3.0]]]], (1, 1), 1).item())
"""


@pytest.mark.parametrize(
    ("wrt", "dtype", "isa", "threads"),
    [
        ("output", "float32", "", 1),
        ("output", "float32", "", 3),
        ("output", "float32", "portable", 1),
        ("output", "float16", "", 3),
        ("output", "int8", "", 1),
        ("output", "uint64", "portable", 3),
        ("input", "float32", "", 3),
        ("input", "float64", "", 1),
        ("input", "uint64", "portable", 1),
        ("filter", "float32", "", 1),
        ("filter", "float32", "", 3),
        ("filter", "uint64", "portable", 1),
        ("filter", "float16", "portable", 3),
    ],
)
def test_interrupt_is_answered_within_a_second(wrt: str, dtype: str, isa: str, threads: int) -> None:
    code = LONG.format(threads=threads, batch=BATCH, wrt=wrt, dtype=dtype) + INTERRUPTED
    took, after = interrupt(code, 0.3, BACKSTRIDE_ISA=isa).split()
    # Sent after 0.3 s and answered in less than 0.3 s more; a busy machine may take longer, but not minutes.
    assert float(took) < 5
    assert float(after) == 6


HANDLED = """
class Stop(Exception): pass
def stop(*_): raise Stop("enough")
signal.signal(signal.SIGALRM, stop)
x = np.ones((1, 2500, 2500, 16), {dtype!r})
x = np.moveaxis(x, -1, 1).copy() if {first} else x
w = np.ones((1, 1, 16, 16), {dtype!r})
outcomes = set()
for milliseconds in (1, 20, 40, 60, 80, 100, 130, 160, 200, 300):
    signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
    try:
        data_format = "NCHW" if {first} else "NHWC"
        backstride.nn.conv2d_transpose(x, w, (2500, 2500), 1, data_format=data_format)
        outcome = "done"
    except Stop as error:
        outcome = "stopped " + str(error)
    except BaseException as error:
        outcome = repr(error)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        pass
    outcomes.add(outcome)
print(sorted(outcomes))
"""


@pytest.mark.parametrize(("dtype", "first"), [("float16", False), ("uint8", False), ("float32", True)])
def test_interrupt_at_any_time(python: Python, dtype: str, first: bool) -> None:
    """While arrays are copied, too. Whatever a signal's handler raises comes out of the call, unchanged."""
    code = LONG.format(threads=2, batch=1, wrt="output", dtype="int8") + HANDLED.format(dtype=dtype, first=first)
    assert eval(python(code)) in (["done", "stopped enough"], ["stopped enough"])


def test_handler_that_raises_nothing_stops_nothing(python: Python) -> None:
    code = (
        LONG.format(threads=2, batch=1, wrt="output", dtype="float32")
        + """
seen = []
def handle(*_): seen.append(backstride.nn.conv2d_transpose([[[[2.0]]]], [[[[3.0]]]], (1, 1), 1))
handle()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
small = Geometry((Axis(256, 15, 256, 1, 1, 7),) * 2, 1, 64, 64)
got = derivative("output", small, *(np.ones(small.shape(name), np.float32) for name in operands))
signal.setitimer(signal.ITIMER_REAL, 0)
assert got[0, 128, 128, 0] == 15 * 15 * 64
print(len(seen) > 1)
"""
    )
    assert python(code) == "True\n"


def test_other_python_threads_run_meanwhile(python: Python) -> None:
    """The interpreter's lock is let go: a thread counts while the call computes, for which it needs the lock."""
    code = (
        LONG.format(threads=1, batch=1, wrt="output", dtype="float32")
        + """
count, stop = 0, threading.Event()
def counting():
    global count
    while not stop.is_set(): count += 1
small = Geometry((Axis(256, 15, 256, 1, 1, 7),) * 2, 1, 64, 64)
arrays = [np.ones(small.shape(name), np.float32) for name in operands]
counter = threading.Thread(target=counting)
counter.start()
before = count
derivative("output", small, *arrays)
print(count - before)
stop.set()
counter.join()
"""
    )
    assert int(python(code)) > 10_000


# Nothing is left behind


LEAK = """
import numpy as np, backstride, autograd, autograd.numpy as anp
from pathlib import Path
from backstride import nn

def pages(): return int(Path("/proc/self/statm").read_text().split()[1])

def ones(dtype, *shapes): return [np.ones(shape, dtype) for shape in shapes]

arrays = {
    (dtype, size): ones(dtype, (2, size, size, 8), (3, 3, 12, 8), (2, 2 * size, 2 * size, 12))
    for dtype in ("float32", "float16", "float64", ">f4", "int16") for size in (1, 5, 8)
}

def calls():
    for (dtype, size), (x, w, g) in arrays.items():
        nn.conv2d_transpose(x, w, g.shape, 2)
        nn.conv2d(g, w, 2, "SAME")
        nn.conv2d_backprop_filter(g, w.shape, x, 2, "SAME")
        nn.conv2d_transpose(np.moveaxis(x, -1, 1), w, (2 * size, 2 * size), 2, data_format="NCHW")
        try:
            nn.conv2d_transpose(x, w, (1000, 1000), 2)
        except ValueError:
            pass
    x, w, g = arrays["float64", 5]
    autograd.grad(lambda v: anp.sum(nn.conv2d_transpose(v, w, g.shape, 2)))(x)
    nn.conv2d_transpose(x.tolist(), w.astype(np.float32), g.shape, 2)

backstride.set_num_threads(3)
for _ in range(30): calls()
before = pages()
for _ in range(200): calls()
print(pages() - before)
"""


def test_memory_does_not_grow(python: Python) -> None:
    """Over 15000 calls, an array of the smallest kept from each would be thousands of pages."""
    assert int(python(LEAK)) < 500


def test_plans_are_forgotten_in_the_end() -> None:
    assert _plan.plan.cache_info().maxsize is not None


def test_errors_of_one_call_do_not_reach_another() -> None:
    """An error raised in the middle of many calls leaves the others as they are."""
    geometry = GEOMETRIES["images"]
    arrays = operands("output", geometry, "float32")
    want = backend.derivative("output", geometry, *arrays).tobytes()
    backstride.set_num_threads(3)

    def call(n: int) -> Any:
        if n % 3:
            return backend.derivative("output", geometry, *arrays).tobytes()
        with pytest.raises(ValueError):
            backend.derivative("output", geometry, *arrays, kernel="none of this name")
        return want

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(call, range(60))) == {want}
