# SPDX-License-Identifier: Apache-2.0
"""Keras' layers, of version 2 and 3: TensorFlow's paddings, whose lengths `output_padding` may change.

Source: the documentation of `keras.layers.Conv2DTranspose`, and `_get_output_shape_given_tf_padding` in Keras 3.
"""

from __future__ import annotations

from typing import Any

from backstride import _arguments as arguments
from backstride.convert import _same
from backstride.convert._code import Python
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Framework, Port, never

IntOrInts = int | tuple[int, ...]


def from_keras(
    filters: int,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    padding: str = "valid",
    output_padding: IntOrInts | None = None,
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    use_bias: bool = True,
    *,
    in_channels: int = 1,
    rank: int = 2,
) -> ConvTranspose:
    """The layer that `keras.layers.Conv1DTranspose`, `Conv2DTranspose` or `Conv3DTranspose` makes of these arguments.

    >>> from backstride import convert
    >>> convert.from_keras(3, 5, strides=2, padding="same", output_padding=0).output((16, 16))
    (31, 31)

    Args:
        filters, kernel_size, strides, padding, output_padding, dilation_rate, use_bias: as Keras documents them.
        data_format: 'channels_last', which None means here, or 'channels_first'.
        in_channels: those of the input.
        rank: how many axes there are where `kernel_size` is an int.
    """
    kernel = arguments.kernel("kernel_size", kernel_size, rank)
    layer = ConvTranspose(
        kernel,
        arguments.layer_ints("strides", strides, len(kernel)),
        arguments.layer_ints("dilation_rate", dilation_rate, len(kernel)),
        in_channels=in_channels,
        out_channels=arguments.filters(filters),
        channels_first=data_format is not None and arguments.keras_channels_first(data_format),
        bias=use_bias,
    )
    if max(layer.stride) > 1 and max(layer.dilation) > 1:
        raise ValueError(f"Keras has `strides` or `dilation_rate` above 1, not both; got {strides=}, {dilation_rate=}")
    same = arguments.keras_crop(padding, layer.rank) is None
    if output_padding is None:
        return layer.replace(crop=_same.crop(layer, same))
    added = arguments.layer_ints("output_padding", output_padding, layer.rank, lowest=0)
    if any(more >= stride for more, stride in zip(added, layer.stride, strict=True)):
        raise ValueError(f"`output_padding` must be below the stride; got {output_padding=} with strides={strides!r}")
    lengths = [_base(extent, same) + more for extent, more in zip(layer.extent, added, strict=True)]
    return layer.replace(crop=_same.crop(layer, same, lengths))


def to_keras(layer: ConvTranspose) -> Port:
    """The layer in Keras; uncropped and then cropped, if need be.

    >>> from backstride import convert
    >>> layer = convert.from_torch(16, 3, 5, stride=2, padding=2)
    >>> convert.to_keras(layer).arguments["output_padding"], convert.to_keras(layer).exact
    ((0, 0), True)

    Args:
        layer: any layer.
    """
    told = KERAS.told(layer)
    for padding, added in ("same", None), ("valid", None), ("same", _added(told, True)), ("valid", _added(told, False)):
        said: dict[str, Any] = {
            "filters": told.out_channels,
            "kernel_size": told.kernel,
            "strides": told.stride,
            "padding": padding,
            "output_padding": added,
            "data_format": "channels_first" if layer.channels_first else None,
            "dilation_rate": told.dilation,
        }
        left = _same.left(told, from_keras(**said).crop)
        if not any(map(any, left)):
            break
    return KERAS.port(layer, said, left, _same.usual(told, "padding='same'", shortened=True))


def _added(layer: ConvTranspose, same: bool) -> tuple[int, ...]:
    """The output padding that comes closest to the layer's lengths."""
    return tuple(
        min(max(length - _base(extent, same), 0), stride - 1)
        for length, extent, stride in zip(_same.lengths(layer), layer.extent, layer.stride, strict=True)
    )


def _base(extent: int, same: bool) -> int:
    """The length of the result of one cell, without any output padding."""
    return extent % 2 if same else extent


KERAS = Framework(
    "keras",
    from_keras,
    to_keras,
    Python(
        "import keras",
        "layer = keras.layers.Conv{n}DTranspose({arguments})\ny = layer(x){cut}",
        "keras.ops.pad",
    ),
    "tensorflow",
    bias="use_bias",
    groups=never,
    # Its layers refuse strides and dilations together.
    dilations=lambda layer: max(layer.stride) == 1,
)
