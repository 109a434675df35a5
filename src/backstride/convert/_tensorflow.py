# SPDX-License-Identifier: Apache-2.0
"""The documented functions of TensorFlow, and its Lite's operator, which takes the lengths of its result as they do.

Sources: the pages of `tf.nn.conv2d_transpose` (1.x), `tf.compat.v1.nn.conv2d_transpose`, `tf.layers.conv2d_transpose`
and `tf.keras.backend.conv2d_transpose`, and the schema of TFLite's TRANSPOSE_CONV.
"""

from __future__ import annotations

from typing import Any

from backstride import _arguments as arguments
from backstride._geometry import Crop, Geometry
from backstride.convert import _same
from backstride.convert._code import Python, cut_code, shape_code, zeros
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Framework, Port, never


def from_tf_nn(
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: Any = None,
    dilations: Any = None,
    *,
    input: Any = None,
    bias: bool = True,
) -> ConvTranspose:
    """The layer of a call of `tf.nn.conv2d_transpose`, or of its kin of one and three axes, and a `bias_add` after it.

    >>> from backstride import convert
    >>> convert.from_tf_nn((5, 5, 3, 16), [1, 31, 31, 3], strides=2, input=16).crop
    ((2, 2), (2, 2))

    Args:
        filters: the filter or its shape, `[*kernel, out_channels, in_channels]`.
        output_shape: whole, or the lengths alone. None is what `tf.layers` chooses, `input * stride` for SAME.
        strides, padding, data_format, dilations: as documented.
        input: the spatial lengths of the input that has this result; needed with `output_shape`, and only with it.
        bias: whether one is added.

    Raises:
        TypeError, ValueError: as TensorFlow; among others if the input can't have this result.
    """
    shape = arguments.lengths("filters", getattr(filters, "shape", filters))
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"`filters` must have 3 to 5 dimensions; got shape {shape}")
    *kernel, out_channels, in_channels = shape
    window = arguments.window(len(kernel), strides, padding, data_format, dilations)
    layer = ConvTranspose(
        tuple(kernel),
        window.stride,
        window.dilation,
        window.crop or (0, 0),
        in_channels,
        out_channels,
        channels_first=window.channels_first,
        bias=bias,
    )
    if output_shape is not None:
        given = arguments.integers("output_shape", output_shape)
        batch = given[0] if len(given) == len(shape) else 1
        source = (batch, *_input(layer, input), in_channels)
        source = arguments.channels_first_order(source) if window.channels_first else source
        operands = arguments.Operands("input", source, "filters", shape)
        sized = arguments.transposed(operands, given, strides, padding, data_format, dilations)
        return layer.replace(crop=_crop(sized))
    if window.crop is None or not any(map(any, window.crop)):
        return layer.replace(crop=_same.crop(layer, window.crop is None))
    return layer


def from_tf_layers(
    filters: int,
    kernel_size: int | tuple[int, ...],
    strides: int | tuple[int, ...] = (1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    use_bias: bool = True,
    *,
    in_channels: int = 1,
    rank: int = 2,
) -> ConvTranspose:
    """The layer of a call of `tf.layers.conv2d_transpose`, or `conv3d_transpose` where `kernel_size` has three ints.

    >>> from backstride import convert
    >>> convert.from_tf_layers(3, 5, strides=2, padding="same").output((16, 16))
    (32, 32)

    Args:
        filters, kernel_size, strides, padding, data_format, use_bias: as documented.
        in_channels: those of the input.
        rank: how many axes there are where `kernel_size` is an int. It is 2 or 3.
    """
    kernel = arguments.kernel("kernel_size", kernel_size, rank)
    TF_LAYERS.check_rank(len(kernel))
    strides = 1 if strides == (1, 1) else strides
    layer = ConvTranspose(
        kernel,
        arguments.layer_ints("strides", strides, len(kernel)),
        in_channels=in_channels,
        out_channels=arguments.filters(filters),
        channels_first=arguments.keras_channels_first(data_format),
        bias=use_bias,
    )
    return layer.replace(crop=_same.crop(layer, arguments.keras_crop(padding, layer.rank) is None))


def from_keras_backend(
    kernel: Any,
    output_shape: Any,
    strides: Any = (1, 1),
    padding: Any = "valid",
    data_format: Any = None,
    dilation_rate: Any = (1, 1),
    *,
    input: Any = None,
    bias: bool = True,
) -> ConvTranspose:
    """The layer of a call of `tf.keras.backend.conv2d_transpose`, and a `bias_add` after it.

    >>> from backstride import convert
    >>> convert.from_keras_backend((4, 4, 3, 16), (None, 32, 32, 3), (2, 2), "same", input=(16, 16)).crop
    ((1, 1), (1, 1))

    Args:
        kernel: the filter or its shape, `[height, width, out_channels, in_channels]`.
        output_shape: whole; its batch may be None. None is what `tf.layers` chooses.
        strides, padding, data_format, dilation_rate: as documented; a `data_format` of None is 'channels_last' here.
        input, bias: as in `from_tf_nn`.
    """
    KERAS_BACKEND.check_rank(len(getattr(kernel, "shape", kernel)) - 2)
    first = data_format is not None and arguments.keras_channels_first(data_format)
    if output_shape is not None:
        output_shape = arguments.entries("output_shape", output_shape)
        output_shape = [1 if n == 0 and length is None else length for n, length in enumerate(output_shape)]
    return from_tf_nn(
        kernel,
        output_shape,
        arguments.keras_pair("strides", strides),
        "VALID" if arguments.keras_crop(padding, 2) else "SAME",
        "NCHW" if first else "NHWC",
        arguments.keras_pair("dilation_rate", dilation_rate),
        input=input,
        bias=bias,
    )


def from_tflite(
    weights: Any,
    output_shape: Any,
    padding: str = "SAME",
    stride_h: int = 1,
    stride_w: int = 1,
    *,
    input: Any = None,
    bias: bool = True,
) -> ConvTranspose:
    """The layer of TFLite's operator TRANSPOSE_CONV.

    >>> from backstride import convert
    >>> convert.from_tflite((3, 5, 5, 16), [1, 32, 32, 3], stride_h=2, stride_w=2, input=(16, 16)).crop
    ((1, 2), (1, 2))

    Args:
        weights: the filter or its shape, `[out_channels, height, width, in_channels]`.
        output_shape: whole. It is often a constant in a file, and then holds for inputs of one size only.
        padding, stride_h, stride_w: the options of the operator.
        input, bias: as in `from_tf_nn`.
    """
    shape = arguments.lengths("weights", getattr(weights, "shape", weights))
    if len(shape) != 4:
        raise ValueError(f"`weights` must have 4 dimensions; got shape {shape}")
    out_channels, height, width, in_channels = shape
    return from_tf_nn(
        (height, width, out_channels, in_channels),
        output_shape,
        (stride_h, stride_w),
        padding,
        input=input,
        bias=bias,
    )


def to_tf_nn(layer: ConvTranspose) -> Port:
    """The layer by `tf.nn.conv2d_transpose`, or its kin of one and three axes; uncropped and then cropped, if need be.

    >>> from backstride import convert
    >>> convert.to_tf_nn(convert.from_torch(16, 3, 5, stride=2, padding=2, output_padding=1)).arguments["padding"]
    [(0, 0), (0, 0), (2, 1), (2, 1)]

    Args:
        layer: any layer.
    """
    told = TF_NN.told(layer)
    padding, left = _by_name(told)
    said: dict[str, Any] = {"padding": padding}
    # TensorFlow has explicit paddings for two axes only.
    if any(map(any, left)) and layer.rank == 2:
        # What is longer than the full result, but by less than a stride, it fills with zeros.
        cropped = tuple(
            (max(before, 0), max(after, 1 - stride))
            for (before, after), stride in zip(told.crop, told.stride, strict=True)
        )
        left = _same.left(told, cropped)
        cut = [(before, max(after, 0)) for before, after in cropped]
        said["padding"] = [(0, 0), (0, 0), *cut] if layer.channels_first else [(0, 0), *cut, (0, 0)]
    said |= {"filters": told.filter_shape, "strides": told.stride, "dilations": told.dilation}
    if layer.channels_first:
        said["data_format"] = arguments.FORMATS[layer.rank][True]
    return TF_NN.port(layer, said, left, _same.usual(told, "padding='SAME'", shortened=True))


def to_tf_layers(layer: ConvTranspose) -> Port:
    """The layer by `tf.layers.conv2d_transpose` or `conv3d_transpose`; uncropped and then cropped, if need be.

    >>> from backstride import convert
    >>> convert.to_tf_layers(convert.from_torch(16, 3, 4, stride=2, padding=1)).arguments["padding"]
    'same'

    Args:
        layer: one of two or three axes.
    """
    told = TF_LAYERS.told(layer)
    same = _same.crop(told, True) == told.crop
    left = _same.left(told, _same.crop(told, same))
    said = {
        "filters": told.out_channels,
        "kernel_size": told.kernel,
        "strides": told.stride,
        "padding": "same" if same else "valid",
        "data_format": "channels_first" if layer.channels_first else "channels_last",
    }
    return TF_LAYERS.port(layer, said, left, _same.usual(told, "padding='same'"))


def to_keras_backend(layer: ConvTranspose) -> Port:
    """The layer by `tf.keras.backend.conv2d_transpose`; uncropped and then cropped, if need be.

    >>> from backstride import convert
    >>> convert.to_keras_backend(convert.from_torch(16, 3, 4, stride=2, padding=1)).exact
    True

    Args:
        layer: one of two axes.
    """
    told = KERAS_BACKEND.told(layer)
    padding, left = _by_name(told)
    said = {
        "kernel": told.filter_shape,
        "strides": told.stride,
        "padding": padding.lower(),
        "dilation_rate": told.dilation,
    }
    if layer.channels_first:
        said["data_format"] = "channels_first"
    return KERAS_BACKEND.port(layer, said, left, _same.usual(told, "padding='same'", shortened=True))


def to_tflite(layer: ConvTranspose) -> Port:
    """The layer as TFLite's operator TRANSPOSE_CONV; uncropped and then cropped, if need be.

    >>> from backstride import convert
    >>> convert.to_tflite(convert.from_torch(16, 3, 4, stride=2, padding=1)).arguments["weights"]
    (3, 4, 4, 16)

    Args:
        layer: one of two axes.
    """
    told = TFLITE.told(layer)
    padding, left = _by_name(told)
    height, width, out_channels, in_channels = told.filter_shape
    said = {
        "weights": (out_channels, height, width, in_channels),
        "padding": padding,
        "stride_h": told.stride[0],
        "stride_w": told.stride[1],
    }
    return TFLITE.port(layer, said, left, _same.usual(told, "padding=SAME", shortened=True))


def _by_name(layer: ConvTranspose) -> tuple[str, Crop]:
    """The padding, 'SAME' or 'VALID', and what is left to be cut if the results are then as long as they may be."""
    if _same.is_same(layer):
        return "SAME", _same.left(layer, layer.crop)
    filled = [max(min(after, 0), 1 - stride) for (_, after), stride in zip(layer.crop, layer.stride, strict=True)]
    return "VALID", _same.left(layer, tuple((0, cells) for cells in filled))


def _input(layer: ConvTranspose, input: Any) -> tuple[int, ...]:
    """The lengths of an input, of which there has to be one."""
    if input is None:
        raise ValueError("`input` is required with `output_shape`: the spatial lengths of the input with this result")
    return arguments.layer_ints("input", input, layer.rank)


def _crop(geometry: Geometry) -> Crop:
    """What a sized layer crops."""
    pairs = []
    for axis in geometry.axes:
        full = (axis.input - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
        pairs.append((axis.pad, full - axis.output - axis.pad))
    return tuple(pairs)


def _converter(port: Port) -> str:
    """Code that makes a model of the operator, by TensorFlow's converter, which reorders the filter by itself."""
    layer, said = port.layer, port.arguments
    strides = said["stride_h"], said["stride_w"]
    lines = [
        "import tensorflow as tf",
        "",
        f"@tf.function(input_signature=[tf.TensorSpec([1, None, None, {layer.in_channels}])])",
        "def layer(x):  # filters: [height, width, out channels, in channels]",
        "    n, h, w, _ = tf.unstack(tf.shape(x))",
        f"    y = tf.nn.conv2d_transpose(x, filters, {shape_code(port.said, ('n', 'h', 'w'), False)}, {strides}, "
        f"{said['padding']!r}){cut_code(port.crop, 1)}",
    ]
    if pairs := zeros(port.crop):
        lines.append(f"    y = tf.pad(y, {[(0, 0), *pairs, (0, 0)]})")
    lines += [
        f"    return y{' + bias' if layer.bias else ''}",
        "",
        "converter = tf.lite.TFLiteConverter.from_concrete_functions([layer.get_concrete_function()])",
        "model = converter.convert()",
    ]
    return "\n".join(lines)


_PAD = "tf.pad"

TF_NN = Framework(
    "tf.nn",
    from_tf_nn,
    to_tf_nn,
    Python(
        "import tensorflow as tf",
        "y = tf.nn.conv{n}d_transpose({arguments}){cut}",
        _PAD,
        function=True,
        weight="filters",
        lengths="output_shape",
    ),
    "tensorflow",
    groups=never,
)
TF_LAYERS = Framework(
    "tf.layers",
    from_tf_layers,
    to_tf_layers,
    Python(
        "import tensorflow as tf  # 1.x, or: import backstride as tf",
        "y = tf.layers.conv{n}d_transpose({arguments}){cut}",
        _PAD,
        function=True,
    ),
    "tensorflow",
    bias="use_bias",
    ranks=(2, 3),
    groups=never,
    dilations=never,
)
KERAS_BACKEND = Framework(
    "tf.keras.backend",
    from_keras_backend,
    to_keras_backend,
    Python(
        "import tensorflow as tf  # before Keras 3, or: import backstride as tf",
        "y = tf.keras.backend.conv2d_transpose({arguments}){cut}",
        _PAD,
        function=True,
        weight="kernel",
        lengths="output_shape",
        scalars=False,
    ),
    "tensorflow",
    ranks=(2,),
    groups=never,
)
TFLITE = Framework(
    "tflite",
    from_tflite,
    to_tflite,
    _converter,
    "tflite",
    channels_first=False,
    ranks=(2,),
    groups=never,
    dilations=never,
    every_size=False,
)
