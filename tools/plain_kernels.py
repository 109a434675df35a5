# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's answers, taken from its plain CPU kernels.

Those kernels know channels-last layouts only, and no dilation in the backward operations. A call that
asks for more is answered through an equal call that they do know: a channels-first call is transposed,
a dilated filter gets zeros between its taps, and a grouped gradient is the gradients of the groups side
by side. Everything here is made of TensorFlow operations, so tapes see through it.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# oneDNN's kernels compute wrong input gradients for some shapes, and abort the process on some bad calls.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tf_keras

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Spelling:
    """How one function names its arguments. `rank` None: read from `output_shape`."""

    function: Callable[..., Any]
    rank: int | None
    images: tuple[str, ...]
    filter: str | None
    sizes: str | None
    answers_image: bool = True
    adapts: bool = True  # False: TensorFlow itself transposes and dilates

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arguments that have gradients, image before filter."""
        return self.images if self.filter is None else (*self.images, self.filter)


SPELLINGS = {
    "nn.conv2d_transpose": Spelling(tf.nn.conv2d_transpose, 2, ("input",), "filters", "output_shape"),
    "compat.v1.nn.conv2d_transpose": Spelling(
        tf.compat.v1.nn.conv2d_transpose, 2, ("value",), "filter", "output_shape"
    ),
    "keras.backend.conv2d_transpose": Spelling(
        tf_keras.backend.conv2d_transpose, 2, ("x",), "kernel", "output_shape", adapts=False
    ),
    "nn.conv1d_transpose": Spelling(tf.nn.conv1d_transpose, 1, ("input",), "filters", "output_shape"),
    "nn.conv3d_transpose": Spelling(tf.nn.conv3d_transpose, 3, ("input",), "filters", "output_shape"),
    "nn.conv_transpose": Spelling(tf.nn.conv_transpose, None, ("input",), "filters", "output_shape"),
    "nn.atrous_conv2d_transpose": Spelling(
        tf.nn.atrous_conv2d_transpose, 2, ("value",), "filters", "output_shape", adapts=False
    ),
    "nn.conv2d": Spelling(tf.compat.v1.nn.conv2d, 2, ("input",), "filter", None),
    "nn.conv2d_backprop_input": Spelling(
        tf.compat.v1.nn.conv2d_backprop_input, 2, ("out_backprop",), "filter", "input_sizes"
    ),
    "nn.conv2d_backprop_filter": Spelling(
        tf.compat.v1.nn.conv2d_backprop_filter,
        2,
        ("input", "out_backprop"),
        None,
        "filter_sizes",
        answers_image=False,
    ),
}

_CHANNELS_FIRST = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


def spatial_rank(function: str, arguments: Arguments) -> int:
    """The number of spatial axes of this call; 0 when the call is too wrong to tell."""
    known = SPELLINGS[function].rank
    if known is not None:
        return known
    try:
        return len(arguments["output_shape"]) - 2
    except TypeError:
        return 0


def answer(function: str, arguments: Arguments) -> Any:
    """What TensorFlow returns for this call; its arrays may be tensors."""
    spelling = SPELLINGS[function]
    rank = spatial_rank(function, arguments)
    if not spelling.adapts or rank not in _CHANNELS_FIRST:
        return spelling.function(**arguments)
    first, last = _CHANNELS_FIRST[rank]
    if arguments.get("data_format") != first:
        return _undilated(spelling, rank, arguments)
    result = _undilated(spelling, rank, _channels_last(spelling, rank, arguments) | {"data_format": last})
    return tf.transpose(result, _to_first(rank)) if spelling.answers_image else result


def _to_last(rank: int) -> list[int]:
    return [0, *range(2, rank + 2), 1]


def _to_first(rank: int) -> list[int]:
    return [0, rank + 1, *range(1, rank + 1)]


def _channels_last(spelling: Spelling, rank: int, arguments: Arguments) -> dict[str, Any]:
    """The same call with its images and its full-length lists in channels-last order."""
    moved = dict(arguments)
    for name in spelling.images:
        if len(moved[name].shape) == rank + 2:
            moved[name] = tf.transpose(moved[name], _to_last(rank))
    lists = {"strides", "dilations", "padding"} | ({spelling.sizes} if spelling.answers_image else set())
    for name in lists & moved.keys():
        values = moved[name]
        if not isinstance(values, str) and hasattr(values, "__len__") and len(values) == rank + 2:
            moved[name] = [values[axis] for axis in _to_last(rank)]
    return moved


def _undilated(spelling: Spelling, rank: int, arguments: Arguments) -> Any:
    """Answer with zeros between the filter's taps in place of dilation, where there is any."""
    dilations = _spatial(arguments.get("dilations"), rank)
    if max(dilations) == 1:
        return spelling.function(**arguments)
    plain = {name: value for name, value in arguments.items() if name != "dilations"}
    if spelling.filter is not None:
        plain[spelling.filter] = _spread(arguments[spelling.filter], dilations)
        return spelling.function(**plain)
    taps = list(arguments["filter_sizes"])
    extents = [(k - 1) * d + 1 for k, d in zip(taps, dilations, strict=False)]
    spread = spelling.function(**plain | {"filter_sizes": [*extents, *taps[rank:]]})
    return spread[tuple(slice(None, None, d) for d in dilations)]


def _spatial(values: Any, rank: int) -> list[int]:
    """`values` as one int per spatial axis; all ones where TensorFlow is to judge the spelling itself."""
    listed = [] if values is None else list(values) if hasattr(values, "__len__") else [values]
    spatial = {1: listed * rank, rank: listed, rank + 2: listed[1 : rank + 1]}.get(len(listed), [])
    outside = (listed[0], listed[-1]) if len(listed) == rank + 2 else ()
    legal = spatial and all(value >= 1 for value in spatial) and all(value == 1 for value in outside)
    return [operator.index(value) for value in spatial] if legal else [1] * rank


def _spread(filter: Any, dilations: Sequence[int]) -> Any:
    """`filter` with `dilation - 1` zeros between its taps, along each spatial axis."""
    for axis, dilation in enumerate(dilations):
        shape = list(filter.shape)
        paddings = [[0, 0] for _ in range(len(shape) + 1)]
        paddings[axis + 1] = [0, dilation - 1]
        shape[axis] *= dilation
        spread = tf.reshape(tf.pad(tf.expand_dims(filter, axis + 1), paddings), shape)
        extent = shape[axis] - dilation + 1
        filter = spread[(slice(None),) * axis + (slice(extent),)]
    return filter


def derivatives(function: str, arguments: Arguments, cotangent: Any) -> list[Any]:
    """The gradients of <cotangent, answer>, one for each of the spelling's arrays."""
    variables, rest = _split(function, arguments)
    return _gradients(lambda *values: answer(function, rest | _named(function, values)), variables, cotangent)


def second_derivatives(function: str, arguments: Arguments, cotangent: Any, directions: Sequence[Any]) -> list[Any]:
    """The gradients of the sum of <direction, gradient>, for each array and then for the cotangent."""
    variables, rest = _split(function, arguments)

    def first(*values: Any) -> list[Any]:
        *arrays, weight = values
        return _gradients(lambda *a: answer(function, rest | _named(function, a)), arrays, weight)

    return _gradients(first, [*variables, tf.convert_to_tensor(cotangent)], list(directions))


def grouped_derivatives(arguments: Arguments, cotangent: Any, groups: int) -> list[Any]:
    """`derivatives` of a grouped NHWC `nn.conv2d`, which the plain kernels refuse, group by group."""
    inputs, filters, weights = (
        tf.split(array, groups, -1) for array in (arguments["input"], arguments["filter"], cotangent)
    )
    parts = [
        derivatives("nn.conv2d", {**arguments, "input": value, "filter": filter}, weight)
        for value, filter, weight in zip(inputs, filters, weights, strict=True)
    ]
    return [tf.concat(pieces, -1) for pieces in zip(*parts, strict=True)]


def _split(function: str, arguments: Arguments) -> tuple[list[Any], dict[str, Any]]:
    names = SPELLINGS[function].arrays
    rest = {name: value for name, value in arguments.items() if name not in names}
    return [tf.convert_to_tensor(arguments[name]) for name in names], rest


def _named(function: str, values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(SPELLINGS[function].arrays, values, strict=True))


def _gradients(compute: Callable[..., Any], variables: Sequence[Any], weight: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch(variables)
        result = compute(*variables)
    return list(tape.gradient(result, list(variables), weight, unconnected_gradients=tf.UnconnectedGradients.ZERO))
