# SPDX-License-Identifier: Apache-2.0
"""A layer from words: options of a command line, in TensorFlow's terms or in those of any other framework."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields
from typing import Any

from backstride._arguments import AXES
from backstride._explain.arithmetic import Padding, padding_of, resized
from backstride.convert import FRAMEWORKS, LAYOUTS, ConvTranspose, Layout, _same

# What frameworks call what the options say. `filter` is the shape of the filter, and is made of others.
_TORCH = {
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "kernel": "kernel_size",
    "stride": "stride",
    "padding": "padding",
    "output_padding": "output_padding",
    "dilation": "dilation",
    "groups": "groups",
}
_MLX = {name: argument for name, argument in _TORCH.items() if name != "groups"}
_KERAS = {
    "in_channels": "in_channels",
    "out_channels": "filters",
    "kernel": "kernel_size",
    "stride": "strides",
    "padding": "padding",
}
_NN = {
    "filter": "filters",
    "stride": "strides",
    "padding": "padding",
    "dilation": "dilations",
    "output": "output_shape",
}
_FLAX = {
    "in_channels": "in_channels",
    "out_channels": "features",
    "kernel": "kernel_size",
    "stride": "strides",
    "padding": "padding",
    "dilation": "kernel_dilation",
}
ARGUMENTS = {
    "tf.nn": _NN,
    "tf.layers": _KERAS,
    "tf.keras.backend": {**_NN, "filter": "kernel", "dilation": "dilation_rate"},
    "keras": {**_KERAS, "output_padding": "output_padding", "dilation": "dilation_rate"},
    "torch": _TORCH,
    "jax.lax.conv_transpose": {
        "filter": "rhs",
        "stride": "strides",
        "padding": "padding",
        "dilation": "rhs_dilation",
        "use_consistent_padding": "use_consistent_padding",
    },
    "jax.lax.conv_general_dilated": {
        "filter": "rhs",
        "stride": "lhs_dilation",
        "padding": "padding",
        "dilation": "rhs_dilation",
        "groups": "feature_group_count",
    },
    "flax.linen": _FLAX,
    "flax.nnx": {**_FLAX, "in_channels": "in_features", "out_channels": "out_features"},
    "haiku": {
        "in_channels": "in_channels",
        "out_channels": "output_channels",
        "kernel": "kernel_shape",
        "stride": "stride",
        "padding": "padding",
        "output": "output_shape",
    },
    "equinox": _TORCH,
    "onnx": {
        "filter": "W",
        "stride": "strides",
        "padding": "pads",
        "auto_pad": "auto_pad",
        "output_padding": "output_padding",
        "dilation": "dilations",
        "groups": "group",
        "output": "output_shape",
    },
    "tflite": {"filter": "weights", "stride": "stride", "padding": "padding", "output": "output_shape"},
    "mlx": _MLX,
    "candle": _TORCH,
}
# What frameworks are called besides.
SHORT = {
    "tf": "tf.nn",
    "tensorflow": "tf.nn",
    "pytorch": "torch",
    "jax": "jax.lax.conv_transpose",
    "lax": "jax.lax.conv_transpose",
    "flax": "flax.linen",
    "linen": "flax.linen",
    "nnx": "flax.nnx",
    "onnxruntime": "onnx",
}


@dataclass(frozen=True)
class Options:
    """A layer and its input as a command line has them; numbers of several axes have an 'x' between."""

    kernel: str
    input: str
    rank: int | None = None
    stride: str | None = None
    padding: str | None = None
    output_padding: str | None = None
    auto_pad: str | None = None
    output: str | None = None
    dilation: str | None = None
    groups: int | None = None
    in_channels: int | None = None
    out_channels: int | None = None
    use_consistent_padding: bool | None = None
    channels_first: bool = False
    no_bias: bool = False


def framework(name: str) -> str:
    """The name of a framework, of which there may be shorter ones."""
    known = SHORT.get(name, name)
    if known not in FRAMEWORKS:
        raise ValueError(f"no framework is called {name!r} here; there are {', '.join([*FRAMEWORKS, *SHORT])}")
    return known


def read(options: Options, source: str | None) -> tuple[ConvTranspose, tuple[int, ...], Padding]:
    """The layer that the options say in the terms of a framework, TensorFlow's if it is None; its input's lengths, and
    what TensorFlow calls its padding."""
    rank = options.rank or _rank(options)
    if rank not in AXES:
        raise ValueError(f"--rank must be 1, 2 or 3; got {rank}")
    input = lengths(options.input, rank)
    given = _given(options, rank)
    layer = _tensorflow(given, input) if source is None else _foreign(given, source, rank, input)
    named = _name(given.get("padding", "SAME" if source is None else None))
    if "output" in given and (source is None or "output" not in ARGUMENTS[source]):
        layer = resized(layer, input, given["output"], named or "explicit")
    if options.channels_first and source and FRAMEWORKS[source].channels_first is False:
        raise ValueError(f"{source} takes channels last only; leave --channels-first out")
    first, bias = options.channels_first or layer.channels_first, layer.bias and not options.no_bias
    layer = layer.replace(channels_first=first, bias=bias)
    return layer, input, "VALID" if named == "VALID" and _same.is_valid(layer) else padding_of(layer)


def _rank(options: Options) -> int:
    """How many axes the options speak of; two if they leave it open."""
    texts = [options.kernel, options.input, options.stride, options.output, options.dilation, options.output_padding]
    if options.padding and not options.padding[0].isalpha():
        texts.append(options.padding)
    most = max(text.count("x") + 1 for text in texts if text)
    return most if most > 1 else 2


def _given(options: Options, rank: int) -> dict[str, Any]:
    """The options that were given, as numbers and names."""
    given: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if value is None or field.name in ("input", "rank", "channels_first", "no_bias"):
            continue
        if field.name == "padding":
            value = _padding(value, rank)
        elif isinstance(value, str) and field.name != "auto_pad":
            value = _numbers(field.name, value, rank)
        given[field.name] = value
    for name in ("in_channels", "out_channels"):
        given.setdefault(name, given.get("groups", 1))
    given.setdefault("stride", (1,) * rank)
    return given


def lengths(text: str, rank: int) -> tuple[int, ...]:
    """Those of an input, from words such as 16 or 16x20."""
    return _numbers("input", text, rank)


def _numbers(option: str, text: str, rank: int) -> tuple[int, ...]:
    numbers = text.split("x")
    if not all(re.fullmatch(r"\d+", number) for number in numbers) or len(numbers) not in (1, rank):
        several = f", or one for each axis such as {'x'.join('546'[:rank])}" if rank > 1 else ""
        raise ValueError(f"{_spelled(option)} must be a number{several}; got {text!r}")
    return tuple(map(int, numbers)) * (rank if len(numbers) == 1 else 1)


def _padding(text: str, rank: int) -> Any:
    """A name, or a number or a tuple of several for each axis."""
    if re.fullmatch(r"[A-Za-z_]+", text):
        return text
    entries = text.split("x")
    if not all(re.fullmatch(r"-?\d+(,-?\d+)*", entry) for entry in entries) or len(entries) not in (1, rank):
        raise ValueError(
            f"--padding must be a name such as same, a number, a pair such as 1,2, or one of these for each axis such "
            f"as 1,2x0,1; got {text!r}"
        )
    values = [tuple(map(int, entry.split(","))) for entry in entries]
    plain = [value[0] if len(value) == 1 else value for value in values]
    return plain * rank if len(plain) == 1 else plain


def _name(padding: Any) -> Padding | None:
    """What TensorFlow calls a padding that is given by name."""
    names: dict[Any, Padding] = {"SAME": "SAME", "VALID": "VALID"}
    return names.get(padding.upper()) if isinstance(padding, str) else None


def _tensorflow(given: dict[str, Any], input: tuple[int, ...]) -> ConvTranspose:
    """The layer in the terms of TensorFlow's functions, with groups and any crop besides."""
    for option in ("output_padding", "auto_pad", "use_consistent_padding"):
        if option in given:
            raise ValueError(f"{_spelled(option)} is not TensorFlow's; say whose it is by --from")
    rank, padding = len(input), given.get("padding", "SAME")
    if isinstance(padding, str) and not _name(padding):
        raise ValueError(f"--padding must be same, valid, or numbers of cells to cut such as 1,2; got {padding!r}")
    dilation = given.get("dilation", (1,) * rank)
    channels = {name: given[name] for name in ("in_channels", "out_channels")}
    if isinstance(padding, str):
        shape = (*given["kernel"], given["out_channels"], given["in_channels"])
        layer = FRAMEWORKS["tf.nn"].read(shape, None, given["stride"], padding.upper(), dilations=dilation)
    else:
        pairs = _pairs(padding)
        if {len(pair) for pair in pairs} != {2}:
            raise ValueError(f"--padding must have one number or two for each axis; got {padding}")
        layer = ConvTranspose(given["kernel"], given["stride"], dilation, pairs, **channels)
    return layer.replace(groups=given.get("groups", 1))


def _foreign(given: dict[str, Any], source: str, rank: int, input: tuple[int, ...]) -> ConvTranspose:
    """The layer in a framework's own terms."""
    framework, names = FRAMEWORKS[source], ARGUMENTS[source]
    framework.check_rank(rank)
    parameters = inspect.signature(framework.read).parameters
    if "filter" in names:
        given = {**given, "filter": _filter_shape(given, LAYOUTS[framework.layout])}
    said = {names[option]: value for option, value in given.items() if option in names}
    if "output" in names:
        said.setdefault(names["output"], None)  # which is what `tf.layers` chooses
    made = {"kernel", "in_channels", "out_channels", "groups"} if "filter" in names else set()
    if others := [option for option in given if option not in names and option not in made | {"output"}]:
        known = ", ".join(_spelled(option) for option in names if option != "filter")
        raise ValueError(f"{source} has no {_spelled(others[0])}; it has {known}")
    if "padding" in given:
        said[names["padding"]] = _as(source, given["padding"], rank)
    elif "padding" in parameters and parameters["padding"].default is inspect.Parameter.empty:
        raise ValueError(f"{source} has no default padding; give it --padding")
    if "input" in parameters and "output" in given:
        said["input"] = input
    sizes = {"rank": rank, "num_spatial_dims": rank, "window_strides": (1,) * rank}
    said.update((name, value) for name, value in sizes.items() if name in parameters)
    if source == "tflite":
        said["stride_h"], said["stride_w"] = said.pop("stride")
    layer = framework.read(**said)
    framework.write(layer)  # which refuses what only looks like one of its layers
    return layer


def _filter_shape(given: dict[str, Any], layout: Layout) -> tuple[int, ...]:
    channels = {"I": given["in_channels"], "O": given["out_channels"]}
    groups = given.get("groups", 1)
    if groups < 1 or any(count % groups for count in channels.values()):
        raise ValueError(
            f"--groups must divide --in-channels and --out-channels; got {groups}, {channels['I']} and {channels['O']}"
        )
    channels[layout.grouped] //= groups
    return tuple(n for letter in layout.order for n in (given["kernel"] if letter == "K" else (channels[letter],)))


def _as(source: str, padding: Any, rank: int) -> Any:
    """A padding in a framework's own form."""
    if isinstance(padding, str):
        return padding.lower() if "keras" in source or source == "tf.layers" else padding.upper()
    if source == "onnx":
        if len(padding[0] if isinstance(padding[0], tuple) else ()) == 2 * rank:
            return list(padding[0])
        pairs = _pairs(padding)
        return [pair[0] for pair in pairs] + [pair[-1] for pair in pairs]
    if source == "tf.nn":
        return [(0, 0), *_pairs(padding), (0, 0)]
    if source.startswith("jax.") or source == "haiku":
        return _pairs(padding)
    return tuple(padding)


def _pairs(padding: list[Any]) -> list[tuple[int, ...]]:
    """Each number as two."""
    return [(entry, entry) if isinstance(entry, int) else entry for entry in padding]


def _spelled(option: str) -> str:
    """The option as it is typed."""
    return f"--{option.replace('_', '-')}"
