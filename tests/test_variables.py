# SPDX-License-Identifier: Apache-2.0
"""Stores, runs and variables: whose values are seen where, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from conftest import Python
from numpy.testing import assert_allclose, assert_array_equal

import backstride
from backstride import VariableStore, _backends, get_variable, layers, losses, variable_scope
from backstride._backends import numpy as numpy_backend

X = np.random.default_rng(0).standard_normal((2, 3, 4, 3), np.float32)


def network(x: Any) -> Any:
    with variable_scope("net", regularizer=backstride.regularizers.l2(0.5)):
        x = layers.conv2d_transpose(x, 4, 3, activity_regularizer=lambda y: y.sum())
        return layers.conv2d_transpose(x, 2, 3)


NAMES = [f"net/conv2d_transpose{number}/{kind}" for number in ("", "_1") for kind in ("kernel", "bias")]


@pytest.fixture
def store() -> VariableStore:
    return VariableStore(seed=0)


# Runs


def test_runs_start_afresh_over_the_same_variables(store: VariableStore) -> None:
    first, second = store.run(network, X), store.run(network, X)
    assert_array_equal(first.result, second.result)
    assert first.losses == second.losses
    assert len(first.losses) == 5
    assert list(store.values()) == list(store.trainable()) == NAMES


def test_a_training_loop_keeps_nothing(store: VariableStore) -> None:
    """A hundred runs leave no object of theirs behind."""
    store.run(network, X)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        store.run(network, X)
    gc.collect()
    assert len(gc.get_objects()) - before < 20


def test_a_training_loop_keeps_no_arrays(python: Python) -> None:
    """Losses hold the graph of a gradient, which nothing but the end of the run lets go of, without the collector."""
    code = """
import gc, resource
import autograd.numpy as anp, numpy as np
from autograd import grad
from backstride import VariableStore, layers
gc.disable()
x, store = np.ones((4, 128, 128, 2), np.float32), VariableStore(seed=0)
network = lambda x: layers.conv2d_transpose(x, 8, 2, 2, activation="relu", activity_regularizer="l2")
def loss(values):
    run = store.run(network, x, values=values)
    return anp.sum(run.result) + sum(run.losses)
store.run(network, x)
for step in range(12):
    grad(loss)(store.trainable())
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(python(code)) < 30  # one step holds 50 MB


def test_the_first_declaration_decides_what_the_store_does(store: VariableStore) -> None:
    """A run for evaluation, without constraints and trainability, takes neither from the store."""
    with store:
        get_variable("w", [2], constraint=backstride.constraints.non_neg())
    store.run(lambda: get_variable("w", [2], trainable=False))
    assert list(store.trainable()) == ["w"]
    store.update({"w": [-1, -1]})
    assert not store.values()["w"].any()


def test_asyncio_tasks_do_not_share_stores() -> None:
    async def task(name: str) -> list[str]:
        with VariableStore() as store:
            for number in range(3):
                await asyncio.sleep(0)
                get_variable(f"{name}{number}", [1])
            return list(store.values())

    async def both() -> list[list[str]]:
        return await asyncio.gather(task("a"), task("b"))

    assert asyncio.run(both()) == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


def test_stores_may_be_left_in_any_order() -> None:
    one, other = VariableStore(), VariableStore()
    one.__enter__()
    other.__enter__()
    one.__exit__()
    get_variable("w", [1])
    other.__exit__()
    assert (list(one.values()), list(other.values())) == ([], ["w"])


def test_reset_of_a_store_that_is_open(store: VariableStore) -> None:
    with store:
        old = get_variable("w", [2])
        store.reset()
        assert get_variable("w", [3]).shape == (3,)
    store.reset()
    for use in (lambda: old.value, lambda: old.shape, lambda: repr(old)):
        with pytest.raises(ValueError, match="the variable 'w' is no longer in its store, which was reset"):
            use()


def test_a_copy_of_auto_reuse_is_the_same() -> None:
    assert (
        copy.deepcopy(backstride.AUTO_REUSE)
        is pickle.loads(pickle.dumps(backstride.AUTO_REUSE))
        is backstride.AUTO_REUSE
    )


def test_results_of_runs_are_released(store: VariableStore) -> None:
    class Result:
        pass

    result = weakref.ref(store.run(Result).result)
    gc.collect()
    assert result() is None


def test_given_values_take_the_variables_places(store: VariableStore) -> None:
    plain = store.run(network, X)
    zeros = {name: np.zeros_like(value) for name, value in store.values().items()}
    run = store.run(network, X, values=zeros)
    assert not run.result.any()
    assert run.losses == [0] * 5
    some = store.run(network, X, values={NAMES[3]: np.float32([1, 1])})
    assert_array_equal(some.result, plain.result + 1)
    assert_array_equal(store.run(network, X).result, plain.result)


def test_given_values_are_seen_in_runs_within_runs(store: VariableStore) -> None:
    store.run(network, X)
    zeros = {name: np.zeros_like(value) for name, value in store.values().items()}
    assert not store.run(lambda: store.run(network, X).result, values=zeros).result.any()


def test_given_values_are_seen_through_variables_and_objects(store: VariableStore) -> None:
    layer = layers.Conv2DTranspose(1, 1)
    with store:
        layer(X)
        weight = get_variable("weight", [2], initializer=np.ones)

    def shown(x: Any) -> Any:
        return layer(x), weight.value, weight * 2, np.asarray(weight)

    given = {name: np.full_like(value, 3) for name, value in store.values().items()}
    result, value, twice, array = store.run(shown, X, values=given).result
    assert_allclose(result[..., 0], 3 * X.sum(axis=-1) + 3, rtol=1e-5)
    assert value is given["weight"]
    assert_array_equal(twice, [6, 6])
    assert_array_equal(array, [3, 3])
    assert_array_equal(weight.value, [1, 1])


def test_a_weights_loss_follows_its_value(store: VariableStore) -> None:
    with store:
        weight = get_variable("w", initializer=np.float32([1, 2]), regularizer=backstride.regularizers.l2(1.0))
        assert losses.get_regularization_losses() == [5]
        weight.assign([3, 4])
        assert losses.get_regularization_losses() == [25]
        assert losses.get_regularization_loss() == 25
        assert losses.get_regularization_loss("other") == 0


def test_variables_of_runs_exist_in_the_store(store: VariableStore) -> None:
    store.run(network, X)
    with store:
        assert [variable.name for variable in backstride.global_variables()] == NAMES
        assert len(losses.get_regularization_losses()) == 4
        with pytest.raises(ValueError, match=r"already exists; .* to run a function again .* VariableStore\.run"):
            network(X)


def test_a_run_declares_anew_what_its_variables_are_for(store: VariableStore) -> None:
    """The regularizer of this run's code, not that of the first."""
    for factor in (1.0, 2.0):
        run = store.run(get_variable, "w", [2], initializer=np.ones, regularizer=backstride.regularizers.l2(factor))
        assert run.losses == [2 * factor]


def test_a_failed_run_leaves_the_thread_as_it_was(store: VariableStore) -> None:
    def fails() -> None:
        with variable_scope("inner"):
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        store.run(fails)
    assert backstride.get_variable_scope().name == ""
    with store:
        assert not backstride.global_variables()


WRONG_VALUES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"nowhere": np.zeros(1)}, ValueError, "`values` has names that no variable has: nowhere; there are net/conv2d"),
    ({NAMES[1]: np.zeros(3, np.float32)}, ValueError, r"bias'\]` has shape \(3,\); the variable has \(4,\)"),
    ({NAMES[1]: np.zeros(4)}, TypeError, r"bias'\]` has dtype float64; the variable has float32 \(convert with"),
    ({NAMES[1]: [1.0, 2.0]}, TypeError, r"bias'\]` must be an array; got list"),
    ([1], TypeError, "`values` must be a dict of arrays by variable name; got list"),
]


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@pytest.mark.parametrize(("values", "error", "message"), WRONG_VALUES)
def test_wrong_given_values_are_told(
    store: VariableStore, known: bool, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    if known:
        store.run(network, X)
    with pytest.raises(error, match=message):
        store.run(network, X, values=values)


# Values


def test_handed_out_values_are_read_only_and_taken_ones_copied(store: VariableStore) -> None:
    with store:
        weight = get_variable("w", initializer=np.float32([1, 2]))
    with pytest.raises(ValueError, match="read-only"):
        store.trainable()["w"] += 1
    new = np.float32([3, 4])
    store.assign({"w": new})
    new[:] = 0
    assert_array_equal(weight.value, [3, 4])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])
@pytest.mark.parametrize("constraint", ["max_norm", "min_max_norm", "non_neg", "unit_norm"])
def test_copies_of_a_store(copied: Callable[[Any], Any], constraint: str) -> None:
    store = VariableStore(seed=3)
    with store:
        get_variable("w", [2], constraint=getattr(backstride.constraints, constraint)(), trainable=False)
    other = copied(store)
    assert_array_equal(other.values()["w"], store.values()["w"])
    assert not other.values()["w"].flags.writeable
    assert list(other.trainable()) == []
    for each in store, other:
        each.update({"w": [-3.0, 4.0]})
        with each, variable_scope("more"):
            get_variable("w", [2])
    for name, value in store.values().items():
        assert_array_equal(other.values()[name], value)


def test_assign_rounds_floats(store: VariableStore) -> None:
    with store:
        weight, count = get_variable("w", [1]), get_variable("count", [], "int64")
    store.assign({"w": [0.1]})
    assert (weight.dtype, weight.value[0]) == (np.float32, np.float32(0.1))
    count.assign(3)
    for values, dtype in [({"w": [1e39]}, "float64"), ({"count": [2**63]}, "uint64")]:
        values = {name: np.array(value, dtype).reshape(store.values()[name].shape) for name, value in values.items()}
        with pytest.raises(ValueError, match=f"in which some of these numbers of {dtype} don't fit"):
            store.assign(values)
    with pytest.raises(TypeError, match="the variable 'count' holds int64; got float32"):
        count.assign(3.5)
    with pytest.raises(TypeError, match="the variable 'w' holds NumPy arrays; got an array of autograd"):
        grad(lambda x: weight.assign(anp.array([x])))(1.0)


def test_assign_takes_all_or_nothing(store: VariableStore) -> None:
    store.run(network, X)
    before = store.values()
    ones = {name: np.ones_like(value) for name, value in before.items()}
    for wrong, message in [({"nowhere": np.zeros(1)}, "nowhere"), ({NAMES[3]: np.zeros(5)}, "has shape")]:
        with pytest.raises(ValueError, match=message):
            store.assign(ones | wrong)
        assert all(value is before[name] for name, value in store.values().items())


def test_update_applies_constraints(store: VariableStore) -> None:
    with store:
        get_variable("free", [2])
        get_variable("bound", [2], constraint=backstride.constraints.non_neg())
        get_variable("odd", [2], constraint=lambda w: w[:1])
    store.update({"free": [-1, 1], "bound": np.array([-1.0, 1])})
    assert_array_equal(store.values()["free"], [-1, 1])
    assert_array_equal(store.values()["bound"], [0, 1])
    with pytest.raises(ValueError, match=r"the constraint of 'odd' made shape \(1,\) of shape \(2,\)"):
        store.update({"odd": np.zeros(2)})


def test_variables_act_as_their_values() -> None:
    with VariableStore():
        weight = get_variable("w", initializer=np.float32([1, -2]))
        assert_array_equal(weight + 1, [2, -1])
        assert_array_equal(np.float32([1, 1]) - weight, [0, 3])
        assert_array_equal(2 * weight / weight, [2, 2])
        assert_array_equal(-(weight**2), [-1, -4])
        assert weight @ weight == 5
        assert_array_equal(np.abs(weight), [1, 2])
        assert (weight[1], len(weight), weight.shape, weight.dtype) == (-2, 2, (2,), np.float32)
        assert repr(weight) == "<Variable 'w' shape=(2,) dtype=float32>"
        assert {weight: 1}[weight] == 1


def test_a_variable_that_stands_for_a_tracer_is_no_array(store: VariableStore) -> None:
    """Autograd would lose it, and with it the gradient."""
    with store:
        weight = get_variable("w", [2])
    with pytest.raises(TypeError, match=r"'w' stands for ArrayBox in this run; use its \.value"):
        grad(lambda values: anp.sum(store.run(lambda: anp.exp(weight), values=values).result))(store.trainable())


# Variables that are made


GET: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": 3}, TypeError, "must be a string"),
    ({"name": "a b"}, ValueError, "must be of letters, digits"),
    ({"shape": None}, ValueError, "`shape` is required to make the variable 'w'"),
    (
        {"shape": [2, -1]},
        ValueError,
        r"the entries of `shape` must be at least 0 and .*; got shape=\[2, -1\]",
    ),
    ({"shape": [2.0]}, TypeError, r"`shape` takes ints; got shape=\[2.0\]"),
    ({"shape": [None]}, ValueError, "every entry of `shape` must be known"),
    ({"dtype": bool}, TypeError, "`dtype` must be one of float16, .*; got dtype=<class 'bool'>"),
    ({"dtype": "float23"}, TypeError, "`dtype` must be a NumPy dtype or its name; got dtype='float23'"),
    ({"initializer": np.zeros(2)}, ValueError, r"`shape` must be left out where `initializer` is an array; got shape="),
    (
        {"initializer": np.zeros(2), "shape": None, "dtype": "float32"},
        ValueError,
        "`dtype` is float32, but the array given as `initializer` has float64",
    ),
    ({"initializer": {}, "shape": None}, TypeError, "`initializer` must be an array of numbers; got dict"),
    ({"initializer": Path("w.npy")}, ValueError, "`initializer` must be a function or its name; got initializer="),
    ({"regularizer": 1}, ValueError, "`regularizer` must be a function or its name"),
]


@pytest.mark.parametrize(("change", "error", "message"), GET, ids=lambda value: repr(value)[:30])
def test_wrong_arguments_of_get_variable_are_told(
    store: VariableStore, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with store, pytest.raises(error, match=message):
        get_variable(**({"name": "w", "shape": [2]} | change))
    assert not store.values()


def test_scope_arguments_are_told() -> None:
    for arguments, error, message in [
        ((None,), TypeError, "`name_or_scope` or `default_name` is required"),
        ((3,), TypeError, "`name_or_scope` must be a string or a scope object; got name_or_scope=3"),
        ((None, 3), TypeError, "`default_name` must be a string"),
        ((None, "d", True), ValueError, "`reuse` needs a `name_or_scope`; got reuse=True and None"),
        (("s", None, 0), ValueError, "`reuse` must be None, False, True or AUTO_REUSE; got reuse=0"),
        (("_s",), ValueError, "at the root beginning with a letter"),
    ]:
        with pytest.raises(error, match=message), variable_scope(*arguments):  # type: ignore[arg-type]
            pass


def test_reset_is_refused_within_scopes_and_runs(store: VariableStore) -> None:
    with store, variable_scope("s"), pytest.raises(ValueError, match="outside of scopes and runs"):
        backstride.reset_default_graph()
    with pytest.raises(ValueError, match="outside of scopes and runs"):
        store.run(backstride.reset_default_graph)
    with store:
        get_variable("w", [2])
        backstride.reset_default_graph()
        assert not backstride.global_variables()
        get_variable("w", [3])
    assert store.values()["w"].shape == (3,)


def test_a_failed_regularizer_leaves_no_variable(store: VariableStore) -> None:
    def fails(w: Any) -> Any:
        raise KeyError("stop")

    with store, pytest.raises(KeyError, match="stop"):
        get_variable("w", [2], regularizer=fails)
    assert not store.values()


def test_one_seed_seeds_every_initializer() -> None:
    def values(seed: int | None) -> np.ndarray:
        return VariableStore(seed).run(network, X).result

    assert_array_equal(values(1), values(1))
    assert (values(1) != values(2)).any()
    assert (values(None) != values(None)).any()
    with VariableStore() as store:
        backstride.set_random_seed(1)
        network(X)
    assert_array_equal(store.run(network, X).result, values(1))
    with pytest.raises(TypeError, match=r"`seed` takes ints; got seed=1\.5"):
        backstride.set_random_seed(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`seed` must be at least 0; got seed=-1"):
        VariableStore(seed=-1)
    with pytest.raises(ValueError, match=r"`scope` must be a pattern or a scope object; got scope='\('"):
        backstride.global_variables("(")


# Threads


def test_each_thread_has_its_own_default_store() -> None:
    def names(start: threading.Barrier) -> list[str]:
        start.wait()
        for _ in range(3):
            network(X)
        return [variable.name for variable in backstride.global_variables()]

    def fresh(start: threading.Barrier) -> list[str]:
        with pytest.raises(ValueError, match="already exists"):
            names(start)
        return [variable.name for variable in backstride.global_variables()]

    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fresh, [start] * 2)) == [NAMES] * 2
    assert NAMES[0] not in [variable.name for variable in backstride.global_variables()]


def test_threads_with_two_stores() -> None:
    def train(seed: int) -> list[float]:
        with VariableStore(seed) as store:
            return [float(store.run(network, X).result.sum()) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(train, [1, 2])
    assert len(set(one)) == len(set(two)) == 1
    assert (one, two) == (train(1), train(2))


def test_threads_may_run_one_store_at_once() -> None:
    """Also the first runs, of which only one makes the variables."""
    for _ in range(10):
        store, start = VariableStore(seed=0), threading.Barrier(4)

        def run(_: int, store: VariableStore = store, start: threading.Barrier = start) -> np.ndarray:
            start.wait()
            return store.run(network, X).result

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run, range(4)))
        assert list(store.values()) == NAMES
        for result in results:
            assert_array_equal(result, results[0])


# Other libraries


class Foreign(np.ndarray):
    """An array of a library that the package serves by a file of its own."""

    __module__ = "foreign.arrays"


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library `foreign`, whose file is NumPy's but for what its variables hold."""
    module: Any = types.ModuleType("backstride._backends.foreign")
    vars(module).update({name: value for name, value in vars(numpy_backend).items() if not name.startswith("_")})
    module.like = lambda name, value, template: numpy_backend.like(name, np.asarray(value), template).view(Foreign)
    monkeypatch.setitem(_backends._loaded, "foreign", module)
    monkeypatch.setitem(_backends._HOMES, "foreign", "foreign")
    monkeypatch.setattr(_backends, "_homes", {})


@pytest.mark.usefixtures("foreign")
def test_variables_are_of_the_library_of_the_inputs(store: VariableStore) -> None:
    """Made so, assigned so, and so again after loading NumPy arrays; an initial array decides as well."""
    store.run(network, X.view(Foreign))
    assert {type(value) for value in store.values().values()} == {Foreign}
    store.assign({name: np.zeros(value.shape) for name, value in store.values().items()})
    assert {type(value) for value in store.values().values()} == {Foreign}
    with store:
        assert type(get_variable("a", initializer=np.zeros(2).view(Foreign)).value) is Foreign
        assert type(get_variable("b", [2]).value) is np.ndarray
