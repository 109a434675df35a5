# SPDX-License-Identifier: Apache-2.0
"""Random calls of the compared functions: legal ones in every spelling, and ones that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}
FLOATS = ("float32", "float64", "float16", "bfloat16")
DTYPE_ODDS = (0.5, 0.25, 0.1, 0.1, 0.05)


@dataclass(frozen=True)
class Axis:
    """Lines of `long` that a kernel maps to lines of `short`, padded with `pads` where they are explicit."""

    short: int
    kernel: int
    stride: int
    dilation: int
    long: int
    pads: tuple[int, int] = (0, 0)

    @property
    def unused(self) -> int:
        """How many cells of an unpadded `long` line no tap reaches."""
        return self.long - ((self.short - 1) * self.stride + (self.kernel - 1) * self.dilation + 1)


@dataclass
class Call:
    function: str
    arguments: dict[str, Any]
    exact: bool
    differentiable: bool = True
    notes: list[str] = field(default_factory=list)


class Draw:
    """A source of random choices; one seed, one sequence of calls."""

    def __init__(self, seed: list[int]) -> None:
        self.random = np.random.default_rng(seed)

    def between(self, least: int, most: int) -> int:
        return int(self.random.integers(least, most + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def one(self, options: Any) -> Any:
        return options[self.between(0, len(options) - 1)]

    def array(self, shape: list[int], dtype: str, exact: bool) -> np.ndarray:
        kind = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else np.dtype(dtype)
        if exact:
            return self.random.integers(-2, 3, shape).astype(kind)
        return self.random.standard_normal(shape).astype(kind)


def draw_axis(draw: Draw, padding: str, strides: int, dilations: int, smallest: int = 1) -> Axis:
    """One axis with legal lengths; `strides` and `dilations` are the largest ones allowed."""
    short, kernel = draw.between(smallest, 4), draw.between(1, 5)
    stride, dilation = draw.between(1, strides), draw.between(1, dilations)
    extent = (kernel - 1) * dilation + 1
    if short == 0:
        return Axis(0, kernel, stride, dilation, 0)
    spare = draw.between(0, stride - 1)
    if padding == "SAME":
        return Axis(short, kernel, stride, dilation, (short - 1) * stride + 1 + spare)
    full = (short - 1) * stride + extent + spare
    if padding == "VALID":
        return Axis(short, kernel, stride, dilation, full)
    before = draw.between(0, min(4, full - 1))
    pads = (before, draw.between(0, min(4, full - 1 - before)))
    return Axis(short, kernel, stride, dilation, full - sum(pads), pads)


@dataclass(frozen=True)
class Geometry:
    """What every function's arguments are spelled from."""

    axes: list[Axis]
    padding: str
    channels_first: bool
    batch: int
    long_channels: int
    short_channels: int
    groups: int = 1

    @property
    def rank(self) -> int:
        return len(self.axes)

    def spatial(self, name: str) -> list[int]:
        return [getattr(axis, name) for axis in self.axes]

    def full(self, spatial: list[Any], first: Any = 1, last: Any = 1) -> list[Any]:
        """`spatial` with its batch and channel entries, in the data format's order."""
        return [first, last, *spatial] if self.channels_first else [first, *spatial, last]

    @property
    def long(self) -> list[int]:
        return self.full(self.spatial("long"), self.batch, self.long_channels)

    @property
    def short(self) -> list[int]:
        return self.full(self.spatial("short"), self.batch, self.short_channels)

    @property
    def filter(self) -> list[int]:
        return [*self.spatial("kernel"), self.long_channels // self.groups, self.short_channels]

    @property
    def data_format(self) -> str:
        return FORMATS[self.rank][self.channels_first]


def draw_geometry(
    draw: Draw,
    rank: int,
    paddings: tuple[str, ...],
    strides: int = 4,
    dilations: int = 3,
    formats: int = 2,
    groups: int = 1,
    empty: bool = True,
) -> Geometry:
    padding = draw.one(paddings)
    dilated = draw.chance(0.4)
    smallest = 0 if empty and padding == "SAME" and draw.chance(0.05) else 1
    axes = [draw_axis(draw, padding, strides, dilations if dilated else 1, smallest) for _ in range(rank)]
    # TensorFlow's 3-D kernels divide by the number of channels.
    hollow = empty and groups == 1 and rank < 3 and draw.chance(0.03)
    return Geometry(
        axes,
        padding,
        draw.between(0, formats - 1) == 1,
        0 if empty and draw.chance(0.03) else draw.between(1, 2),
        draw.between(1, 3) * groups,
        0 if hollow else draw.between(1, 3) * groups,
        groups,
    )


def spell_window(draw: Draw, geometry: Geometry, values: list[int], none: bool = False) -> Any:
    """`values`, one per spatial axis, in one of the forms that strides and dilations may take."""
    forms: list[Any] = [values, tuple(values), geometry.full(values), tuple(geometry.full(values))]
    forms.append(np.array(draw.one([values, geometry.full(values)]), draw.one(["int32", "int64"])))
    if len(set(values)) == 1:
        forms += [values[0], values[:1], np.int64(values[0])]
        if none and values[0] == 1:
            forms.append(None)
    return draw.one(forms)


def spell_sizes(draw: Draw, sizes: list[Any]) -> Any:
    forms = [sizes, tuple(sizes)]
    if None not in sizes:
        forms += [np.array(sizes, "int32"), np.array(sizes, "int64"), [np.int64(n) for n in sizes]]
    return draw.one(forms)


def spell_padding(draw: Draw, geometry: Geometry) -> Any:
    if geometry.padding != "EXPLICIT":
        return geometry.padding
    pairs = geometry.full([draw.one([list, tuple])(axis.pads) for axis in geometry.axes], [0, 0], (0, 0))
    return draw.one([list, tuple])(pairs)


def _arrays(draw: Draw, first: list[int], second: list[int], dtypes: tuple[str, ...]) -> Any:
    odds = np.array(DTYPE_ODDS[: len(dtypes)])
    dtype = str(draw.random.choice(dtypes, p=odds / odds.sum()))
    exact = dtype == "int32" or draw.chance(0.5)
    return draw.array(first, dtype, exact), draw.array(second, dtype, exact), exact


def _finish(draw: Draw, function: str, geometry: Geometry, arguments: dict[str, Any], exact: bool) -> Call:
    """Add what all functions but Keras's and the atrous one share, leaving out defaults at times."""
    if geometry.padding != "SAME" or function.startswith("nn.conv2d_b") or draw.chance(0.5):
        arguments["padding"] = spell_padding(draw, geometry)
    if function == "nn.conv2d":
        arguments["padding"] = spell_padding(draw, geometry)
    backward = "backprop" in function
    if geometry.channels_first or draw.chance(0.5):
        arguments["data_format"] = geometry.data_format
    elif not backward and draw.chance(0.3):
        arguments["data_format"] = None
    dilations = geometry.spatial("dilation")
    if max(dilations) > 1 or draw.chance(0.3):
        spell = _four(draw, geometry, dilations) if backward else spell_window(draw, geometry, dilations, True)
        arguments["dilations"] = spell
    dtype = next(v for v in arguments.values() if isinstance(v, np.ndarray) and v.ndim > 2).dtype
    # TensorFlow's filter gradient of an empty line is memory never written, and its plain Conv3D begins too
    # late on a line of SAME padding that ends in two or more cells it has no use for.
    differentiable = dtype.kind != "i" and all(axis.short > 0 for axis in geometry.axes)
    if geometry.rank == 3 and geometry.padding == "SAME":
        differentiable &= max(axis.unused for axis in geometry.axes) < 2
    return Call(function, arguments, exact, differentiable)


def _four(draw: Draw, geometry: Geometry, values: list[int]) -> Any:
    """The backward operations take lists of four only."""
    return draw.one([list, tuple])(geometry.full(values))


def draw_transpose(draw: Draw, function: str) -> Call:
    """A call of a transposed convolution other than Keras's and the atrous one."""
    rank = {"nn.conv1d_transpose": 1, "nn.conv3d_transpose": 3}.get(function, 2)
    if function == "nn.conv_transpose":
        rank = draw.between(1, 3)
    explicit = ("EXPLICIT",) if rank == 2 else ()
    geometry = draw_geometry(draw, rank, ("SAME", "VALID", *explicit))
    dtypes = FLOATS if rank == 3 else (*FLOATS, "int32")
    value, filter, exact = _arrays(draw, geometry.short, geometry.filter, dtypes)
    v1 = function.startswith("compat")
    names = draw.one([("value", "filter"), ("input", "filters"), ("value", "filters")]) if v1 else None
    one, two = names or ("input", "filters")
    sizes = geometry.long
    if rank == 2 and function != "nn.conv_transpose" and draw.chance(0.15):
        sizes = geometry.spatial("long")
    arguments = {
        one: value,
        two: filter,
        "output_shape": spell_sizes(draw, sizes),
        "strides": spell_window(draw, geometry, geometry.spatial("stride"), none=v1),
    }
    return _finish(draw, function, geometry, arguments, exact)


def draw_keras(draw: Draw, function: str) -> Call:
    """TensorFlow drops strides beside a dilation, so a call has one or the other."""
    dilated = draw.chance(0.4)
    geometry = draw_geometry(draw, 2, ("SAME", "VALID"), 1 if dilated else 4, 1)
    if dilated:
        geometry = _with_rate(geometry, draw.between(2, 3))
    x, kernel, exact = _arrays(draw, geometry.short, geometry.filter, (*FLOATS, "int32"))
    sizes = geometry.long
    if draw.chance(0.3):
        sizes = [None, *sizes[1:]]
    arguments = {
        "x": x,
        "kernel": kernel,
        "output_shape": draw.one([list, tuple])(sizes),
        "strides": tuple(geometry.spatial("stride")),
        "padding": geometry.padding.lower(),
        "data_format": "channels_first" if geometry.channels_first else "channels_last",
        "dilation_rate": tuple(geometry.spatial("dilation")),
    }
    if not geometry.channels_first and draw.chance(0.3):
        del arguments["data_format"]
    return Call(function, arguments, exact, x.dtype.kind != "i" and 0 not in x.shape)


def _with_rate(geometry: Geometry, rate: int) -> Geometry:
    """The same undilated, unstrided geometry with every tap `rate` apart."""
    axes = [
        Axis(
            a.short,
            a.kernel,
            1,
            rate,
            a.long if geometry.padding == "SAME" else a.short + (a.kernel - 1) * rate,
        )
        for a in geometry.axes
    ]
    return Geometry(
        axes,
        geometry.padding,
        geometry.channels_first,
        geometry.batch,
        geometry.long_channels,
        geometry.short_channels,
    )


def draw_atrous(draw: Draw, function: str) -> Call:
    geometry = _with_rate(draw_geometry(draw, 2, ("SAME", "VALID"), 1, 1, formats=1), draw.between(1, 4))
    value, filters, exact = _arrays(draw, geometry.short, geometry.filter, (*FLOATS, "int32"))
    arguments = {
        "value": value,
        "filters": filters,
        "output_shape": spell_sizes(draw, geometry.long),
        "rate": draw.one([int, np.int64])(geometry.axes[0].dilation),
        "padding": geometry.padding,
    }
    return Call(function, arguments, exact, value.dtype.kind != "i" and 0 not in value.shape)


def draw_conv2d(draw: Draw, function: str) -> Call:
    groups = draw.between(2, 3) if draw.chance(0.2) else 1
    geometry = draw_geometry(draw, 2, ("SAME", "VALID", "EXPLICIT"), groups=groups)
    if geometry.short_channels == 0:
        return draw_conv2d(draw, function)
    value, filter, exact = _arrays(draw, geometry.long, geometry.filter, (*FLOATS, "int32"))
    arguments = {
        "input": value,
        draw.one(["filter", "filters"]): filter,
        "strides": spell_window(draw, geometry, geometry.spatial("stride"), none=True),
    }
    call = _finish(draw, function, geometry, arguments, exact)
    call.differentiable = call.differentiable and groups == 1
    return call


def draw_backprop_input(draw: Draw, function: str) -> Call:
    geometry = draw_geometry(draw, 2, ("SAME", "VALID", "EXPLICIT"))
    value, filter, exact = _arrays(draw, geometry.short, geometry.filter, (*FLOATS, "int32"))
    sizes = geometry.spatial("long") if draw.chance(0.15) else geometry.long
    arguments = {
        "input_sizes": spell_sizes(draw, sizes),
        draw.one(["filter", "filters"]): filter,
        "out_backprop": value,
        "strides": _four(draw, geometry, geometry.spatial("stride")),
    }
    return _finish(draw, function, geometry, arguments, exact)


def draw_backprop_filter(draw: Draw, function: str) -> Call:
    geometry = draw_geometry(draw, 2, ("SAME", "VALID", "EXPLICIT"))
    if 0 in geometry.short[1:]:
        return draw_backprop_filter(draw, function)
    value, weight, exact = _arrays(draw, geometry.long, geometry.short, FLOATS)
    arguments = {
        "input": value,
        "filter_sizes": spell_sizes(draw, geometry.filter),
        "out_backprop": weight,
        "strides": _four(draw, geometry, geometry.spatial("stride")),
    }
    return _finish(draw, function, geometry, arguments, exact)


DRAWS: dict[str, Callable[[Draw, str], Call]] = {
    "nn.conv2d_transpose": draw_transpose,
    "compat.v1.nn.conv2d_transpose": draw_transpose,
    "keras.backend.conv2d_transpose": draw_keras,
    "nn.conv1d_transpose": draw_transpose,
    "nn.conv3d_transpose": draw_transpose,
    "nn.conv_transpose": draw_transpose,
    "nn.atrous_conv2d_transpose": draw_atrous,
    "nn.conv2d": draw_conv2d,
    "nn.conv2d_backprop_input": draw_backprop_input,
    "nn.conv2d_backprop_filter": draw_backprop_filter,
}


def draw_call(function: str, seed: list[int]) -> Call:
    return DRAWS[function](Draw(seed), function)


def draw_refused(function: str, seed: list[int]) -> Call:
    """A legal call of arrays that hold something, with one thing made wrong."""
    draw = Draw(seed)
    while True:
        call = DRAWS[function](draw, function)
        arrays = [v for v in call.arguments.values() if isinstance(v, np.ndarray) and v.ndim > 2]
        if all(array.size for array in arrays):
            break
    spoil = draw.one([spoil for spoil in SPOILS if spoil(Draw(seed), call.arguments) is not None])
    call.arguments = spoil(draw, call.arguments)
    call.notes.append(spoil.__name__)
    return call


Spoil = Callable[[Draw, dict[str, Any]], dict[str, Any] | None]


def _sizes(arguments: dict[str, Any]) -> tuple[str, list[Any]] | None:
    for name in ("output_shape", "input_sizes", "filter_sizes"):
        if name in arguments:
            return name, list(arguments[name])
    return None


def _first_format(arguments: dict[str, Any]) -> bool:
    return str(arguments.get("data_format")) in ("NCW", "NCHW", "NCDHW", "channels_first")


def wrong_length(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """A spatial size far too long for the input; SAME padding takes a filter of any size."""
    if (sizes := _sizes(arguments)) is None or (sizes[0] == "filter_sizes" and arguments["padding"] == "SAME"):
        return None
    name, values = sizes
    spatial = len(values) - 2
    if name == "filter_sizes" or spatial == 0:
        at = draw.between(0, 1)
    else:
        at = draw.between(1, spatial) + _first_format(arguments)
    return arguments | {name: [*values[:at], values[at] + 40, *values[at + 1 :]]}


def negative_length(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if (sizes := _sizes(arguments)) is None:
        return None
    name, values = sizes
    at = draw.between(0, len(values) - 1)
    return arguments | {name: [*values[:at], -1 - draw.between(0, 3), *values[at + 1 :]]}


def unknown_length(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if (sizes := _sizes(arguments)) is None:
        return None
    name, values = sizes
    at = draw.between(1, len(values) - 1)
    return arguments | {name: [*values[:at], None, *values[at + 1 :]]}


def no_sizes(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    sizes = _sizes(arguments)
    return None if sizes is None else arguments | {sizes[0]: None}


def too_few_sizes(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    sizes = _sizes(arguments)
    if sizes is None or len(sizes[1]) == 2:
        return None
    short = sizes[1][:3] if len(sizes[1]) == 4 else sizes[1][:2] if len(sizes[1]) == 3 else sizes[1][:4]
    return arguments | {sizes[0]: short}


def wrong_batch(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    sizes = _sizes(arguments)
    if sizes is None or sizes[0] == "filter_sizes" or len(sizes[1]) == 2 or sizes[1][0] is None:
        return None
    return arguments | {sizes[0]: [sizes[1][0] + 1, *sizes[1][1:]]}


def wrong_channels(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """More channels than the filter makes; several times as many may be a grouped convolution."""
    sizes = _sizes(arguments)
    if sizes is None or len(sizes[1]) == 2:
        return None
    name, values = sizes
    at = len(values) - 1 if name == "filter_sizes" or not _first_format(arguments) else 1
    if name == "input_sizes" and values[at] == 1:
        return None
    return arguments | {name: [*values[:at], values[at] + 1, *values[at + 1 :]]}


def wrong_filter_depth(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """A filter that takes more channels than there are."""
    name = next((name for name in ("filter", "filters", "kernel") if name in arguments), None)
    if name is None:
        return None
    filter = arguments[name]
    axis = 2 if "input" in arguments and not _sizes(arguments) else filter.ndim - 1
    return arguments | {name: np.concatenate([filter] * 4, axis)}


def wrong_rank(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    name = draw.one([n for n, v in arguments.items() if isinstance(v, np.ndarray) and v.ndim > 2])
    return arguments | {name: arguments[name][0]}


def wrong_padding(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    bad = ["FULL", "causal", "", None, "EXPLICIT"]
    return arguments | {"padding": draw.one([*bad, "SAME" if "kernel" in arguments else "same"])}


def wrong_pairs(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Explicit paddings that are negative, too few, or beside the spatial axes."""
    pairs = arguments.get("padding")
    if not isinstance(pairs, (list, tuple)):
        return None
    spatial = [list(pair) for pair in pairs]
    negative = [[-1, 0] if any(pair) else pair for pair in spatial]
    outside = [[0, 1], *spatial[1:]]
    options = [spatial[:3], outside, [*spatial[:1], [1], *spatial[2:]]]
    return arguments | {"padding": draw.one(options if negative == spatial else [*options, negative])}


def wrong_data_format(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if "rate" in arguments:
        return None
    return arguments | {"data_format": draw.one(["nhwc", "NHCW", "", "NCX", "Channels_Last"])}


def wrong_strides(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if "strides" not in arguments:
        return None
    rank = next(v.ndim for v in arguments.values() if isinstance(v, np.ndarray) and v.ndim > 2) - 2
    if "kernel" in arguments:
        if max(arguments["dilation_rate"]) > 1:  # TensorFlow drops the strides then, right or wrong
            return None
        return arguments | {"strides": draw.one([(0, 1), (1, -1), (1, 1, 1), (2,), None])}
    bad = [[1, *[0] * rank, 1], [1, *[-1] * rank, 1], [2] * (rank + 3), "2"]
    if rank > 1:  # in 1-D TensorFlow lays the batch's stride on an axis of its own, of length 1
        bad.append([2, *[1] * (rank + 1)])
    return arguments | {"strides": draw.one(bad)}


def wrong_dilations(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if "rate" in arguments:
        return arguments | {"rate": draw.one([0, -1, None, [2]])}
    rank = next(v.ndim for v in arguments.values() if isinstance(v, np.ndarray) and v.ndim > 2) - 2
    if "kernel" in arguments:
        return arguments | {"dilation_rate": draw.one([(0, 0), (-1, -1)])}
    bad = [[1, *[0] * rank, 1], [1, *[-1] * rank, 1], [2] * (rank + 3), [2, *[1] * (rank + 1)]]
    return arguments | {"dilations": draw.one(bad)}


def no_array(draw: Draw, arguments: dict[str, Any]) -> dict[str, Any] | None:
    name = draw.one([n for n, v in arguments.items() if isinstance(v, np.ndarray) and v.ndim > 2])
    return arguments | {name: None}


SPOILS: list[Spoil] = [
    wrong_length,
    negative_length,
    unknown_length,
    no_sizes,
    too_few_sizes,
    wrong_batch,
    wrong_channels,
    wrong_filter_depth,
    wrong_rank,
    wrong_padding,
    wrong_pairs,
    wrong_data_format,
    wrong_strides,
    wrong_dilations,
    no_array,
]
