# SPDX-License-Identifier: Apache-2.0
"""JAX: values, derivatives to any order and transformations, on the compiled core and on XLA's own convolution."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import Case, given
from conftest import Python
from jax.test_util import check_grads
from numpy.testing import assert_array_equal

import backstride
from backstride import _native, _ops, nn
from backstride._backends import jax as backend
from backstride._geometry import Geometry

Array = Any
Function = Callable[..., Any]

DTYPES = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]
NAMED = {str(case): case for case in cases.GEOMETRIES}
FEW = [NAMED[name] for name in ("fcn-k4-s2-odd", "1d", "3d-mixed", "groups-2", "depthwise-multiplier")]
# Sizes that XLA's own convolution can count.
COUNTABLE = [
    case for case in cases.EDGES + cases.RANKS + cases.GROUPS if not str(case).startswith(("huge", "depthwise-wide"))
]


@pytest.fixture(autouse=True)
def wide_types() -> Iterator[None]:
    """float64 and int64, of which JAX makes narrower ones by default."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["core", "lax"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to compute: that of CPUs and that of other devices."""
    if request.param == "lax":
        monkeypatch.setattr(backend, "without_core", "this test has it so")
        jax.clear_caches()
    yield request.param
    if request.param == "lax":
        jax.clear_caches()


def operands(case: Case, wrt: str, dtype: Any = np.float32) -> tuple[Array, Array]:
    first, second = (jnp.asarray(case.integers(name, np.dtype(dtype))) for name in given(wrt))
    return first, second


def call(wrt: str, geometry: Geometry) -> Function:
    return lambda first, second: _ops.derivative(wrt, geometry, first, second)


# Values


def test_this_build_has_the_handler() -> None:
    assert _native.xla_target() is not None
    assert backend.without_core is None


@pytest.mark.parametrize("case", cases.SELECTED, ids=str)
def test_core_is_exact(case: Case) -> None:
    for wrt, layout in itertools.product(cases.OPERANDS, (case, case.channels_first)):
        got = jax.jit(call(wrt, layout.geometry))(*operands(layout, wrt))
        assert got.dtype == np.float32
        assert_array_equal(got, layout.exact(wrt))


@pytest.mark.parametrize("case", COUNTABLE, ids=str)
def test_lax_has_the_same_geometry(case: Case) -> None:
    by_lax = jax.jit(backend.by_lax, static_argnames=("wrt", "geometry", "precision"))
    layouts = itertools.cycle((case, case.channels_first))
    for wrt, layout in zip(cases.OPERANDS * (2 if case in cases.GROUPS else 1), layouts, strict=False):
        got = by_lax(*operands(layout, wrt), wrt=wrt, geometry=layout.geometry, precision="strict")
        assert_array_equal(got, layout.exact(wrt))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [NAMED["fcn-k4-s2-odd"], NAMED["groups-2"]], ids=str)
def test_every_dtype(case: Case, dtype: str, either: str) -> None:
    """Of small integers, so that floats are exact; 16-bit results may be rounded, once."""
    for wrt in cases.OPERANDS:
        first, second = operands(case, wrt, dtype)
        got = jax.jit(call(wrt, case.geometry))(first, second)
        want = reference.derivative(wrt, *(np.asarray(x) for x in (first, second)), case.geometry)
        assert got.dtype == first.dtype
        assert_array_equal(got, want)


def test_results_have_the_bits_of_numpy_arrays() -> None:
    """Real numbers, in every precision; of eager calls, too."""
    random = np.random.default_rng(0)
    x, w = random.standard_normal((1, 30, 30, 256), np.float32), random.standard_normal((5, 5, 64, 256), np.float32)
    results = {}
    for mode in ("strict", "default", "fast"):
        with backstride.precision(mode):
            want = nn.conv2d_transpose(x, w, (60, 60), 2)
            got = nn.conv2d_transpose(jnp.asarray(x), jnp.asarray(w), (60, 60), 2)
            jitted = jax.jit(lambda x, w: nn.conv2d_transpose(x, w, (60, 60), 2))(x, w)
        assert isinstance(got, jax.Array)
        assert_array_equal(got, want)
        assert_array_equal(jitted, want)
        results[mode] = want
    assert (results["strict"] != results["default"]).any()


def test_precision_is_that_of_the_trace() -> None:
    x, w = jnp.ones((1, 30, 30, 64), np.float32), jnp.ones((4, 4, 32, 64), np.float32)
    with backstride.precision("strict"):
        lowered = jax.jit(lambda x, w: nn.conv2d_transpose(x, w, (60, 60), 2)).lower(x, w)
    assert 'precision = "strict"' in lowered.as_text()


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)], ids=["batch", "length", "channels"])
def test_empty_arrays(shape: tuple[int, ...], either: str) -> None:
    x, w = jnp.ones(shape), jnp.ones((2, 4, shape[-1]))
    length = 2 * shape[1]
    got, pull_back = jax.vjp(lambda x, w: nn.conv1d_transpose(x, w, (shape[0], length, 4), 2), x, w)
    assert_array_equal(got, np.zeros((shape[0], length, 4)))
    for gradient, array in zip(pull_back(got), (x, w), strict=True):
        assert_array_equal(gradient, np.zeros(array.shape))


def test_other_devices_run_lax() -> None:
    lowered = jax.jit(call("output", FEW[0].geometry)).trace(*operands(FEW[0], "output"))
    there = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in there
    assert "backstride_derivative" not in there
    assert "backstride_derivative" in lowered.lower(lowering_platforms=("cpu",)).as_text()


# Derivatives


@pytest.mark.parametrize("case", FEW, ids=str)
@pytest.mark.parametrize("wrt", cases.OPERANDS)
def test_reverse_and_forward_mode_are_exact(wrt: str, case: Case) -> None:
    one, other = given(wrt)
    first, second = operands(case, wrt)
    cotangent = jnp.asarray(case.integers(wrt, np.float32))
    value, pull_back = jax.vjp(jax.jit(call(wrt, case.geometry)), first, second)
    assert_array_equal(value, case.exact(wrt))
    for name, gradient in zip((one, other), pull_back(cotangent), strict=True):
        assert_array_equal(gradient, case.exact(name))
    tangents = first[::-1], second[::-1]
    _, tangent = jax.jvp(call(wrt, case.geometry), (first, second), tangents)
    want = sum(
        reference.derivative(wrt, *map(np.asarray, pair), case.geometry)
        for pair in ((tangents[0], second), (first, tangents[1]))
    )
    assert_array_equal(tangent, want)


@pytest.mark.parametrize("case", [NAMED["groups-fewer-outputs"], NAMED["1d-one-cell"]], ids=str)
@pytest.mark.parametrize("wrt", cases.OPERANDS)
def test_derivatives_are_those_of_finite_differences(wrt: str, case: Case, either: str) -> None:
    random = np.random.default_rng(7)
    arrays = tuple(random.standard_normal(case.geometry.shape(name)) for name in given(wrt))
    check_grads(jax.jit(call(wrt, case.geometry)), arrays, order=2)


def test_derivatives_of_a_nonlinear_loss() -> None:
    random = np.random.default_rng(7)
    x, w = random.standard_normal((2, 3, 4, 2)), random.standard_normal((3, 2, 3, 2))
    check_grads(lambda x, w: jnp.tanh(nn.conv2d_transpose(jnp.sin(x), w * w, (6, 7), 2)), (x, w), order=2)


# Transformations


MAPPED = [(0, None), (None, 0), (0, 0), (-1, 1)]


@pytest.mark.parametrize("axes", MAPPED, ids=str)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_vmap_is_a_loop(case: Case, axes: tuple[int | None, int | None]) -> None:
    count = 3
    for wrt, layout in zip(cases.OPERANDS, (case, case.channels_first, case.channels_first), strict=True):
        alone = operands(layout, wrt)
        many = [
            x if axis is None else jnp.stack([jnp.roll(x, (n, n, n), (0, 1, 2)) for n in range(count)], axis)
            for x, axis in zip(alone, axes, strict=True)
        ]
        got = jax.vmap(call(wrt, layout.geometry), axes)(*many)
        for n in range(count):
            pair = [
                np.asarray(x) if axis is None else np.take(np.asarray(x), n, axis)
                for x, axis in zip(many, axes, strict=True)
            ]
            assert_array_equal(got[n], _ops.derivative(wrt, layout.geometry, *pair))


def test_vmap_of_a_gradient_and_of_vmap() -> None:
    random = np.random.default_rng(1)
    x, w = random.integers(-3, 4, (2, 5, 1, 3, 3, 2)) * 1.0, random.integers(-3, 4, (5, 2, 2, 4, 2)) * 1.0

    def gradient(x: Array, w: Array) -> Array:
        return jax.grad(lambda w: jnp.sum(nn.conv2d_transpose(x, w, (6, 6), 2) ** 2))(w)

    got = jax.vmap(jax.vmap(gradient), (0, None))(x, w)
    for i, j in np.ndindex(2, 5):
        assert_array_equal(got[i, j], gradient(x[i, j], w[j]))


def test_vmap_over_nothing() -> None:
    assert jax.vmap(call("output", FEW[1].geometry), (0, None))(
        jnp.ones((0, *FEW[1].geometry.shape("input"))), jnp.ones(FEW[1].geometry.shape("filter"))
    ).shape == (0, *FEW[1].geometry.shape("output"))


def test_eval_shape_computes_nothing() -> None:
    huge = jax.ShapeDtypeStruct((8, 512, 512, 64), np.float32), jax.ShapeDtypeStruct((4, 4, 8, 64), np.float32)
    shape = jax.eval_shape(lambda x, w: nn.conv2d_transpose(x, w, (1024, 1024), 2), *huge)
    assert (shape.shape, shape.dtype) == ((8, 1024, 1024, 8), np.float32)


def test_donated_arrays() -> None:
    """Of the shape of the result, so that XLA could take the memory of one for the other."""
    x, w = jnp.arange(48.0).reshape(1, 4, 4, 3), jnp.ones((3, 3, 3, 3))
    want = nn.conv2d_transpose(np.asarray(x), np.asarray(w), x.shape, 1)
    got = jax.jit(lambda x, w: nn.conv2d_transpose(x, w, x.shape, 1), donate_argnums=0)(x, w)
    assert x.is_deleted()
    assert_array_equal(got, want)


def test_control_flow() -> None:
    x, w = jnp.ones((1, 4, 2)), jnp.ones((3, 2, 2))

    def steps(x: Array) -> Array:
        return jax.lax.scan(lambda x, _: (nn.conv1d_transpose(x, w, x.shape, 1) / 4, None), x, length=3)[0]

    want = x
    for _ in range(3):
        want = nn.conv1d_transpose(want, w, x.shape, 1) / 4
    assert_array_equal(jax.jit(steps)(x), want)
    assert jax.grad(lambda x: jax.checkpoint(steps)(x).sum())(x).shape == x.shape


def test_without_jit(either: str) -> None:
    x, w = jnp.arange(8.0).reshape(2, 2, 2), jnp.arange(12.0).reshape(3, 2, 2)

    def slope(x: Array) -> Array:
        return jax.grad(lambda x: (jax.jit(lambda x: nn.conv1d_transpose(x, w, (2, 4, 2), 2))(x) ** 2).sum())(x)

    want = slope(x), jax.vmap(slope)(x[None])
    with jax.disable_jit():
        assert_array_equal(slope(x), want[0])
        assert_array_equal(jax.vmap(slope)(x[None]), want[1])


def test_many_threads_call_one_function() -> None:
    case = FEW[0]
    function, arrays = jax.jit(call("output", case.geometry)), operands(case, "output")
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: function(*arrays), range(100)):
            assert_array_equal(result, case.exact("output"))


def test_exported_functions_come_back() -> None:
    """The plan is made where the function is compiled again."""
    case = FEW[0]
    check = jax.export.DisabledSafetyCheck.custom_call("backstride_derivative")
    arrays = operands(case, "output")
    exported = jax.export.export(jax.jit(call("output", case.geometry)), disabled_checks=[check])(*arrays)
    assert_array_equal(exported.call(*arrays), case.exact("output"))


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from backstride import nn

x = np.arange(8 * 5 * 2.0, dtype=np.float32).reshape(8, 5, 2) % 7
w = np.arange(3 * 4 * 2.0, dtype=np.float32).reshape(3, 4, 2) % 5

def layer(x, w):
    return nn.conv1d_transpose(x, w, (x.shape[0], 10, 4), 2)

def loss(x, w):
    return jax.lax.psum(jnp.sum(layer(x, w) ** 2), "batch")

want = layer(x, w), *jax.grad(lambda x, w: jnp.sum(layer(x, w) ** 2), (0, 1))(x, w)
for kind in AxisType.Auto, AxisType.Explicit:
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(kind,))
    split, whole = (jax.device_put(array, jax.NamedSharding(mesh, spec)) for array, spec in ((x, P("batch")), (w, P())))
    parts = jax.shard_map(layer, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"))
    slopes = jax.shard_map(
        jax.grad(loss, (0, 1)), mesh=mesh, in_specs=(P("batch"), P()), out_specs=(P("batch"), P())
    )
    for got, value in zip((jax.jit(parts)(split, whole), *jax.jit(slopes)(split, whole)), want):
        np.testing.assert_array_equal(got, value)
    np.testing.assert_array_equal(jax.jit(layer)(split, whole), want[0])
"""


def test_shard_map(python: Python) -> None:
    """Over the batch on four devices, with one filter for all, whose gradient is the sum of all devices'."""
    python(SHARDED, XLA_FLAGS="--xla_force_host_platform_device_count=4")


EXPLICIT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from backstride import nn
from backstride._backends import jax as backend

x = np.arange(8 * 5 * 4.0, dtype=np.float32).reshape(8, 5, 4) % 7
w = np.arange(4 * 2 * 4.0, dtype=np.float32).reshape(4, 2, 4) % 5

def layer(x, w):
    return nn.conv1d_transpose(x, w, (x.shape[0], 10, 2), 2)

def slopes(x, w):
    return jax.grad(lambda x, w: jnp.sum(layer(x, w) ** 2), (0, 1))(x, w)

def twice(x, w):
    return jax.grad(lambda x: sum(jnp.sum(slope ** 2) for slope in slopes(x, w)))(x)

def alone(x, w):
    return jax.vmap(layer, (0, None))(x[:, None], w)

def results(x, w):
    return layer(x, w), *slopes(x, w), twice(x, w), alone(x, w)

wants = results(x, w)
jax.set_mesh(jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,)))
split, whole = jax.device_put(x, P("batch")), jax.device_put(w, P())
batches = "batch", "batch", None, "batch", "batch"

def refused(function, *arrays):
    try:
        function(*arrays)
    except ValueError as error:
        print(error)

for backend.without_core in None, "this test has it so":
    jax.clear_caches()
    for function in results, jax.jit(results):
        for got, want, batch in zip(function(split, whole), wants, batches, strict=True):
            assert jax.typeof(got).sharding.spec == P(batch, *[None] * (got.ndim - 1)), jax.typeof(got)
            np.testing.assert_array_equal(got, want)
    assert slopes(split[:, :, :0], whole[:, :, :0])[0].shape == (8, 5, 0)

refused(layer, jax.device_put(x, P(None, None, "batch")), whole)
refused(layer, split, jax.device_put(w, P("batch")))
refused(lambda x, g: nn.conv2d_backprop_filter(x[:, None], (1, 4, 2, 4), g[:, None], (1, 2), "SAME"), wants[0], split)
"""


def test_explicit_sharding(python: Python) -> None:
    """A batch stays sharded as it is, in every derivative, and nothing else becomes so."""
    channels, filter, batches = python(EXPLICIT, XLA_FLAGS="--xla_force_host_platform_device_count=4").splitlines()
    assert "shape (8, 5, 4) is sharded as P(None, None, 'batch'); along explicit axes of a mesh only" in channels
    assert "shape (4, 2, 4) is sharded as P('batch', None, None)" in filter
    assert "(8, 1, 5, 4) and (8, 1, 10, 2) have one batch, which is sharded along batch of a mesh in one" in batches


# Arguments


def test_arrays_of_numpy_and_lists_go_along() -> None:
    x, w = np.ones((1, 4, 2), np.float32), np.ones((2, 1, 2), np.float32)
    want = nn.conv1d_transpose(x, w, (1, 8, 1), 2)
    for first, second in ((jnp.asarray(x), w), (x, jnp.asarray(w)), (jnp.asarray(x), w.tolist())):
        got = nn.conv1d_transpose(first, second, (1, 8, 1), 2)
        assert isinstance(got, jax.Array)
        assert_array_equal(got, want)
    assert isinstance(nn.conv1d_transpose(x, w, (1, 8, 1), 2), np.ndarray)


def test_libraries_are_not_mixed() -> None:
    torch = pytest.importorskip("torch")
    arrays = jnp.ones((1, 4, 2), np.float32), torch.ones(2, 1, 2)
    with pytest.raises(TypeError, match="`input` and `filters` must be of one library; got arrays of jax and of torch"):
        nn.conv1d_transpose(*arrays, (1, 8, 1), 2)
    with pytest.raises(TypeError, match="got arrays of torch and of jax"):
        nn.bias_add(*arrays[::-1])


def test_traced_sizes_are_told() -> None:
    x, w = jnp.ones((1, 4, 2)), jnp.ones((2, 1, 2))
    with pytest.raises(TypeError, match=r"`output_shape` must be known when JAX traces; got .*Tracer.*static_argnums"):
        jax.jit(lambda shape: nn.conv1d_transpose(x, w, shape, 2))(jnp.array([1, 8, 1]))
    with pytest.raises(TypeError, match=r"`strides` must be known when JAX traces; got strides=.*Tracer"):
        jax.jit(lambda n: nn.conv1d_transpose(x, w, (1, 8, 1), n))(2)


def test_dtypes_are_not_mixed() -> None:
    x, w = jnp.ones((1, 4, 2), np.float32), jnp.ones((2, 1, 2), np.float64)
    with pytest.raises(TypeError, match="`input` and `filters` must have one dtype; got float32 and float64"):
        nn.conv1d_transpose(x, w, (1, 8, 1), 2)


def test_numpy_arrays_that_jax_would_round_are_refused() -> None:
    with jax.enable_x64(False), pytest.raises(TypeError, match="float64, of which JAX would make float32"):
        nn.conv1d_transpose(jnp.ones((1, 4, 2)), np.ones((2, 1, 2)), (1, 8, 1), 2)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "float8_e5m2", "int4"])
def test_dtypes_that_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=f"`input` has dtype {dtype}; it must be one of float16, bfloat16"):
        nn.conv1d_transpose(jnp.ones((1, 4, 2), dtype), jnp.ones((2, 1, 2), dtype), (1, 8, 1), 2)


def test_messages_are_those_of_numpy_arrays() -> None:
    x, w = np.ones((1, 4, 2), np.float32), np.ones((2, 1, 3), np.float32)
    with pytest.raises(ValueError, match="channels") as numpys:
        nn.conv1d_transpose(x, w, (1, 8, 1), 2)
    with pytest.raises(ValueError, match="channels") as error:
        jax.jit(lambda x: nn.conv1d_transpose(x, jnp.asarray(w), (1, 8, 1), 2))(x)
    assert str(error.value) == str(numpys.value)


def test_results_beyond_the_memory_are_refused() -> None:
    x, w = jnp.ones((1, 1, 1)), jnp.ones((1, 2**20, 1))
    with pytest.raises(MemoryError, match="the result of shape"):
        nn.conv1d_transpose(x, w, (1, 2**30, 2**20), 2**30)


ATTRIBUTES = {
    "wrt": "output",
    "element": "float32",
    "axes": np.array([3, 2, 6, 2, 1, 0]),
    "batch": np.int64(1),
    "in_channels": np.int64(2),
    "out_channels": np.int64(2),
    "groups": np.int64(1),
    "channels_first": False,
    "precision": "strict",
}


@pytest.mark.parametrize(
    ("changes", "x", "message"),
    [
        ({"element": "float8"}, (1, 3, 2), "unknown name: float8"),
        ({"axes": np.arange(5)}, (1, 3, 2), "one to three spatial axes"),
        ({"precision": "sloppy"}, (1, 3, 2), "unknown name: sloppy"),
        ({}, (1, 4, 2), "array does not match the plan's lengths"),
        ({}, (1, 3, 1, 1, 1, 2), "array does not match the plan's rank"),
        ({"element": "float64"}, (1, 3, 2), "rank or element type"),
    ],
    ids=["element", "axes", "precision", "length", "rank", "element size"],
)
def test_what_the_core_refuses_is_an_error_of_xla(changes: dict[str, Any], x: tuple[int, ...], message: str) -> None:
    """Should the package ever hand it something wrong, or an exported function be damaged."""
    target = jax.ffi.ffi_call("backstride_derivative", jax.ShapeDtypeStruct((1, 6, 2), np.float32))
    arrays = jnp.ones(x, np.float32), jnp.ones((2, 2, 2), np.float32)
    assert_array_equal(target(jnp.ones((1, 3, 2), np.float32), arrays[1], **ATTRIBUTES), np.full((1, 6, 2), 2))
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"backstride: .*{message}"):
        jax.block_until_ready(target(*arrays, **ATTRIBUTES | changes))


# What there is


def test_config_says_what_computes(python: Python) -> None:
    shown = python("import backstride; backstride.show_config()")
    assert "compiled core" in next(line for line in shown.splitlines() if line.startswith("jax"))


WITHOUT = """
from backstride import _native
_native.xla_target = lambda: None
import backstride, jax.numpy as jnp
print(backstride.nn.conv1d_transpose(jnp.ones((1, 3, 1)), jnp.ones((2, 1, 1)), (1, 6, 1), 2).sum())
backstride.show_config()
"""


def test_a_build_without_the_handler_runs_lax(python: Python) -> None:
    result, *config = python(WITHOUT).splitlines()
    assert result == "6.0"
    line = next(line for line in config if line.startswith("jax"))
    assert "lax.conv_general_dilated" in line
    assert "built without" in line


def test_numpy_calls_do_not_import_jax(python: Python) -> None:
    call = "import sys, backstride; backstride.nn.conv1d_transpose([[[1.0]]], [[[1.0]]], [1], 1)"
    assert python(f"{call}; print('jax' in sys.modules)").strip() == "False"
    assert python(f"{call}; backstride.jax; print('jax' in sys.modules)").strip() == "True"
