# SPDX-License-Identifier: Apache-2.0
"""`tf.keras.backend.conv2d_transpose` and the setting it reads."""

from __future__ import annotations

from typing import Any

from backstride import _arguments as arguments
from backstride._arguments import Argument
from backstride._ops import derivative

__all__ = ["conv2d_transpose", "image_data_format", "set_image_data_format"]

_image_data_format = "channels_last"


def image_data_format() -> str:
    """The data format of calls that give none: 'channels_last', unless `set_image_data_format` changed it.

    >>> import backstride
    >>> backstride.keras.backend.image_data_format()
    'channels_last'
    """
    return _image_data_format


def set_image_data_format(data_format: str) -> None:
    """Sets what `image_data_format` returns, for the whole process.

    >>> import backstride
    >>> backstride.keras.backend.set_image_data_format("channels_last")

    Args:
        data_format: 'channels_last' or 'channels_first'.

    Raises:
        ValueError: it is neither.
    """
    global _image_data_format
    arguments.keras_channels_first(data_format)
    _image_data_format = data_format


def conv2d_transpose(
    x: Any,
    kernel: Any,
    output_shape: Any,
    strides: Any = (1, 1),
    padding: Any = "valid",
    data_format: Any = None,
    dilation_rate: Any = (1, 1),
) -> Any:
    """2-D deconvolution, that is, transposed convolution, as `tf.keras.backend.conv2d_transpose` documents it.

    Strides and dilation rates are both honoured, also together and unequal; TensorFlow drops the strides where
    there is a dilation.

    >>> import numpy as np, backstride
    >>> image, taps = np.ones((2, 4, 4, 3), np.float32), np.ones((3, 3, 8, 3), np.float32)
    >>> backstride.keras.backend.conv2d_transpose(image, taps, (None, 8, 8, 8), (2, 2), "same").shape
    (2, 8, 8, 8)

    Args:
        x: array `[batch, height, width, in_channels]`, or `[batch, in_channels, height, width]` for channels_first.
        kernel: array `[height, width, out_channels, in_channels]` of the dtype of `x`.
        output_shape: the result's shape, four ints in the order of `data_format`; the batch may be None. Lengths as
            in `backstride.nn.conv2d_transpose`.
        strides: pair of ints.
        padding: 'same' or 'valid'.
        data_format: 'channels_last' or 'channels_first'; None is `image_data_format()`.
        dilation_rate: pair of ints.

    Returns:
        Array of shape `output_shape` and the dtype of `x`.

    Raises:
        ValueError: `data_format` or `padding` is not one of the names, or a shape, a length or a channel count does
            not fit.
        TypeError: an argument is of the wrong type, or the dtypes differ or are not supported.
        MemoryError: the result would not fit into this machine's memory.
    """
    x, kernel = arguments.arrays(4, Argument("x", x), Argument("kernel", kernel))
    operands, data_format = arguments.operands(x, kernel), image_data_format() if data_format is None else data_format
    geometry = arguments.keras_transposed(operands, output_shape, strides, padding, data_format, dilation_rate)
    return derivative("output", geometry, x.value, kernel.value)
