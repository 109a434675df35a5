# SPDX-License-Identifier: Apache-2.0
"""PyTorch tensors: what is accepted as one, and the operators of `torch_operators` on them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backstride import _ops
from backstride._backends import DTYPES, loaded, numpy
from backstride._backends.torch_operators import Sizes, call, cast, channels_are_last
from backstride._geometry import Geometry, Operand

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def asarray(name: str, value: Any) -> Tensor:
    """A tensor as it is, if it would be accepted; anything else as NumPy reads it."""
    if not isinstance(value, Tensor):
        return _from_numpy(numpy.asarray(name, value))
    if value.dtype not in _NAMES:
        raise TypeError(f"`{name}` has dtype {dtype_name(value)}; it must be one of {', '.join(DTYPES)}")
    if value.layout is not torch.strided:
        raise TypeError(f"`{name}` is a tensor of layout {value.layout}; make it dense, by .to_dense()")
    return value


def _from_numpy(array: np.ndarray) -> Tensor:
    """A copy of an array that NumPy's `asarray` lets pass."""
    plain = np.array(array, array.dtype.newbyteorder("="), order="C")
    if numpy.dtype_name(array) == "bfloat16":
        return torch.from_numpy(plain.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(plain)


def dtype_name(array: Any) -> str:
    """See `backstride._backends.Backend`."""
    if not isinstance(array, Tensor):
        return numpy.dtype_name(array)
    return _NAMES.get(array.dtype) or str(array.dtype).removeprefix("torch.")


def same_dtype(one: Tensor, other: Tensor) -> bool:
    """See `backstride._backends.Backend`; the operators cast where autocast is on."""
    return cast(one).dtype == cast(other).dtype


def astype(array: Tensor, dtype: str) -> Tensor:
    """See `backstride._backends.Backend`."""
    return array.to(_DTYPES[dtype])


def scalar(x: Tensor, value: float) -> float:
    """See `backstride._backends.Backend`."""
    return value


def derivative(wrt: Operand, geometry: Geometry, first: Tensor, second: Tensor) -> Tensor:
    """See `backstride._ops.derivative`. The result's channels are in memory where those of the operand are."""
    one, other = _ops.given(wrt)
    first, second = _torch_order(one, first, geometry), _torch_order(other, second, geometry)
    axes = geometry.axes
    sizes = Sizes(
        lengths=[axis.kernel if wrt == "filter" else axis.input if wrt == "input" else axis.output for axis in axes],
        stride=[axis.stride for axis in axes],
        dilation=[axis.dilation for axis in axes],
        pad=[axis.pad for axis in axes],
        groups=geometry.groups,
        channels_last=wrt == "filter" or channels_are_last(second if wrt == "input" else first),
    )
    result = call(wrt, first, second, sizes)
    if wrt == "filter":
        return result.permute(*range(2, result.ndim), 1, 0)
    return result if geometry.channels_first else result.movedim(1, -1)


def _torch_order(operand: Operand, x: Tensor, geometry: Geometry) -> Tensor:
    """A view of an operand in the order of axes that the operators have."""
    if operand == "filter":
        return x.permute(-1, -2, *range(x.ndim - 2))
    return x if geometry.channels_first else x.movedim(-1, 1)


namespace = SimpleNamespace(
    abs=torch.abs,
    clip=torch.clip,
    concatenate=torch.concatenate,
    exp=torch.exp,
    max=torch.amax,
    ones_like=torch.ones_like,
    sqrt=torch.sqrt,
    square=torch.square,
    sum=torch.sum,
    tanh=torch.tanh,
    zeros_like=torch.zeros_like,
    zeros=lambda shape, dtype: torch.zeros(shape, dtype=dtype),
)


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """See `backstride._backends.Backend`."""
    return functional.leaky_relu(x, alpha) if alpha else functional.relu(x)


def elu(x: Tensor, alpha: float) -> Tensor:
    """See `backstride._backends.Backend`."""
    return torch.where(x >= 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


def erfc(x: Tensor) -> Tensor:
    """See `backstride._backends.Backend`."""
    return torch.erfc(x)


exp = torch.exp


def softplus(x: Tensor) -> Tensor:
    """See `backstride._backends.Backend`."""
    return torch.logaddexp(x, x.new_zeros(()))


def clip(x: Tensor, high: float) -> Tensor:
    """See `backstride._backends.Backend`."""
    return functional.hardtanh(x, 0, high)


def like(name: str, value: Any, template: Any) -> Tensor:
    """See `backstride._backends.Backend`. Floats are a parameter, on the device of the template."""
    if not isinstance(value, Tensor):
        value = _from_numpy(numpy.asarray(name, value))
    if not isinstance(template, Tensor):
        raise TypeError(
            f"the variable {name!r} holds NumPy arrays; got a tensor (convert it first, by .numpy(), or give it as "
            f"`values` to a run)"
        )
    if value.is_floating_point() and not template.is_floating_point():
        raise TypeError(f"the variable {name!r} holds {_NAMES[template.dtype]}; got {dtype_name(value)}")
    held = value.detach().to(template.device, template.dtype, copy=True)
    if held.dtype != value.dtype and not _same_range(value, held):
        raise ValueError(
            f"the variable {name!r} holds {_NAMES[template.dtype]}, in which some of these numbers of "
            f"{dtype_name(value)} don't fit"
        )
    return torch.nn.Parameter(held) if held.is_floating_point() else held


def _same_range(x: Tensor, converted: Tensor) -> bool:
    """Whether integers stayed the same and finite numbers finite."""
    if converted.is_floating_point():
        return bool((torch.isfinite(converted) | ~torch.isfinite(x).to(converted.device)).all())
    return bool((converted == x.to(converted.device)).all())


def assigned(held: Tensor, new: Tensor) -> Tensor:
    """See `backstride._backends.Backend`: optimizers write to the tensors that they were given."""
    with torch.no_grad():
        return held.copy_(new)


def to_numpy(value: Tensor) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view(numpy.named("bfloat16"))
    return value.numpy()


def lent(name: str, array: Tensor) -> np.ndarray:
    """See `backstride._backends.Backend`."""
    if array.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"`{name}` requires a gradient, and a plan has none; use nn.conv2d_transpose or backstride.torch's layers, "
            f"or call it under torch.no_grad()"
        )
    if array.device.type != "cpu":
        raise TypeError(f"`{name}` is on {array.device}, and a plan computes on CPUs; use nn.conv2d_transpose")
    return to_numpy(array.resolve_neg())


def given_back(result: np.ndarray) -> Tensor:
    """See `backstride._backends.Backend`."""
    if numpy.dtype_name(result) == "bfloat16":
        return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(result)


borrowed = torch.get_num_threads

loaded(__name__)
