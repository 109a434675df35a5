# SPDX-License-Identifier: Apache-2.0
"""The modes of precision, what they admit, and what errors their results have; the model that chooses an algorithm."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from cases import GEOMETRIES, OPERANDS, Case, case, exact, integers, same
from conftest import Python
from numpy.testing import assert_array_equal

import backstride
from backstride import _native, _precision, nn
from backstride._backends import numpy as backend
from backstride._geometry import Axis, Geometry
from backstride._plan import plan as any_plan

# What is chosen where there is no matrix unit, whose choice test_matrix.py tests.
plan = functools.partial(any_plan, isa="avx512" if _native.isa() == "amx" else "")

# Large enough for Winograd's algorithm, small enough for a test: both kinds of streams, one and two axes.
LARGE = [
    case("k4-s2", same(20, 4, 2, 40), same(21, 4, 2, 42), channels=(96, 64), batch=2),
    case("k5-s2", same(16, 5, 2, 32), same(17, 5, 2, 34), channels=(96, 64), batch=2),
    case("k3-s2", same(24, 3, 2, 48), same(24, 3, 2, 47), channels=(128, 32), batch=2),
    case("k3-s1", same(24, 3, 1, 24), same(24, 3, 1, 24), channels=(64, 80), batch=2),
    case("k16-s8", same(300, 16, 8, 2400), channels=(128, 48), batch=1),
    case("k25-s4", same(90, 25, 4, 360), channels=(128, 64), batch=2),
    case("k5-s1", same(24, 5, 1, 24), same(20, 5, 1, 20), channels=(32, 128), batch=1),
]
# Whose plain sums in the filter gradient are of the shortest chains, and so have the least errors.
MANY_CHANNELS = case("k4-s2-many", same(32, 4, 2, 64), same(20, 4, 2, 40), channels=(512, 128), batch=1)
MODES = ["strict", "default", "fast"]
MOST = {"default": 1.25, "fast": 4.0}


def arrays(geometry: Geometry, distribution: str = "normal") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(distribution))
    make = {
        "normal": lambda shape: rng.standard_normal(shape),
        "non-negative": lambda shape: rng.random(shape),
        "heavy-tailed": lambda shape: rng.standard_t(3, shape),
        "offset": lambda shape: rng.standard_normal(shape) + 10,
    }[distribution]
    return {name: make(geometry.shape(name)).astype(np.float32) for name in ("input", "filter", "output")}


def algorithms(geometry: Geometry, wrt: str, mode: str, packed: bool = False) -> str:
    return plan(wrt, geometry, "float32", mode, packed).algorithm


def derivative(wrt: str, geometry: Geometry, mode: str, *given: np.ndarray) -> np.ndarray:
    """By the algorithm of the most points that the mode admits, though it may not pay here."""
    names = {"strict": [""], "default": ["winograd4"], "fast": ["winograd6", "winograd4"]}[mode]
    plans = [plan(wrt, geometry, "float32", mode, algorithm=name) for name in names]
    result = np.empty(geometry.shape(wrt), np.float32)
    next(each for each in plans if mode == "strict" or each.algorithm in names).run(*given, result)
    return result


def results(wrt: str, geometry: Geometry, operands: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By mode, and in float64."""
    given = [operands[name] for name in operands if name != wrt]
    found = {mode: derivative(wrt, geometry, mode, *given) for mode in MODES}
    with backstride.precision("strict"):
        found["exact"] = backend.derivative(wrt, geometry, *(array.astype(np.float64) for array in given))
    return found


@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize("wrt", OPERANDS)
def test_large_layers_take_winograd_unless_it_is_strict(wrt: str, large: Case) -> None:
    chosen = [algorithms(large.geometry, wrt, mode, packed=True) for mode in MODES]
    assert chosen[0] in (("tiles", "taps") if wrt == "filter" else ("tiles", "merged"))
    # Where points of many planes, or of few channels, don't cost more than the products that they save.
    paying = {"input": ("k4-s2", "k3-s1"), "filter": ("k4-s2", "k5-s2", "k3-s1", "k16-s8")}
    if wrt == "output" or str(large) in paying[wrt]:
        assert all(algorithm.startswith("winograd") for algorithm in chosen[1:])


@pytest.mark.parametrize("distribution", ["normal", "non-negative", "heavy-tailed", "offset"])
@pytest.mark.parametrize("large", [*LARGE, MANY_CHANNELS], ids=str)
@pytest.mark.parametrize("wrt", OPERANDS)
def test_errors_are_within_the_modes_bounds(wrt: str, large: Case, distribution: str) -> None:
    found = results(wrt, large.geometry, arrays(large.geometry, distribution))
    errors = {mode: np.sqrt(np.mean((found[mode] - found["exact"]) ** 2)) for mode in MODES}
    assert errors["strict"] > 0
    for mode, most in MOST.items():
        assert errors[mode] <= most * errors["strict"], f"{mode}: {errors[mode] / errors['strict']:.2f}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize("wrt", ["output", "input", "filter"])
def test_bits_do_not_depend_on_threads_or_layout(wrt: str, large: Case, mode: str) -> None:
    geometry = large.geometry
    operands = arrays(geometry)
    first = [np.moveaxis(a, -1, 1) if n != "filter" else a for n, a in operands.items() if n != wrt]
    last = [array for name, array in operands.items() if name != wrt]
    threads = backstride.get_num_threads()
    try:
        found = []
        for count in (1, 2, 5):
            backstride.set_num_threads(count)
            found.append(derivative(wrt, geometry, mode, *last))
    finally:
        backstride.set_num_threads(threads)
    turned = derivative(wrt, replace(geometry, channels_first=True), mode, *first)
    found.append(np.moveaxis(turned, 1, -1) if wrt != "filter" else turned)
    assert len({np.ascontiguousarray(each).tobytes() for each in found}) == 1


@pytest.mark.parametrize("mode", ["default", "fast"])
@pytest.mark.parametrize("large", LARGE, ids=str)
@pytest.mark.parametrize(("wrt", "name"), [("output", "input"), ("input", "output"), ("filter", "output")])
def test_nonfinite_values_stay_where_strict_has_them(wrt: str, name: str, large: Case, mode: str) -> None:
    operands = arrays(large.geometry)
    rng = np.random.default_rng(1)
    for value in (np.nan, np.inf, 3e38):
        placed = operands[name].copy()
        placed.flat[rng.integers(placed.size, size=5)] = value
        placed.flat[[0, -1]] = value
        with np.errstate(all="ignore"):
            found = results(wrt, large.geometry, operands | {name: placed})
        assert_array_equal(np.isnan(found[mode]), np.isnan(found["strict"]))
        assert_array_equal(np.isinf(found[mode]), np.isinf(found["strict"]))
        assert (abs(found["strict"]) > 1e30).any() or not np.isfinite(found["strict"]).all()
    other = "input" if wrt == "filter" else "filter"
    placed = operands[other].copy()
    placed.flat[7] = np.inf
    with np.errstate(all="ignore"):
        found = results(wrt, large.geometry, operands | {other: placed})
    assert found[mode].tobytes() == found["strict"].tobytes()


@pytest.mark.parametrize("large", LARGE, ids=str)
def test_plans_have_the_errors_of_their_mode(large: Case) -> None:
    """With bias and activation, in both layouts, and also where a tile is computed anew."""
    operands = arrays(large.geometry)
    x, w = operands["input"], operands["filter"]
    x.flat[5000] = np.inf
    bias = np.linspace(-1, 1, large.geometry.out_channels, dtype=np.float32)
    axes = large.geometry.axes
    layer = {"strides": [axis.stride for axis in axes], "bias": bias, "activation": "relu"}
    layer |= {"output_shape": [axis.output for axis in axes]}
    strict, default, fast = (backstride.plan(w, **layer, precision=mode)(x) for mode in MODES)
    finite = np.isfinite(strict)
    assert not finite.all()
    for other in (default, fast):
        assert_array_equal(np.isfinite(other), finite)
        assert (abs(other[finite] - strict[finite]) < 1e-3).all()
        assert (other != strict).any()
    layout = {1: "NCW", 2: "NCHW"}[len(axes)]
    turned = backstride.plan(w, **layer, data_format=layout)(np.moveaxis(x, -1, 1))
    assert_array_equal(np.moveaxis(turned, 1, -1), default)


def test_gradients_have_the_mode_too() -> None:
    geometry = LARGE[0].geometry
    operands = arrays(geometry)
    shape = geometry.shape("output")

    def loss(w: Any) -> Any:
        return anp.sum(nn.conv2d_transpose(operands["input"], w, shape, 2) * operands["output"])

    gradients = []
    for mode in MODES:
        with backstride.precision(mode):
            gradients.append(grad(loss)(operands["filter"]))
    assert gradients[0].tobytes() not in (gradients[1].tobytes(), gradients[2].tobytes())


# The setting


def test_mode_is_of_the_code_that_set_it() -> None:
    assert _precision.current() == "default"
    with backstride.precision("strict"):
        assert _precision.current() == "strict"
        with backstride.precision("fast"):
            assert _precision.current() == "fast"
        seen: list[str] = []
        other = threading.Thread(target=lambda: seen.append(_precision.current()))
        other.start()
        other.join()
        assert seen == ["default"]
        assert _precision.current() == "strict"
    with pytest.raises(RuntimeError), backstride.precision("fast"):
        raise RuntimeError
    assert _precision.current() == "default"


def test_tasks_do_not_share_it() -> None:
    async def task(mode: str) -> str:
        with backstride.precision(mode):
            await asyncio.sleep(0.01)
            return _precision.current()

    async def both() -> list[str]:
        return await asyncio.gather(task("strict"), task("fast"))

    assert asyncio.run(both()) == ["strict", "fast"]


def test_a_plan_keeps_the_mode_it_was_made_in() -> None:
    w, x = arrays(LARGE[0].geometry)["filter"], arrays(LARGE[0].geometry)["input"]
    with backstride.precision("strict"):
        p = backstride.plan(w, 2)
        want = p(x)
    assert p(x).tobytes() == want.tobytes()
    assert p(x).tobytes() == backstride.plan(w, 2, precision="strict")(x).tobytes()
    assert p(x).tobytes() != backstride.plan(w, 2)(x).tobytes()


def test_strict_plans_have_the_bits_of_eager_calls() -> None:
    for large in LARGE[:4]:
        operands, axes = arrays(large.geometry), large.geometry.axes
        strides, lengths = [axis.stride for axis in axes], [axis.output for axis in axes]
        with backstride.precision("strict"):
            eager = nn.conv2d_transpose(operands["input"], operands["filter"], large.geometry.shape("output"), strides)
            planned = backstride.plan(operands["filter"], strides, output_shape=lengths)(operands["input"])
        assert eager.tobytes() == planned.tobytes()


@pytest.mark.parametrize(
    ("mode", "error"), [("Strict", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)]
)
def test_unknown_modes_are_refused(mode: Any, error: type[Exception]) -> None:
    with (
        pytest.raises(error, match=r"`mode` must be one of strict, default, fast; got mode="),
        backstride.precision(mode),
    ):
        pass
    if mode is not None:
        with pytest.raises(error, match=r"`precision` must be one of strict, default, fast; got precision="):
            backstride.plan(np.ones((2, 2, 2), np.float32), precision=mode)


def test_environment_sets_the_mode(python: Python) -> None:
    code = "from backstride import _precision; print(_precision.current())"
    assert python(code).strip() == "default"
    assert python(code, BACKSTRIDE_PRECISION="").strip() == "default"
    assert python(code, BACKSTRIDE_PRECISION="strict").strip() == "strict"
    message = "ValueError: BACKSTRIDE_PRECISION must be one of strict, default, fast; got 'exact'"
    assert message in python("import backstride", fails=True, BACKSTRIDE_PRECISION="exact")


# Algorithms by name


@pytest.mark.parametrize("large", LARGE, ids=str)
def test_every_algorithm_can_be_asked_for(large: Case) -> None:
    operands, axes = arrays(large.geometry), large.geometry.axes
    layer = {"strides": [axis.stride for axis in axes], "output_shape": [axis.output for axis in axes]}
    want = backstride.plan(operands["filter"], **layer, precision="strict")(operands["input"])
    for algorithm in _native.ALGORITHMS:
        p = backstride.plan(operands["filter"], **layer, precision="fast", algorithm=algorithm)
        assert np.allclose(p(operands["input"]), want, atol=3e-3), algorithm
        used = p._resolve(operands["input"].shape, None).plan.algorithm
        assert used in (algorithm, "tiles")
        rounded = used.startswith(("winograd", "matrix"))
        assert (p(operands["input"]).tobytes() == want.tobytes()) is not rounded


def test_modes_admit_some_algorithms() -> None:
    w = np.ones((2, 2, 2), np.float32)
    for mode, algorithm in [
        ("strict", "winograd4"),
        ("strict", "winograd3"),
        ("strict", "matrix"),
        ("default", "winograd6"),
    ]:
        with pytest.raises(
            ValueError, match=rf"precision '{mode}' admits .*tiles, lanes.*; got algorithm='{algorithm}'"
        ):
            backstride.plan(w, precision=mode, algorithm=algorithm)
    with pytest.raises(
        ValueError,
        match=r"`algorithm` must be one of tiles, lanes, scatter, merged, taps, matrix, .*got algorithm='gemm'",
    ):
        backstride.plan(w, algorithm="gemm")
    with pytest.raises(TypeError, match=r"`algorithm` must be one of .*; got algorithm=4"):
        backstride.plan(w, algorithm=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [each for each in GEOMETRIES if "long" not in str(each)], ids=str)
def test_scatter_and_merged_phases_have_the_bits_of_tiles(case: Case) -> None:
    """Wherever they fit, for real numbers, in both layouts, with a filter that is packed or not."""
    for geometry, packed in itertools.product((case.geometry, case.channels_first.geometry), (False, True)):
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(geometry.shape(name)).astype(np.float32) for name in ("input", "filter"))
        found = []
        for algorithm in ("tiles", "scatter", "merged"):
            sized = plan("output", geometry, "float32", "strict", packed, algorithm=algorithm)
            result = np.full(geometry.shape("output"), np.nan, np.float32)
            if packed:
                backend.run(backend.packed(sized, w, None, "none", 0), sized, x, result)
            else:
                sized.run(x, w, result)
            found.append(result.tobytes())
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_filter_gradients_are_exact_whichever_way_taps_are_grouped(case: Case) -> None:
    depthwise = case.geometry.groups > 1 and case.geometry.shape("filter")[-2:] == (1, case.geometry.groups)
    for layout, element in itertools.product((case, case.channels_first), ("float32", "float64")):
        geometry = layout.geometry
        for algorithm in ("tiles", "taps"):
            sized = plan("filter", geometry, element, "strict", algorithm=algorithm)
            assert sized.algorithm == ("tiles" if depthwise else algorithm)
            result = np.full(geometry.shape("filter"), np.nan, element)
            sized.run(*(integers(geometry, name, element) for name in ("input", "output")), result)
            assert_array_equal(result, exact(geometry, "filter"))


def test_taps_are_grouped_alike_for_every_kernel() -> None:
    """Or bits would depend on the instruction set."""
    names = [name for name, _, element, _, _ in _native.kernels() if element == "float32" and "wino" not in name]
    for each in GEOMETRIES:
        found = {plan("filter", each.geometry, "float32", "strict", kernel=name).algorithm for name in names}
        assert found == {plan("filter", each.geometry, "float32", "strict").algorithm}


# A crop within a position at either end; at one; of whole positions; one position, cropped at both ends; and more cells
# at the end than any tap reaches.
MERGED = [Axis(5, 6, 30, 3, 1, 2), Axis(5, 6, 13, 3, 1, 3), Axis(4, 8, 12, 4, 1, 4), Axis(3, 6, 2, 6, 1, 2)]
MERGED += [Axis(1, 4, 1, 4, 1, 1), Axis(2, 4, 15, 2, 1, 1), Axis(7, 5, 40, 5, 1, 0)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("width", MERGED)
def test_merged_phases_at_the_edges(width: Axis, dtype: str) -> None:
    """With filters and results of any strides, and infinite inputs, which no zero may meet."""
    rng = np.random.default_rng(0)
    geometry = Geometry((Axis(3, 3, 5, 2, 1, 1), width), 2, 4, 3)
    x, w = ((10 * rng.standard_normal(geometry.shape(name))).astype(dtype) for name in ("input", "filter"))
    if dtype != "uint8":
        x[0, 0, 0, 0], x[1, -1, -1, 1] = np.inf, np.nan
    found = []
    for algorithm in ("tiles", "merged"):
        sized = plan("output", geometry, dtype, "strict", algorithm=algorithm)
        assert sized.algorithm == algorithm
        for filter in (w, np.moveaxis(np.ascontiguousarray(np.moveaxis(w, 2, 0)), 0, 2)):
            for step in (1, 2):
                batch, *lengths, channels = geometry.shape("output")
                result = np.full((batch, *lengths, channels * step), 3, dtype)[..., ::step]
                sized.run(x, filter, result)
                found.append(result.tobytes())
    assert len(set(found)) == 1


def test_scatter_and_merged_phases_are_used_where_they_fit() -> None:
    for algorithm, least in (("scatter", 40), ("merged", 10)):
        used = [plan("output", each.geometry, "float32", "strict", algorithm=algorithm) for each in GEOMETRIES]
        assert sum(each.algorithm == algorithm for each in used) > least
        assert sum(each.algorithm == "tiles" for each in used) > 5


def test_large_strides_are_merged() -> None:
    """The phases of an inverse STFT would be products of one column; channels first, more than one are far apart."""
    layer = Geometry((same(224, 1024, 256, 224 * 256),), 1, 1026, 1)
    assert algorithms(layer, "output", "strict") == "merged"
    assert "merged" in costs("output", replace(layer, channels_first=True))
    assert "merged" not in costs("output", replace(layer, out_channels=2, channels_first=True))


# The cost model


def costs(wrt: str, geometry: Geometry, mode: str = "fast", packed: bool = True) -> dict[str, float]:
    return dict(plan(wrt, geometry, "float32", mode, packed).costs())


def test_the_cheapest_is_chosen() -> None:
    sizes = itertools.product((1, 5, 40), (1, 3, 17, 64), (3, 16, 130), (1, 3, 20, 32), (2, 3, 4, 5))
    chosen = set()
    for (batch, length, into, out, kernel), wrt in itertools.product(sizes, OPERANDS):
        geometry = Geometry((same(length, kernel, 2, 2 * length),) * 2, batch, into, out)
        for mode, packed in itertools.product(MODES, (False, True)):
            sized = plan(wrt, geometry, "float32", mode, packed)
            found = dict(sized.costs())
            assert sized.algorithm == min(found, key=found.__getitem__)
            assert all(cost > 0 for cost in found.values())
            chosen.add(sized.algorithm)
    assert {"tiles", "lanes", "scatter", "merged", "taps", "winograd4", "winograd6"} <= chosen


def test_few_output_channels_take_taps_in_the_filter_gradient() -> None:
    for out, kernel, algorithm in ((1, 5, "taps"), (3, 4, "taps"), (3, 1, "tiles"), (256, 5, "tiles")):
        geometry = Geometry((same(64, kernel, 2, 128),) * 2, 2, 128, out)
        assert plan("filter", geometry, "float32", "strict").algorithm == algorithm


def test_points_of_one_channel_cost_a_vector_each() -> None:
    """FSRCNN's last layers: fewer products, but two to three times the time of lanes."""
    for stride in (3, 4):
        layer = Geometry((same(170, 9, stride, 170 * stride), same(256, 9, stride, 256 * stride)), 1, 56, 1)
        for packed in (False, True):
            assert algorithms(layer, "output", "fast", packed) == "lanes"


def test_costs_grow_with_the_work() -> None:
    for wrt in OPERANDS:
        for smaller, larger in itertools.pairwise(
            Geometry((same(length, 4, 2, 2 * length),) * 2, 2, 64, 64) for length in (8, 16, 32, 64)
        ):
            few, many = costs(wrt, smaller), costs(wrt, larger)
            for name in few.keys() & many.keys():
                assert 2 < many[name] / few[name] < 6 or ("winograd" in name and larger.axes[0].input <= 16)


def test_depthwise_layers_take_tiles_of_channels() -> None:
    for channels, length in ((5, 7), (512, 6000), (1090, 600)):
        depthwise = Geometry((same(length, 4, 2, 2 * length),), 1, channels, channels, channels)
        assert costs("output", depthwise).keys() == {"tiles"}


@pytest.mark.parametrize("wrt", ["input", "filter", "output"])
@pytest.mark.parametrize("mode", MODES)
def test_the_model_does_not_count_one_by_one(wrt: str, mode: str) -> None:
    """Or these would never end."""
    for axes in [(Axis(5, 2**40, 7),), (Axis(2**40, 5, 7),), (Axis(3, 2**21, 2**21, 2**20, 1, 2**19),) * 2]:
        for packed in (False, True):
            assert plan(wrt, Geometry(axes, 1, 4, 4), "float32", mode, packed).costs()


def test_packing_costs() -> None:
    geometry = LARGE[0].geometry
    packed, eager = (costs("output", geometry, packed=packed) for packed in (True, False))
    assert all(eager[name] > packed[name] for name in packed.keys() & eager.keys())
    few = Geometry((same(3, 4, 2, 6),) * 2, 1, 512, 512)
    assert algorithms(few, "output", "default") in ("tiles", "scatter")
    assert algorithms(few, "output", "default", packed=True) == "scatter"


def test_taps_that_reach_nothing_are_not_read_tap_by_tap() -> None:
    """One pixel to 2 x 2 takes 4 of 16 taps."""
    few, whole = (Geometry((axis,) * 2, 1, 512, 512) for axis in (Axis(1, 4, 2, 2, 1, 1), Axis(1, 4, 4, 2)))
    for packed in (False, True):
        some, all_of_them = (costs("output", each, packed=packed)["scatter"] for each in (few, whole))
        assert some == all_of_them / 4
    assert algorithms(few, "output", "default") == "scatter"


def test_a_filter_from_memory_takes_time_besides_the_products() -> None:
    one, two = (costs("output", Geometry((same(4, 4, 2, 8),) * 2, batch, 1024, 512)) for batch in (1, 2))
    assert one["tiles"] < 0.95 * two["tiles"] < 1.9 * one["tiles"]


def test_points_of_large_filters_take_longer_each() -> None:
    each = []
    for channels in (64, 256):
        geometry = Geometry((same(16, 4, 2, 32),) * 2, 8, channels, channels)
        eager, packed = (
            dict(plan("output", geometry, "float32", "default", packed, algorithm="winograd4").costs())["winograd4"]
            for packed in (False, True)
        )
        each.append((eager - packed) / channels**2)
    assert each[1] > 2 * each[0]


def test_strict_has_no_winograd_and_modes_have_their_own() -> None:
    geometry = LARGE[0].geometry
    found = [costs("output", geometry, mode).keys() - {"tiles", "merged"} for mode in MODES]
    assert found[0] == set()
    assert found[1] <= {"winograd3", "winograd4"}
    assert len(found[1]) == len(found[2]) == 1
    assert costs("output", LARGE[3].geometry, "fast").keys() == {"tiles", "winograd6"}
    assert "lanes" in costs("output", Geometry((Axis(30, 4, 60, 2, 1, 1),), 1, 64, 3))
