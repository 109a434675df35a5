# SPDX-License-Identifier: Apache-2.0
"""Plans: the bits of the eager call at any sizes, biases and activations, and layers that keep plans."""

from __future__ import annotations

import itertools
import math
import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import cases
import ml_dtypes
import numpy as np
import pytest
from autograd import grad
from cases import GEOMETRIES, SELECTED, Case
from conftest import Python
from hypothesis import given as over
from numpy.testing import assert_array_equal

import backstride
from backstride import _native, nn
from backstride._backends import numpy as backend
from backstride._geometry import Geometry
from backstride._plan import plan as sized_plan

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def reals(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(dtype)


def along_channels(bias: np.ndarray, geometry: Geometry) -> np.ndarray:
    return bias.reshape(-1, *(1,) * len(geometry.axes)) if geometry.channels_first else bias


# The core, for every geometry that it has


def planned(
    geometry: Geometry, x: np.ndarray, w: np.ndarray, bias: Any = None, activation: str = "none", alpha: float = 0
) -> np.ndarray:
    """The result of a filter that was packed for one image of one pixel."""
    point = tuple(replace(axis, input=1, output=1, pad=0) for axis in geometry.axes)
    element = backend.element(w.dtype)
    smallest = sized_plan("output", replace(geometry, axes=point, batch=1), element, "strict", packed=True)
    result = np.empty(geometry.shape("output"), w.dtype)
    packed = backend.packed(smallest, w, bias, activation, alpha)
    backend.run(packed, sized_plan("output", geometry, element, "strict", packed=True), x, result)
    return result


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_bits_are_those_of_the_eager_call(case: Case) -> None:
    for geometry, dtype in itertools.product((case.geometry, case.channels_first.geometry), (np.float32, np.float64)):
        x, w = reals(geometry.shape("input"), dtype), reals(geometry.shape("filter"), dtype)
        assert planned(geometry, x, w).tobytes() == backend.derivative("output", geometry, x, w).tobytes()


@pytest.mark.parametrize("case", SELECTED, ids=str)
@pytest.mark.parametrize("name", FLOATS + INTEGERS)
def test_bits_are_those_of_the_eager_call_for_every_dtype(name: str, case: Case) -> None:
    for geometry in (case.geometry, case.channels_first.geometry):
        x, w = (cases.integers(geometry, operand, dtype_of(name)) for operand in ("input", "filter"))
        assert planned(geometry, x, w).tobytes() == backend.derivative("output", geometry, x, w).tobytes()


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_rectifiers_are_exact_on_small_integers(case: Case) -> None:
    """Also in the cells that no tap reaches."""
    for geometry in (case.geometry, case.channels_first.geometry):
        x, w = (cases.integers(geometry, operand, np.float32) for operand in ("input", "filter"))
        bias = np.arange(geometry.out_channels, dtype=np.float32) % 7 - 3
        sums = cases.exact(geometry, "output") + along_channels(bias, geometry)
        assert_array_equal(planned(geometry, x, w, bias), sums)
        assert_array_equal(planned(geometry, x, w, bias, "relu"), np.maximum(sums, 0))
        assert_array_equal(planned(geometry, x, w, bias, "leaky_relu", 0.25), np.where(sums < 0, sums / 4, sums))
        assert_array_equal(planned(geometry, x, w, None, "relu"), np.maximum(cases.exact(geometry, "output"), 0))


@pytest.mark.parametrize("case", SELECTED, ids=str)
@pytest.mark.parametrize("name", FLOATS + INTEGERS)
def test_bias_and_relu_are_those_of_nn_for_every_dtype(name: str, case: Case) -> None:
    """Integers wrap before relu looks at their sign; 16-bit floats add the bias before they round."""
    for geometry in (case.geometry, case.channels_first.geometry):
        x, w = (cases.integers(geometry, operand, dtype_of(name)) for operand in ("input", "filter"))
        bias = (np.arange(geometry.out_channels) % 7 - 3).astype(w.dtype)
        result = planned(geometry, x, w, bias, "relu")
        sums = cases.exact(geometry, "output") + along_channels(bias, geometry).astype(np.int64)
        with np.errstate(all="ignore"):
            assert_array_equal(
                result, nn.relu(sums.astype(np.float32).astype(w.dtype) if name in FLOATS else sums.astype(w.dtype))
            )


@pytest.mark.parametrize("name", ["int8", "int64", "uint8", "uint64"])
def test_relu_of_integers_that_wrap(name: str) -> None:
    dtype = np.dtype(name)
    x = np.array([[[3], [-3], [100], [-100]]]).astype(dtype)
    w, bias = np.full((1, 1, 1), 50).astype(dtype), np.array([2**62 if dtype.itemsize == 8 else 99], dtype)
    with np.errstate(all="ignore"):
        assert_array_equal(backstride.plan(w, bias=bias, activation="relu")(x), nn.relu(x * w + bias))


def test_core_refuses_what_does_not_fit() -> None:
    geometry = cases.NETWORKS[0].geometry
    plan, other = (sized_plan("output", each, "float32", "strict") for each in (geometry, cases.NETWORKS[2].geometry))
    x, w = reals(geometry.shape("input")), reals(geometry.shape("filter"))
    with pytest.raises(ValueError, match="bias does not match"):
        _native.Packed(plan, w, np.ones(3, np.float32), "none", 0)
    with pytest.raises(ValueError, match="unknown name: cube"):
        _native.Packed(plan, w, None, "cube", 0)
    with pytest.raises(ValueError, match="does not match the plan"):
        _native.Packed(other, w, None, "none", 0)
    packed = _native.Packed(plan, w, None, "none", 0)
    with pytest.raises(ValueError, match="packed for another layer"):
        packed.run(other, x, x)
    with pytest.raises(ValueError, match="does not match the plan"):
        packed.run(plan, x, x)
    integers = sized_plan("output", geometry, "uint32", "strict")
    with pytest.raises(ValueError, match="have no such activation"):
        _native.Packed(integers, np.ones(w.shape, np.uint32), None, "tanh", 0)


# Activations

# The definitions, of one float and alpha.
DEFINITIONS: dict[str, Callable[[float, float], float]] = {
    "relu": lambda x, _: max(x, 0.0),
    "leaky_relu": lambda x, a: x if x > 0 else a * x,
    "elu": lambda x, a: x if x > 0 else a * math.expm1(x),
    "gelu": lambda x, _: 0.5 * x * math.erfc(-x / math.sqrt(2)),
    "sigmoid": lambda x, _: 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x)),
    "tanh": lambda x, _: math.tanh(x),
    "snake": lambda x, a: x + math.sin(a * x) ** 2 / a,
}
ALPHAS = {"leaky_relu": [0.25, 2.0, -0.5], "elu": [1.0, 0.5], "snake": [1.0, 0.125, 8.0, -2.0]}
SPELLED = [(name, alpha) for name in DEFINITIONS for alpha in ALPHAS.get(name, [None])]
GRID = np.concatenate([np.linspace(-30, 30, 1201), np.geomspace(1e-30, 1e4, 137), -np.geomspace(1e-30, 80, 137)])


def activated(x: np.ndarray, name: str, alpha: float | None, lanes: bool) -> np.ndarray:
    """The activation of x, by a plan whose filter does nothing."""
    algorithm = "lanes" if lanes else "tiles"
    spelled = name if alpha is None else (name, alpha)
    p = backstride.plan(np.ones((1, 1, 1), x.dtype), activation=spelled, algorithm=algorithm)
    assert p._resolve((1, x.size, 1), None).plan.algorithm == algorithm
    return p(x.reshape(1, -1, 1)).ravel()


def check_activations() -> None:
    """Float32 is all but exact. Float64 is within a few roundings, of which an exponential multiplies the first."""
    for (name, alpha), lanes, dtype in itertools.product(SPELLED, (False, True), (np.float32, np.float64)):
        x = GRID.astype(dtype)
        exact = np.array([DEFINITIONS[name](float(value), alpha or 0) for value in x])
        got = activated(x, name, alpha, lanes)
        assert got.dtype == dtype
        error = abs(got.astype(np.float64) - exact)
        if dtype == np.float32:
            bound = 0.51 * np.spacing(np.maximum(abs(exact).astype(np.float32), np.finfo(np.float32).tiny))
        else:
            bound = np.finfo(np.float64).eps * (8 + np.minimum(x * x, 1500)) * np.maximum(abs(exact), 1e-300)
            bound += np.finfo(np.float64).eps * abs(x) if name == "snake" else 0
        assert (error <= bound).all(), (name, alpha, lanes, dtype, x[error > bound][:5], error[error > bound][:5])


@pytest.mark.parametrize("isa", _native.ISAS)
def test_activations(python: Python, isa: str) -> None:
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import test_plan; test_plan."
    python(code + "check_activations(); test_plan.check_extremes()", BACKSTRIDE_ISA=isa)


def check_extremes() -> None:
    """The limits; NaN stays NaN."""
    ends = {"relu": (0, np.inf), "leaky_relu": (-np.inf, np.inf), "elu": (-1, np.inf)}
    ends |= {"sigmoid": (0, 1), "tanh": (-1, 1), "gelu": (np.nan, np.inf)}
    for (name, (low, high)), dtype in itertools.product(ends.items(), (np.float32, np.float64)):
        alpha = {"leaky_relu": 0.5}.get(name)
        assert_array_equal(
            activated(np.array([-np.inf, np.inf, np.nan], dtype), name, alpha, False), [low, high, np.nan]
        )
    large = np.array([-1e30, 1e30], np.float32)
    assert_array_equal(activated(large, "snake", 1.0, False), large)
    assert_array_equal(activated(large, "gelu", None, False), np.maximum(large, 0))
    assert_array_equal(activated(large, "sigmoid", None, False), [0, 1])


@pytest.mark.parametrize(("name", "alpha"), SPELLED)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_activations_round_once(dtype: str, name: str, alpha: float | None) -> None:
    """The float32 result is within half a spacing of the exact one, so at most the rounding of a tie differs."""
    x = np.linspace(-9, 9, 333).astype(dtype_of(dtype))
    exact = np.array([DEFINITIONS[name](float(value), alpha or 0) for value in x]).astype(np.float32)
    assert_array_equal(activated(x, name, alpha, False), exact.astype(x.dtype))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh"])
def test_fused_is_what_nn_computes_apart(name: str) -> None:
    x, w, bias = reals((2, 7, 9, 20)), reals((4, 4, 24, 20)), reals((24,))
    apart = getattr(nn, name)(nn.bias_add(nn.conv2d_transpose(x, w, [14, 18], strides=2), bias))
    fused = backstride.plan(w, 2, bias=bias, activation=name)(x)
    assert (abs(fused - apart) <= 16 * np.finfo(np.float32).eps * (abs(apart) + 1)).all()


# Sizes


@over(call=cases.calls())
def test_any_call_has_the_bits_of_nn(call: cases.Call) -> None:
    x, w = (reals(call.geometry.shape(operand)) for operand in ("input", "filter"))
    p = backstride.plan(w, call.strides, call.padding, data_format=call.data_format, dilations=call.dilations)
    want = nn.conv_transpose(x, w, call.output_shape, call.strides, call.padding, call.data_format, call.dilations)
    for asked in (call.output_shape, call.output):
        assert p(x, asked).tobytes() == want.tobytes()
    default = p(x)
    assert (
        default.tobytes()
        == nn.conv_transpose(
            x, w, default.shape, call.strides, call.padding, call.data_format, call.dilations
        ).tobytes()
    )


LENGTHS = [("same", 5, 3, 2, 1, 10), ("SAME", 5, 1, 4, 1, 20), ("Valid", 5, 3, 2, 1, 11), ("VALID", 5, 2, 4, 1, 20)]
LENGTHS += [("VALID", 0, 5, 2, 1, 3), ("VALID", 5, 3, 2, 3, 15), ("same", 0, 3, 2, 1, 0)]
LENGTHS += [([(0, 0), (1, 2), (0, 0)], 5, 5, 2, 1, 10), ([(0, 0)] * 3, 5, 2, 4, 1, 18)]


@pytest.mark.parametrize(("padding", "length", "kernel", "stride", "dilation", "result"), LENGTHS)
def test_lengths_where_none_is_asked(
    padding: Any, length: int, kernel: int, stride: int, dilation: int, result: int
) -> None:
    p = backstride.plan(np.ones((kernel, 2, 3), np.float32), stride, padding, dilations=dilation)
    assert p(np.ones((2, length, 3), np.float32)).shape == (2, result, 2)


def test_explicit_pairs_are_spelled_as_in_nn() -> None:
    x, w = reals((2, 3, 5, 6)), reals((4, 3, 7, 3))
    padding = [(0, 0), (0, 0), (1, 0), (2, 1)]
    result = backstride.plan(w, 2, padding, data_format="NCHW")(x)
    assert result.shape == (2, 7, 11, 10)
    assert_array_equal(result, nn.conv2d_transpose(x, w, result.shape, 2, padding, "NCHW"))


def test_one_plan_serves_all_sizes() -> None:
    """Sizes that differ in their algorithm, too; and a result's shape that the plan was given."""
    w = reals((5, 5, 2, 16))  # channels that leave lanes of any vectors empty
    p, fixed = backstride.plan(w, 2), backstride.plan(w, 2, output_shape=(31, 40))
    kernels = set()
    for batch, height, width in [(1, 1, 1), (3, 4, 4), (1, 16, 20), (2, 64, 64), (1, 1, 700), (0, 3, 3)]:
        x = reals((batch, height, width, 16))
        kernels.add(p._resolve(x.shape, None).plan and p._resolve(x.shape, None).plan.kernel)
        assert p(x).tobytes() == nn.conv2d_transpose(x, w, [2 * height, 2 * width], 2).tobytes()
    assert len(kernels) == 3
    x = reals((2, 16, 20, 16))
    assert fixed(x).shape == (2, 31, 40, 2)
    assert fixed(x, (32, 39)).shape == (2, 32, 39, 2)


@pytest.mark.parametrize("data_format", ["NCHW", "channels_first", "NHWC", "channels_last", None])
def test_data_formats(data_format: str | None) -> None:
    x, w, bias = reals((2, 3, 4, 5)), reals((2, 2, 6, 5)), reals((6,))
    first = data_format in ("NCHW", "channels_first")
    p = backstride.plan(w, 2, data_format=data_format, bias=bias)
    want = nn.bias_add(nn.conv2d_transpose(x, w, [6, 8], 2), bias)
    got = p(np.moveaxis(x, -1, 1) if first else x)
    assert_array_equal(np.moveaxis(got, 1, -1) if first else got, want)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups: int) -> None:
    x, w, bias = reals((2, 9, 8)), reals((3, 3, 8)), reals((3 * groups,))
    size = 8 // groups
    apart = [
        nn.conv1d_transpose(x[..., n * size : (n + 1) * size], w[..., n * size : (n + 1) * size], [18], 2)
        for n in range(groups)
    ]
    p = backstride.plan(w, 2, groups=groups, bias=bias)
    for asked in (None, (18,), (2, 18, 3 * groups)):
        assert_array_equal(p(x, asked), np.concatenate(apart, -1) + bias)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("input", "filter"),
    [((2, 0, 3), (5, 4, 3)), ((2, 3, 0), (5, 4, 0)), ((2, 3, 3), (0, 4, 3)), ((0, 3, 3), (5, 4, 3))],
)
def test_where_nothing_is_summed_there_is_bias(first: bool, input: tuple[int, ...], filter: tuple[int, ...]) -> None:
    bias = np.array([-1, 0, 2, 3], np.float32)
    x, w = np.ones(input, np.float32), np.ones(filter, np.float32)
    padding = "VALID" if filter[0] else "SAME"
    p = backstride.plan(w, 2, padding, data_format="NCW" if first else "NWC", bias=bias, activation=("elu", 2))
    result = p(np.moveaxis(x, -1, 1) if first else x)
    result = np.moveaxis(result, 1, -1) if first else result
    assert result.shape[0] == input[0] and result.shape[2] == 4
    want = np.where(bias > 0, bias, 2 * np.expm1(bias.astype(np.float64))).astype(np.float32)
    assert_array_equal(result, np.broadcast_to(want, result.shape))


def test_no_output_channels() -> None:
    w = np.ones((2, 0, 3), np.float32)
    p = backstride.plan(w, 2, activation="tanh", bias=np.ones(0, np.float32))
    assert p(np.ones((1, 4, 3), np.float32)).shape == (1, 8, 0)
    assert "nothing to compute" in repr(p)


# Arrays


def test_later_writes_change_nothing() -> None:
    x, w, bias = reals((1, 6, 20, 16)), reals((4, 4, 3, 16)), reals((3,))
    p = backstride.plan(w, 2, bias=bias)
    before = p(x)
    w[...], bias[...] = np.nan, np.nan
    assert_array_equal(p(x), before)
    assert_array_equal(p(np.zeros((1, 0, 4, 16), np.float32), (0, 8)).shape, (1, 0, 8, 3))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_filter_that_is_not_finite(value: float) -> None:
    x, w = reals((1, 6, 20, 16)), reals((4, 4, 3, 16))
    w[1, 2, 0, 3] = value
    p = backstride.plan(w, 2)
    assert "_lanes_" not in repr(p)
    assert_array_equal(p(x), nn.conv2d_transpose(x, w, [12, 40], 2))


def test_inputs_as_they_come() -> None:
    x, w = reals((2, 5, 6, 4)), reals((3, 3, 7, 4))
    p = backstride.plan(w.tolist(), 2)
    want = p(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    buffer = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    buffer[...] = x
    for array in (frozen, np.asfortranarray(x), x[::-1].copy()[::-1], x.astype(">f4"), buffer, x.tolist()):
        assert_array_equal(p(array), want)
    with backstride.VariableStore():
        assert_array_equal(p(backstride.get_variable("x", initializer=x)), want)
    assert_array_equal(backstride.plan(w.astype(">f4"), 2, bias=np.zeros(7, ">f4"))(x), want)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("first", [False, True])
def test_out_may_be_strided(name: str, first: bool) -> None:
    x, w = (cases.integers(cases.NETWORKS[4].geometry, operand, dtype_of(name)) for operand in ("input", "filter"))
    p = backstride.plan(w, 2, data_format="NCHW" if first else "NHWC", activation="relu")
    x = np.moveaxis(x, -1, 1) if first else x
    want = p(x)
    larger = np.full(tuple(2 * length + 3 for length in want.shape), 77).astype(want.dtype)
    for out in (larger[1:-2:2, 1:-2:2, 1:-2:2, 1:-2:2], larger[:2, -1 : -want.shape[1] - 1 : -1, : want.shape[2]]):
        out = out[..., : want.shape[3]]
        assert p(x, out=out) is out
        assert_array_equal(out, want)
    assert (larger[::2, ::2] == 77).all() or larger.base is None


def test_out_may_be_in_the_same_array_as_x() -> None:
    both = np.zeros((1, 6, 6, 12), np.float32)
    both[..., :4] = reals((1, 6, 6, 4))
    p = backstride.plan(reals((3, 3, 8, 4)))
    want = p(both[..., :4].copy())
    assert_array_equal(p(both[..., :4], out=both[..., 4:]), want)


def test_threads_share_a_plan() -> None:
    w = reals((4, 4, 3, 16))
    shapes = [(1, 5, 9, 16), (2, 3, 40, 16), (1, 1, 1, 16), (4, 8, 8, 16)]
    p = backstride.plan(w, 2, bias=reals((3,)), activation="gelu")
    expected = [backstride.plan(w, 2, bias=reals((3,)), activation="gelu")(reals(shape)).tobytes() for shape in shapes]
    wrong: list[int] = []

    def calls(first: int) -> None:
        for n in range(first, first + 60):
            same = p(reals(shapes[n % 4])).tobytes() == expected[n % 4]
            wrong.extend([] if same else [n])

    threads = [threading.Thread(target=calls, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_plan_goes_when_it_is_dropped() -> None:
    p = backstride.plan(reals((2, 3, 4)))
    p(np.ones((1, 3, 4), np.float32))
    gone = weakref.ref(p)
    del p
    assert gone() is None


GROWTH = """
import numpy as np, backstride

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) // 1024

w, x = np.ones((4, 4, 64, 64), np.float32), np.ones((1, 8, 8, 64), np.float32)
def round(n):
    p = backstride.plan(w, 2, bias=np.ones(64, np.float32), activation="tanh")
    for length in range(1, 5):
        p(x[:, :length, : n % 8 + 1])
for n in range(200):
    round(n)
before = resident()
for n in range(1000):
    round(n)
print(resident() - before)
"""


def test_memory_does_not_grow(python: Python) -> None:
    """A thousand filters of 256 KiB would be 250 MiB."""
    assert int(python(GROWTH)) < 16


def test_repr_says_what_will_run() -> None:
    p = backstride.plan(
        np.ones((5, 5, 2, 16), np.float32), 2, dilations=(2, 1), bias=[1.0, 2.0], activation=("leaky_relu", 0.1)
    )
    geometry = cases.case("", *[cases.same(4, 5, 2, 8)] * 2, channels=(2, 2)).geometry
    tile = sized_plan("output", geometry, "float32", "strict", algorithm="tiles")
    isa = "avx512" if _native.isa() == "amx" else _native.isa()  # which has no kernels of float32
    said, time = repr(p).split(" bytes packed, ")
    assert said == (
        "<Plan filters=(5, 5, 2, 16) float32 strides=(2, 2) padding='SAME' data_format='NHWC' dilations=(2, 1) bias "
        f"activation=('leaky_relu', 0.1) precision='default': {tile.kernel} or f32_lanes_{isa}, 6400"
    )
    assert re.fullmatch(r"[0-9.e+]+ ns a thread for a pixel of large inputs>", time)
    p = backstride.plan(
        np.ones((5, 1, 2), np.int8), 3, "valid", groups=2, output_shape=[20], data_format="NCW", algorithm="tiles"
    )
    assert repr(p).startswith(
        "<Plan filters=(5, 1, 2) int8 strides=(3,) padding='VALID' data_format='NCW' groups=2 output_shape=(20,) "
        "precision='default' algorithm='tiles': u32_4x8_portable, 40 bytes packed, "
    )
    p = backstride.plan(np.ones((0, 1, 2), np.float32), precision="strict")
    assert repr(p).endswith(" precision='strict': nothing to compute>")


def test_explain_says_what_it_would_cost(capsys: pytest.CaptureFixture[str]) -> None:
    p = backstride.plan(reals((4, 4, 64, 64)), 2)
    p.explain((1, 32, 32, 64))
    head, *rows = capsys.readouterr().out.splitlines()
    threads = backstride.get_num_threads()
    assert head.startswith(f"(1, 32, 32, 64) to (1, 64, 64, 64), {threads} threads, precision 'default', ")
    assert [name for row in rows if (name := row.split()[0]) != "matrix"] == ["tiles", "merged", "winograd4"]
    times = {row.split()[0]: float(row.split()[1]) for row in rows}
    (taken,) = (row.split()[0] for row in rows if row.endswith(" ms  taken"))
    assert times[taken] == min(times.values())
    p.explain()
    assert capsys.readouterr().out.startswith("(16, 96, 96, 64) to (16, 192, 192, 64), ")
    backstride.plan(reals((4, 3, 64)), 2, data_format="NCW").explain([2, 64, 50])
    assert capsys.readouterr().out.startswith("(2, 64, 50) to (2, 3, 100), ")
    p.explain((0, 32, 32, 64))
    assert capsys.readouterr().out.endswith("nothing to compute\n")
    with pytest.raises(ValueError, match="64"):
        p.explain((1, 32, 32, 63))
    with pytest.raises(TypeError, match="`shape`"):
        p.explain("large")


# Messages

W, X = np.ones((3, 2, 5, 3), np.float32), np.ones((2, 3, 4, 3), np.float32)


class Foreign:
    pass


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"filters": None}, TypeError, "`filters` must be a NumPy array, a list of numbers or a buffer; got NoneType"),
    ({"filters": Foreign()}, TypeError, "`filters` must be a NumPy array, .* got test_plan.Foreign"),
    ({"filters": W[0, 0]}, ValueError, r"`filters` must have 3, 4 or 5 dimensions; got shape \(5, 3\)"),
    ({"filters": W > 0}, TypeError, "`filters` has dtype bool; it must be one of float16, "),
    ({"strides": 0}, ValueError, r"`strides` must be positive and below 2\*\*31; got strides=0"),
    ({"strides": (1, 2, 3)}, ValueError, r"`strides` must be an int or 1, 2 or 4 ints; got strides=\(1, 2, 3\)"),
    ({"dilations": 1.5}, TypeError, "`dilations` takes ints; got dilations=1.5"),
    ({"padding": "full"}, ValueError, r"`padding` must be 'SAME', 'VALID' or 4 \(before, after\) pairs; got .*'full'"),
    ({"padding": [(1, 1)] * 4}, ValueError, r"`padding` must be \(0, 0\) for batch and channels"),
    ({"data_format": "NWC"}, ValueError, "must be 'NHWC', 'NCHW', 'channels_last' or 'channels_first'; got .*'NWC'"),
    ({"groups": 2}, ValueError, "`groups` must be positive and divide the 3 input channels of `filters`; got groups=2"),
    ({"groups": 0}, ValueError, "`groups` must be positive and divide"),
    ({"groups": "2"}, TypeError, "`groups` takes ints; got groups='2'"),
    ({"output_shape": (6,)}, ValueError, r"`output_shape` must have 4 or 2 entries; got output_shape=\(6,\)"),
    ({"bias": np.ones(3, "f4")}, ValueError, r"`bias` must have shape \(5,\), a number for each .* got shape \(3,\)"),
    ({"bias": np.ones(5)}, TypeError, "`filters` and `bias` must have one dtype; got float32 and float64"),
    (
        {"activation": "rleu"},
        ValueError,
        "`activation` must be None, one of relu, .* or a pair .* got activation='rleu'",
    ),
    ({"activation": ("elu", 1, 2)}, ValueError, r"got activation=\('elu', 1, 2\)"),
    ({"activation": nn.relu}, ValueError, "`activation` must be None, one of relu"),
    ({"activation": ("tanh", 1)}, ValueError, r"`activation` 'tanh' has no parameter; got activation=\('tanh', 1\)"),
    (
        {"activation": ("elu", "x")},
        TypeError,
        r"parameter of `activation` must be a number; got activation=\('elu', 'x'",
    ),
    ({"activation": ("snake", 0)}, ValueError, "parameter of `activation` 'snake' must be finite and not 0; got"),
    ({"activation": ("elu", math.inf)}, ValueError, "parameter of `activation` 'elu' must be finite; got"),
    ({"filters": W.astype(int), "activation": "elu"}, TypeError, "'elu' takes floats; `filters` have dtype int64"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=lambda value: repr(value)[:40])
def test_wrong_arguments_are_told(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        backstride.plan(**{"filters": W, "strides": 2} | change)


READ_ONLY, UNALIGNED = np.zeros((2, 6, 8, 5), np.float32), np.zeros(1921, np.uint8)[1:].view(np.float32)
READ_ONLY.flags.writeable = False
WRONG_CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": None}, TypeError, "`x` must be a NumPy array, a list of numbers or a buffer; got NoneType"),
    ({"x": X[0]}, ValueError, r"`x` must have 4 dimensions; got shape \(3, 4, 3\)"),
    ({"x": X[..., :2]}, ValueError, "`x` has 2 channels, but the last dimension of `filters` is 3; they must be equal"),
    ({"x": X.astype(float)}, TypeError, "`x` has dtype float64; the plan's `filters` have float32 .convert with"),
    ({"x": np.ma.array(X)}, TypeError, "`x` is a masked array, whose mask would be lost"),
    (
        {"output_shape": (6, 9)},
        ValueError,
        "`output_shape` width 9 does not fit `x` of width 4: .* widths 7 to 8 would",
    ),
    ({"output_shape": (2, 6, 8, 4)}, ValueError, "`output_shape` has 4 channels, but `filters` .* makes 5"),
    ({"output_shape": (3, 6, 8, 5)}, ValueError, "`output_shape` has batch 3, but `x` has batch 2"),
    ({"output_shape": 6}, TypeError, "`output_shape` must be a list or tuple of ints; got output_shape=6"),
    ({"out": [1.0]}, TypeError, "`out` must be a NumPy array; got list"),
    ({"out": np.ma.zeros((2, 6, 8, 5), np.float32)}, TypeError, "`out` must be a NumPy array; got MaskedArray"),
    ({"out": np.zeros((2, 6, 8, 4), np.float32)}, ValueError, r"`out` has shape \(2, 6, 8, 4\); this result has"),
    ({"out": np.zeros((2, 6, 8, 5))}, ValueError, "`out` has dtype float64; this result has float32"),
    ({"out": np.zeros((2, 6, 8, 5), ">f4")}, ValueError, "`out` has dtype >f4; this result has float32"),
    ({"out": READ_ONLY}, ValueError, "`out` must be writeable and aligned"),
    ({"out": UNALIGNED.reshape(2, 6, 8, 5)}, ValueError, "`out` must be writeable and aligned"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG_CALLS, ids=lambda value: repr(value)[:40])
def test_wrong_calls_are_told(change: dict[str, Any], error: type[Exception], message: str) -> None:
    p = backstride.plan(W, 2)
    with pytest.raises(error, match=message):
        p(**{"x": X} | change)


def test_out_that_overlaps_x_is_told() -> None:
    memory = np.ones((1, 6, 6, 3), np.float32)
    p = backstride.plan(np.ones((2, 2, 3, 3), np.float32))
    with pytest.raises(ValueError, match="`out` and `x` overlap in memory; pass a copy of one"):
        p(memory, out=memory)
    with pytest.raises(ValueError, match="`out` and `x` overlap"):
        p(memory[:, :3], out=memory[:, 2:5])


def test_no_length_may_fit() -> None:
    p = backstride.plan(np.ones((3, 1, 1), np.float32), 1, [(0, 0), (9, 9), (0, 0)])
    with pytest.raises(ValueError, match="no width would fit"):
        p(np.ones((1, 2, 1), np.float32))


def test_result_beyond_the_memory_is_told() -> None:
    p = backstride.plan(np.ones((1, 2**20, 1), np.float32), 2**30)
    with pytest.raises(MemoryError, match="this machine has"):
        p(np.ones((1, 1000, 1), np.float32))


@pytest.mark.parametrize("argument", ["filters", "x", "bias"])
def test_tracers_are_told_where_to_go(argument: str) -> None:
    arrays = {"filters": W, "x": X, "bias": np.ones(5, np.float32)}

    def loss(traced: Any) -> Any:
        given = arrays | {argument: traced}
        return anp.sum(backstride.plan(given["filters"], bias=given["bias"])(given["x"]))

    with pytest.raises(TypeError, match=f"`{argument}` is traced by autograd, .* use nn.conv2d_transpose"):
        grad(loss)(arrays[argument])


def test_variables_under_autograd_are_told_where_to_go() -> None:
    with backstride.VariableStore() as store:
        variable = backstride.get_variable("w", initializer=W)

    def loss(values: dict[str, Any]) -> Any:
        return anp.sum(store.run(lambda: backstride.plan(variable)(X), values=values).result)

    with pytest.raises(TypeError, match="`filters` is traced by autograd"):
        grad(loss)({"w": W})


# Layers


def layer_and_eager(activation: Any, **arguments: Any) -> tuple[Any, Callable[[Any], Any]]:
    layer = backstride.layers.Conv2DTranspose(
        6,
        3,
        2,
        "same",
        activation=activation,
        bias_initializer=lambda shape, dtype: reals(tuple(shape), dtype),
        **arguments,
    )

    def eager(x: Any) -> Any:
        kernel, bias = layer.variables
        return nn.bias_add(nn.conv2d_transpose(x, kernel, [6, 8], 2), bias)

    return layer, eager


@pytest.mark.parametrize(
    "activation", [None, "relu", nn.leaky_relu, nn.elu, "gelu", nn.sigmoid, nn.tanh, "softplus", lambda x: x * x]
)
def test_layers_compute_what_they_did(activation: Any) -> None:
    with backstride.VariableStore(seed=1):
        layer, eager = layer_and_eager(activation)
        result = layer(X)
        want = eager(X) if layer.activation is None else layer.activation(eager(X))
        assert (abs(result - want) <= 16 * np.finfo(np.float32).eps * (1 + abs(want))).all()
        own = getattr(layer.activation, "__name__", "") in ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh")
        assert (layer._packed.rest is None) is (own or activation is None)
        layer.activation = nn.softsign
        assert (abs(layer(X) - nn.softsign(eager(X))) <= 16 * np.finfo(np.float32).eps).all()


def test_layers_keep_their_plan_until_a_variable_is_assigned() -> None:
    with backstride.VariableStore(seed=1) as store:
        layer, eager = layer_and_eager(None)
        assert_array_equal(layer(X), eager(X))
        kept = layer._packed.plan
        assert_array_equal(layer(X), eager(X))
        assert layer._packed.plan is kept
        for variable in layer.variables:
            variable.assign(variable.value * 2)
            assert_array_equal(layer(X), eager(X))
            assert layer._packed.plan is not kept
            kept = layer._packed.plan
        values = {name: value + 1 for name, value in store.values().items()}
        other = store.run(layer, X, values=values).result
        assert layer._packed.plan is kept
        store.update(values)
        assert_array_equal(layer(X), other)


def test_gradients_of_layers_do_not_go_through_plans() -> None:
    with backstride.VariableStore(seed=1) as store:
        layer, eager = layer_and_eager("tanh")
        layer(X)
        kept = layer._packed

        def by(run: Callable[[Any], Any]) -> Any:
            return grad(lambda values: anp.sum(store.run(run, X, values=values).result))(store.trainable())

        got, want = by(layer), by(lambda x: nn.tanh(eager(x)))
        for name in want:
            assert_array_equal(got[name], want[name])
        by_input = grad(lambda x: anp.sum(layer(x)))(X)
        assert_array_equal(by_input, grad(lambda x: anp.sum(nn.tanh(eager(x))))(X))
        assert layer._packed is kept


@pytest.mark.parametrize("dtype", ["int32", "float16"])
def test_layers_of_other_dtypes(dtype: str) -> None:
    with backstride.VariableStore():
        layer = backstride.layers.Conv2DTranspose(
            4, 3, activation=nn.relu, kernel_initializer="ones", bias_initializer=lambda shape, dtype: [-20] * shape[0]
        )
        x = X.astype(dtype)
        result = layer(x)
        assert result.dtype == x.dtype
        assert_array_equal(
            result, nn.relu(nn.conv2d_transpose(x, np.ones((3, 3, 4, 3), dtype), [5, 6], 1, "VALID") - 20)
        )
