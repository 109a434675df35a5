# SPDX-License-Identifier: Apache-2.0
"""Variables, and the store that holds their values by name."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from backstride import _backends, _files
from backstride._programs import GraphKeys, Program, opened, replace

_local = threading.local()


def current() -> Program:
    """The program that this thread's calls belong to: the innermost of its stores and runs, or its default store's."""
    programs = opened()
    if programs:
        return programs[-1]
    if not hasattr(_local, "store"):
        _local.store = VariableStore()
    return _local.store.program  # type: ignore[no-any-return]


class Variable:
    """A variable of a `VariableStore`, as `get_variable` and the layers make it.

    It acts as its value in arithmetic, in NumPy functions, and as an argument of this package's functions. Under
    autograd pass `.value` to autograd's own functions.

    Attributes:
        store: the store that holds its value.
        name: its full name, such as 'decoder/up1/kernel'; what TensorFlow's checkpoints call it.
        trainable: whether an optimizer is to change it.
        constraint: None, or the function that takes an updated value to the nearest allowed one.
        regularizers: the functions whose results at its value are regularization losses.
    """

    __array_priority__ = 100.0  # NumPy arrays leave arithmetic with it to it
    __hash__ = object.__hash__

    def __init__(
        self,
        store: VariableStore,
        name: str,
        trainable: bool,
        constraint: Callable[[Any], Any] | None,
        regularizers: tuple[Callable[[Any], Any], ...],
    ) -> None:
        self.store = store
        self.name = name
        self.trainable = trainable
        self.constraint = constraint
        self.regularizers = regularizers

    @property
    def value(self) -> Any:
        """Its current value: the store's, or the one given for it to the run that is under way."""
        given = self.store.given()
        return given[self.name] if self.name in given else self.store.held(self.name)

    @property
    def given(self) -> bool:
        """Whether the run that is under way was given a value for it."""
        return self.name in self.store.given()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its value."""
        return tuple(self.store.held(self.name).shape)

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of its value."""
        return self.store.held(self.name).dtype

    def numpy(self) -> np.ndarray:
        """Its value as a NumPy array."""
        return _backends.of(self.value).to_numpy(self.value)

    def assign(self, value: Any) -> None:
        """Gives it another value of its shape; floats are rounded to its dtype."""
        self.store.assign({self.name: value})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not isinstance(self.value, np.ndarray):
            raise TypeError(
                f"the variable {self.name!r} stands for {type(self.value).__name__} in this run; use its .value"
            )
        return np.array(self.value, dtype=dtype) if copy else np.asarray(self.value, dtype=dtype)

    def __neg__(self) -> Any:
        return -self.value

    def __abs__(self) -> Any:
        return abs(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __getitem__(self, index: Any) -> Any:
        return self.value[index]

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"<Variable {self.name!r} shape={self.shape} dtype={self.dtype}>"


def _arithmetic(name: str) -> None:
    function = getattr(operator, name)
    setattr(Variable, f"__{name}__", lambda self, other: function(self.value, plain(other)))
    setattr(Variable, f"__r{name}__", lambda self, other: function(plain(other), self.value))


def _comparison(name: str) -> None:
    function = getattr(operator, name)
    setattr(Variable, f"__{name}__", lambda self, other: function(self.value, plain(other)))


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    _arithmetic(_name)
for _name in ("lt", "le", "gt", "ge"):  # equality is identity, since variables are keys of dicts
    _comparison(_name)


def plain(value: Any) -> Any:
    """A variable's value; anything else as it is."""
    return value.value if isinstance(value, Variable) else value


class Run(NamedTuple):
    """What `VariableStore.run` returns.

    Attributes:
        result: what the function returned.
        losses: its regularization losses, in the order in which they were made.
    """

    result: Any
    losses: list[Any]


class VariableStore:
    """Variables by name. The module-level functions act on the current store; each thread begins with one of its own.

    >>> import numpy as np, backstride
    >>> def network(x):
    ...     return backstride.layers.conv2d_transpose(x, filters=8, kernel_size=4, strides=2, padding="same")
    >>> store = backstride.VariableStore(seed=1)
    >>> run = store.run(network, np.ones((1, 16, 16, 3), np.float32))
    >>> run.result.shape
    (1, 32, 32, 8)
    >>> {name: value.shape for name, value in store.trainable().items()}
    {'conv2d_transpose/kernel': (4, 4, 8, 3), 'conv2d_transpose/bias': (8,)}

    As a context it is the current store, and keeps names, reuse and collections as one TensorFlow graph does:

    >>> with backstride.VariableStore() as store, backstride.variable_scope("decoder"):
    ...     result = network(np.ones((1, 16, 16, 3), np.float32))
    >>> list(store.values())
    ['decoder/conv2d_transpose/kernel', 'decoder/conv2d_transpose/bias']

    Several threads may call `run` of one store at once; as a context it is for one thread at a time.

    Args:
        seed: what the initializers' random numbers follow from; None for different ones every time.

    Attributes:
        template: None, or an array of the library whose arrays variables hold also where they are made without an input
            at hand, or for one of another library.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.RLock()
        self.template: Any = None
        self.set_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Forgets every variable, name and loss."""
        with self._lock:
            old = getattr(self, "program", None)
            self._values: dict[str, Any] = {}
            self._variables: dict[str, Variable] = {}
            self.program = Program(self, {})
            if old is not None:
                replace(old, self.program)

    def set_seed(self, seed: int | None) -> None:
        """Starts the random numbers of the initializers anew."""
        if seed is not None and not isinstance(seed, int | np.integer):
            raise TypeError(f"`seed` must be an int or None; got seed={seed!r}")
        if seed is not None and seed < 0:
            raise ValueError(f"`seed` must be at least 0; got seed={seed!r}")
        self.random = np.random.default_rng(seed)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles begin with: programs of their own, over the same values, rules and random numbers."""
        rules = {name: (variable.trainable, variable.constraint) for name, variable in self._variables.items()}
        return {"values": self.values(), "rules": rules, "random": self.random, "template": self.template}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        for value in state["values"].values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        self._values = state["values"]
        rules = state["rules"].items()
        self._variables = {name: Variable(self, name, trained, constraint, ()) for name, (trained, constraint) in rules}
        self.random, self.template = state["random"], state["template"]

    def __enter__(self) -> VariableStore:
        self.program.__enter__()
        return self

    def __exit__(self, *error: object) -> Literal[False]:
        return self.program.__exit__(*error)

    def run(
        self, function: Callable[..., Any], *args: Any, values: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Run:
        """Runs `function(*args, **kwargs)` as a program of its own over the variables of this store.

        Names are counted from the start, no variable counts as made yet, and the collections are empty, so the same
        function can run any number of times. A variable that an earlier run made, or a file brought, keeps its value;
        whether the store counts it as trainable, and its constraint there, are those that it was first made with.

        Args:
            function: what to run.
            values: arrays by variable name that take the place of the variables' values during this run, such as
                the tracers of autograd; the others keep theirs. A gradient by this dict is one by the variables.

        Returns:
            The function's result, and its regularization losses.

        Raises:
            ValueError: `values` has a name that no variable has in the end, or another shape than the variable.
            TypeError: it has another dtype than the variable.
        """
        given = {} if values is None else _named(values)
        for name in given.keys() & self._values.keys():
            self._check_given(name, given[name])
        with Program(self, {**self.given(), **given}) as program:
            try:
                result = function(*args, **kwargs)
                losses = program.collection(GraphKeys.REGULARIZATION_LOSSES)
            finally:
                program.forget()
        self._check_names("values", given)
        return Run(result, losses)

    def declare(
        self,
        program: Program,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        initial: Callable[[], Any],
        adopted: Callable[[Any], Any],
        trainable: bool,
        constraint: Callable[[Any], Any] | None,
        regularizers: tuple[Callable[[Any], Any], ...],
    ) -> Variable:
        """A variable new to `program`. Its value is the one the store has under this name, or else `initial()`; if no
        program has had it yet, as when a file brought it, `adopted(value)`."""
        variable = Variable(self, name, trainable, constraint, regularizers)
        with self._lock:
            fresh = name not in self._values
            if fresh:
                self._values[name] = initial()
            elif name not in self._variables:
                self._values[name] = adopted(self._values[name])
            try:
                check_same(name, shape, dtype, variable)
                if name in program.given:
                    self._check_given(name, program.given[name])
                program.add(variable)
            except BaseException:
                if fresh:
                    del self._values[name]
                raise
            self._variables.setdefault(name, variable)
            self.program.adopt(variable)
        return variable

    def trainable(self) -> dict[str, Any]:
        """The values of the trainable variables by name, in the order of their making. NumPy arrays are read-only."""
        return {name: self._values[name] for name, variable in self._variables.items() if variable.trainable}

    def variables(self) -> dict[str, Variable]:
        """The variables by name, in the order of their making."""
        return dict(self._variables)

    def values(self) -> dict[str, Any]:
        """The values of all variables by name. NumPy arrays are read-only."""
        return dict(self._values)

    def assign(self, values: Mapping[str, Any]) -> None:
        """Gives variables other values of their shapes, all of them or, after an error, none.

        Args:
            values: arrays by variable name. Floats are rounded to the variable's dtype; floats for an integer
                variable are refused.

        Raises:
            ValueError: no variable has such a name, or the shape is another one.
            TypeError: the dtype does not convert.
        """
        values = _named(values)
        self._check_names("values", values)
        converted = {}
        for name in values:
            old = self._values[name]
            new = _backends.of(old).like(name, values[name], old)
            _check_shape(name, new, old)
            converted[name] = new
        with self._lock:
            for name, new in converted.items():
                held = self._values[name]
                self._values[name] = _backends.of(held).assigned(held, new)

    def constrain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values`, by variable name, after the constraint of each variable that has one."""
        values = _named(values)
        self._check_names("values", values)
        known = self._variables
        return {
            name: constrained(name, known[name].constraint, value) if name in known else value
            for name, value in values.items()
        }

    def update(self, values: Mapping[str, Any]) -> None:
        """Assigns what an optimizer made of the variables, after the constraint of each variable that has one.

        >>> import numpy as np, backstride
        >>> with backstride.VariableStore() as store:
        ...     w = backstride.get_variable("w", [2], constraint=backstride.constraints.non_neg())
        >>> store.update({"w": np.array([-1.0, 3.0])})
        >>> w.value
        array([-0.,  3.], dtype=float32)

        Args, Raises: as `assign`.
        """
        self.assign(self.constrain(values))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes every variable under its name; a crash on the way leaves the file that was there as it was.

        Args:
            path: a name that ends in .safetensors (extra `layers`) or .npz.

        Raises:
            ValueError: another ending, or a dtype that the format does not know.
        """
        _files.write(path, {name: _backends.of(value).to_numpy(value) for name, value in self._values.items()})

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> None:
        """Reads variables by name: all of them or, after an error, none.

        A store without variables takes everything; the variables that are made later begin with these values.

        Args:
            path: a .safetensors or .npz file. Names may end in ':0', as those of TensorFlow's variables do.
            strict: whether the file must hold exactly this store's variables; if not, missing names keep their
                values and unexpected ones are ignored.

        Raises:
            ValueError: names are missing or unexpected, shapes differ, or the file is not whole.
        """
        values = _files.read(path)
        if not self._variables:
            frozen = {name: _backends.of(value).like(name, value, value) for name, value in values.items()}
            with self._lock:
                self._values = frozen
            return
        wrong = []
        for name in self._values.keys() & values.keys():
            held, read = _backends.of(self._values[name]).to_numpy(self._values[name]), values[name]
            if read.shape != held.shape:
                wrong.append(f"{name} has shape {read.shape} in the file and {held.shape} in the store")
            elif (read.dtype.kind in "iu") != (held.dtype.kind in "iu"):
                wrong.append(f"{name} is {read.dtype} in the file and {held.dtype} in the store")
        wrong.sort()
        if strict:
            wrong += [f"{name} is missing" for name in self._values if name not in values]
            wrong += [f"{name} is unexpected" for name in values if name not in self._values]
        if wrong:
            raise ValueError(f"{os.fspath(path)} does not hold this store's variables: {_listed(wrong)}")
        self.assign({name: value for name, value in values.items() if name in self._values})

    def hold(self, values: Mapping[str, Any]) -> None:
        """Takes these arrays as they are: those that variables of these names will begin with, or have from now on."""
        with self._lock:
            self._values.update(values)

    def given(self) -> Mapping[str, Any]:
        """The values that take the place of stored ones in the innermost of this store's runs that is under way."""
        return next((program.given for program in reversed(opened()) if program.store is self), {})

    def held(self, name: str) -> Any:
        """The stored value of a variable."""
        try:
            return self._values[name]
        except KeyError:
            raise ValueError(f"the variable {name!r} is no longer in its store, which was reset") from None

    def _check_names(self, argument: str, values: Mapping[str, Any]) -> None:
        if unknown := [name for name in values if name not in self._values]:
            known = _listed(list(self._values)) or "none"
            raise ValueError(f"`{argument}` has names that no variable has: {_listed(unknown)}; there are {known}")

    def _check_given(self, name: str, value: Any) -> None:
        held = self._values[name]
        if not hasattr(value, "shape") or _backends.home(value) is None:
            raise TypeError(f"`values[{name!r}]` must be an array; got {type(value).__name__}")
        _check_shape(name, value, held)
        if _dtype_name(value) != _dtype_name(held):
            raise TypeError(
                f"`values[{name!r}]` has dtype {_dtype_name(value)}; the variable has {_dtype_name(held)} "
                f"(convert with .astype)"
            )


def constrained(name: str, constraint: Callable[[Any], Any] | None, value: Any) -> Any:
    """A value of the variable `name` after its constraint, if it has one."""
    if constraint is None:
        return value
    if not hasattr(value, "shape"):
        value = _backends.of(value).asarray(f"values[{name!r}]", value)
    result = constraint(value)
    shape = getattr(result, "shape", None)
    if shape is None or tuple(shape) != tuple(value.shape):
        made = f"shape {tuple(shape)}" if shape is not None else repr(type(result))
        raise ValueError(
            f"the constraint of {name!r} made {made} of shape {tuple(value.shape)}; it must keep the shape"
        )
    return result


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    if not hasattr(values, "items"):
        raise TypeError(f"`values` must be a dict of arrays by variable name; got {type(values).__name__}")
    return {name: plain(values[name]) for name in values}


def _dtype_name(array: Any) -> str:
    return _backends.of(array).dtype_name(array)


def check_same(name: str, shape: tuple[int, ...], dtype: str, variable: Variable) -> None:
    """Refuses to take `variable` for one of this shape and dtype if it is not."""
    if variable.shape != shape:
        raise ValueError(f"the variable {name!r} exists with shape {variable.shape}; this call needs shape {shape}")
    if (held := _dtype_name(variable.store.held(name))) != dtype:
        raise ValueError(f"the variable {name!r} exists with dtype {held}; this call needs {dtype}")


def _check_shape(name: str, new: Any, held: Any) -> None:
    if tuple(new.shape) != tuple(held.shape):
        raise ValueError(f"`values[{name!r}]` has shape {tuple(new.shape)}; the variable has {tuple(held.shape)}")


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
