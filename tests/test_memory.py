# SPDX-License-Identifier: Apache-2.0
"""How much memory a call takes at its peak, beyond what it was given and what it returns."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from conftest import Python

# Inputs are made without temporaries, so that the peak before the call is what there is before it.
PROBE = """
import numpy as np, backstride
from backstride._backends.numpy import derivative
from backstride._geometry import Axis, Geometry

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

backstride.set_num_threads({threads})
geometry = Geometry({axes}, {batch}, {channels[0]}, {channels[1]}, {groups}, {channels_first})
small = Geometry((Axis(1, 1, 1),) * {rank}, 1, 1, 1)
derivative("output", small, np.ones(small.shape("input"), "f4"), np.ones(small.shape("filter"), "f4"))
arrays = [np.full(geometry.shape(name), 1, {dtype!r}) for name in ("input", "filter", "output") if name != {wrt!r}]
before, peak_before = status("VmRSS"), status("VmHWM")
result = derivative({wrt!r}, geometry, *arrays)
print(before, peak_before, status("VmHWM"), result.nbytes)
"""

MIB = 2**20
LIMIT = 64 * MIB

Axes = tuple[tuple[int, ...], ...]


def probe(
    python: Python,
    wrt: str,
    axes: Axes,
    channels: tuple[int, int],
    dtype: str = "f4",
    first: bool = False,
    groups: int = 1,
    batch: int = 1,
    threads: int = 2,
) -> int:
    """The bytes of a call's peak beyond its arguments, its result, one packed filter and the native copies that
    the core is allowed."""
    spelled = "".join(f"Axis{axis}, " for axis in axes)
    code = PROBE.format(
        threads=threads,
        axes=f"({spelled})",
        batch=batch,
        channels=channels,
        groups=groups,
        channels_first=first,
        rank=len(axes),
        dtype=dtype,
        wrt=wrt,
    )
    before, peak_before, peak, result = map(int, python(code).split())
    assert peak_before - before < 16 * MIB, "the peak before the call would hide that of the call"
    sizes = {
        "input": batch * prod(axis[0] for axis in axes) * channels[0],
        "filter": prod(axis[1] for axis in axes) * channels[0] * channels[1] // groups,
        "output": batch * prod(axis[2] for axis in axes) * channels[1],
    }
    sum_bytes = 8 if dtype.endswith("8") else 4
    converted = dtype.lstrip("<>") not in ("f4", "f8", "u4", "u8", "i4", "i8")
    copied = {name: converted or (first and name != "filter") for name in sizes}
    # A filter given is packed; of a filter made the sums are apart if it is narrower; other results are written once.
    copied |= {"filter": True} | {wrt: wrt == "filter" and converted}
    native = sum(sizes[name] * sum_bytes for name, copy in copied.items() if copy)
    swapped = sum(sizes[name] * int(dtype[-1]) for name in sizes if name != wrt) if dtype[0] == ">" else 0
    return peak - before - result - native - swapped


def same(input: int, kernel: int, stride: int) -> tuple[int, ...]:
    pad = max((input - 1) * stride + kernel - input * stride, 0) // 2
    return input, kernel, input * stride, stride, 1, pad


# An input and an output of 100 MiB each, so that a copy too many of either is over the limit; one tap per output.
PLANE = (same(320, 2, 2), same(320, 2, 2))
CASES: dict[str, dict[str, Any]] = {
    "float32": {"axes": PLANE, "channels": (256, 64)},
    "float32-nchw": {"axes": PLANE, "channels": (256, 64), "first": True},
    "float16": {"axes": PLANE, "channels": (256, 64), "dtype": "f2"},
    "float16-nchw": {"axes": PLANE, "channels": (256, 64), "dtype": "f2", "first": True},
    "int8": {"axes": PLANE, "channels": (256, 64), "dtype": "i1"},
    "float64": {"axes": PLANE, "channels": (128, 32), "dtype": "f8"},
    "big-endian": {"axes": PLANE, "channels": (256, 64), "dtype": ">f4"},
    "wide-filter": {"axes": (same(8, 5, 2), same(8, 5, 2)), "channels": (1536, 1024)},
    "wide-filter-float16": {"axes": (same(8, 5, 2), same(8, 5, 2)), "channels": (1536, 1024), "dtype": "f2"},
    "many-images": {"axes": (same(16, 3, 2), same(16, 3, 2)), "channels": (64, 16), "batch": 1536},
    "many-groups": {"axes": (same(320, 2, 2), same(320, 2, 2)), "channels": (256, 64), "groups": 64},
    "few-channels": {"axes": (same(2880, 3, 1), same(2880, 3, 1)), "channels": (3, 3)},
    "volume": {"axes": (same(32, 2, 2), same(80, 2, 2), same(160, 2, 2)), "channels": (64, 8)},
    "volume-ncdhw": {"axes": (same(32, 2, 2), same(80, 2, 2), same(160, 2, 2)), "channels": (64, 8), "first": True},
    "line": {"axes": (same(2**20, 4, 2),), "channels": (24, 12)},
    "kernel-of-an-image": {"axes": ((1, 1024, 1024, 1, 1, 0), (1, 1024, 1024, 1, 1, 0)), "channels": (4, 4)},
    "many-threads": {"axes": PLANE, "channels": (256, 64), "threads": 16, "first": True},
}


@pytest.mark.parametrize("wrt", ["output", "input", "filter"])
@pytest.mark.parametrize("name", CASES)
def test_peak_memory(python: Python, name: str, wrt: str) -> None:
    assert probe(python, wrt, **CASES[name]) < LIMIT


def test_peak_memory_of_an_enormous_kernel(python: Python) -> None:
    side = (1, 3000, 3000, 1, 1, 0)
    assert probe(python, "input", axes=(side, side), channels=(1, 1)) < LIMIT


def test_a_copy_too_many_would_be_seen(python: Python) -> None:
    """Of an input that needs no native copy."""
    arguments = CASES["float32"] | {"wrt": "output"}
    copy = prod(axis[0] for axis in PLANE) * 256 * 4
    assert probe(python, **arguments) + copy > LIMIT


# Memory of results, which is kept for the next ones


SETUP = """
import numpy as np, backstride
from backstride._backends.numpy import empty

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024

def make(mib, value=1):
    array = empty((mib, 2**18), np.dtype("f4"))
    array.fill(value)
    return array
"""


def test_large_results_reuse_memory_of_earlier_ones(python: Python) -> None:
    """The one that fits, never one that is in use, also through a view."""
    code = """
first, second = make(8, 1), make(8, 2)
place, view = first.ctypes.data, second[3:, 5:]
del first, second
third, fourth = make(8, 3), make(8, 4)
assert third.ctypes.data == place
assert (view == 2).all() and (third == 3).all() and (fourth == 4).all()
del third
assert make(16).ctypes.data != place and make(1).ctypes.data != place
assert make(7).ctypes.data == place
"""
    python(SETUP + code)


def test_kept_memory_is_bounded_and_given_back(python: Python) -> None:
    code = """
before = resident()
arrays = [make(50) for _ in range(12)]
assert resident() - before > 590
del arrays
assert resident() - before < 270
make(300)
assert resident() - before < 270
backstride.release_memory()
print(resident() - before)
"""
    assert int(python(SETUP + code)) < 20


def test_blocks_just_below_the_kept_size_are_not_kept(python: Python) -> None:
    """Rounded up to cache lines they have it, but would serve no request."""
    code = """
from backstride import _native
before = resident()
for _ in range(100):
    _native.result(2**20 - 16)[...] = 1
print(resident() - before)
"""
    assert int(python(SETUP + code)) < 10


def test_a_block_beyond_what_is_kept_drops_nothing(python: Python) -> None:
    code = """
kept = make(200)
del kept
before = resident()
make(300)
print(before - resident())
"""
    assert int(python(SETUP + code)) < 50


def test_kept_memory_survives_fork_and_threads(python: Python) -> None:
    code = """
import os, threading
def work():
    for n in range(200):
        array = make(2, n)
        assert (array == n).all()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
child = os.fork()
if child == 0:
    work()
    os._exit(0)
for thread in threads: thread.join()
print(os.waitpid(child, 0)[1])
"""
    assert python(SETUP + code).strip() == "0"


def test_calls_make_their_results_in_it(python: Python) -> None:
    code = """
x, w = np.ones((1, 512, 512, 2), "f4"), np.ones((2, 2, 2, 2), "f4")
def call():
    result = backstride.nn.conv2d_transpose(x, w, (1024, 1024), 2)
    assert (result == 2).all()
    return result.ctypes.data
assert call() == call()
"""
    python(SETUP + code)
