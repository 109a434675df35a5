# SPDX-License-Identifier: Apache-2.0
"""Layer programs: what a user of variable scopes does, as plain data, and an interpreter of it for any API.

A program is a list of steps, each a dict whose first key says what to do, and holds keyword arguments:

    {"layer": {...}}                      a call of layers.conv2d_transpose
    {"make": {...}}                       makes a layers.Conv2DTranspose
    {"call": {"made": 0, "inputs": ...}}  calls the first that was made
    {"get": {...}}                        a call of get_variable
    {"open": {...}, "body": [step, ...]}  the body inside a variable_scope; with "through": True, an error
                                          in the body leaves the scope as well, and the program goes on after it
    {"reuse_variables": {"of": scope}}    a call of that method
    {"list": {"of": scope}}               calls of global_variables and trainable_variables of a scope object, or
    {"list": {"scope": pattern}}          of the functions

JSON holds the arguments: `"@name"` is a name of `Interpreter.named`, `{"opened": 1}` the first scope that was opened
(0 the one around everything), `{"tuple": [...]}` a tuple, `{"numpy": "int64", "value": 3}` a NumPy scalar or array,
and `{"array": [1, 2, 2, 1], "dtype": "float32"}` an array of small integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import backstride

Program = list[dict[str, Any]]


@dataclass(frozen=True)
class World:
    """An API with TensorFlow's names, where it keeps regularizers and constraints, and how its arrays are treated."""

    api: Any
    keras: Any
    new: Callable[[], AbstractContextManager[Any]]
    array: Callable[[np.ndarray], Any]
    sum: Callable[[Any], Any]
    read: Callable[[Sequence[Any]], Sequence[Any]]


WORLD = World(
    api=backstride,
    keras=backstride,
    new=lambda: backstride.VariableStore(),
    array=lambda array: array,
    sum=np.sum,
    read=lambda arrays: arrays,
)


@dataclass(frozen=True)
class Outcome:
    """What each step gave, and what there is afterwards."""

    events: list[Any]
    variables: list[dict[str, Any]]
    trainable: list[str]
    losses: list[Any]

    def differences(self, other: Outcome) -> list[str]:
        """Where the two are not the same, to the bit."""
        return list(_differences("", asdict(self), asdict(other)))


def _differences(path: str, one: Any, other: Any) -> Iterator[str]:
    match one, other:
        case np.ndarray(), np.ndarray():
            if one.dtype != other.dtype or not np.array_equal(one, other, equal_nan=True):
                yield f"{path}: {one.dtype} {one.tolist()}, not {other.dtype} {other.tolist()}"
        case dict(), dict() if one.keys() == other.keys():
            for key in one:
                yield from _differences(f"{path}/{key}", one[key], other[key])
        case list(), list() if len(one) == len(other):
            for at, pair in enumerate(zip(one, other, strict=True)):
                yield from _differences(f"{path}/{at}", *pair)
        case _ if one != other:
            yield f"{path}: {one}, not {other}"


def run(program: Program, world: World) -> Outcome:
    with world.new():
        interpreter = Interpreter(world)
        interpreter.body(program, through=False)
        return interpreter.outcome()


class Interpreter:
    def __init__(self, world: World) -> None:
        self.world = world
        self.named = _named(world)
        self.scopes = [world.api.get_variable_scope()]
        self.made: list[Any] = []
        self.events: list[Any] = []

    def body(self, steps: Program, through: bool) -> None:
        for step in steps:
            try:
                self._step(step)
            except Exception as error:
                if through:
                    raise
                self.events.append({"error": _documented(error)})

    def _step(self, step: dict[str, Any]) -> None:
        api = self.world.api
        kind = next(iter(step))
        arguments = self._value(step[kind])
        match kind:
            case "open":
                with api.variable_scope(**arguments) as scope:
                    reuse = "@AUTO_REUSE" if scope.reuse is api.AUTO_REUSE else bool(scope.reuse)
                    self.events.append({"scope": scope.name, "reuse": reuse})
                    self.scopes.append(scope)
                    self.body(step["body"], step.get("through", False))
            case "reuse_variables":
                arguments["of"].reuse_variables()
            case "list":
                owner = arguments.pop("of", api)
                every, trainable = owner.global_variables(**arguments), owner.trainable_variables(**arguments)
                self.events.append({"listed": _names(every), "trainable": _names(trainable)})
            case "get":
                self.events.append({"variable": _name(api.get_variable(**arguments))})
            case "layer":
                self.events.append({"output": api.layers.conv2d_transpose(**arguments)})
            case "make":
                self.made.append(api.layers.Conv2DTranspose(**arguments))
            case "call":
                self.events.append({"output": self.made[arguments["made"]](arguments["inputs"])})

    def _value(self, value: Any) -> Any:
        match value:
            case str() if value.startswith("@"):
                return self.named[value]
            case list():
                return [self._value(item) for item in value]
            case {"opened": number}:
                return self.scopes[number % len(self.scopes)]
            case {"tuple": items}:
                return tuple(items)
            case {"numpy": dtype, "value": numbers}:
                return np.array(numbers, dtype)[()]
            case {"array": shape, "dtype": dtype}:
                return self.world.array(integers(shape, dtype))
            case dict():
                return {name: self._value(item) for name, item in value.items()}
        return value

    def outcome(self) -> Outcome:
        api = self.world.api
        variables = api.global_variables()
        losses = api.get_collection(api.GraphKeys.REGULARIZATION_LOSSES)
        outputs = [event for event in self.events if "output" in event]
        arrays = [np.asarray(a) for a in self.world.read([*variables, *losses, *(e["output"] for e in outputs)])]
        values, arrays = arrays[: len(variables)], arrays[len(variables) :]
        for event, array in zip(outputs, arrays[len(losses) :], strict=True):
            event["output"] = array
        tags = {id(value): name for name, value in self.named.items()}
        described = [
            {
                "name": _name(variable),
                "trainable": bool(variable.trainable),
                "constraint": tags.get(id(variable.constraint)),
                "value": value,
            }
            for variable, value in zip(variables, values, strict=True)
        ]
        return Outcome(self.events, described, _names(api.trainable_variables()), arrays[: len(losses)])


def _name(variable: Any) -> str:
    """TensorFlow adds the number of the output that holds it."""
    return variable.name.removesuffix(":0")


def _names(variables: Sequence[Any]) -> list[str]:
    return [_name(variable) for variable in variables]


def _documented(error: Exception) -> str:
    """ValueError or TypeError; anything else as it is called."""
    return next((c.__name__ for c in (ValueError, TypeError) if isinstance(error, c)), type(error).__name__)


def integers(shape: Sequence[int], dtype: Any, first: int = 0) -> np.ndarray:
    """Small integers: sums of products of them are exact in every dtype."""
    numbers = np.arange(first, first + np.prod(shape, dtype=int)) * 7 % 5 - 1
    return numbers.reshape(shape).astype(getattr(dtype, "as_numpy_dtype", dtype))


def statistics(array: np.ndarray) -> dict[str, float]:
    return {name: float(getattr(np, name)(array)) for name in ("mean", "std", "min", "max")}


def as_json(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "values": array.ravel().tolist()}


def from_json(entry: dict[str, Any]) -> Any:
    """`as_json` undone, in any object of a file: json.load's `object_hook`."""
    if entry.keys() == {"dtype", "shape", "values"}:
        return np.array(entry["values"], entry["dtype"]).reshape(entry["shape"])
    return entry


def _named(world: World) -> dict[str, Any]:
    """What programs refer to by `@name`. Initializers make arrays that all APIs share."""
    keras, total = world.keras, world.sum
    return {
        "@AUTO_REUSE": world.api.AUTO_REUSE,
        "@rising": lambda shape, dtype=None: integers(shape, dtype),
        "@shifted": lambda shape, dtype, partition_info: integers(shape + [], dtype, 3),  # `shape` is a list
        "@too long": lambda shape, dtype=None: integers([*shape, 2], dtype),
        "@without dtype": lambda shape: integers(shape, "float32"),
        "@sum": total,
        "@twice the sum": lambda x: total(x) * 2,
        "@squares": lambda x: x * x,
        "@nothing": lambda x: None,
        "@l1": keras.regularizers.l1(0.5),
        "@l2": keras.regularizers.l2(0.25),
        "@non_neg": keras.constraints.non_neg(),
        "@as it is": lambda x: x,
        "@relu": world.api.nn.relu,
        "@negative": lambda x: -x,
    }
