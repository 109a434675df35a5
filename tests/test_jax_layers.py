# SPDX-License-Identifier: Apache-2.0
"""JAX: activations, variables as JAX arrays, and functions over `layers` as pure functions of their variables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Python
from numpy.testing import assert_allclose, assert_array_equal
from test_activations import DEFINITIONS, GRID

import backstride
from backstride import VariableStore, layers, nn

IMAGE = np.random.default_rng(0).standard_normal((2, 4, 4, 6), np.float32)


# Activations


@pytest.mark.parametrize("name", [*DEFINITIONS, "softmax"])
def test_activations_are_those_of_numpy_arrays(name: str) -> None:
    """In every dtype, with NaN and Inf; float64 and gradients are in test_libraries."""
    function = getattr(nn, name)
    far = [-np.inf, np.inf] if name in ("relu", "relu6", "leaky_relu", "elu", "tanh") else []
    for dtype in ("float32", "bfloat16"):
        x = np.array([*GRID[1:-1], *far, np.nan]).astype(dtype)
        got = jax.jit(function)(x)
        assert got.dtype == x.dtype
        epsilon = float(jnp.finfo(dtype).eps)
        with np.errstate(invalid="ignore"):
            want = function(x).astype(float)
        assert_allclose(got.astype(float), want, rtol=64 * epsilon, atol=16 * epsilon)


@pytest.mark.parametrize(
    ("name", "slopes"),
    [
        ("relu", (0,)),
        ("relu6", (0, 0)),
        ("leaky_relu", (0.2,)),
        ("elu", (1,)),
        ("softsign", (1,)),
        ("hard_sigmoid", ()),
    ],
)
def test_slopes_where_pieces_meet(name: str, slopes: tuple[float, ...]) -> None:
    slope = jax.jit(jax.grad(getattr(nn, name)))
    assert [float(slope(x)) for x, _ in zip((0.0, 6.0), slopes, strict=False)] == [np.float32(s) for s in slopes]
    assert np.isfinite([slope(x) for x in (-1e4, -2.5, 2.5, 1e4)]).all()


@pytest.mark.parametrize("alpha", [0.0, 0.2, 3.0])
def test_rectifiers_take_integers_and_any_slope(alpha: float) -> None:
    x = np.array([-2.0, 0.0, 2.0], np.float32)
    assert_array_equal(nn.leaky_relu(jnp.asarray(x), alpha), nn.leaky_relu(x, alpha))
    assert_array_equal(nn.relu(jnp.array([-2, 3])), [0, 3])
    assert_array_equal(nn.relu6(jnp.array([-2, 3, 8], np.int8)), np.array([0, 3, 6], np.int8))
    with pytest.raises(TypeError, match="takes floats; got dtype int32"):
        nn.tanh(jnp.array([1]))


# Variables


def decoder(x: Any) -> Any:
    with backstride.variable_scope("decoder"):
        x = layers.conv2d_transpose(
            x, 5, 3, strides=2, padding="same", activation=nn.relu, kernel_regularizer="l2", name="up1"
        )
        return layers.conv2d_transpose(
            x, 3, 4, strides=2, padding="same", kernel_constraint="non_neg", bias_constraint="non_neg", name="up2"
        )


NAMES = ["decoder/up1/kernel", "decoder/up1/bias", "decoder/up2/kernel", "decoder/up2/bias"]


def test_layers_on_jax_arrays_make_jax_arrays() -> None:
    stores = VariableStore(seed=1), VariableStore(seed=1)
    want = stores[0].run(decoder, IMAGE)
    got = stores[1].run(decoder, jnp.asarray(IMAGE))
    assert isinstance(got.result, jax.Array)
    assert list(stores[1].values()) == NAMES
    for name, value in stores[1].values().items():
        assert isinstance(value, jax.Array)
        assert_array_equal(value, stores[0].values()[name])
    assert_array_equal(got.result, want.result)
    assert_allclose(got.losses, want.losses, rtol=1e-6)


@pytest.mark.parametrize("kind", [layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_layer_objects(kind: Any, data_format: str) -> None:
    x = np.ones((1, *(3,) * (kind.rank + 1)), np.float32)
    with VariableStore():
        layer = kind(2, 3, 2, data_format=data_format, activation="tanh")
        got = layer(jnp.asarray(x))
        assert isinstance(got, jax.Array)
        assert_allclose(got, layer(x), rtol=1e-6)


def test_what_a_variable_of_jax_arrays_holds() -> None:
    with VariableStore() as store:
        w = backstride.get_variable("w", initializer=jnp.array([1.0, 2.0]), constraint="non_neg")
        assert isinstance(w.value, jax.Array)
        assert_array_equal(w.numpy(), [1, 2])
        assert_array_equal(w * 2, [2, 4])
        for value in (np.array([3.0, -4.0]), jnp.array([3.0, -4.0]), [3.0, -4.0]):
            w.assign(value)
            assert isinstance(w.value, jax.Array)
            assert w.value.dtype == np.float32
            assert_array_equal(w.value, [3, -4])
        store.update({"w": jnp.array([-1.0, 1.0])})
        assert_array_equal(w.value, [0, 1])
        n = backstride.get_variable("n", initializer=jnp.array([1]))
        with pytest.raises(TypeError, match="'n' holds int32; got float"):
            n.assign(jnp.array([1.5]))
        with pytest.raises(ValueError, match="has shape"):
            w.assign(jnp.array([1.0]))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_go_between_libraries(tmp_path: Path, suffix: str) -> None:
    ours, theirs = VariableStore(seed=1), VariableStore()
    ours.run(decoder, jnp.asarray(IMAGE))
    ours.save(tmp_path / f"weights{suffix}")
    theirs.load(tmp_path / f"weights{suffix}")
    assert_array_equal(theirs.run(decoder, IMAGE).result, ours.run(decoder, jnp.asarray(IMAGE)).result)
    ours.load(tmp_path / f"weights{suffix}")
    assert all(isinstance(value, jax.Array) for value in ours.values().values())


# Pure functions


@pytest.fixture
def net() -> Iterator[backstride.jax.Transformed]:
    return backstride.jax.transform(decoder)


def test_init_and_apply(net: Any) -> None:
    store, before = VariableStore(seed=3), backstride.trainable_variables()
    want = store.run(decoder, IMAGE).result
    params = net.init(3, IMAGE)
    assert list(params) == NAMES
    for name, value in params.items():
        assert isinstance(value, jax.Array)
        assert_array_equal(value, store.values()[name])
    for apply in (net.apply, jax.jit(net.apply)):
        assert_allclose(apply(params, jnp.asarray(IMAGE)), want, rtol=1e-6)
        assert isinstance(apply(store.values(), IMAGE), jax.Array)
    assert backstride.trainable_variables() == before


def test_init_takes_keys(net: Any) -> None:
    one, same, other = (net.init(key, IMAGE) for key in (jax.random.key(1), jax.random.key(1), jax.random.key(2)))
    assert_array_equal(one[NAMES[0]], same[NAMES[0]])
    assert (one[NAMES[0]] != other[NAMES[0]]).any()
    assert_array_equal(net.init(jax.random.PRNGKey(1), IMAGE)[NAMES[0]], one[NAMES[0]])
    with pytest.raises(TypeError, match="`seed` must be an int"):
        jax.jit(net.init)(1, IMAGE)
    shapes = jax.eval_shape(lambda x: net.init(1, x), jax.ShapeDtypeStruct(IMAGE.shape, np.float32))
    assert {name: shape.shape for name, shape in shapes.items()} == {name: x.shape for name, x in one.items()}


def test_gradients_of_all_parameters(net: Any) -> None:
    import autograd
    import autograd.numpy as anp

    store = VariableStore(seed=3)
    params = net.init(3, IMAGE)

    def loss(params: Any) -> Any:
        run = net.run(params, IMAGE)
        return jnp.mean(run.result**2) + sum(run.losses)

    def numpys(values: Any) -> Any:
        run = store.run(decoder, IMAGE, values=values)
        return anp.mean(run.result**2) + sum(run.losses)

    store.run(decoder, IMAGE)
    want = autograd.grad(numpys)(store.trainable())
    for name, gradient in jax.jit(jax.grad(loss))(params).items():
        assert_allclose(gradient, want[name], rtol=1e-4, atol=1e-6)


def test_constraints_after_a_step(net: Any) -> None:
    with pytest.raises(ValueError, match="none before `init` or `apply` has run"):
        net.constrain({NAMES[0]: jnp.ones(1)})
    params = net.init(0, IMAGE)
    stepped = {name: value - 1 for name, value in params.items()}
    after = jax.jit(net.constrain)(stepped)
    for name in NAMES[:2]:
        assert_array_equal(after[name], stepped[name])
    for name in NAMES[2:]:
        assert_array_equal(after[name], np.maximum(stepped[name], 0))
    with pytest.raises(ValueError, match="'elsewhere', which no variable is called; there are 'decoder/up1/kernel'"):
        net.constrain({"elsewhere": jnp.ones(1)})


def test_trainable_parameters() -> None:
    def function() -> Any:
        steps = backstride.get_variable("steps", [], "int32", trainable=False)
        return backstride.get_variable("w", [2]) * steps.value

    net = backstride.jax.transform(function)
    params = net.init(0)
    assert list(params) == ["steps", "w"]
    assert list(net.trainable(params)) == ["w"]


def test_parameters_that_do_not_fit(net: Any) -> None:
    params = net.init(0, IMAGE)
    with pytest.raises(ValueError, match="'decoder/up2/bias' is missing"):
        net.apply({name: params[name] for name in NAMES[:3]}, IMAGE)
    with pytest.raises(ValueError, match="'more' is unexpected"):
        net.apply(params | {"more": jnp.ones(1)}, IMAGE)
    with pytest.raises(ValueError, match="exists with shape"):
        net.apply(params | {NAMES[1]: jnp.ones(1)}, IMAGE)
    with pytest.raises(ValueError, match="exists with dtype float16"):
        net.apply(params | {NAMES[1]: params[NAMES[1]].astype(np.float16)}, IMAGE)
    with pytest.raises(TypeError, match=r"params\['decoder/up1/bias'\]"):
        net.apply(params | {NAMES[1]: "bias"}, IMAGE)


def test_nothing_is_left_of_a_trace(net: Any) -> None:
    """No tracer outlives the function that was traced."""
    with jax.checking_leaks():
        params = net.init(0, IMAGE)
        jax.block_until_ready(jax.jit(net.apply)(params, IMAGE))
        jax.block_until_ready(jax.jit(jax.grad(lambda params: net.apply(params, IMAGE).sum()))(params))


@pytest.mark.parametrize("first", [jax.jit, jax.grad, jax.vmap, lambda function: lambda x: jax.eval_shape(function, x)])
def test_variables_of_a_store_outlive_a_trace(first: Any) -> None:
    x = jnp.asarray(IMAGE)
    with VariableStore(seed=1) as store:
        layer = layers.Conv2DTranspose(2, 3, name="up")

        def total(x: Any) -> Any:
            return layer(x.reshape(-1, *IMAGE.shape[1:])).sum()

        first(total)(x)
        assert_allclose(jax.jit(total)(x), total(x), rtol=1e-5)
        assert_array_equal(store.values()["up/kernel"], layer.kernel.numpy())


def test_transform_needs_jax(python: Python) -> None:
    said = python("import sys; sys.modules['jax'] = None; import backstride; backstride.jax", fails=True)
    assert "jax" in said.splitlines()[-1]
