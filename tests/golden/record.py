# SPDX-License-Identifier: Apache-2.0
"""Record what TensorFlow answers into tests/golden/*.npz. Run where requirements/tf.txt is installed.

One file per group of calls. `cases` in it is a JSON list, one object per call: the function, its keyword
arguments other than arrays, whether the answer is exact (all values are small integers), and for each
array its dtype and shape. The arrays themselves lie end to end, in the order of the list, in one flat
buffer per dtype; bfloat16 is stored as its bits, in uint16.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import plain_kernels as tensorflow  # noqa: E402  (the import of TensorFlow itself, settings first)
from ml_dtypes import bfloat16  # noqa: E402

V1 = "compat.v1.nn.conv2d_transpose"
KERAS = "keras.backend.conv2d_transpose"


class Recording:
    """The calls of one file, in order, with TensorFlow's answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.random = np.random.default_rng(list(name.encode()))
        self.cases: list[dict[str, Any]] = []
        self.arrays: list[np.ndarray] = []

    def integers(self, *shape: int, dtype: Any = np.float32, largest: int = 4) -> np.ndarray:
        """Small integers: every sum of products of them is exact in `dtype`."""
        return self.random.integers(-largest, largest + 1, shape).astype(dtype)

    def normal(self, *shape: int, dtype: Any = np.float32) -> np.ndarray:
        return self.random.standard_normal(shape).astype(dtype)

    def like(self, array: Any, exact: bool) -> np.ndarray:
        array = np.asarray(array)
        draw = self.integers if exact else self.normal
        return draw(*array.shape, dtype=array.dtype, **({"largest": 2} if exact else {}))

    def add(self, function: str, *, exact: bool = True, order: int = 1, groups: int = 1, **arguments: Any) -> None:
        """Record the call, and its derivatives up to `order`."""
        names = tensorflow.SPELLINGS[function].arrays
        arrays = {name: arguments[name] for name in names}
        arrays["output"] = np.asarray(tensorflow.answer(function, arguments))
        if order >= 1:
            arrays["cotangent"] = weight = self.like(arrays["output"], exact)
            gradients = (
                tensorflow.derivatives(function, arguments, weight)
                if groups == 1
                else tensorflow.grouped_derivatives(arguments, weight, groups)
            )
            arrays |= {f"{name}_gradient": np.asarray(g) for name, g in zip(names, gradients, strict=True)}
        if order == 2:
            directions = [self.like(arguments[name], exact) for name in names]
            seconds = tensorflow.second_derivatives(function, arguments, weight, directions)
            arrays |= {f"{name}_direction": d for name, d in zip(names, directions, strict=True)}
            arrays |= {f"{name}_second": np.asarray(s) for name, s in zip((*names, "cotangent"), seconds, strict=True)}
        if exact:
            _check_integers(arrays)
        self.cases.append(
            {
                "function": function,
                "arguments": {name: value for name, value in arguments.items() if name not in names},
                "exact": exact,
                "arrays": {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()},
            }
        )
        self.arrays.extend(arrays.values())

    def save(self) -> None:
        buffers = {
            dtype: np.concatenate([_bits(a).ravel() for a in self.arrays if a.dtype.name == dtype])
            for dtype in sorted({array.dtype.name for array in self.arrays})
        }
        path = Path(__file__).with_name(f"{self.name}.npz")
        np.savez_compressed(path, cases=np.array(json.dumps(self.cases)), **buffers)
        print(f"{path.name}: {len(self.cases)} cases, {path.stat().st_size} bytes")


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _check_integers(arrays: dict[str, np.ndarray]) -> None:
    """All values are integers with room to spare, so that no order of summation could round."""
    for name, array in arrays.items():
        values = array.astype(np.float64)
        limit = {"bfloat16": 2**8, "float16": 2**11}.get(array.dtype.name, 2**24)
        if not (np.array_equal(values, np.rint(values)) and np.abs(values).max(initial=0) <= limit):
            raise AssertionError(f"{name} is not exact in {array.dtype.name}")


def legal_outputs(size: int, kernel: int, stride: int, dilation: int, padding: str) -> range:
    """The output lengths that a line of `size` may have."""
    extent = (kernel - 1) * dilation + 1
    first = (size - 1) * stride + (1 if padding == "SAME" else extent)
    return range(first, first + stride)


def every_length() -> Iterator[Recording]:
    """Every legal output length of one axis, which is the height and the width by turns."""
    for padding in ("SAME", "VALID"):
        recording = Recording(f"lengths_{padding.lower()}")
        for stride, kernel, size in itertools.product(range(1, 5), range(1, 8), range(1, 5)):
            for output in legal_outputs(size, kernel, stride, 1, padding):
                tall = (stride + kernel + size) % 2 == 0
                lengths = [(n, 1) if tall else (1, n) for n in (size, kernel, output, stride)]
                value, taps, out, step = lengths
                recording.add(
                    V1,
                    value=recording.integers(1, *value, 2),
                    filter=recording.integers(*taps, 1, 2),
                    output_shape=[1, *out, 1],
                    strides=[1, *step, 1],
                    padding=padding,
                )
        yield recording


def two_axes() -> Recording:
    """compat.v1.nn.conv2d_transpose where the axes differ: strides, dilations, lengths, data formats."""
    recording = Recording("conv2d_transpose")
    geometries = [  # size, kernel, strides, dilations
        ((3, 2), (3, 2), (2, 3), (1, 1)),
        ((2, 4), (5, 1), (1, 4), (1, 1)),
        ((4, 3), (3, 3), (1, 1), (2, 1)),
        ((4, 3), (3, 2), (2, 1), (2, 3)),
        ((2, 2), (2, 3), (2, 3), (3, 2)),
        ((1, 3), (4, 4), (3, 2), (1, 3)),
        ((3, 1), (2, 7), (4, 2), (1, 1)),
    ]
    for (size, kernel, strides, dilations), padding, data_format in itertools.product(
        geometries, ("SAME", "VALID"), ("NHWC", "NCHW")
    ):
        lengths = [legal_outputs(*axis, padding) for axis in zip(size, kernel, strides, dilations, strict=True)]
        for count, output in enumerate(itertools.product(*lengths)):
            if count % 3 == 0:
                _add_2d(recording, size, kernel, output, strides, dilations, padding, data_format)
    _spellings(recording)
    _empty_arrays(recording)
    _dtypes(recording)
    return recording


def _in_format(data_format: str, batch: int, spatial: Any, channels: int) -> list[int]:
    first = data_format in ("NCW", "NCHW", "NCDHW", "channels_first")
    return [batch, channels, *spatial] if first else [batch, *spatial, channels]


def _add_2d(
    recording: Recording,
    size: Any,
    kernel: Any,
    output: Any,
    strides: Any,
    dilations: Any,
    padding: Any,
    data_format: str,
    **options: Any,
) -> None:
    """One call with two images, three channels in and two out."""
    recording.add(
        V1,
        value=recording.integers(*_in_format(data_format, 2, size, 3)),
        filter=recording.integers(*kernel, 2, 3),
        output_shape=_in_format(data_format, 2, output, 2),
        strides=_in_format(data_format, 1, strides, 1),
        dilations=_in_format(data_format, 1, dilations, 1),
        padding=padding,
        data_format=data_format,
        **{"order": 2 if len(recording.cases) % 8 == 0 else 1} | options,
    )


def _spellings(recording: Recording) -> None:
    """One geometry in the forms that its arguments may take."""
    value, filter = recording.integers(1, 3, 2, 2), recording.integers(3, 3, 3, 2)
    forms: list[dict[str, Any]] = [
        {"strides": 2},
        {"strides": [2]},
        {"strides": [2, 2]},
        {"strides": [1, 2, 2, 1], "dilations": 1},
        {"strides": 2, "dilations": [1], "data_format": None},
        {"strides": 2, "output_shape": [6, 3]},
        {"strides": 2, "output_shape": [6, 4], "dilations": [1, 1, 1, 1]},
        {"strides": None, "output_shape": [3, 2]},
        {"output_shape": [1, 3, 2, 3], "dilations": 2},
        {"strides": [2, 1], "dilations": [1, 2], "output_shape": [5, 2]},
    ]
    for form in forms:
        recording.add(V1, value=value, filter=filter, **{"output_shape": [1, 5, 4, 3]} | form)
    for output in ([5, 3], [6, 4]):
        recording.add(
            V1,
            value=recording.integers(1, 2, 3, 2),
            filter=filter,
            output_shape=output,
            strides=2,
            data_format="NCHW",
        )


def _empty_arrays(recording: Recording) -> None:
    """No image, no channel, no pixel, no tap."""

    def add(value: Any, filter: Any, output_shape: Any, padding: str = "SAME", order: int = 1) -> None:
        recording.add(
            V1,
            value=recording.integers(*value),
            filter=recording.integers(*filter),
            output_shape=output_shape,
            strides=2,
            padding=padding,
            order=order,
        )

    for padding, output in (("SAME", [5, 4]), ("VALID", [7, 5])):
        add((0, 3, 2, 2), (3, 2, 3, 2), [0, *output, 3], padding)
        add((2, 3, 2, 0), (3, 2, 3, 0), [2, *output, 3], padding)
    # TensorFlow's filter gradient of an empty line is memory never written; with no tap it has no kernel.
    add((1, 0, 2, 2), (3, 2, 3, 2), [1, 0, 4, 3], order=0)
    add((1, 3, 2, 2), (0, 2, 3, 2), [1, 5, 4, 3], order=0)
    add((1, 3, 2, 2), (0, 2, 3, 2), [1, 4, 4, 3], "VALID", order=0)


def _dtypes(recording: Recording) -> None:
    for dtype, exact in itertools.product(("float64", "float32", "float16", bfloat16), (True, False)):
        draw = recording.integers if exact else recording.normal
        few = {"largest": 2} if exact else {}
        for padding, output in (("SAME", [5, 4]), ("VALID", [8, 5])):
            recording.add(
                V1,
                value=draw(2, 3, 2, 2, dtype=dtype, **few),
                filter=draw(3, 2, 3, 2, dtype=dtype, **few),
                output_shape=[2, *output, 3],
                strides=2,
                padding=padding,
                exact=exact,
                order=2 if dtype == "float64" else 1,
            )
    for output in ([5, 3], [6, 4]):
        recording.add(
            V1,
            value=recording.integers(1, 3, 2, 2, dtype=np.int32, largest=9),
            filter=recording.integers(3, 3, 3, 2, dtype=np.int32, largest=9),
            output_shape=[1, *output, 3],
            strides=2,
            order=0,
        )


def explicit_paddings() -> Recording:
    """Padding as pairs, for the transposed convolution and for the three operations behind it."""
    recording = Recording("explicit_paddings")
    pads = [((0, 0), (0, 0)), ((1, 1), (2, 0)), ((0, 2), (1, 3)), ((3, 1), (0, 4)), ((4, 0), (1, 0))]
    axes = [((4, 3), (3, 2), (2, 1)), ((3, 4), (2, 4), (3, 2)), ((5, 5), (5, 3), (1, 1))]
    for (size, kernel, strides), pairs, data_format in itertools.product(axes, pads, ("NHWC", "NCHW")):
        dilations = (1, 2) if len(recording.cases) % 3 == 0 else (1, 1)
        first = [
            (n - 1) * s + (k - 1) * d + 1 - sum(pair)
            for n, k, s, d, pair in zip(size, kernel, strides, dilations, pairs, strict=True)
        ]
        padding = _pairs(data_format, pairs)
        for output in (first, [at + s - 1 for at, s in zip(first, strides, strict=True)]):
            if min(output) > 0:
                _add_2d(recording, size, kernel, output, strides, dilations, padding, data_format)
                _add_operations(recording, size, kernel, output, strides, dilations, padding, data_format)
    return recording


def _pairs(data_format: str, pairs: Any) -> list[list[int]]:
    spatial = [list(pair) for pair in pairs]
    zero = [0, 0]
    return [zero, zero, *spatial] if data_format == "NCHW" else [zero, *spatial, zero]


def _add_operations(
    recording: Recording,
    size: Any,
    kernel: Any,
    long: Any,
    strides: Any,
    dilations: Any,
    padding: Any,
    data_format: str,
    **options: Any,
) -> None:
    """conv2d from lines of length `long` to `size`, and its two backward operations."""
    inputs = _in_format(data_format, 2, long, 2)
    outputs = _in_format(data_format, 2, size, 3)
    taps = [*kernel, 2, 3]
    common: dict[str, Any] = {
        "strides": _in_format(data_format, 1, strides, 1),
        "padding": padding,
        "data_format": data_format,
        "dilations": _in_format(data_format, 1, dilations, 1),
        "order": 2 if len(recording.cases) % 5 == 0 else 1,
    } | options
    draw = recording.integers
    recording.add("nn.conv2d", input=draw(*inputs), filter=draw(*taps), **common)
    recording.add(
        "nn.conv2d_backprop_input",
        input_sizes=inputs,
        filter=draw(*taps),
        out_backprop=draw(*outputs),
        **common,
    )
    recording.add(
        "nn.conv2d_backprop_filter",
        input=draw(*inputs),
        filter_sizes=taps,
        out_backprop=draw(*outputs),
        **common,
    )


def operations() -> Recording:
    """conv2d, conv2d_backprop_input, conv2d_backprop_filter; grouped conv2d."""
    recording = Recording("conv2d")
    for kernel, strides, padding in itertools.product(
        ((3, 3), (2, 5), (1, 4)), ((1, 1), (2, 3), (4, 1)), ("SAME", "VALID")
    ):
        for data_format, dilations in (
            ("NHWC", (1, 1)),
            ("NCHW", (1, 1)),
            ("NHWC", (2, 1)),
            ("NCHW", (1, 2)),
        ):
            long = (6, 9)
            size = [
                -(-n // s) if padding == "SAME" else (n - (k - 1) * d - 1) // s + 1
                for n, k, s, d in zip(long, kernel, strides, dilations, strict=True)
            ]
            _add_operations(recording, size, kernel, long, strides, dilations, padding, data_format)
    _groups(recording)
    _operation_dtypes(recording)
    return recording


def _groups(recording: Recording) -> None:
    for (channels, groups), padding, strides in itertools.product(
        ((4, 2), (3, 3), (6, 2)), ("SAME", "VALID"), (1, [1, 2, 3, 1])
    ):
        recording.add(
            "nn.conv2d",
            input=recording.integers(2, 5, 6, channels),
            filter=recording.integers(3, 2, channels // groups, 2 * groups),
            strides=strides,
            padding=padding,
            groups=groups,
        )


def _operation_dtypes(recording: Recording) -> None:
    for dtype in ("float64", "float16", bfloat16, "int32"):
        few = {"dtype": dtype, "largest": 2}
        image, taps, output = [2, 5, 4, 2], [3, 2, 2, 3], [2, 3, 2, 3]
        value, filter = recording.integers(*image, **few), recording.integers(*taps, **few)
        weight = recording.integers(*output, **few)
        common = {"strides": [1, 2, 2, 1], "padding": "SAME", "order": 0 if dtype == "int32" else 1}
        recording.add("nn.conv2d", input=value, filter=filter, **common)
        recording.add("nn.conv2d_backprop_input", input_sizes=image, filter=filter, out_backprop=weight, **common)
        if dtype != "int32":
            recording.add("nn.conv2d_backprop_filter", input=value, filter_sizes=taps, out_backprop=weight, **common)


def keras() -> Recording:
    """keras.backend.conv2d_transpose: strides or dilation, for TensorFlow drops the strides beside one."""
    recording = Recording("keras")
    geometries = [((3, 2), (3, 2), (2, 3), 1), ((2, 4), (4, 5), (1, 2), 1), ((4, 3), (3, 2), (1, 1), 2)]
    for (size, kernel, strides, rate), padding, data_format in itertools.product(
        geometries, ("same", "valid"), ("channels_last", "channels_first")
    ):
        lengths = [legal_outputs(n, k, s, rate, padding.upper()) for n, k, s in zip(size, kernel, strides, strict=True)]
        for output in itertools.product(*lengths):
            recording.add(
                KERAS,
                x=recording.integers(*_in_format(data_format, 2, size, 3)),
                kernel=recording.integers(*kernel, 2, 3),
                output_shape=_in_format(data_format, 2, output, 2),
                strides=strides,
                padding=padding,
                data_format=data_format,
                dilation_rate=(rate, rate),
                order=2 if len(recording.cases) % 8 == 0 else 1,
            )
    for output_shape in ([None, 5, 4, 2], [2, 7, 5, 2]):
        recording.add(
            KERAS,
            x=recording.normal(2, 3, 2, 3),
            kernel=recording.normal(3, 2, 2, 3),
            output_shape=output_shape,
            strides=(2, 2),
            padding="same" if output_shape[0] is None else "valid",
            exact=False,
        )
    return recording


_FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def other_ranks() -> Iterator[Recording]:
    """conv1d_transpose, conv3d_transpose and conv_transpose, which calls either or the 2-D one."""
    axes = [(3, 3, 2, 1), (2, 4, 3, 1), (3, 2, 1, 2), (2, 1, 2, 1), (1, 3, 4, 1), (2, 2, 2, 3)]
    for name, ranks in (("conv1d_transpose", [1]), ("conv3d_transpose", [3]), ("conv_transpose", [1, 2, 3])):
        recording = Recording(name)
        for rank, padding, start in itertools.product(ranks, ("SAME", "VALID"), range(len(axes))):
            chosen = [axes[(start + at) % len(axes)] for at in range(rank)]
            for data_format, last in itertools.product(_FORMATS[rank], (False, True)):
                _add_rank(recording, name, chosen, padding, data_format, last)
        if name == "conv_transpose":
            _add_rank(recording, name, axes[:2], "SAME", None, True)
        yield recording


def _add_rank(recording: Recording, name: str, axes: Any, padding: str, data_format: str | None, last: bool) -> None:
    size, kernel, strides, dilations = zip(*axes, strict=True)
    output = [legal_outputs(*axis, padding)[-1 if last else 0] for axis in axes]
    wide = data_format or "channels_last"
    recording.add(
        f"nn.{name}",
        input=recording.integers(*_in_format(wide, 1, size, 2)),
        filters=recording.integers(*kernel, 2, 2),
        output_shape=_in_format(wide, 1, output, 2),
        strides=list(strides) if last else _in_format(wide, 1, strides, 1),
        padding=padding,
        data_format=data_format,
        dilations=_in_format(wide, 1, dilations, 1) if last else list(dilations),
        order=2 if len(recording.cases) % 8 == 0 else 1,
    )


def atrous() -> Recording:
    recording = Recording("atrous_conv2d_transpose")
    for rate, kernel, padding in itertools.product((1, 2, 3), ((3, 3), (2, 4), (1, 3)), ("SAME", "VALID")):
        size = (4, 3)
        output = [legal_outputs(n, k, 1, rate, padding)[0] for n, k in zip(size, kernel, strict=True)]
        recording.add(
            "nn.atrous_conv2d_transpose",
            value=recording.integers(2, *size, 2),
            filters=recording.integers(*kernel, 3, 2),
            output_shape=[2, *output, 3],
            rate=rate,
            padding=padding,
            order=2 if kernel == (3, 3) else 1,
        )
    return recording


def main() -> None:
    recordings = [
        *every_length(),
        two_axes(),
        explicit_paddings(),
        operations(),
        keras(),
        *other_ranks(),
        atrous(),
    ]
    for recording in recordings:
        recording.save()


if __name__ == "__main__":
    main()
