# SPDX-License-Identifier: Apache-2.0
"""What a call takes besides its arrays and the packed filter: measured, bounded, and without effect on bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Python
from numpy.testing import assert_array_equal

import backstride
from backstride import _plan
from backstride._backends import numpy as backend
from backstride._geometry import Axis, Geometry

# The input's shape, the filter's, the stride, the format and the dtype; one for each way in which memory is taken.
LAYERS: dict[str, tuple[Any, ...]] = {
    "winograd": ((1, 128, 128, 64), (4, 4, 64, 64), 2, "NHWC", "f4"),
    "winograd, many columns": ((1, 64, 64, 64), (4, 4, 128, 64), 2, "NHWC", "f4"),
    "winograd, few channels, many columns": ((1, 96, 96, 16), (4, 4, 128, 16), 2, "NHWC", "f4"),
    "winograd, channels first": ((1, 64, 128, 128), (4, 4, 64, 64), 2, "NCHW", "f4"),
    "winograd, 16 bits": ((1, 128, 128, 64), (4, 4, 64, 64), 2, "NHWC", "f2"),
    "winograd, 1-D, channels first": ((1, 256, 4000), (16, 128, 256), 8, "NCW", "f4"),
    "tiles, channels first": ((1, 128, 128, 128), (2, 2, 64, 128), 2, "NCHW", "f4"),
    "tiles, 16 bits": ((1, 128, 128, 128), (2, 2, 64, 128), 2, "NHWC", "f2"),
    "tiles, channels first, blocks of many sizes": ((2, 64, 23, 300), (5, 5, 48, 64), 1, "NCHW", "f4"),
    "tiles": ((1, 32, 32, 32, 32), (2, 2, 2, 32, 32), 2, "NDHWC", "f4"),
    "tiles of a source larger than the bound": ((1, 36, 64, 64, 64), (2, 2, 2, 4, 36), 2, "NCDHW", "f8"),
    "lanes": ((1, 256, 256, 64), (5, 5, 3, 64), 2, "NHWC", "f4"),
    "lanes, channels first": ((1, 64, 256, 256), (5, 5, 3, 64), 2, "NCHW", "f4"),
    "scatter": ((1, 8, 8, 512), (4, 4, 512, 512), 2, "NHWC", "f4"),
    "merged": ((1, 64, 64, 21), (16, 16, 21, 21), 8, "NHWC", "f4"),
}
BOUNDS = (None, 1 << 20, 600 << 10, 1 << 17)
DEFAULT = 64 << 20
# What is not blocks: lists of them, code that runs for the first time, a page here and there.
SLACK = 96 << 10

PROBE = """
import ctypes, re, sys
from pathlib import Path
import numpy as np, backstride

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

backstride.set_num_threads({threads})
shape, filter, stride, format, dtype = {layer}
x, filters = np.full(shape, 1, dtype), np.full(filter, 1, dtype)
for bound in {bounds}:
    p = backstride.plan(filters, stride, data_format=format, workspace_bytes=bound)
    out = np.full(p(x).shape, 1, dtype)
    peaks = []
    for _ in range(3):
        backstride.release_memory(), ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        p(x, out=out)
        peaks.append(status("VmHWM") - before)
    print(min(peaks))
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_the_peak_is_within_the_bound(python: Python, name: str, threads: int) -> None:
    peaks = [int(line) for line in python(PROBE.format(threads=threads, layer=LAYERS[name], bounds=BOUNDS)).split()]
    assert len(peaks) == len(BOUNDS)
    for peak, bound in zip(peaks, BOUNDS, strict=True):
        assert peak <= (bound or DEFAULT) + SLACK


@pytest.mark.parametrize("name", LAYERS)
def test_bits_do_not_depend_on_it(name: str) -> None:
    shape, filter, stride, format, dtype = LAYERS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32).astype(dtype)
    filters = rng.standard_normal(filter, np.float32).astype(dtype)
    free, bounded, small, tiles = (
        backstride.plan(filters, stride, data_format=format, workspace_bytes=bound, algorithm=algorithm)
        for bound, algorithm in [(None, None), (1 << 18, None), (1 << 13, None), (None, "tiles")]
    )
    want = free(x)
    assert_array_equal(bounded(x), want)
    # Where an algorithm takes more in any case, tiles compute.
    few = small(x)
    assert (few == want).all() or (few == tiles(x)).all()


@pytest.mark.parametrize("wrt", ["output", "input"])
@pytest.mark.parametrize("rank", [2, 3])
def test_parts_of_the_source_are_copied_without_a_difference(wrt: Any, rank: int) -> None:
    """Winograd's algorithm reads float32 where it is, and copies for each round of tiles what else there is."""
    plain = (Axis(5, 1, 5),) * (rank - 2)
    axes = (*plain, Axis(37, 4, 73, 2, 1, 1), Axis(41, 4, 82, 2, 1, 1))
    last = Geometry(axes, 3, 48, 40)
    first = Geometry(axes, 3, 48, 40, channels_first=True)
    rng = np.random.default_rng(0)
    names = ("input", "filter") if wrt == "output" else ("filter", "output")
    halves = [rng.standard_normal(last.shape(name), np.float32).astype(np.float16) for name in names]  # type: ignore[arg-type]
    operands = [half.astype(np.float32) for half in halves]

    def computed(geometry: Geometry, arrays: list[np.ndarray], workspace: int) -> np.ndarray:
        element = backend.element(arrays[0].dtype)
        plan = _plan.plan(wrt, geometry, element, "default", algorithm="winograd4", workspace=workspace)
        assert plan.algorithm == "winograd4"
        result = np.empty(geometry.shape(wrt), arrays[0].dtype)
        plan.run(*arrays, result)
        return result

    moved = [
        array if name == "filter" else np.ascontiguousarray(np.moveaxis(array, -1, 1))
        for name, array in zip(names, operands, strict=True)
    ]
    want = computed(last, operands, DEFAULT)
    for workspace in (DEFAULT, 1 << 18, 1 << 10):
        assert_array_equal(computed(last, operands, workspace), want)
        assert_array_equal(np.moveaxis(computed(first, moved, workspace), 1, -1), want)
        assert_array_equal(computed(last, halves, workspace), want.astype(np.float16))


GRADIENT = """
import ctypes, re
from pathlib import Path
import numpy as np, backstride
from backstride import _plan
from backstride._geometry import Axis, Geometry

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

# Huge pages would round up what is touched, where the kernel has some: PR_SET_THP_DISABLE.
assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0
backstride.set_num_threads(2)
geometry = Geometry((Axis(48, 4, 96, 2, 1, 1), Axis(48, 4, 96, 2, 1, 1)), 1, {channels}, {channels}, {groups})
x, y = (np.ones(geometry.shape(name), np.float32) for name in ("input", "output"))
result = np.zeros(geometry.shape("filter"), np.float32)
for workspace in {bounds}:
    plan = _plan.plan("filter", geometry, "float32", "default", algorithm="winograd4", workspace=workspace)
    assert plan.algorithm == "winograd4"
    peaks = []
    for _ in range(3):
        backstride.release_memory(), ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        plan.run(x, y, result)
        peaks.append(status("VmHWM") - before)
    assert result[1, 1, 0, 0] == 48 * 48
    print(min(peaks))
"""


@pytest.mark.parametrize(("channels", "groups"), [(256, 1), (64, 1), (256, 4)])
def test_the_filter_gradient_is_within_the_bound(python: Python, channels: int, groups: int) -> None:
    bounds = (DEFAULT, 8 << 20, 4 << 20)
    peaks = python(GRADIENT.format(channels=channels, groups=groups, bounds=bounds)).split()
    for peak, bound in zip(peaks, bounds, strict=True):
        assert int(peak) <= bound + SLACK


def test_many_tiles_that_are_not_finite() -> None:
    """They are listed and computed anew some at a time."""
    x = np.full((1, 64, 64, 32), np.nan, np.float32)
    x[:, :, 50:] = 1
    filters = np.ones((4, 4, 32, 32), np.float32)
    got = backstride.plan(filters, 2, algorithm="winograd4", workspace_bytes=1 << 20)(x)
    want = backstride.plan(filters, 2, precision="strict")(x)
    assert_array_equal(np.isnan(got), np.isnan(want))
    assert 0 < np.isnan(got).sum() < got.size


def test_too_little_is_told() -> None:
    x = np.ones((1, 16, 32, 32), np.float32)
    p = backstride.plan(np.ones((3, 3, 16, 16), np.float32), data_format="NCHW", workspace_bytes=10)
    with pytest.raises(ValueError, match=r"`workspace_bytes` must be at least \d+ for this call; got .*=10$"):
        p(x)
    # What is computed where it is takes nothing.
    p = backstride.plan(np.ones((3, 3, 16, 16), np.float32), workspace_bytes=0)
    assert p(np.ones((1, 32, 32, 16), np.float32)).shape == (1, 32, 32, 16)


def test_inputs_that_would_be_copied_are_told() -> None:
    p = backstride.plan(np.ones((3, 2, 2), np.float32), workspace_bytes=1 << 20)
    with pytest.raises(
        ValueError, match="`x` must be aligned and of native byte order, since with workspace_bytes=1048576"
    ):
        p(np.ones((1, 4, 2), ">f4"))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1, ValueError, "from 0 to below 2\\*\\*63; got workspace_bytes=-1"),
        (2**63, ValueError, "got workspace_bytes=9223372036854775808"),
        (1e6, TypeError, "`workspace_bytes` takes ints; got workspace_bytes=1000000.0"),
        ("4MB", TypeError, "`workspace_bytes` takes ints; got workspace_bytes='4MB'"),
    ],
)
def test_wrong_bounds_are_told(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        backstride.plan(np.ones((3, 2, 2), np.float32), workspace_bytes=value)


def test_the_bound_is_shown() -> None:
    assert "workspace_bytes=4096" in repr(backstride.plan(np.ones((3, 2, 2), np.float32), workspace_bytes=4096))
