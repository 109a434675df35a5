# SPDX-License-Identifier: Apache-2.0
"""ONNX's operator ConvTranspose, whose pads crop each end by itself.

Source: the specification of the operator, and where it leaves room, what ONNX Runtime does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backstride import _arguments as arguments
from backstride._geometry import Crop
from backstride.convert._code import zeros
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Framework, Port, Usual

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def from_onnx(
    W: Any,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    *,
    input: Any = None,
    bias: bool = True,
) -> ConvTranspose:
    """The layer of an ONNX node.

    >>> from backstride import convert
    >>> convert.from_onnx((16, 3, 5, 5), strides=[2, 2], output_shape=[32, 32], input=16).crop
    ((2, 1), (2, 1))
    >>> convert.from_onnx((16, 3, 5, 5), "SAME_UPPER", strides=[2, 2]).crop
    ((1, 2), (1, 2))

    Args:
        W: the filter or its shape, `[in_channels, out_channels // group, *kernel]`.
        auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides: the node's attributes.
            SAME_UPPER and SAME_LOWER crop to `input * stride` cells; shorter results stay as they are, since pads are
            not negative.
        input: the spatial lengths of the input; needed with `output_shape`, which is for one size of input.
        bias: whether there is one.
    """
    shape = arguments.lengths("W", getattr(W, "shape", W))
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"`W` must have 3 to 5 dimensions; got shape {shape}")
    in_channels, share, *kernel = shape
    rank = len(kernel)
    if kernel_shape is not None and arguments.integers("kernel_shape", kernel_shape) != tuple(kernel):
        raise ValueError(f"`kernel_shape` must be that of `W`, {tuple(kernel)}; got {kernel_shape=}")
    if auto_pad not in AUTO_PADS:
        raise ValueError(f"`auto_pad` must be one of {', '.join(AUTO_PADS)}; got {auto_pad=}")
    groups = arguments.count("group", group)
    layer = ConvTranspose(
        tuple(kernel),
        _per_axis("strides", strides, rank, 1),
        _per_axis("dilations", dilations, rank, 1),
        in_channels=in_channels,
        out_channels=share * groups,
        groups=groups,
        channels_first=True,
        bias=bias,
    )
    added = _per_axis("output_padding", output_padding, rank, 0)
    for more, stride, dilation in zip(added, layer.stride, layer.dilation, strict=True):
        if more >= max(stride, dilation):
            raise ValueError(f"`output_padding` must be below the stride or the dilation; got {output_padding=}")
    if output_shape is None and auto_pad in ("NOTSET", "VALID"):
        cells = _per_axis("pads", None if auto_pad == "VALID" else pads, 2 * rank, 0)
        return layer.replace(crop=tuple((cells[n], cells[n + rank] - added[n]) for n in range(rank)))
    return layer.replace(crop=_automatic(layer, auto_pad == "SAME_UPPER", added, output_shape, input))


def to_onnx(layer: ConvTranspose) -> Port:
    """The layer as an ONNX node; zeros at the beginning, or many at the end, are another node's.

    >>> from backstride import convert
    >>> convert.to_onnx(convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)).arguments["pads"]
    [1, 1, 2, 2]

    Args:
        layer: any layer.
    """
    layer = ONNX.told(layer)
    pads = [max(before, 0) for before, _ in layer.crop] + [max(after, 0) for _, after in layer.crop]
    # By its specification up to the dilation as well, but ONNX Runtime takes less than a stride only.
    added = [min(max(-after, 0), stride - 1) for (_, after), stride in zip(layer.crop, layer.stride, strict=True)]
    left = tuple(
        (min(before, 0), min(after, 0) + more) for (before, after), more in zip(layer.crop, added, strict=True)
    )
    said = {
        "W": (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel),
        "dilations": list(layer.dilation),
        "group": layer.groups,
        "kernel_shape": list(layer.kernel),
        "output_padding": added,
        "pads": pads,
        "strides": list(layer.stride),
    }
    totals = [sum(pair) for pair in layer.crop]
    usual = Usual("output_shape without auto_pad", tuple((-(-max(t, 0) // 2), t - -(-max(t, 0) // 2)) for t in totals))
    return ONNX.port(layer, said, left, usual)


def _per_axis(name: str, value: Any, count: int, default: int) -> tuple[int, ...]:
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return (default,) * count
    return arguments.layer_ints(name, value, count, lowest=default)


def _automatic(layer: ConvTranspose, upper: bool, added: Sequence[int], output_shape: Any, input: Any) -> Crop:
    """What is cropped to a result of certain lengths: half at each end, and the odd cell after if `upper`."""
    crop = []
    if output_shape is not None:
        if input is None:
            raise ValueError(
                "`input` is required with `output_shape`: the spatial lengths of the input with this result"
            )
        inputs = arguments.layer_ints("input", input, layer.rank)
        outputs = arguments.integers("output_shape", output_shape)[-layer.rank :]
        if len(outputs) != layer.rank:
            raise ValueError(f"`output_shape` must have {layer.rank} entries; got {output_shape=}")
    for n, (stride, extent) in enumerate(zip(layer.stride, layer.extent, strict=True)):
        full = extent if output_shape is None else (inputs[n] - 1) * stride + extent
        total = max(full + added[n] - (stride if output_shape is None else outputs[n]), 0)
        before = total // 2 if upper else total - total // 2
        after = full - outputs[n] - before if output_shape is not None else total - before - added[n]
        crop.append((before, after))
    return tuple(crop)


def _nodes(port: Port) -> str:
    """Code that makes the node, and those that add zeros and a bias after it."""
    rank = port.layer.rank
    defaults = {"dilations": [1] * rank, "group": 1, "output_padding": [0] * rank, "pads": [0] * 2 * rank}
    attributes = [
        f"{name}={value!r}" for name, value in port.arguments.items() if name in NODE and value != defaults.get(name)
    ]
    inputs = ["x", "weight", *(["bias"] if port.arguments["bias"] else [])]
    pairs = zeros(port.crop)
    made = [("ConvTranspose", inputs, "cropped" if pairs else "y", attributes)]
    if pairs:
        pads = [0, 0, *(before for before, _ in pairs), 0, 0, *(after for _, after in pairs)]
        made.append(("Constant", [], "zeros", [f"value_ints={pads}"]))
        made.append(("Pad", ["cropped", "zeros"], "filled" if port.bias_after else "y", []))
    if port.bias_after:
        made.append(("Constant", [], "shape", [f"value_ints={[1, -1, *[1] * rank]}"]))
        made.append(("Reshape", ["bias", "shape"], "column", []))
        made.append(("Add", ["filled", "column"], "y", []))
    lines = [
        f"    onnx.helper.make_node({', '.join([repr(kind), str(inputs), str([output]), *attributes])}),"
        for kind, inputs, output, attributes in made
    ]
    return "\n".join(["import onnx", "", "nodes = [", *lines, "]"])


# The attributes of the operator; its filter and bias are inputs.
NODE = ("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides")

ONNX = Framework("onnx", from_onnx, to_onnx, _nodes, "torch", channels_first=True, bias="bias")
