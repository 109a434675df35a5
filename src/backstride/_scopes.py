# SPDX-License-Identifier: Apache-2.0
"""Variable scopes and collections, eagerly, by the names and rules of TensorFlow 1."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from backstride import _arguments, _backends, _named, initializers
from backstride._arguments import shown
from backstride._backends import DTYPES
from backstride._backends.numpy import check_size, named
from backstride._programs import AUTO_REUSE, GraphKeys, VariableScope
from backstride._variables import Variable, check_same, current, plain

# What TensorFlow allows in names: at the root, and inside a scope.
_ROOT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_INNER_NAME = re.compile(r"[A-Za-z0-9_.\\/>-]*")


@contextmanager
def variable_scope(
    name_or_scope: str | VariableScope | None,
    default_name: str | None = None,
    reuse: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    values: Any = None,
) -> Iterator[VariableScope]:
    """A scope around the names of variables, as `tf.variable_scope` documents it.

    >>> import backstride
    >>> with backstride.VariableStore(), backstride.variable_scope("decoder") as scope:
    ...     weight = backstride.get_variable("weight", [3])
    ...     scope.reuse_variables()
    ...     same = backstride.get_variable("weight", [3])
    >>> weight.name, same is weight
    ('decoder/weight', True)

    Args:
        name_or_scope: a name, which nests in the current scope, or a scope object, whose full name is opened again.
        default_name: the name to use where `name_or_scope` is None, with _1, _2, ... if it has been used here.
        reuse: True if the variables must exist, `AUTO_REUSE` if they may; None and False leave it to the scopes
            around.
        initializer: for variables of the scope that bring none.
        regularizer: for variables of the scope; layers add their own to it.
        values: ignored.

    Raises:
        ValueError: `reuse` is none of the four, or a name has characters that TensorFlow refuses.
        TypeError: neither name is given, or a name is of another type.
    """
    program = current()
    outer = program.scope
    if name_or_scope is None and default_name is None:
        raise TypeError("`name_or_scope` or `default_name` is required; both are None")
    if not any(reuse is legal for legal in (None, False, True, AUTO_REUSE)):
        raise ValueError(f"`reuse` must be None, False, True or AUTO_REUSE; got reuse={shown(reuse)}")
    initializer = _named.initializer("initializer", initializer)
    regularizer = _named.regularizer("regularizer", regularizer)
    if name_or_scope is None:
        if reuse:
            raise ValueError(f"`reuse` needs a `name_or_scope`; got reuse={reuse} and None")
        name_or_scope = _unique(checked("default_name", default_name))
    if isinstance(name_or_scope, VariableScope):
        parent, name = name_or_scope, name_or_scope.name
    else:
        parent, name = outer, outer.path(checked("name_or_scope", name_or_scope))
    scope = VariableScope(
        name, reuse or parent.reuse, initializer or parent.initializer, regularizer or parent.regularizer, program
    )
    program.opened.add(name)
    before = program.opened.copy() if isinstance(name_or_scope, VariableScope) else None
    program.scope = scope
    try:
        yield scope
    finally:
        program.scope = outer
        if before is not None:
            program.opened = before
        else:
            program.opened = {each for each in program.opened if not each.startswith(f"{name}/")}


def checked(argument: str, name: Any) -> str:
    """`name`, if it can be one in the current scope."""
    if not isinstance(name, str):
        raise TypeError(f"`{argument}` must be a string or a scope object; got {argument}={shown(name)}")
    rule = _INNER_NAME if current().scope.name or not name else _ROOT_NAME
    if not rule.fullmatch(name):
        raise ValueError(
            f"`{argument}` must be of letters, digits and _.\\/>-, at the root beginning with a letter, digit or '.'; "
            f"got {argument}={shown(name)}"
        )
    return name


def _unique(name: str) -> str:
    """`name` if the current scope has not opened it yet, else the first free one of name_1, name_2, ..."""
    program, candidate, number = current(), name, 0
    while program.scope.path(candidate) in program.opened:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def get_variable_scope() -> VariableScope:
    """The current scope, as `tf.get_variable_scope` documents it.

    >>> import backstride
    >>> with backstride.variable_scope("a"), backstride.variable_scope("b"):
    ...     backstride.get_variable_scope().name
    'a/b'
    """
    return current().scope


def get_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool = True,
    constraint: Any = None,
) -> Variable:
    """The variable of this name in the current scope, made if it does not exist, as `tf.get_variable` documents it.

    >>> import backstride
    >>> with backstride.VariableStore():
    ...     backstride.get_variable("scale", [4], initializer=backstride.ones_initializer()).value
    array([1., 1., 1., 1.], dtype=float32)

    Args:
        name: its name in the scope.
        shape: ints. Must be left out if `initializer` is an array, and may be where the variable exists.
        dtype: a NumPy dtype or its name; None is float32, or that of the array.
        initializer: a function of (shape, dtype), the name of one of `initializers`, or an array of any supported
            library, which decides what library the variable's arrays are of. None is the scope's, or else
            glorot_uniform; zeros for integers.
        regularizer: None, or a function from the value to a loss; None takes the scope's.
        trainable: whether an optimizer is to change it.
        constraint: None, or the function that `VariableStore.update` applies to updated values.

    Returns:
        A `Variable`.

    Raises:
        ValueError: it exists and the scope does not reuse; it does not and the scope reuses; its shape or dtype is
            another one; shape and initializer don't fit.
        TypeError: an argument is of the wrong type.
    """
    initial = plain(initializer)
    if initial is None or callable(initial) or isinstance(initial, str) or _backends.home(initial) is None:
        initial = _named.initializer("initializer", initial)
    regularizer = _named.regularizer("regularizer", regularizer) or current().scope.regularizer
    dtype = None if dtype is None else _dtype(dtype)
    if initial is None or callable(initial):
        shape = None if shape is None else _arguments.lengths("shape", shape)
        dtype = "float32" if dtype is None else dtype
    else:
        if shape is not None:
            raise ValueError(f"`shape` must be left out where `initializer` is an array; got shape={shown(shape)}")
        backend = _backends.of(initial)
        initial = backend.asarray("initializer", initial)
        held = backend.dtype_name(initial)
        if dtype not in (None, held):
            raise ValueError(f"`dtype` is {dtype}, but the array given as `initializer` has {held}")
        dtype = held
    return obtain(
        name,
        shape,
        dtype,
        initial,
        trainable=trainable,
        constraint=_named.constraint("constraint", constraint),
        regularizers=(regularizer,) if regularizer else (),
    )


def obtain(
    name: str,
    shape: tuple[int, ...] | None,
    dtype: str,
    initializer: Any,
    *,
    trainable: bool,
    constraint: Callable[[Any], Any] | None,
    regularizers: tuple[Callable[[Any], Any], ...],
    like: Any = None,
) -> Variable:
    """The variable `name` of the current scope, by its rules of reuse; a new one holds an array like `like`."""
    program = current()
    scope = program.scope
    full = scope.path(checked("name", name))
    if variable := program.variables.get(full):
        if not scope.reuse:
            raise ValueError(
                f"the variable {full!r} already exists; to share it, use reuse=True or AUTO_REUSE in its scope, and "
                f"to run a function again with fresh names, VariableStore.run"
            )
        check_same(full, variable.shape if shape is None else shape, dtype, variable)
        return variable
    if scope.reuse is True:
        raise ValueError(f"the variable {full!r} does not exist, and reuse=True; AUTO_REUSE would make it")
    if shape is None:
        if initializer is None or callable(initializer):
            raise ValueError(f"`shape` is required to make the variable {full!r}")
        shape = tuple(initializer.shape)
    if initializer is None:
        initializer = scope.initializer
    if initializer is None:
        initializer = (
            initializers.glorot_uniform_initializer() if "float" in dtype else initializers.zeros_initializer()
        )

    template = program.store.template
    if like is None or (template is not None and _backends.home(like) != _backends.home(template)):
        like = template

    def initial() -> Any:
        value = _initialize(full, initializer, shape, dtype) if callable(initializer) else initializer
        return _of_library(full, value, value if like is None else like, dtype)

    def adopted(held: Any) -> Any:
        if like is None or _backends.home(like) == "numpy" or _backends.home(held) != "numpy":
            return held
        return _of_library(full, held, like, _backends.of(held).dtype_name(held))

    return program.store.declare(
        program, full, shape, dtype, initial, adopted, bool(trainable), constraint, regularizers
    )


def _of_library(name: str, value: Any, like: Any, dtype: str) -> Any:
    """`value` as a variable holds it, of the library of `like`."""
    backend = _backends.of(like)
    return backend.like(name, value, backend.astype(like, dtype))


def _initialize(name: str, initializer: Callable[..., Any], shape: tuple[int, ...], dtype: str) -> Any:
    """What `initializer` makes, called as TensorFlow calls it."""
    try:
        parameters = inspect.signature(initializer).parameters
    except (TypeError, ValueError):  # some compiled functions have none to show
        parameters = {}  # type: ignore[assignment]
    extra = {"partition_info": None} if "partition_info" in parameters else {}
    if parameters and "dtype" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise TypeError(f"the initializer of {name!r} must take (shape, dtype); it takes ({', '.join(parameters)})")
    numpy_dtype = named(dtype)
    check_size(f"the variable {name!r}", shape, numpy_dtype)
    value = initializer(list(shape), dtype=numpy_dtype, **extra)
    if isinstance(value, list | tuple | int | float | np.generic):
        value = np.asarray(value, numpy_dtype)
    if not hasattr(value, "shape") or _backends.home(value) is None:
        raise ValueError(f"the initializer of {name!r} made {value!r}; it was asked for an array of shape {shape}")
    if tuple(value.shape) != shape:
        raise ValueError(f"the initializer of {name!r} made shape {tuple(value.shape)}; it was asked for {shape}")
    backend = _backends.of(value)
    return value if backend.dtype_name(value) == dtype else backend.astype(value, dtype)


def _dtype(dtype: Any) -> str:
    try:
        name: str = np.dtype(dtype).name
    except TypeError:
        raise TypeError(f"`dtype` must be a NumPy dtype or its name; got dtype={shown(dtype)}") from None
    if name not in DTYPES:
        raise TypeError(f"`dtype` must be one of {', '.join(DTYPES)}; got dtype={shown(dtype)}")
    return name


def get_collection(key: str, scope: str | VariableScope | None = None) -> list[Any]:
    """The entries of a collection, as `tf.get_collection` documents it; losses are computed now.

    >>> import backstride
    >>> backstride.get_collection("nothing was ever put here")
    []

    Args:
        key: such as `GraphKeys.GLOBAL_VARIABLES`.
        scope: None, a scope object, or a pattern that the names of entries must match from their start.
    """
    return current().collection(key, scope)


def add_to_collection(name: str, value: Any) -> None:
    """Appends to a collection, as `tf.add_to_collection` documents it.

    >>> import backstride
    >>> with backstride.VariableStore():
    ...     backstride.add_to_collection("outputs", 1)
    ...     backstride.get_collection("outputs")
    [1]

    Args:
        name: the collection.
        value: anything.
    """
    current().collect(name, value)


def global_variables(scope: str | VariableScope | None = None) -> list[Variable]:
    """All variables of the current program, in the order of their making.

    >>> import backstride
    >>> with backstride.VariableStore():
    ...     backstride.global_variables()
    []

    Args:
        scope: as in `get_collection`.
    """
    return get_collection(GraphKeys.GLOBAL_VARIABLES, scope)


def trainable_variables(scope: str | VariableScope | None = None) -> list[Variable]:
    """The trainable ones of them.

    >>> import backstride
    >>> with backstride.VariableStore():
    ...     weight = backstride.get_variable("weight", [2])
    ...     steps = backstride.get_variable("steps", [], "int64", trainable=False)
    ...     backstride.trainable_variables()
    [<Variable 'weight' shape=(2,) dtype=float32>]

    Args:
        scope: as in `get_collection`.
    """
    return get_collection(GraphKeys.TRAINABLE_VARIABLES, scope)


def reset_default_graph() -> None:
    """Forgets every variable, name and loss of the current store, as `tf.reset_default_graph` does for a graph.

    >>> import backstride
    >>> backstride.reset_default_graph()
    >>> backstride.global_variables()
    []

    Raises:
        ValueError: a scope or a run is open.
    """
    program = current()
    if program is not program.store.program or program.scope.name:
        raise ValueError("reset_default_graph() must be called outside of scopes and runs")
    program.store.reset()


def set_random_seed(seed: int | None) -> None:
    """Starts the random numbers of the current store's initializers anew, as `tf.set_random_seed`.

    >>> import backstride
    >>> backstride.set_random_seed(0)

    Args:
        seed: an int, or None for numbers that differ every time.
    """
    current().store.set_seed(None if seed is None else _arguments.integer("seed", seed))
