# SPDX-License-Identifier: Apache-2.0
"""The three operations of `backstride._ops` as operators of PyTorch, differentiated to any order.

Their operands have PyTorch's order of axes: `[batch, channels, *axes]`, and filters `[in_channels, out_channels /
groups, *kernel]`. It is an order of axes, not of memory: channels that are last in memory, and filters as TensorFlow
has them, are views. CPU tensors are computed by the core, where they are; those of other devices by PyTorch's own
convolution. `backstride::layer` is the first of the three with a bias, and may keep its filter packed.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.nn.functional import pad as padded
from torch.utils.weak import WeakIdKeyDictionary

from backstride import _native, _ops, _plan, _precision
from backstride._backends import DTYPES, numpy
from backstride._geometry import LONGEST, Axis, Geometry, Operand


class Sizes(NamedTuple):
    """What operators take after their tensors: the lengths of the result's axes, and what the layer is."""

    lengths: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    pad: Sequence[int]
    groups: int
    channels_last: bool
    """Whether the result's memory is that of channels last; of a filter, that of TensorFlow's."""


_SIZES = "SymInt[] lengths, int[] stride, int[] dilation, SymInt[] pad, int groups, bool channels_last"
_SCHEMAS: dict[Operand, str] = {
    "output": f"conv_transpose(Tensor input, Tensor filter, {_SIZES}) -> Tensor",
    "input": f"conv_transpose_input(Tensor filter, Tensor output, {_SIZES}) -> Tensor",
    "filter": f"conv_transpose_filter(Tensor input, Tensor output, {_SIZES}) -> Tensor",
}
_LAYER = f"layer(Tensor input, Tensor filter, Tensor? bias, {_SIZES}, bool keep) -> Tensor"

# Where autocast has kernels of its own for convolutions.
_AUTOCAST = ("CPU", "CUDA", "XPU", "MPS")

Ints = tuple[int, ...]
_Run = Callable[[Tensor, Tensor, Any, Any], Tensor]


def channels_are_last(x: Tensor) -> bool:
    """Whether the channels of `[batch, channels, *axes]` are neighbours in memory, rather than those of an axis."""
    return x.stride(1) < x.stride(-1)


def _in_order_of(operand: Operand, x: Tensor) -> bool:
    """`channels_last` of a result that is to have the memory order of `x`."""
    return x.stride(0) < x.stride(-1) if operand == "filter" else channels_are_last(x)


def _check(wrt: Operand, first: Tensor, second: Tensor, groups: int) -> None:
    """Refuses operands that do not fit each other, which public functions but for the layers have found out by then."""
    one, other = _ops.given(wrt)
    if first.device != second.device:
        raise ValueError(f"the {one} is on {first.device} and the {other} on {second.device}; move one of them by .to")
    if first.dtype is not second.dtype or first.dtype not in _ELEMENTS:
        raise TypeError(
            f"the {one} and the {other} must be of one dtype, of {', '.join(DTYPES)}; got {first.dtype} and "
            f"{second.dtype}"
        )
    counts = {
        "output": (first.shape[1], second.shape[0]),
        "input": (first.shape[1] * groups, second.shape[1]),
        "filter": (first.shape[0], second.shape[0]),
    }
    if counts[wrt][0] != counts[wrt][1] or first.ndim != second.ndim:
        raise ValueError(
            f"the {one} of shape {tuple(first.shape)} and the {other} of shape {tuple(second.shape)} do not fit each "
            f"other"
        )


def _check_sizes(wrt: Operand, first: Sequence[int], second: Sequence[int], sizes: Sizes) -> None:
    """Refuses numbers that no layer has."""
    rank = len(first) - 2
    if not 1 <= rank <= 3:
        raise ValueError(f"operands must have 3 to 5 dimensions; got {len(first)}")
    for name, least in (("stride", 1), ("dilation", 1), ("lengths", 0), ("pad", -LONGEST)):
        values: Sequence[int] = getattr(sizes, name)
        if len(values) != rank or any(value < least for value in values):
            some = f"of at least {least}" if least >= 0 else "that are no larger"
            raise ValueError(f"`{name}` must be {rank} ints {some}; got {name}={list(values)}")
    groups = sizes.groups
    in_channels, out_channels = {
        "output": (second[0], groups),  # which has as many in each group as the filter says
        "input": (first[0], second[1]),
        "filter": (first[1], second[1]),
    }[wrt]
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(f"`groups` must divide the channels, {in_channels} and {out_channels}; got groups={groups}")


def _shape(wrt: Operand, first: Sequence[int], second: Sequence[int], sizes: Sizes) -> Ints:
    """The shape of a result, from those of the operands that are given."""
    if wrt == "output":
        return first[0], second[1] * sizes.groups, *sizes.lengths
    if wrt == "input":
        return second[0], first[0], *sizes.lengths
    return first[1], second[1] // sizes.groups, *sizes.lengths


def _strides(wrt: Operand, shape: Ints, channels_last: bool) -> Ints:
    order = list(range(len(shape)))
    if channels_last:
        order = [*order[2:], 1, 0] if wrt == "filter" else [0, *order[2:], 1]
    strides, step = [0] * len(shape), 1
    for dimension in reversed(order):
        strides[dimension] = step
        step = step * max(shape[dimension], 1)
    return tuple(strides)


def _fake(wrt: Operand, first: Tensor, second: Tensor, sizes: Sizes) -> Tensor:
    """A result without numbers."""
    _check(wrt, first, second, sizes.groups)
    _check_sizes(wrt, first.shape, second.shape, sizes)
    shape = _shape(wrt, first.shape, second.shape, sizes)
    return first.new_empty_strided(shape, _strides(wrt, shape, sizes.channels_last))


# On CPUs: the core


class _Recipe(NamedTuple):
    """What a call needs that follows from sizes alone."""

    geometry: Geometry
    shape: Ints
    strides: Ints


@functools.lru_cache(maxsize=1024)
def _recipe(
    wrt: Operand, first: Ints, second: Ints, lengths: Ints, stride: Ints, dilation: Ints, pad: Ints, *rest: Any
) -> _Recipe:
    sizes = Sizes(lengths, stride, dilation, pad, *rest)
    _check_sizes(wrt, first, second, sizes)
    shape = _shape(wrt, first, second, sizes)
    shapes = dict(zip(_ops.given(wrt), (first, second), strict=True)) | {wrt: shape}
    input, filter, output = (shapes[operand] for operand in _ops.OPERANDS)
    axes = tuple(map(Axis, input[2:], filter[2:], output[2:], stride, dilation, pad))
    for axis in axes:
        span = axis.input * axis.stride + axis.kernel * axis.dilation + axis.output + abs(axis.pad)
        if max(span, axis.stride, axis.dilation) >= LONGEST:
            raise ValueError(f"an axis must span fewer than 2**62 cells; got {axis}")
    geometry = Geometry(axes, input[0], input[1], output[1], sizes.groups, channels_first=True)
    return _Recipe(geometry, shape, _strides(wrt, shape, sizes.channels_last))


def _recipe_of(wrt: Operand, first: Tensor, second: Tensor, sizes: Sizes) -> _Recipe:
    lengths, stride, dilation, pad, groups, last = sizes
    _check(wrt, first, second, groups)
    return _recipe(
        wrt,
        tuple(first.shape),
        tuple(second.shape),
        tuple(lengths),
        tuple(stride),
        tuple(dilation),
        tuple(pad),
        groups,
        last,
    )


def _compute(wrt: Operand, first: Tensor, second: Tensor, sizes: Sizes) -> Tensor:
    """A result by the core, which reads and writes the memory of the tensors."""
    recipe = _recipe_of(wrt, first, second, sizes)
    result = _empty(recipe, first.dtype)
    if not (first.numel() and second.numel() and result.numel()):
        return result.zero_()
    one, other = _ops.given(wrt)
    plan = _plan.plan(wrt, recipe.geometry, _ELEMENTS[first.dtype], _precision.current())
    numpy.compute(plan, _view(one, first), _view(other, second), _view(wrt, result), torch.get_num_threads())
    return result


def _empty(recipe: _Recipe, dtype: torch.dtype) -> Tensor:
    """An uninitialized result; a large one in memory that earlier ones have given back, if there is any."""
    size = math.prod(recipe.shape) * dtype.itemsize
    if size < numpy.LARGE:
        return torch.empty_strided(recipe.shape, recipe.strides, dtype=dtype)
    numpy.check_size("the result", recipe.shape, dtype)
    memory = torch.from_numpy(_native.result(size)).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(memory, 0, recipe.shape, recipe.strides)


def _view(operand: Operand, x: Tensor) -> np.ndarray:
    """The memory of a tensor in the core's order of axes."""
    if x.requires_grad:
        x = x.detach()
    array = (x if x.dtype != torch.bfloat16 else x.view(torch.int16)).numpy()
    return array.transpose(*range(2, array.ndim), 1, 0) if operand == "filter" else array


# What the core calls the elements of a tensor, by dtype; `_view` makes NumPy's arrays of them.
_ELEMENTS = {torch.bfloat16: "bfloat16"} | {
    getattr(torch, dtype): numpy.element(np.dtype(dtype)) for dtype in DTYPES if dtype != "bfloat16"
}


def _crew() -> int:
    """The address of the function by which PyTorch's own code runs on many threads, or 0 if there is none. It is where
    the loader looks for it on behalf of PyTorch's library: first among all, then in what that one needs."""
    for library in (None, str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")):
        try:
            function = ctypes.CDLL(library).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


if torch.backends.openmp.is_available():
    _native.lend(_crew())


# On other devices: PyTorch's own convolution


def compute_elsewhere(wrt: Operand, first: Tensor, second: Tensor, sizes: Sizes) -> Tensor:
    """A result by PyTorch's convolution, whose padding is one number per axis: the rest is cut off, or zeros."""
    geometry, shape, strides = _recipe_of(wrt, first, second, sizes)
    if 0 in shape or not (first.numel() and second.numel()):
        return first.new_empty_strided(shape, strides).zero_()
    # Cells of the full result, of length `(input - 1) * stride + extent`, that are cut off before and after each axis.
    before = [axis.pad for axis in geometry.axes]
    after = [(a.input - 1) * a.stride + (a.kernel - 1) * a.dilation + 1 - a.pad - a.output for a in geometry.axes]
    both = [max(min(cut), 0) for cut in zip(before, after, strict=True)]
    given_back = [0] * len(both)  # cells after, by PyTorch's `output_padding`
    if wrt == "output" and all(
        a.pad >= 0 and 0 <= a.pad - cut < max(a.stride, a.dilation) for a, cut in zip(geometry.axes, after, strict=True)
    ):
        given_back = [one - other for one, other in zip(before, after, strict=True)]
        both = after = before
    more = [(one - common, other - common) for one, other, common in zip(before, after, both, strict=True)]
    window = list(sizes.stride), both, list(sizes.dilation)
    zeros = [0] * len(both)
    if wrt == "output":
        full = torch.ops.aten.convolution(first, second, None, *window, True, given_back, sizes.groups)
        result = _lengthened(full, [(-one, -other) for one, other in more])
    elif wrt == "input":
        source = _lengthened(second, more)
        result = torch.ops.aten.convolution(source, first, None, *window, False, zeros, sizes.groups)
    else:
        _, result, _ = torch.ops.aten.convolution_backward(
            first,
            _lengthened(second, more),
            first.new_empty(shape),
            None,
            *window,
            False,
            zeros,
            sizes.groups,
            [False, True, False],
        )
    if result.stride() == strides:
        return result
    return first.new_empty_strided(shape, strides).copy_(result)


def _lengthened(x: Tensor, ends: Sequence[tuple[int, int]]) -> Tensor:
    """`x` with so many zeros more before and after each of its axes, or cells less where they are negative."""
    if any(length > 0 for pair in ends for length in pair):
        x = padded(x, [max(length, 0) for pair in reversed(ends) for length in pair])
    for dimension, (before, after) in enumerate(ends, 2):
        x = x.narrow(dimension, max(-before, 0), x.shape[dimension] + min(before, 0) + min(after, 0))
    return x


# The operators

_library = torch.library.Library("backstride", "DEF")


class _Differentiable(torch.autograd.Function):
    """A call of an operator, whose derivatives are calls of the others; `bias` is None but for layers."""

    @staticmethod
    def forward(run: _Run, wrt: Operand, first: Tensor, second: Tensor, bias: Tensor | None, rest: Any) -> Tensor:
        # PyTorch turns gradients off here. But the tensors of a transform hold those of the next one, which is to see
        # this call, too.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
            return run(first, second, bias, rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.wrt, first, second, _, rest = inputs
        ctx.sizes = Sizes(*rest[: len(Sizes._fields)])
        ctx.save_for_backward(first, second)
        ctx.save_for_forward(first, second)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        operands, (first, second) = _ops.given(ctx.wrt), ctx.saved_tensors
        gradients = [
            _derivative_by(operands[n], ctx.wrt, first, second, cotangent, ctx.sizes) if needed else None
            for n, needed in enumerate(ctx.needs_input_grad[2:4])
        ]
        by_bias = cotangent.sum([0, *range(2, cotangent.ndim)]) if ctx.needs_input_grad[4] else None
        return None, None, *gradients, by_bias, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        first, second = ctx.saved_tensors
        _, _, by_first, by_second, by_bias, _ = tangents
        pairs = [] if by_first is None else [(by_first, second)]
        pairs += [] if by_second is None else [(first, by_second)]
        parts = [call(ctx.wrt, *pair, ctx.sizes) for pair in pairs]
        if by_bias is not None:
            shape = _shape(ctx.wrt, first.shape, second.shape, ctx.sizes)
            parts.append(_along_channels(by_bias, first).expand(shape))
        return sum(parts[1:], start=parts[0])


def _derivative_by(by: Operand, wrt: Operand, first: Tensor, second: Tensor, cotangent: Tensor, sizes: Sizes) -> Tensor:
    """The derivative of <cotangent, dF/d`wrt`(first, second)> by its operand `by`, in the memory order of that."""
    x = first if by == _ops.given(wrt)[0] else second
    sizes = sizes._replace(lengths=x.shape[2:], channels_last=_in_order_of(by, x))
    _, sizes, one, other = _ops.transpose(wrt, by, sizes, first, second, cotangent)
    return call(by, one, other, sizes)


def _differentiated(
    run: _Run, wrt: Operand, first: Tensor, second: Tensor, bias: Tensor | None, rest: Sequence[Any]
) -> Tensor:
    """What a call does that may have to be differentiated."""
    if forward_ad._current_level >= 0 or (
        torch.is_grad_enabled()
        and (first.requires_grad or second.requires_grad or (bias is not None and bias.requires_grad))
    ):
        # An operator's kernel is in one transform of torch.func at a time, for which `Function.apply` is not made.
        with enable_single_level_autograd_function():
            apply = super(torch.autograd.Function, _Differentiable).apply
            result: Tensor = apply(run, wrt, first, second, bias, rest)  # type: ignore[no-untyped-call]
        return result
    with torch._C._AutoDispatchBelowAutograd():
        return run(first, second, bias, rest)


def cast(x: Tensor) -> Tensor:
    """`x` in the dtype in which autocast, if it is on, has convolutions computed."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or not x.is_floating_point() or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device))


def _autocast(operator: Any, device: str, *arguments: Any) -> Tensor:
    arguments = tuple(cast(x) if isinstance(x, Tensor) else x for x in arguments)
    with torch.autocast(device, enabled=False):
        result: Tensor = operator(*arguments)
    return result


def _vmap(wrt: Operand, info: Any, dims: Any, first: Tensor, second: Tensor, *rest: Any) -> tuple[Tensor, int]:
    """Where only images are many, they are one batch; else all operands are many, and are the groups of one."""
    if info.batch_size == 0:
        one, other = (
            [n for d, n in enumerate(x.shape) if d != dim] for x, dim in zip((first, second), dims, strict=False)
        )
        return first.new_zeros((0, *_shape(wrt, one, other, Sizes(*rest)))), 0
    given = list(zip(_ops.given(wrt), (first, second), dims, strict=False))
    if any(operand == "filter" and dim is None for operand, _, dim in given):
        sizes, at = Sizes(*rest), 0
        first, second = (x if dim is None else x.movedim(dim, 0).flatten(0, 1) for _, x, dim in given)
    else:
        sizes, at = Sizes(*rest), 0 if wrt == "filter" else 1
        sizes = sizes._replace(groups=info.batch_size * sizes.groups)
        first, second = (_as_groups(operand, x, dim, info.batch_size) for operand, x, dim in given)
    result = call(wrt, first, second, sizes)
    return result.unflatten(at, (info.batch_size, result.shape[at] // info.batch_size)), at


def _as_groups(operand: Operand, x: Tensor, dim: int | None, count: int) -> Tensor:
    """`count` operands, along dimension `dim` of `x` or all equal to it, as one whose groups they are."""
    x = x.expand(count, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1) if operand == "filter" else x.movedim(0, 1).flatten(1, 2)


def _define(schema: str, **kernels: Callable[..., Any]) -> Any:
    """The operator of this schema, with its kernels by what they are for."""
    name = f"backstride::{schema.partition('(')[0]}"
    _library.define(schema)
    operator = getattr(torch.ops.backstride, name.partition("::")[2]).default
    _library.impl(name, kernels["cpu"], "CPU")
    _library.impl(name, kernels["elsewhere"], "CompositeExplicitAutograd")
    _library.impl(name, kernels["autograd"], "Autograd")
    for device in _AUTOCAST:
        _library.impl(name, functools.partial(_autocast, operator, device.lower()), f"Autocast{device}")
    torch.library.register_fake(name, kernels["fake"], lib=_library)
    torch.library.register_vmap(name, kernels["vmap"], lib=_library)
    return operator


def _of_sizes(function: Callable[..., Tensor], wrt: Operand) -> Callable[..., Tensor]:
    """`function(wrt, first, second, sizes)` as a kernel."""
    return lambda first, second, *sizes: function(wrt, first, second, Sizes(*sizes))


def _autograd(wrt: Operand) -> Callable[..., Tensor]:
    def run(first: Tensor, second: Tensor, bias: None, sizes: Any) -> Tensor:
        result: Tensor = _OPERATORS[wrt](first, second, *sizes)
        return result

    return lambda first, second, *sizes: _differentiated(run, wrt, first, second, None, sizes)


_OPERATORS = {
    wrt: _define(
        schema,
        cpu=_of_sizes(_compute, wrt),
        elsewhere=_of_sizes(compute_elsewhere, wrt),
        fake=_of_sizes(_fake, wrt),
        autograd=_autograd(wrt),
        vmap=functools.partial(_vmap, wrt),
    )
    for wrt, schema in _SCHEMAS.items()
}


def call(wrt: Operand, first: Tensor, second: Tensor, sizes: Sizes) -> Tensor:
    """The derivative by `wrt` of operands in PyTorch's order of axes."""
    result: Tensor = _OPERATORS[wrt](first, second, *sizes)
    return result


# A layer: the first operation with a bias, and with a filter that may be kept packed


class _Kept(NamedTuple):
    """A packed filter, and what it was made of: states and settings, and the bias and memory, which are held, so that
    nothing else can be in their place."""

    made_of: tuple[Any, ...]
    bias: Tensor | None
    memory: list[torch.UntypedStorage]
    packed: _native.Packed


_kept = WeakIdKeyDictionary()


def forget(filter: Tensor) -> None:
    """Lets go of the packed copy of a filter, if there is one."""
    _kept.pop(filter, None)


def state(x: Tensor) -> tuple[Any, ...]:
    """What is another after a tensor was written to, or given other memory, as long as the memory is held."""
    return x._version, x.data_ptr(), x.dtype


def _compute_layer(input: Tensor, filter: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    sizes, keep = Sizes(*rest[:-1]), rest[-1]
    if not keep:
        forget(filter)  # which may be trained now, and fused optimizers write without a new version
    versioned = not filter.is_inference() and (bias is None or not bias.is_inference())
    if not (keep and versioned and input.numel() and filter.numel()):
        return _biased(_compute("output", input, filter, sizes), bias)
    recipe = _recipe_of("output", input, filter, sizes)
    result = _empty(recipe, input.dtype)
    if result.numel():
        element, precision = _ELEMENTS[input.dtype], _precision.current()
        plan = _plan.plan("output", recipe.geometry, element, precision, packed=True)
        packed = _packed(plan, filter, bias, element, precision, sizes.stride, sizes.dilation, sizes.groups)
        numpy.run(packed, plan, _view("input", input), _view("output", result), torch.get_num_threads())
    return result


def _packed(plan: _native.Plan, filter: Tensor, bias: Tensor | None, *settings: Any) -> _native.Packed:
    """The packed filter, made anew after a change of anything that it was made of."""
    tensors = (filter,) if bias is None else (filter, bias)
    made_of = *map(state, tensors), *settings
    kept: _Kept | None = _kept.get(filter)
    if kept is None or kept.bias is not bias or kept.made_of != made_of:
        numbers = None if bias is None else _view("output", bias)
        packed = numpy.packed(plan, _view("filter", filter), numbers, "none", 0.0)
        kept = _kept[filter] = _Kept(made_of, bias, [x.untyped_storage() for x in tensors], packed)
    return kept.packed


def _compute_layer_elsewhere(input: Tensor, filter: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    return _biased(compute_elsewhere("output", input, filter, Sizes(*rest[:-1])), bias)


def _biased(result: Tensor, bias: Tensor | None) -> Tensor:
    """`result`, which nobody else has yet, with the bias added in place."""
    return result if bias is None else result.add_(_along_channels(bias, result))


def _along_channels(bias: Tensor, x: Tensor) -> Tensor:
    """`bias` as it is added to tensors with as many axes as `x`."""
    return bias.reshape(-1, *[1] * (x.ndim - 2))


def _fake_layer(input: Tensor, filter: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    return _fake("output", input, filter, Sizes(*rest[:-1]))


def _autograd_layer(input: Tensor, filter: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    return _differentiated(_run_layer, "output", input, filter, bias, rest)


def _run_layer(input: Tensor, filter: Tensor, bias: Tensor | None, rest: Any) -> Tensor:
    result: Tensor = _layer(input, filter, bias, *rest)
    return result


def _vmap_layer(
    info: Any, dims: Any, input: Tensor, filter: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, int]:
    sizes = Sizes(*rest[:-1])
    if dims[0] is None and dims[1] is None:
        result = call("output", input, filter, sizes).expand(info.batch_size, *[-1] * input.ndim)
    else:
        result, at = _vmap("output", info, dims[:2], input, filter, *sizes)
        result = result.movedim(at, 0)
    if bias is None:
        return result, 0
    bias = bias if dims[2] is None else bias.movedim(dims[2], 0).unsqueeze(1)
    return result + bias.reshape(*bias.shape, *[1] * len(sizes.lengths)), 0


_layer = _define(
    _LAYER,
    cpu=_compute_layer,
    elsewhere=_compute_layer_elsewhere,
    fake=_fake_layer,
    autograd=_autograd_layer,
    vmap=_vmap_layer,
)


def layer(input: Tensor, filter: Tensor, bias: Tensor | None, sizes: Sizes, keep: bool) -> Tensor:
    """The transposed convolution with a bias of each channel. If `keep`, a packed copy of the filter is kept as long as
    the filter lives, until a call does not; writing to the filter makes the next call pack again, but for writing that
    leaves its version, as through its `.data` or another library's view of the memory."""
    return _run_layer(input, filter, bias, (*sizes, keep))
