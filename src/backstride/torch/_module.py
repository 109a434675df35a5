# SPDX-License-Identifier: Apache-2.0
"""Functions that call `backstride.layers` as PyTorch's modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from backstride._backends import torch as backend
from backstride._variables import Variable, VariableStore


def module(function: Callable[..., Any], seed: int | None = None) -> Module:
    """A module whose `forward` is `function`, and whose parameters are the variables that it makes.

    They have the names that TensorFlow gives them, so that `state_dict` has the names of a checkpoint.

    >>> import torch, backstride as tf, backstride.torch
    >>> def decoder(x):
    ...     x = tf.layers.conv2d_transpose(x, 8, 5, strides=2, padding="same", activation="relu", name="up1")
    ...     return tf.tanh(tf.layers.conv2d_transpose(x, 3, 5, strides=2, padding="same", name="up2"))
    >>> model = backstride.torch.module(decoder, seed=0)
    >>> model(torch.ones(1, 4, 4, 16)).shape
    torch.Size([1, 16, 16, 3])
    >>> list(model.state_dict())
    ['up1/kernel', 'up1/bias', 'up2/kernel', 'up2/bias']

    Args:
        function: of tensors; called as a program of its own every time, as `VariableStore.run` does.
        seed: what the initializers' random numbers follow from; None for different ones every time.

    Returns:
        A `Module`. The first call makes the parameters, as with PyTorch's lazy modules. They begin with what `load` or
        `load_state_dict` brought before, whose names are not checked then.
    """
    return Module(function, seed)


class Module(nn.Module):
    """What `module` returns.

    Attributes:
        losses: the regularization losses of the last call, in the order of their making.
    """

    def __init__(self, function: Callable[..., Any], seed: int | None = None) -> None:
        super().__init__()
        self._function = function
        self._store = VariableStore(seed)
        self.losses: list[Any] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns. The first call makes the parameters, and buffers of what is not trainable."""
        values = self._values()
        if not values:
            self._store.template = torch.empty(0, device=_device(args, kwargs))
        run = self._store.run(self._function, *args, values=values, **kwargs)
        self.losses = run.losses
        for name, variable in self._store.variables().items():
            if name not in values:
                self._register(name, variable)
        return run.result

    def _register(self, name: str, variable: Variable) -> None:
        """Makes a variable a parameter, or a buffer if it is not trainable. One made in inference mode could not be
        trained later, and is made again."""
        value = variable.value
        if value.is_inference():
            with torch.inference_mode(False):
                value = backend.like(name, value, value)
            self._store.hold({name: value})
        if variable.trainable:
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value.detach())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Reads a file that `VariableStore.save` wrote, or that holds a checkpoint's variables by name.

        Args:
            path: a .npz or .safetensors file. Before the first call its arrays are what the parameters begin with.

        Raises:
            ValueError: names are missing or unexpected, shapes differ, or the file is not whole.
        """
        self._store.hold(self._values())
        self._store.load(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes parameters and buffers as `VariableStore.save` writes variables.

        Args:
            path: a name that ends in .safetensors (extra `layers`) or .npz.

        Raises:
            ValueError: another ending, or a dtype that the format does not know.
        """
        self._store.hold(self._values())
        self._store.save(path)

    def constrained(self) -> dict[str, Tensor]:
        """The parameters that have a constraint, as it would have them."""
        values = dict(self.named_parameters(recurse=False))
        return {name: value for name, value in self._store.constrain(values).items() if value is not values[name]}

    def _values(self) -> dict[str, Tensor]:
        return dict(self.named_parameters(recurse=False)) | dict(self.named_buffers(recurse=False))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """What `load_state_dict` is made of; before the first call the store keeps the values, as `load` does."""
        if self._store.variables():
            super()._load_from_state_dict(state_dict, prefix, *rest)
        else:
            own = {name.removeprefix(prefix): state_dict[name] for name in state_dict if name.startswith(prefix)}
            self._store.hold({name: backend.to_numpy(value).copy() for name, value in own.items()})

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """What `to`, `double` and their kin are made of; the store then holds what became of the tensors."""
        result = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._store.hold(self._values())
        return result

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return state | {"losses": []}


def _device(args: Any, kwargs: Any) -> torch.device:
    """Where the first tensor among the arguments is."""
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    return next((tensor.device for tensor in tensors), torch.get_default_device())


def constrain(optimizer: torch.optim.Optimizer, model: nn.Module) -> RemovableHandle:
    """Applies the constraints of variables after every step of an optimizer, as TensorFlow's optimizers do.

    >>> import torch, backstride as tf, backstride.torch
    >>> model = backstride.torch.module(
    ...     lambda x: x * tf.get_variable("scale", [1], constraint=tf.constraints.non_neg()).value, seed=0
    ... )
    >>> loss = model(torch.ones(2)).sum() * 1e3
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> handle = backstride.torch.constrain(optimizer, model)
    >>> loss.backward()
    >>> optimizer.step()
    >>> abs(model.get_parameter("scale").item())
    0.0

    Args:
        optimizer: any optimizer of the model's parameters.
        model: a `Module`, or any module that has some in it.

    Returns:
        A handle, whose `remove()` ends it.
    """

    def after(*_: Any) -> None:
        with torch.no_grad():
            for part in model.modules():
                if isinstance(part, Module):
                    for name, value in part.constrained().items():
                        part.get_parameter(name).copy_(value)

    return optimizer.register_step_post_hook(after)
