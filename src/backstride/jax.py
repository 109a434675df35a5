# SPDX-License-Identifier: Apache-2.0
"""Functions that call `layers` as pure functions of their variables, for JAX's transformations.

The functions of this package take JAX arrays without this module; it is for variables. A compiled function that calls
`layers` without it has their values of that time in it, as constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from backstride._backends import jax as backend
from backstride._variables import Run, VariableStore, constrained

__all__ = ["Transformed", "transform"]

Params = dict[str, jax.Array]


def transform(function: Callable[..., Any]) -> Transformed:
    """`function`, which calls `layers` or `get_variable`, as pure functions of variables in a dict.

    >>> import backstride, jax, jax.numpy as jnp
    >>> def decoder(x):
    ...     return backstride.layers.conv2d_transpose(x, filters=8, kernel_size=4, strides=2, padding="same", name="up")
    >>> net = backstride.jax.transform(decoder)
    >>> image = jnp.ones((1, 16, 16, 3))
    >>> params = net.init(0, image)
    >>> {name: value.shape for name, value in params.items()}
    {'up/kernel': (4, 4, 8, 3), 'up/bias': (8,)}
    >>> jax.jit(net.apply)(params, image).shape
    (1, 32, 32, 8)
    >>> gradient = jax.grad(lambda params: jnp.mean(net.apply(params, image) ** 2))(params)
    >>> sorted(gradient)
    ['up/bias', 'up/kernel']

    Args:
        function: of any arguments. Each call of it is a program of its own, as in `VariableStore.run`: it opens scopes
            and makes variables anew, whose names are those of TensorFlow.

    Returns:
        A `Transformed`.
    """
    return Transformed(function)


class Transformed:
    """What `transform` returns."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._rules: dict[str, _Rule] = {}

    def init(self, seed: Any, *args: Any, **kwargs: Any) -> Params:
        """The initial values of the variables by name, for a call of the function with these arguments.

        Args:
            seed: what the initializers' random numbers follow from: an int, or a key of `jax.random`. It must be known:
                under `jax.jit` or `jax.eval_shape` it is a constant.

        Raises:
            TypeError: `seed` is neither, or a tracer.
        """
        store = VariableStore(_seed(seed))
        self._run(store, *args, **kwargs)
        return {name: backend.asarray(name, value) for name, value in store.values().items()}

    def apply(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The function's result with these values of the variables.

        Args:
            params: arrays by variable name, as `init` returns them or `VariableStore.load` has read them.

        Raises:
            ValueError: `params` lacks a variable of the function, has one that the function does not make, or one of
                another shape or dtype.
        """
        return self.run(params, *args, **kwargs).result

    def run(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> Run:
        """The same, with the regularization losses: a `Run` of `result` and `losses`.

        >>> import backstride, jax.numpy as jnp
        >>> net = backstride.jax.transform(
        ...     lambda: backstride.get_variable("w", [2], regularizer=backstride.regularizers.l2(0.5)) * 2
        ... )
        >>> net.run({"w": jnp.array([1.0, 2.0])})
        Run(result=Array([2., 4.], dtype=float32), losses=[Array(2.5, dtype=float32)])

        Args, Raises: as `apply`.
        """
        store = VariableStore()
        store.hold({name: backend.asarray(f"params[{name!r}]", value) for name, value in params.items()})
        result = self._run(store, *args, **kwargs)
        made = store.program.variables
        wrong = [f"{name!r} is missing" for name in made if name not in params]
        wrong += [f"{name!r} is unexpected" for name in params if name not in made]
        if wrong:
            raise ValueError(f"`params` does not hold the function's variables: {', '.join(wrong)}")
        return result

    def trainable(self, params: Mapping[str, Any]) -> Params:
        """Those of `params` that an optimizer is to change. Which these are is known once `init` or `apply` has run."""
        return {name: value for name, value in params.items() if self._rule(name).trainable}

    def constrain(self, params: Mapping[str, Any]) -> Params:
        """`params` after the constraint of each variable that has one; what to do after an optimizer's step.

        >>> import backstride, jax.numpy as jnp
        >>> net = backstride.jax.transform(
        ...     lambda: backstride.get_variable("w", [2], constraint=backstride.constraints.non_neg()).value
        ... )
        >>> params = net.init(0)
        >>> net.constrain({"w": jnp.array([-1.0, 3.0])})["w"] >= 0
        Array([ True,  True], dtype=bool)

        Args:
            params: arrays by variable name, all or some, such as `optax.apply_updates` returns them. Which constraints
                there are is known once `init` or `apply` has run.

        Raises:
            ValueError: no variable has such a name, or a constraint changes the shape.
        """
        return {
            name: constrained(name, self._rule(name).constraint, value).astype(value.dtype)
            for name, value in params.items()
        }

    def _run(self, store: VariableStore, *args: Any, **kwargs: Any) -> Run:
        run = store.run(self._function, *args, **kwargs)
        made = store.program.variables
        self._rules = {name: _Rule(variable.trainable, variable.constraint) for name, variable in made.items()}
        return run

    def _rule(self, name: str) -> _Rule:
        if name not in self._rules:
            known = ", ".join(map(repr, self._rules)) or "none before `init` or `apply` has run"
            raise ValueError(f"`params` has {name!r}, which no variable is called; there are {known}")
        return self._rules[name]


class _Rule(NamedTuple):
    """What is known of a variable besides its value, which may be a tracer."""

    trainable: bool
    constraint: Callable[[Any], Any] | None


def _seed(seed: Any) -> Any:
    """A key's numbers as one int; anything else as it is, which the store checks."""
    if not isinstance(seed, jax.Array) or isinstance(seed, jax.core.Tracer):
        return seed
    if jax.numpy.issubdtype(seed.dtype, jax.dtypes.prng_key):
        seed = jax.random.key_data(seed)
    return int.from_bytes(np.asarray(seed).tobytes(), "little")
