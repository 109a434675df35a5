# SPDX-License-Identifier: Apache-2.0
"""Arguments. The second stage of a call: any documented spelling to one form, and every message about it.

A message names the argument as the called function documents it, states the rule, shows what was given and,
where that can be said, what would have worked. What depends on the function is passed in as its name.
"""

from __future__ import annotations

import functools
import math
import operator
import reprlib
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np

from backstride import _backends
from backstride._geometry import Crop, Geometry, Layer
from backstride._variables import plain


class _Shorten(reprlib.Repr):
    """Values at the length of a line, also ints of more digits than Python likes to print."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 128 else f"<int of {x.bit_length()} bits>"


_shorten = _Shorten()
_shorten.maxlist = _shorten.maxtuple = 8
_shorten.maxother = _shorten.maxstring = 80

AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}
FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}

# No argument of ints has more than batch, three axes and channels; a variable's shape has what NumPy's may have.
MOST_ENTRIES, MOST_DIMENSIONS = 5, 64
# ONNX has both ends of three axes in one.
MOST_LAYER_INTS = 6
# What TensorFlow counts lengths and windows in.
LENGTHS_BELOW, WINDOWS_BELOW = 2**63, 2**31

Ints = tuple[int, ...]
Read = TypeVar("Read")


class Argument(NamedTuple):
    """An argument's documented name, for messages, and its value."""

    name: str
    value: Any

    def __repr__(self) -> str:
        return f"{self.name}={shown(self.value)}"


def shown(value: Any) -> str:
    """`value` as a message shows it: at most a line."""
    return _shorten.repr(value)


def one_of(name: str, value: Any, alias: str = "", other: Any = None) -> Argument:
    """The one of an argument's names that is given; TensorFlow renamed `value` to `input` and `filter` to `filters`."""
    if other is None and value is not None:
        return Argument(name, value)
    if value is None and other is not None:
        return Argument(alias, other)
    names = f"`{name}` or `{alias}`" if alias else f"`{name}`"
    if value is None:
        raise ValueError(f"{names} is required; got None")
    raise ValueError(f"{names}: these are two names of one argument; give only one of them")


def arrays(rank: int, *arguments: Argument) -> Sequence[Argument]:
    """The arguments as arrays of `rank` dimensions and one dtype, all of libraries that are supported."""
    result = of_one_library(*arguments)
    for name, array in result:
        if array.ndim != rank:
            raise ValueError(f"`{name}` must have {rank} dimensions; got shape {tuple(array.shape)}")
    return _of_one_dtype(result)


def of_one_library(*arguments: Argument) -> Sequence[Argument]:
    """The arguments as arrays, all of libraries that are supported."""
    for _, value in arguments:
        if type(value) is not np.ndarray:
            return _converted(*arguments)
    backend = _backends.of(value)
    for argument in arguments:
        backend.asarray(*argument)  # is the array itself, if its dtype is supported
    return arguments


def _converted(*arguments: Argument) -> Sequence[Argument]:
    """The same of anything."""
    plains = [(name, plain(value)) for name, value in arguments]
    libraries: dict[str, str] = {}
    for name, value in plains:
        library = _backends.home(value)
        if value is None or library is None:
            kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
            raise TypeError(f"`{name}` must be a NumPy array, a list of numbers or a buffer; got {kind}")
        if library != "numpy":
            libraries.setdefault(library, name)
    if len(libraries) > 1:
        (one, first), (other, second), *_ = libraries.items()
        raise TypeError(
            f"`{first}` and `{second}` must be of one library; got arrays of {one} and of {other} (convert one, "
            f"or give it as a NumPy array)"
        )
    backend = _backends.of(*[value for _, value in plains])
    return [Argument(name, backend.asarray(name, value)) for name, value in plains]


def _of_one_dtype(arguments: Sequence[Argument]) -> Sequence[Argument]:
    """The arguments, which are arrays, if they are of one dtype."""
    name, first = arguments[0]
    for other, array in arguments:
        if array.dtype is first.dtype:
            continue
        backend = _backends.of(first, array)
        if not backend.same_dtype(first, array):
            raise TypeError(
                f"`{name}` and `{other}` must have one dtype; got {backend.dtype_name(first)} and "
                f"{backend.dtype_name(array)} (convert one with .astype or .to)"
            )
    return arguments


def integer(name: str, value: Any, whole: Any = None) -> int:
    """`value` as an int if it is one; floats are not, not even 2.0."""
    try:
        return operator.index(value)
    except TypeError as error:
        got = f"got {name}={shown(value if whole is None else whole)}"
        if type(error).__name__ == "TracerIntegerConversionError":  # JAX's, which is imported only where it is used
            raise TypeError(f"`{name}` must be known when JAX traces; {got} (see static_argnums of jax.jit)") from None
        raise TypeError(f"`{name}` takes ints; {got}") from None


def entries(name: str, value: Any, most: int = MOST_ENTRIES) -> list[Any]:
    """The entries of a list, tuple, range, 1-D array or shape object; never more than a few."""
    if not _is_sequence(value):
        raise TypeError(f"`{name}` must be a list or tuple of ints; got {name}={shown(value)}")
    if getattr(value, "ndim", 1) != 1:
        raise ValueError(f"`{name}` must be one-dimensional; got shape {getattr(value, 'shape', None)}")
    items = list(islice(value, most + 1))
    if len(items) > most:
        raise ValueError(f"`{name}` has too many entries; got {name}={shown(value)}")
    return items


def integers(name: str, value: Any, most: int = MOST_ENTRIES) -> Ints:
    """The same, all of them ints."""
    if type(value) in (list, tuple) and len(value) <= most and all(type(entry) is int for entry in value):
        return tuple(value)
    items = entries(name, value, most)
    if any(item is None for item in items):
        raise ValueError(f"every entry of `{name}` must be known; got {name}={shown(value)}")
    return tuple(integer(name, item, value) for item in items)


def _is_sequence(value: Any) -> bool:
    """Ordered and finite, such as a list or a shape object. Text is not meant, nor is an array that is one number."""
    return (
        hasattr(value, "__iter__")
        and hasattr(value, "__len__")
        and getattr(value, "ndim", 1) > 0
        and not isinstance(value, str | bytes | bytearray | Mapping | Set | type)
    )


def per_axis(name: str, value: Any, rank: int, first: bool) -> Ints:
    """`strides` or `dilations` as one positive int per spatial axis.

    TensorFlow takes an int, one int, one per axis, or one per dimension, where those of batch and channels must
    be 1. None is 1.
    """
    if value is None:
        return (1,) * rank
    values = integers(name, value) if _is_sequence(value) else (integer(name, value),)
    counts = sorted({1, rank, rank + 2})
    if len(values) not in counts:
        *most, last = counts
        allowed = f"{', '.join(map(str, most))} or {last}"
        raise ValueError(f"`{name}` must be an int or {allowed} ints; got {name}={shown(value)}")
    if not all(0 < step < WINDOWS_BELOW for step in values):
        raise ValueError(f"`{name}` must be positive and below 2**31; got {name}={shown(value)}")
    if len(values) == rank + 2:
        batch, *spatial, channels = channels_last(values) if first else values
        if (batch, channels) != (1, 1):
            raise ValueError(f"`{name}` must be 1 for batch and channels; got {name}={shown(value)}")
        return tuple(spatial)
    return values * rank if len(values) == 1 else values


def keras_pair(name: str, value: Any) -> Ints:
    """A Keras window argument, a pair of positive ints or one for both, as a pair."""
    pair = integers(name, value) if _is_sequence(value) else (integer(name, value),) * 2
    if len(pair) != 2 or not all(0 < step < WINDOWS_BELOW for step in pair):
        raise ValueError(f"`{name}` must be a pair of positive ints below 2**31; got {name}={shown(value)}")
    return pair


def layer_ints(name: str, value: Any, rank: int, lowest: int = 1) -> Ints:
    """A layer's `kernel_size` or `strides`: positive ints, one per axis or one for all; or also 0, for its paddings."""
    if value is None:
        raise ValueError(f"`{name}` is required; got None")
    values = integers(name, value, MOST_LAYER_INTS) if _is_sequence(value) else (integer(name, value),) * rank
    if len(values) != rank or not all(lowest <= step < WINDOWS_BELOW for step in values):
        sign = "positive" if lowest else "non-negative"
        raise ValueError(f"`{name}` must be a {sign} int, or {rank} of them, below 2**31; got {name}={shown(value)}")
    return values


def kernel(name: str, value: Any, rank: Any) -> Ints:
    """The taps of one to three axes: of as many as there are ints, or `rank` if it is one."""
    if _is_sequence(value):
        return integers(name, value)
    if rank not in AXES:
        raise ValueError(f"`rank` must be 1, 2 or 3; got rank={shown(rank)}")
    return (integer(name, value),) * integer("rank", rank)


def filters(value: Any) -> int:
    """A layer's number of output channels."""
    if value is None:
        raise ValueError("`filters` is required; got None")
    return count("filters", value)


def count(name: str, value: Any) -> int:
    """A number of channels or groups."""
    number = integer(name, value)
    if not 0 < number < LENGTHS_BELOW:
        raise ValueError(f"`{name}` must be positive and below 2**63; got {name}={shown(value)}")
    return number


def pairs(name: str, value: Any, rank: int, lowest: int = 1 - WINDOWS_BELOW) -> Crop:
    """A (before, after) pair of ints per axis; one pair is that of every axis, and one int both of each."""
    given = list(islice(value, MOST_ENTRIES + 1)) if _is_sequence(value) else [value]
    if any(_is_sequence(entry) for entry in given):
        ends = [integers(name, entry) for entry in given]
    else:
        both = tuple(integer(name, entry, value) for entry in given)
        ends = [both * 2 if len(both) == 1 else both]
    ends = ends * rank if len(ends) == 1 else ends
    if len(ends) != rank or not all(len(pair) == 2 for pair in ends):
        raise ValueError(
            f"`{name}` must be an int, a (before, after) pair or {rank} of them; got {name}={shown(value)}"
        )
    if not all(lowest <= cells < WINDOWS_BELOW for pair in ends for cells in pair):
        bound = "from 0" if lowest == 0 else "above -2**31"
        raise ValueError(f"the entries of `{name}` must be {bound} and below 2**31; got {name}={shown(value)}")
    return tuple((before, after) for before, after in ends)


def lengths(name: str, value: Any) -> Ints:
    """A shape of any number of dimensions, as a tuple of non-negative ints."""
    values = integers(name, value, MOST_DIMENSIONS) if _is_sequence(value) else (integer(name, value),)
    if not all(0 <= length < LENGTHS_BELOW for length in values):
        raise ValueError(f"the entries of `{name}` must be at least 0 and below 2**63; got {name}={shown(value)}")
    return values


def channels_last(values: Sequence[Any]) -> tuple[Any, ...]:
    """The entries of a channels-first sequence in channels-last order."""
    batch, channels, *spatial = values
    return batch, *spatial, channels


def channels_first_order(values: Sequence[Any]) -> tuple[Any, ...]:
    """The entries of a channels-last sequence in channels-first order."""
    batch, *spatial, channels = values
    return batch, channels, *spatial


def channels_first(data_format: Any, rank: int) -> bool:
    """Whether a TensorFlow format name puts channels before the axes; None is channels last."""
    last, first = FORMATS[rank]
    if data_format is None:
        return False
    if not isinstance(data_format, str) or data_format not in (last, first):
        raise ValueError(f"`data_format` must be {last!r} or {first!r}; got data_format={shown(data_format)}")
    return data_format == first


def keras_channels_first(data_format: Any) -> bool:
    """Whether a Keras format name puts channels before the axes."""
    if not isinstance(data_format, str) or data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            f"`data_format` must be 'channels_last' or 'channels_first'; got data_format={shown(data_format)}"
        )
    return data_format == "channels_first"


def keras_crop(padding: Any, rank: int) -> Crop | None:
    """Keras' padding name as a crop rule."""
    if not isinstance(padding, str) or padding not in ("same", "valid"):
        raise ValueError(f"`padding` must be 'same' or 'valid'; got padding={shown(padding)}")
    return None if padding == "same" else ((0, 0),) * rank


def crop(padding: Any, rank: int, first: bool) -> Crop | None:
    """TensorFlow's padding, a name or a (before, after) pair per dimension, as a crop rule."""
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return None if padding == "SAME" else ((0, 0),) * rank
    rule = f"`padding` must be 'SAME', 'VALID' or {rank + 2} (before, after) pairs; got padding={shown(padding)}"
    if not _is_sequence(padding):
        raise ValueError(rule)
    pairs = list(islice(padding, MOST_ENTRIES + 1))
    if len(pairs) != rank + 2 or not all(_is_sequence(pair) for pair in pairs):
        raise ValueError(rule)
    pairs = [integers("padding", pair) for pair in pairs]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(rule)
    if not all(0 <= cells < WINDOWS_BELOW for pair in pairs for cells in pair):
        raise ValueError(f"the pairs of `padding` must be from 0 to below 2**31; got padding={shown(padding)}")
    batch, *spatial, channels = channels_last(pairs) if first else pairs
    if any(batch) or any(channels):
        raise ValueError(f"`padding` must be (0, 0) for batch and channels; got padding={shown(padding)}")
    return tuple((before, after) for before, after in spatial)


class Side(NamedTuple):
    """The shape of the input or output operand and the argument it came from."""

    name: str
    batch: int
    lengths: Ints
    channels: int


class Window(NamedTuple):
    """What one call says of stride, dilation, crop and layout, with `padding` as messages show it."""

    stride: Ints
    dilation: Ints
    crop: Crop | None
    channels_first: bool
    padding: str


def _read_once(read: Callable[..., Read]) -> Callable[..., Read]:
    """`read`, which does not read the common spellings of its arguments again: that takes longer than a small layer.

    What is refused is read again, so that the message shows it as it was given. The first argument is no user's, but
    what else depends on the call, hashable.
    """
    known = functools.lru_cache(maxsize=1024)(read)

    @functools.wraps(read)
    def read_or_known(first: Any, *spelled: Any) -> Read:
        try:
            return known(first, *[value if type(value) in _CONSTANTS else _ints(value) for value in spelled])
        except (TypeError, ValueError):
            return read(first, *spelled)

    return read_or_known


# Of these types, and of tuples of these, nothing equals anything of another meaning.
_CONSTANTS = {int, str, type(None)}
_ENTRIES = {int, type(None)}


def _ints(value: Any) -> tuple[int | None, ...]:
    """A list or tuple of ints and None as a tuple."""
    if type(value) in (tuple, list) and _ENTRIES.issuperset(map(type, value)):
        return tuple(value)
    raise TypeError


@_read_once
def window(rank: int, strides: Any, padding: Any, data_format: Any, dilations: Any) -> Window:
    """The window of a call in TensorFlow's spelling."""
    first = channels_first(data_format, rank)
    return Window(
        stride=per_axis("strides", strides, rank, first),
        dilation=per_axis("dilations", dilations, rank, first),
        crop=crop(padding, rank, first),
        channels_first=first,
        padding=shown(padding),
    )


def side(argument: Argument, window: Window) -> Side:
    """The shape of an array argument."""
    return _side(argument.name, argument.value.shape, window)


def _side(name: str, shape: Sequence[int], window: Window) -> Side:
    batch, *spatial, channels = channels_last(shape) if window.channels_first else shape
    return Side(name, batch, tuple(spatial), channels)


def sizes(name: str, value: Any, count: int, alternative: int | None = None) -> Ints:
    """A shape argument of `count` non-negative ints, or `alternative` of them."""
    if value is None:
        raise ValueError(f"`{name}` is required; got None")
    lengths = integers(name, value)
    if len(lengths) not in (count, alternative):
        allowed = f"{count}" if alternative is None else f"{count} or {alternative}"
        raise ValueError(f"`{name}` must have {allowed} entries; got {name}={shown(value)}")
    if not all(0 <= length < LENGTHS_BELOW for length in lengths):
        raise ValueError(f"the entries of `{name}` must be at least 0 and below 2**63; got {name}={shown(value)}")
    return lengths


def target(argument: Argument, source: Side, filter: Argument, window: Window, groups: int = 1) -> Side:
    """The shape asked for by an `output_shape`: whole, or the spatial lengths alone."""
    rank = len(window.stride)
    lengths = sizes(*argument, rank + 2, rank)
    if len(lengths) == rank:
        return Side(argument.name, source.batch, lengths, filter.value.shape[-2] * groups)
    return _side(argument.name, lengths, window)


def keras_target(argument: Argument, source: Side, window: Window) -> Side:
    """The shape asked for by Keras' `output_shape`: whole, where a batch of None is that of the source."""
    name, value = argument
    if value is None:
        raise TypeError(f"`{name}` must be a tuple of ints; got None")
    lengths = entries(name, value)
    if lengths and lengths[0] is None:
        lengths[0] = source.batch
    return _side(name, sizes(name, lengths, len(window.stride) + 2), window)


def resolve(window: Window, input: Side, filter: Argument, output: Side, groups: int = 1) -> Geometry:
    """The geometry of a call, after checking that its three operands fit each other. `filter` is any shaped value."""
    return _resolve(window, input, filter.name, tuple(filter.value.shape), output, groups)


@functools.lru_cache(maxsize=1024)
def _resolve(window: Window, input: Side, filter: str, shape: Ints, output: Side, groups: int) -> Geometry:
    *kernel, out_channels, in_channels = shape
    check_channels(input.name, input.channels, filter, in_channels)
    if output.channels != out_channels * groups:
        raise ValueError(
            f"`{output.name}` has {output.channels} channels, but `{filter}` of shape "
            f"{shape} makes {out_channels * groups}; they must be equal"
        )
    if input.batch != output.batch:
        raise ValueError(
            f"`{output.name}` has batch {output.batch}, but `{input.name}` has batch {input.batch}; they must be equal"
        )
    layer = Layer(tuple(kernel), window.stride, window.dilation, window.crop, groups)
    for n, length in enumerate(output.lengths):
        lowest, end = layer.bounds(n, input.lengths[n])
        if not lowest <= length < end:
            raise ValueError(_misfit(layer, n, window, input, filter, output))
    return layer.resolve(
        input.batch, in_channels, output.channels, input.lengths, output.lengths, window.channels_first
    )


class Operands(NamedTuple):
    """Names and shapes of the input and the filter."""

    input: str
    input_shape: Ints
    filter: str
    filter_shape: Ints


def operands(input: Argument, filter: Argument) -> Operands:
    """Names and shapes of two array arguments."""
    return Operands(input.name, tuple(input.value.shape), filter.name, tuple(filter.value.shape))


@_read_once
def transposed(
    given: Operands, output_shape: Any, strides: Any, padding: Any, data_format: Any, dilations: Any
) -> Geometry:
    """The geometry of a transposed convolution in TensorFlow's spelling."""
    where = window(len(given.input_shape) - 2, strides, padding, data_format, dilations)
    source, weights = _side(given.input, given.input_shape, where), Argument(given.filter, Shape(given.filter_shape))
    return resolve(where, source, weights, target(Argument("output_shape", output_shape), source, weights, where))


@_read_once
def keras_transposed(
    given: Operands, output_shape: Any, strides: Any, padding: Any, data_format: Any, dilation_rate: Any
) -> Geometry:
    """The geometry of a transposed convolution of two axes in Keras' spelling."""
    where = Window(
        stride=keras_pair("strides", strides),
        dilation=keras_pair("dilation_rate", dilation_rate),
        crop=keras_crop(padding, 2),
        channels_first=keras_channels_first(data_format),
        padding=shown(padding),
    )
    source, weights = _side(given.input, given.input_shape, where), Argument(given.filter, Shape(given.filter_shape))
    return resolve(where, source, weights, keras_target(Argument("output_shape", output_shape), source, where))


def check_channels(name: str, channels: int, filter: str, taken: int) -> None:
    """Refuses an input of other channels than those that a filter takes."""
    if channels != taken:
        raise ValueError(
            f"`{name}` has {channels} channels, but the last dimension of `{filter}` is {taken}; they must be equal"
        )


def _misfit(layer: Layer, n: int, window: Window, input: Side, filter: str, output: Side) -> str:
    """Why the output length of axis `n` is not one that the input length can have, and which would be."""
    axis = AXES[len(layer.kernel)][n]
    legal = layer.outputs(n, input.lengths[n])
    if not legal:
        fit = f"no {axis} would fit"
    elif legal[0] == legal[-1]:
        fit = f"only {axis} {legal[0]} would fit"
    else:
        fit = f"{axis}s {legal[0]} to {legal[-1]} would fit"
    dilation = f", dilation {layer.dilation[n]}" if layer.dilation[n] > 1 else ""
    length = output.lengths[n]
    return (
        f"`{output.name}` {axis} {length} does not fit `{input.name}` of {axis} {input.lengths[n]}: "
        f"with padding={window.padding}, `{filter}` {axis} {layer.kernel[n]}{dilation} and stride "
        f"{layer.stride[n]}, {fit}; {length} would need `{input.name}` of {axis} {layer.input(n, length)}"
    )


def conv_groups(input: Side, filter: Argument) -> int:
    """The groups of a forward convolution: TensorFlow infers them from channels that are a multiple."""
    *_, per_group, channels = filter.value.shape
    groups = input.channels // per_group if per_group else 1
    if groups < 1 or per_group * groups != input.channels or channels % groups:
        raise ValueError(
            f"`{input.name}` has {input.channels} channels, but `{filter.name}` of shape "
            f"{tuple(filter.value.shape)} takes {per_group}; they must be equal, or a multiple that also "
            f"divides the {channels} output channels (a grouped convolution)"
        )
    return groups


def conv_lengths(window: Window, output: Side, filter: Argument) -> Ints:
    """The lengths of a forward convolution's result, whose input is the `output` side of the transpose."""
    layer = Layer(tuple(filter.value.shape[:-2]), window.stride, window.dilation, window.crop)
    return tuple(layer.input(n, length) for n, length in enumerate(output.lengths))


def bias(value: Any, bias: Any, data_format: Any) -> tuple[Any, Any]:
    """The arrays of a `bias_add`, the second one shaped so that the two can be added."""
    given = of_one_library(Argument("value", value), Argument("bias", bias))
    (_, values), (_, biases) = _of_one_dtype(given)
    if values.ndim < 2 or biases.ndim != 1:
        raise ValueError(
            f"`value` must have at least 2 dimensions and `bias` 1; "
            f"got shapes {tuple(values.shape)} and {tuple(biases.shape)}"
        )
    names = (None, "N...C", "NWC", "NHWC", "NDHWC"), ("NC...", "NCW", "NCHW", "NCDHW")
    if not isinstance(data_format, str | None) or data_format not in names[0] + names[1]:
        raise ValueError(f"`data_format` must be a name such as 'NHWC' or 'NCHW'; got data_format={shown(data_format)}")
    axis = 1 if data_format in names[1] else values.ndim - 1
    if values.shape[axis] != biases.shape[0]:
        raise ValueError(
            f"`value` has {values.shape[axis]} channels, but `bias` has {biases.shape[0]} entries; they must be equal"
        )
    return values, biases.reshape([-1 if n == axis else 1 for n in range(values.ndim)])


class Shape(NamedTuple):
    """A shape given as an argument, where other calls have an array."""

    shape: Ints


def shape_only(name: str, value: Any, count: int) -> Argument:
    """A shape argument of `count` ints, in place of an array of that shape."""
    return Argument(name, Shape(sizes(name, value, count)))


# Plans

# The activations of plans that have a parameter, and its default.
ALPHAS = {"leaky_relu": 0.2, "elu": 1.0, "snake": 1.0}
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh", "snake")


def lent(name: str, value: Any) -> tuple[Any, _backends.Backend]:
    """The memory of an array argument of a plan, and the file of the library that lends it."""
    ((_, array),) = of_one_library(Argument(name, plain(value)))
    library = _backends.of(array)
    return library.lent(name, array), library


def check_rank(name: str, shape: Ints, rank: int) -> None:
    """Refuses a shape of another number of dimensions."""
    if len(shape) != rank:
        raise ValueError(f"`{name}` must have {rank} dimensions; got shape {shape}")


def check_dtype(name: str, array: Any, dtype: Any) -> None:
    """Refuses an array of another dtype than the filter's; the byte order may differ."""
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"`{name}` has dtype {array.dtype}; the plan's `filters` have {dtype} (convert with .astype)")


def check_out(out: Any, shape: Ints, dtype: Any, x: np.ndarray) -> None:
    """Refuses an `out` that cannot take the result."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"`out` must be a NumPy array; got {type(out).__qualname__}")
    if out.shape != shape:
        raise ValueError(f"`out` has shape {out.shape}; this result has {shape}")
    if out.dtype != dtype:
        raise ValueError(f"`out` has dtype {out.dtype}; this result has {dtype}")
    if not out.flags.behaved:
        raise ValueError("`out` must be writeable and aligned; np.empty makes such an array")
    if _overlap(x, out):
        raise ValueError("`out` and `x` overlap in memory; pass a copy of one")


def _overlap(x: np.ndarray, out: np.ndarray) -> bool:
    """Whether two arrays have an element's memory in common, or it takes long to say."""
    try:
        return np.shares_memory(x, out, max_work=10_000)  # type: ignore[arg-type] # NumPy's stub knows no such work
    except np.exceptions.TooHardError:
        return True


def any_channels_first(data_format: Any, rank: int) -> bool:
    """Whether a format name of TensorFlow or of Keras puts channels before the axes; None is channels last."""
    names = (*FORMATS[rank], "channels_last", "channels_first")
    if data_format is None:
        return False
    if not isinstance(data_format, str) or data_format not in names:
        *most, last = map(repr, names)
        raise ValueError(f"`data_format` must be {', '.join(most)} or {last}; got data_format={shown(data_format)}")
    return data_format in names[1::2]


def any_case(padding: Any) -> Any:
    """TensorFlow's name of a padding that is spelled in any case; anything else as it is."""
    return padding.upper() if isinstance(padding, str) and padding.upper() in ("SAME", "VALID") else padding


def groups(value: Any, shape: Ints) -> int:
    """The number of groups, which divides the input channels of a filter of this shape."""
    count = integer("groups", value)
    if count < 1 or shape[-1] % count:
        raise ValueError(
            f"`groups` must be positive and divide the {shape[-1]} input channels of `filters`; "
            f"got groups={shown(value)}"
        )
    return count


def workspace_bytes(value: Any) -> int | None:
    """A plan's bound on the memory of a call."""
    if value is None:
        return None
    count = integer("workspace_bytes", value)
    if not 0 <= count < LENGTHS_BELOW:
        raise ValueError(f"`workspace_bytes` must be None or from 0 to below 2**63; got workspace_bytes={shown(value)}")
    return count


def check_in_place(name: str, array: np.ndarray, workspace: int) -> None:
    """Refuses an array that has to be copied as a whole, which no bound on the workspace is meant for."""
    if not (array.dtype.isnative and array.flags.aligned):
        raise ValueError(
            f"`{name}` must be aligned and of native byte order, since with workspace_bytes={workspace} no copy is "
            f"made of it; np.array(x, x.dtype.newbyteorder('=')) is one"
        )


def channel_bias(value: Any, filters: np.ndarray, groups: int) -> np.ndarray | None:
    """A copy of a plan's bias."""
    if value is None:
        return None
    array: np.ndarray = lent("bias", value)[0]
    _of_one_dtype([Argument("filters", filters), Argument("bias", array)])
    channels = filters.shape[-2] * groups
    if array.shape != (channels,):
        raise ValueError(
            f"`bias` must have shape ({channels},), a number for each output channel; got shape {array.shape}"
        )
    return np.array(array, array.dtype.newbyteorder("="))


def activation(value: Any, dtype: np.dtype) -> tuple[str, float]:
    """A plan's activation, by name or as a pair of name and parameter; None is ('none', 0)."""
    if value is None:
        return "none", 0.0
    name, *parameter = value if isinstance(value, tuple | list) and len(value) == 2 else (value,)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be None, one of {', '.join(ACTIVATIONS)}, or a pair of such a name and its parameter; "
            f"got activation={shown(value)}"
        )
    if name != "relu" and dtype.kind in "iu":
        raise TypeError(f"`activation` {name!r} takes floats; `filters` have dtype {dtype}")
    if not parameter:
        return name, ALPHAS.get(name, 0.0)
    if name not in ALPHAS:
        raise ValueError(f"`activation` {name!r} has no parameter; got activation={shown(value)}")
    try:
        alpha = float(parameter[0])
    except (TypeError, ValueError):
        raise TypeError(f"the parameter of `activation` must be a number; got activation={shown(value)}") from None
    if not math.isfinite(alpha) or (name == "snake" and alpha == 0):
        rule = "finite and not 0" if name == "snake" else "finite"
        raise ValueError(f"the parameter of `activation` {name!r} must be {rule}; got activation={shown(value)}")
    return name, alpha
