# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions, the convolutions they are the gradients of, and activations, as in `tf.compat.v1.nn`.

Every function takes NumPy arrays, nested lists of numbers or buffers (and, inside HIPS autograd, its tracers), or
PyTorch tensors, and returns an array of the same kind and dtype: float16, bfloat16, float32, float64 or any integer.
The 16-bit floats sum in float32 and round once; integers wrap. Filters are `[*kernel, out_channels, in_channels]` in
both data formats.

A wrong value or shape is a ValueError, a wrong type a TypeError, both before anything is computed. A result
larger than the machine's memory is a MemoryError.
"""

from __future__ import annotations

from typing import Any

from backstride import _activations, _arguments, _ops
from backstride._activations import *  # noqa: F403

__all__ = [
    *_activations.__all__,
    "atrous_conv2d_transpose",
    "bias_add",
    "conv1d_transpose",
    "conv2d",
    "conv2d_backprop_filter",
    "conv2d_backprop_input",
    "conv2d_transpose",
    "conv3d_transpose",
    "conv_transpose",
]


def conv2d_transpose(
    value: Any = None,
    filter: Any = None,
    output_shape: Any = None,
    strides: Any = None,
    padding: Any = "SAME",
    data_format: Any = "NHWC",
    name: Any = None,
    input: Any = None,
    filters: Any = None,
    dilations: Any = None,
) -> Any:
    """The transpose (gradient) of `conv2d`, also called deconvolution.

    Defined by the documentation of `tf.nn.conv2d_transpose` (1.x) and of `tf.compat.v1.nn.conv2d_transpose`; one
    function serves both, and TensorFlow 2's spelling with keywords (there `dilations` comes before `name`).

    >>> import numpy as np, backstride
    >>> line = np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1)
    >>> taps = np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1)
    >>> backstride.nn.conv2d_transpose(line, taps, [1, 1, 6, 1], strides=[1, 1, 2, 1]).ravel()
    array([  1.,  10., 102.,  20., 203.,  30.], dtype=float32)

    Args:
        value: array `[batch, height, width, in_channels]`, or `[batch, in_channels, height, width]` for NCHW.
        filter: array `[height, width, out_channels, in_channels]` of the dtype of `value`.
        output_shape: the result's shape, four ints in the order of `data_format`, or its height and width alone.
            Legal are the lengths from which a forward convolution would make those of `value`: one per unit of
            stride. SAME: `ceil(output / stride) == input`. VALID: from `(input - 1) * stride + extent` on, where
            `extent = (kernel - 1) * dilation + 1`.
        strides: cells between the stamps of neighbouring inputs; one int, one per axis, or one per dimension with
            1 for batch and channels. None is 1.
        padding: 'SAME', 'VALID', or a (before, after) pair per dimension. SAME cuts
            `max((input - 1) * stride + extent - output, 0)` cells, half of them before, rounded down; VALID none.
        data_format: 'NHWC' or 'NCHW'.
        name: ignored.
        input, filters: other names of `value` and `filter`.
        dilations: cells between neighbouring taps, spelled as `strides`. None is 1.

    Returns:
        Array of the shape asked for and the dtype of `value`:
        `out[n, y, x, o] = sum value[n, i, j, c] * filter[a, b, o, c]` over all i, j, a, b, c for which
        `i * stride + a * dilation - before` is y, and the same along the width is x.

    Raises:
        ValueError: `padding`, `data_format`, a shape, a length, or a channel count is not legal.
        TypeError: an argument is of the wrong type, or the dtypes differ or are not supported.
        MemoryError: the result would not fit into this machine's memory.
    """
    value = _arguments.one_of("value", value, "input", input)
    filter = _arguments.one_of("filter", filter, "filters", filters)
    return _transpose(2, value, filter, output_shape, strides, padding, data_format, dilations)


def conv1d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: Any = "NWC",
    dilations: Any = None,
    name: Any = None,
) -> Any:
    """The transpose of a 1-D convolution, as `tf.nn.conv1d_transpose` documents it.

    >>> import backstride
    >>> line, taps = [[[1.0], [2.0], [3.0]]], [[[1.0]], [[10.0]]]
    >>> backstride.nn.conv1d_transpose(line, taps, [1, 9, 1], strides=3, padding="VALID").ravel()
    array([ 1., 10.,  0.,  2., 20.,  0.,  3., 30.,  0.], dtype=float32)

    Args:
        input: array `[batch, width, in_channels]`, or `[batch, in_channels, width]` for NCW.
        filters: array `[width, out_channels, in_channels]` of the dtype of `input`.
        output_shape: the result's shape, three ints, or its width alone; see `conv2d_transpose`.
        strides, padding, dilations: as in `conv2d_transpose`, for one axis.
        data_format: 'NWC' or 'NCW'.
        name: ignored.

    Returns, Raises: as `conv2d_transpose`.
    """
    input, filters = _arguments.Argument("input", input), _arguments.Argument("filters", filters)
    return _transpose(1, input, filters, output_shape, strides, padding, data_format, dilations)


def conv3d_transpose(
    value: Any = None,
    filter: Any = None,
    output_shape: Any = None,
    strides: Any = None,
    padding: Any = "SAME",
    data_format: Any = "NDHWC",
    name: Any = None,
    input: Any = None,
    filters: Any = None,
    dilations: Any = None,
) -> Any:
    """The transpose of a 3-D convolution, as `tf.compat.v1.nn.conv3d_transpose` documents it.

    >>> import numpy as np, backstride
    >>> cube, taps = np.ones((1, 2, 2, 2, 8), np.float32), np.ones((2, 2, 2, 4, 8), np.float32)
    >>> backstride.nn.conv3d_transpose(cube, taps, [1, 4, 4, 4, 4], strides=2).shape
    (1, 4, 4, 4, 4)

    Args:
        value: array `[batch, depth, height, width, in_channels]`, or channels second for NCDHW.
        filter: array `[depth, height, width, out_channels, in_channels]` of the dtype of `value`.
        output_shape: the result's shape, five ints, or its three lengths alone; see `conv2d_transpose`.
        strides, padding, dilations: as in `conv2d_transpose`, for three axes.
        data_format: 'NDHWC' or 'NCDHW'.
        name: ignored.
        input, filters: other names of `value` and `filter`.

    Returns, Raises: as `conv2d_transpose`.
    """
    value = _arguments.one_of("value", value, "input", input)
    filter = _arguments.one_of("filter", filter, "filters", filters)
    return _transpose(3, value, filter, output_shape, strides, padding, data_format, dilations)


def conv_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: Any = None,
    dilations: Any = None,
    name: Any = None,
) -> Any:
    """The transpose of a convolution of one to three axes, as `tf.nn.conv_transpose` documents it.

    >>> import numpy as np, backstride
    >>> line, taps = np.ones((1, 5, 2), np.float32), np.ones((3, 4, 2), np.float32)
    >>> backstride.nn.conv_transpose(line, taps, [1, 10, 4], strides=2).shape
    (1, 10, 4)

    Args:
        input, filters, strides, padding, dilations: as in `conv2d_transpose`.
        output_shape: the result's shape; its three, four or five entries decide how many axes there are.
        data_format: None or the name for that many axes, such as 'NHWC'; None is channels last.
        name: ignored.

    Returns, Raises: as `conv2d_transpose`.
    """
    if output_shape is None:
        raise ValueError("`output_shape` is required; got None")
    lengths = _arguments.integers("output_shape", output_shape)
    if len(lengths) not in (3, 4, 5):
        raise ValueError(f"`output_shape` must have 3, 4 or 5 entries; got output_shape={_arguments.shown(lengths)}")
    input, filters = _arguments.Argument("input", input), _arguments.Argument("filters", filters)
    return _transpose(len(lengths) - 2, input, filters, lengths, strides, padding, data_format, dilations)


def atrous_conv2d_transpose(
    value: Any, filters: Any, output_shape: Any, rate: Any, padding: Any, name: Any = None
) -> Any:
    """The transpose of a dilated 2-D convolution of stride 1, as `tf.nn.atrous_conv2d_transpose` documents it.

    >>> import numpy as np, backstride
    >>> image, taps = np.ones((1, 4, 4, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    >>> backstride.nn.atrous_conv2d_transpose(image, taps, [1, 8, 8, 1], rate=2, padding="VALID").shape
    (1, 8, 8, 1)

    Args:
        value: array `[batch, height, width, in_channels]`.
        filters: array `[height, width, out_channels, in_channels]` of the dtype of `value`.
        output_shape: the result's shape, four ints, or its height and width alone.
        rate: cells between neighbouring taps, one positive int for both axes.
        padding: as in `conv2d_transpose`.
        name: ignored.

    Returns, Raises: as `conv2d_transpose`.
    """
    rate = _arguments.integer("rate", rate)
    if not 0 < rate < _arguments.WINDOWS_BELOW:
        raise ValueError(f"`rate` must be positive and below 2**31; got rate={_arguments.shown(rate)}")
    value, filters = _arguments.Argument("value", value), _arguments.Argument("filters", filters)
    return _transpose(2, value, filters, output_shape, 1, padding, "NHWC", rate)


def conv2d(
    input: Any,
    filter: Any = None,
    strides: Any = None,
    padding: Any = None,
    use_cudnn_on_gpu: Any = True,
    data_format: Any = "NHWC",
    dilations: Any = (1, 1, 1, 1),
    name: Any = None,
    filters: Any = None,
) -> Any:
    """The 2-D convolution (cross-correlation) of `tf.compat.v1.nn.conv2d`; the input gradient of the transpose.

    >>> import numpy as np, backstride
    >>> image, taps = np.ones((1, 4, 4, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    >>> backstride.nn.conv2d(image, taps, strides=1, padding="VALID")[0, :, :, 0]
    array([[9., 9.],
           [9., 9.]], dtype=float32)

    Args:
        input: array `[batch, height, width, in_channels]`, or `[batch, in_channels, height, width]` for NCHW.
        filter: array `[height, width, in_channels / groups, out_channels]` of the dtype of `input`; groups are
            inferred from the two numbers of input channels, as TensorFlow does.
        strides, padding, data_format, dilations: as in `conv2d_transpose`; `padding` must be given.
        use_cudnn_on_gpu, name: ignored.
        filters: another name of `filter`.

    Returns:
        Array of the dtype of `input` and lengths `ceil(length / stride)` for SAME,
        `(length - extent) // stride + 1` (at least 0) for VALID.

    Raises: as `conv2d_transpose`.
    """
    given = (_arguments.Argument("input", input), _arguments.one_of("filter", filter, "filters", filters))
    input, filter = _arguments.arrays(4, *given)
    window = _arguments.window(2, strides, padding, data_format, dilations)
    output = _arguments.side(input, window)
    groups = _arguments.conv_groups(output, filter)
    lengths = _arguments.conv_lengths(window, output, filter)
    result = _arguments.Side("result", output.batch, lengths, filter.value.shape[-1])
    geometry = _arguments.resolve(window, result, filter, output, groups)
    return _ops.derivative("input", geometry, filter.value, input.value)


def conv2d_backprop_input(
    input_sizes: Any,
    filter: Any = None,
    out_backprop: Any = None,
    strides: Any = None,
    padding: Any = None,
    use_cudnn_on_gpu: Any = True,
    data_format: Any = "NHWC",
    dilations: Any = (1, 1, 1, 1),
    name: Any = None,
    filters: Any = None,
) -> Any:
    """The gradient of `conv2d` by its input, as `tf.compat.v1.nn.conv2d_backprop_input` documents it.

    This is `conv2d_transpose` with the arguments in another order.

    >>> import numpy as np, backstride
    >>> taps, gradient = np.ones((3, 3, 1, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    >>> backstride.nn.conv2d_backprop_input([1, 4, 4, 1], taps, gradient, 1, "VALID")[0, :, 1, 0]
    array([2., 4., 4., 2.], dtype=float32)

    Args:
        input_sizes: the shape of the convolution's input, four ints, or its height and width alone.
        filter: the convolution's filter, `[height, width, in_channels / groups, out_channels]`.
        out_backprop: the gradient of the convolution's result.
        strides, padding, data_format, dilations: as in `conv2d`.
        use_cudnn_on_gpu, name: ignored.
        filters: another name of `filter`.

    Returns:
        Array of shape `input_sizes`.

    Raises: as `conv2d_transpose`.
    """
    given = (_arguments.one_of("filter", filter, "filters", filters), _arguments.one_of("out_backprop", out_backprop))
    filter, out_backprop = _arguments.arrays(4, *given)
    window = _arguments.window(2, strides, padding, data_format, dilations)
    source = _arguments.side(out_backprop, window)
    result = _arguments.target(_arguments.Argument("input_sizes", input_sizes), source, filter, window)
    groups = _arguments.conv_groups(result, filter)
    geometry = _arguments.resolve(window, source, filter, result, groups)
    return _ops.derivative("output", geometry, out_backprop.value, filter.value)


def conv2d_backprop_filter(
    input: Any,
    filter_sizes: Any,
    out_backprop: Any,
    strides: Any,
    padding: Any,
    use_cudnn_on_gpu: Any = True,
    data_format: Any = "NHWC",
    dilations: Any = (1, 1, 1, 1),
    name: Any = None,
) -> Any:
    """The gradient of `conv2d` by its filter, as `tf.compat.v1.nn.conv2d_backprop_filter` documents it.

    >>> import numpy as np, backstride
    >>> image, gradient = np.ones((1, 4, 4, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    >>> backstride.nn.conv2d_backprop_filter(image, [3, 3, 1, 1], gradient, 1, "VALID").ravel()
    array([4., 4., 4., 4., 4., 4., 4., 4., 4.], dtype=float32)

    Args:
        input: the convolution's input.
        filter_sizes: the shape of its filter, `[height, width, in_channels / groups, out_channels]`.
        out_backprop: the gradient of its result.
        strides, padding, data_format, dilations: as in `conv2d`.
        use_cudnn_on_gpu, name: ignored.

    Returns:
        Array of shape `filter_sizes`.

    Raises: as `conv2d_transpose`.
    """
    input, out_backprop = _arguments.arrays(
        4, _arguments.Argument("input", input), _arguments.Argument("out_backprop", out_backprop)
    )
    window = _arguments.window(2, strides, padding, data_format, dilations)
    filter = _arguments.shape_only("filter_sizes", filter_sizes, 4)
    output = _arguments.side(input, window)
    groups = _arguments.conv_groups(output, filter)
    geometry = _arguments.resolve(window, _arguments.side(out_backprop, window), filter, output, groups)
    return _ops.derivative("filter", geometry, out_backprop.value, input.value)


def bias_add(value: Any, bias: Any, data_format: Any = None, name: Any = None) -> Any:
    """Adds a number to each channel, as `tf.nn.bias_add` documents it.

    >>> import numpy as np, backstride
    >>> backstride.nn.bias_add(np.zeros((1, 2, 3), np.float32), np.float32([1, 2, 3]))
    array([[[1., 2., 3.],
            [1., 2., 3.]]], dtype=float32)

    Args:
        value: array of two or more dimensions.
        bias: array `[channels]` of the dtype of `value`.
        data_format: None or a name that ends in C: channels are the last dimension. A name that begins with NC: they
            are the second.
        name: ignored.

    Returns, Raises: as `conv2d_transpose`.
    """
    value, bias = _arguments.bias(value, bias, data_format)
    return value + bias


def _transpose(
    rank: int,
    value: _arguments.Argument,
    filter: _arguments.Argument,
    output_shape: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
) -> Any:
    """The transposed convolution of `rank` axes in TensorFlow's spelling."""
    value, filter = _arguments.arrays(rank + 2, value, filter)
    operands = _arguments.operands(value, filter)
    geometry = _arguments.transposed(operands, output_shape, strides, padding, data_format, dilations)
    return _ops.derivative("output", geometry, value.value, filter.value)
