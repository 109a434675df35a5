# SPDX-License-Identifier: Apache-2.0
"""Existing models, whose transposed convolutions the core computes from then on."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from backstride import _plan, _precision
from backstride._geometry import Geometry, Layer
from backstride.torch._layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from backstride.torch._weights import forget

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}

# Seconds for which a model is called with each layer computed in turns, and how often at least.
_BUDGET, _CALLS = 2.0, 3


class Accelerated(NamedTuple):
    """What `accelerate` did.

    Attributes:
        replaced: the names of the layers that backstride computes from now on.
        left: why by name, the layers that PyTorch computes as before.
    """

    replaced: list[str]
    left: dict[str, str]


def accelerate(model: nn.Module, example_inputs: Any = None) -> Accelerated:
    """Makes backstride compute the transposed convolutions of a model, in place.

    Layers stay the objects that they are, with their parameters, hooks, parametrizations and `state_dict`; only their
    `forward` is another. Results differ by rounding: at most 1.25 times the error of plain sums, or as
    `backstride.precision` says. The model trains, compiles, is copied and pickled as before; `torch.jit` and `torch.fx`
    can't trace it until it is restored.

    >>> import torch, backstride.torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), torch.nn.Tanh())
    >>> backstride.torch.accelerate(model)
    Accelerated(replaced=['0'], left={})
    >>> backstride.torch.restore(model)
    ['0']

    Args:
        model: any module. Its layers of exactly the types `torch.nn.ConvTranspose1d`, `2d` and `3d`, also
            parametrized or weight-normalized ones, are replaced where they are on a CPU and of floats.
        example_inputs: None, or what the model is called with: a tensor, a tuple of arguments or a dict of keyword
            arguments. Then the model is called so for about two seconds and eight times at least, in evaluation, and a
            layer is left alone if PyTorch is faster within these calls. Without, layers are left that PyTorch is known
            to compute faster.

    Returns:
        An `Accelerated`: which layers were replaced, and which were left and why.

    Raises:
        TypeError: `model` is not a module.
    """
    _check_module(model)
    replaced, left, fitting = [], {}, {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            if reason := _unfit(module):
                left[name] = reason
            else:
                fitting[name] = module
    shares = {} if example_inputs is None else _shares(model, list(fitting.values()), example_inputs)
    for name, module in fitting.items():
        if reason := _expected(module) if example_inputs is None else _measured(shares.get(module)):
            left[name] = reason
        else:
            _become(module, _OURS)
            replaced.append(name)
    return Accelerated(replaced, left)


def restore(model: nn.Module) -> list[str]:
    """Gives the layers that `accelerate` replaced back to PyTorch, in place.

    >>> import torch, backstride.torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), torch.nn.Tanh())
    >>> done = backstride.torch.accelerate(model)
    >>> backstride.torch.restore(model)
    ['0']

    Args:
        model: a module that `accelerate` was called with, a copy or a part of it.

    Returns:
        The names of these layers.

    Raises:
        TypeError: `model` is not a module.
    """
    _check_module(model)
    names = [name for name, module in model.named_modules() if "_accelerated" in module.__dict__]
    for name in names:
        _become(model.get_submodule(name), _THEIRS)
    return names


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module; got {type(model).__qualname__}")


def _base(module: nn.Module) -> type[nn.Module]:
    """The type that a module had before it was parametrized, which gives each module a type of its own."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _unfit(module: nn.Module) -> str:
    """Why a layer can't be replaced, or nothing."""
    base = _base(module)
    if base in _THEIRS:
        return "backstride computes it already"
    if base not in _OURS:
        return f"its type {base.__qualname__} is not PyTorch's own"
    if "forward" in vars(module):
        return "its forward is not its type's"
    tensors = list(module.parameters())
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return f"it is on {tensors[0].device}"
    if any(not tensor.is_floating_point() for tensor in tensors):
        return f"its dtype is {tensors[0].dtype}"
    for name in ("kernel_size", "stride", "dilation"):
        if not all(1 <= number < _LARGEST for number in getattr(module, name)):
            return f"its {name} is {getattr(module, name)}"
    return ""


def _become(module: Any, types: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Gives a module the type that stands for its own; a parametrized one a type like its own, derived from that."""
    new = types[_base(module)]
    if parametrize.is_parametrized(module):
        body = {name: value for name, value in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
        new = type(type(module).__name__, (new,), body)
    module.__class__ = new
    if types is _OURS:
        module._accelerated = True
    else:
        del module._accelerated
        forget(module)


def _shares(model: nn.Module, layers: list[nn.Module], example: Any) -> dict[nn.Module, float]:
    """What share of the core's time PyTorch takes for each layer that is reached, in evaluation.

    A layer alone, called again and again, would have its weight in the cache and other code's threads asleep. So the
    times are those within calls of the model: of pairs of calls, in which PyTorch and the core compute all layers.
    """
    way = 0
    seconds: dict[Any, tuple[list[float], list[float]]] = {layer: ([], []) for layer in layers}

    def forward(layer: Any, *args: Any, **kwargs: Any) -> Any:
        theirs = _base(layer)
        result, taken = _timed(functools.partial((theirs, _OURS[theirs])[way].forward, layer, *args, **kwargs))
        seconds[layer][way][-1] += taken
        return result

    modes = {module: module.training for module in model.modules()}
    try:
        for layer in layers:
            layer.forward = functools.partial(forward, layer)
        model.eval()
        begin, calls = time.perf_counter(), 0
        while calls <= _CALLS or time.perf_counter() - begin < _BUDGET:
            for way in (0, 1):
                for times in seconds.values():
                    times[way].append(0.0)
                with torch.no_grad():
                    if isinstance(example, Mapping):
                        model(**example)
                    else:
                        model(*(example if isinstance(example, tuple | list) else (example,)))
            calls += 1
    finally:
        for layer in layers:
            del layer.forward
            forget(layer)
        for module, mode in modes.items():
            module.training = mode
    # The first calls make what is kept.
    return {
        layer: statistics.median(one / other for one, other in zip(theirs[1:], ours[1:], strict=True))
        for layer, (theirs, ours) in seconds.items()
        if all(theirs) and all(ours)
    }


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the seconds that it takes."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def _measured(share: float | None) -> str:
    """Why PyTorch should go on computing a layer, or nothing."""
    if share is None:
        return "the example did not reach it"
    return "" if share >= 1 else f"PyTorch takes {share:.2f} of the time"


def _expected(module: Any) -> str:
    """Why PyTorch is expected to compute a layer faster, or nothing.

    PyTorch multiplies by all taps at once and adds the products up, which takes the time of dense multiply-adds and of
    memory, however few the channels are that a tap makes. On a Sapphire Rapids PyTorch was faster in 13 of 14 measured
    layers for which the cost model's time is more than 5 times that, all of them with one channel and kernels of many
    cells. The 20 layers like those of published networks that were measured are below that.
    """
    rank = len(module.kernel_size)
    layer = Layer(module.kernel_size, module.stride, module.dilation, ((0, 0),) * rank, module.groups)
    lengths = (_LENGTHS[rank],) * rank
    outputs = [layer.lowest_output(n, length) for n, length in enumerate(lengths)]
    geometry = layer.resolve(1, module.in_channels, module.out_channels, lengths, outputs, channels_first=True)
    dense = Layer((4, 4), (2, 2), (1, 1), ((1, 1), (1, 1))).resolve(1, 256, 256, (64, 64), (128, 128))
    per_product = _cost(dense, "tiles") / _products(dense)
    numbers = math.prod(geometry.shape("input")) + math.prod(geometry.shape("output"))
    if _cost(geometry) <= _MOST * (per_product * _products(geometry) + _PER_NUMBER * numbers):
        return ""
    return "PyTorch is expected to be faster; `example_inputs` would tell"


# Beyond that no layer that computes has a kernel, a stride or a dilation.
_LARGEST = 2**31

# The lengths, by the number of axes, of the input for which a layer is judged, nanoseconds for a number in memory, and
# how often the time of PyTorch's way a layer may take.
_LENGTHS, _PER_NUMBER, _MOST = {1: 1024, 2: 64, 3: 16}, 2.0, 5


def _cost(geometry: Geometry, algorithm: str = "") -> float:
    """Nanoseconds of one thread that the cost model expects."""
    plan = _plan.plan("output", geometry, "float32", _precision.current(), packed=True)
    return dict(plan.costs())[algorithm or plan.algorithm]


def _products(geometry: Geometry) -> int:
    """The multiply-adds of the definition."""
    return math.prod(geometry.shape("input")) * math.prod(geometry.shape("filter")[:-1])
