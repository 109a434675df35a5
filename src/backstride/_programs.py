# SPDX-License-Identifier: Apache-2.0
"""What TensorFlow 1 kept per graph: the scopes opened so far, the variables made so far, the collections.

A store has one program of its own, for calls that are made directly, and `VariableStore.run` makes a fresh one for
every run. Each thread, and each asyncio task, is in programs of its own; the innermost is the current one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from backstride._variables import Variable, VariableStore


class GraphKeys:
    """The names of the standard collections, as `tf.GraphKeys` documents them.

    >>> import backstride
    >>> backstride.GraphKeys.TRAINABLE_VARIABLES
    'trainable_variables'
    """

    GLOBAL_VARIABLES = "variables"
    TRAINABLE_VARIABLES = "trainable_variables"
    REGULARIZATION_LOSSES = "regularization_losses"


class _AutoReuse:
    """The type of `AUTO_REUSE`."""

    def __repr__(self) -> str:
        return "AUTO_REUSE"

    def __reduce__(self) -> str:
        return "AUTO_REUSE"  # a copy is the same object


AUTO_REUSE = _AutoReuse()
Reuse = bool | _AutoReuse | None


@dataclass(eq=False)
class VariableScope:
    """An opened scope, as `tf.VariableScope` documents it; `variable_scope` makes them.

    Attributes:
        name: the path of the scope, such as 'decoder/up1'; empty at the root.
        reuse: None or False, True, or `AUTO_REUSE`, from this scope or one around it.
        initializer, regularizer: what variables of this scope are made with that bring none.
    """

    name: str
    reuse: Reuse = None
    initializer: Callable[..., Any] | None = None
    regularizer: Callable[[Any], Any] | None = None
    _program: Program | None = field(default=None, repr=False)

    def reuse_variables(self) -> None:
        """From now on variables of this scope must exist."""
        self.reuse = True

    def path(self, name: str) -> str:
        """The full name of a variable or scope called `name` in this one."""
        return f"{self.name}/{name}" if self.name else name

    def global_variables(self) -> list[Variable]:
        """The variables whose names begin with this scope's."""
        return self._collection(GraphKeys.GLOBAL_VARIABLES)

    def trainable_variables(self) -> list[Variable]:
        """Those of them that are trainable."""
        return self._collection(GraphKeys.TRAINABLE_VARIABLES)

    def _collection(self, key: str) -> list[Any]:
        assert self._program is not None
        return self._program.collection(key, self)


class Loss(NamedTuple):
    """An entry of the collection of regularization losses; computed when it is read."""

    name: str
    read: Callable[[], Any]


class Program:
    """The state of one program over the variables of `store`.

    Attributes:
        given: values by variable name that take the place of the store's.
        variables: the variables that exist in this program, by name.
        scope: the current scope.
        opened: the full names of the scopes that count as used; what default names are made unique by.
    """

    def __init__(self, store: VariableStore, given: Mapping[str, Any]) -> None:
        self.store = store
        self.given = given
        self.variables: dict[str, Variable] = {}
        self.scope = VariableScope("", _program=self)
        self.opened: set[str] = set()
        self._collections: dict[str, list[Any]] = defaultdict(list)

    def add(self, variable: Variable) -> None:
        """Makes `variable` one of this program's, with its regularization losses."""
        losses = [_weight_loss(variable, regularizer) for regularizer in variable.regularizers]
        losses = [loss for loss in losses if loss.read() is not None]
        self.variables[variable.name] = variable
        self.collect(GraphKeys.GLOBAL_VARIABLES, variable)
        if variable.trainable:
            self.collect(GraphKeys.TRAINABLE_VARIABLES, variable)
        for loss in losses:
            self.collect(GraphKeys.REGULARIZATION_LOSSES, loss)

    def adopt(self, variable: Variable) -> None:
        """The same for a variable that another program has made, unless one of its name exists here."""
        if variable.name not in self.variables:
            self.add(variable)

    def collect(self, key: str, entry: Any) -> None:
        """Appends to a collection."""
        self._collections[key].append(entry)

    def collection(self, key: str, scope: str | VariableScope | None = None) -> list[Any]:
        """The entries of a collection, losses evaluated now; `scope` is a pattern that their names must begin with."""
        entries = self._collections.get(key, [])
        if scope is not None:
            pattern = _pattern(scope)
            entries = [entry for entry in entries if hasattr(entry, "name") and pattern.match(entry.name)]
        return [entry.read() if isinstance(entry, Loss) else entry for entry in entries]

    def forget(self) -> None:
        """Lets go of values and losses, which hold all that a gradient needed, even if a scope keeps the program."""
        self.given = {}
        self._collections.clear()

    def __enter__(self) -> Program:
        _open.set((*_open.get(), self))
        return self

    def __exit__(self, *error: object) -> Literal[False]:
        programs = list(_open.get())
        for at in reversed(range(len(programs))):
            if programs[at] is self:
                del programs[at]
                break
        _open.set(tuple(programs))
        return False


def _pattern(scope: Any) -> re.Pattern[str]:
    if isinstance(scope, VariableScope):
        scope = re.escape(scope.path(""))
    try:
        return re.compile(scope)
    except (re.error, TypeError) as error:
        raise ValueError(f"`scope` must be a pattern or a scope object; got scope={scope!r}: {error}") from None


def _weight_loss(variable: Variable, regularizer: Callable[[Any], Any]) -> Loss:
    return Loss(f"{variable.name}/Regularizer", lambda: regularizer(variable.value))


# Of each thread, and of each asyncio task, the programs that it is in, the innermost last.
_open: ContextVar[tuple[Program, ...]] = ContextVar("backstride_programs", default=())


def opened() -> tuple[Program, ...]:
    """The programs that are open here, the current one last."""
    return _open.get()


def replace(old: Program, new: Program) -> None:
    """Puts a fresh program in the place of one that may be open here."""
    _open.set(tuple(new if program is old else program for program in _open.get()))
