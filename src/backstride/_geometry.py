# SPDX-License-Identifier: Apache-2.0
"""Sizes. The third stage of a call: ints only, no arrays, no argument spellings.

A transposed convolution is described twice. A `Layer` is free of sizes: kernel, stride, dilation, crop rule
and groups, what a network's author writes down. Given the lengths of its two ends it resolves to a `Geometry`,
in which every axis is a plain `Axis` of six numbers. Nothing after this stage derives a pad or a length again.

The source of every rule is the documentation of `tf.nn.conv2d_transpose` and of `tf.nn.convolution`, whose
padding a transposed convolution inverts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Operand = Literal["input", "filter", "output"]
Crop = tuple[tuple[int, int], ...]

# The native core counts in 64-bit integers; an axis whose stamps span more than this could overflow them.
LONGEST = 2**62


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis: out[i * stride + k * dilation - pad] += x[i] * w[k]; what lands outside is dropped."""

    input: int
    kernel: int
    output: int
    stride: int = 1
    dilation: int = 1
    pad: int = 0


@dataclass(frozen=True, slots=True)
class Geometry:
    """A fully sized transposed convolution. Operands are `[batch, *axes, channels]`, or channels first.

    The filter is `[*kernel, out_channels // groups, in_channels]`; group `n` maps the n-th share of the input
    channels to the n-th share of the output channels.
    """

    axes: tuple[Axis, ...]
    batch: int
    in_channels: int
    out_channels: int
    groups: int = 1
    channels_first: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = self.axes, self.batch, self.in_channels, self.out_channels, self.groups, self.channels_first
        object.__setattr__(self, "_hash", hash(numbers))

    def __hash__(self) -> int:
        """Computed once: it is what plans are looked up by, in every call."""
        return self._hash

    def shape(self, operand: Operand) -> tuple[int, ...]:
        """The shape of one operand."""
        if operand == "filter":
            return *(axis.kernel for axis in self.axes), self.out_channels // self.groups, self.in_channels
        if operand == "input":
            lengths, channels = [axis.input for axis in self.axes], self.in_channels
        else:
            lengths, channels = [axis.output for axis in self.axes], self.out_channels
        return (self.batch, channels, *lengths) if self.channels_first else (self.batch, *lengths, channels)


@dataclass(frozen=True, slots=True)
class Flow:
    """One axis of a layer whose input arrives bit by bit and ends nobody knows where.

    Input cell i reaches the cells `i * stride - pad` to `i * stride - pad + extent - 1` of the result. Once n have
    arrived, its first `n * stride - delay` cells are settled: no later input reaches them, and no end cuts them off.
    """

    stride: int
    extent: int
    pad: int
    delay: int

    def settled(self, inputs: int) -> int:
        """How many cells are settled once so many inputs have arrived."""
        return max(inputs * self.stride - self.delay, 0)

    def reached(self, inputs: int) -> int:
        """The cell before which all cells are that so many inputs reach."""
        return (inputs - 1) * self.stride + self.extent - self.pad

    def first_input(self, cell: int) -> int:
        """The first input that reaches this cell or a later one."""
        return max(-((self.extent - 1 - self.pad - cell) // self.stride), 0)

    def inputs(self, cells: int) -> int:
        """Which of the inputs, counted from the first, reach the first so many cells."""
        return max(-((-cells - self.pad) // self.stride), 0)


@dataclass(frozen=True, slots=True)
class Layer:
    """A transposed convolution without its sizes.

    `crop` says how many cells of the full result (of length `(input - 1) * stride + extent`) are cut off
    before and after each axis; VALID is zero of both. None is SAME, where the crop follows from the output.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    crop: Crop | None
    groups: int = 1

    def extent(self, n: int) -> int:
        """Cells from the first to the last tap of axis `n`."""
        return (self.kernel[n] - 1) * self.dilation[n] + 1

    def outputs(self, n: int, input: int) -> range:
        """The legal output lengths of axis `n`: those from which a forward convolution makes `input`."""
        return range(*self.bounds(n, input))

    def bounds(self, n: int, input: int) -> tuple[int, int]:
        """The first of them, and the first one after them."""
        stride = self.stride[n]
        if self.crop is None:
            return ((input - 1) * stride + 1, input * stride + 1) if input else (0, 1)
        full = self.extent(n) - sum(self.crop[n])
        if input == 0:
            return 0, max(full, 0)
        lowest = (input - 1) * stride + full
        return max(lowest, 0), max(lowest + stride, 0)

    def input(self, n: int, output: int) -> int:
        """The length to which a forward convolution takes `output` along axis `n`; 0 where no tap window fits."""
        if self.crop is None:
            return -(-output // self.stride[n])
        return max((output + sum(self.crop[n]) - self.extent(n)) // self.stride[n] + 1, 0)

    def chosen_output(self, n: int, input: int) -> int:
        """The legal output length of axis `n` that `tf.layers` chooses; only for SAME and VALID."""
        return input * self.stride[n] + (0 if self.crop is None else max(self.extent(n) - self.stride[n], 0))

    def lowest_output(self, n: int, input: int) -> int:
        """The lowest legal output length of axis `n`; 0 if none is."""
        return min(self.outputs(n, input), default=0)

    def flow(self, n: int, shortest: bool) -> Flow:
        """Axis `n` where its result will have the lowest legal length, if `shortest`, or else the chosen one."""
        stride, extent = self.stride[n], self.extent(n)
        pad = self.axis(n, 1, stride).pad
        cut = sum(self.crop[n]) if self.crop else 0
        # The result of I > 0 cells has I * stride and so many more, or fewer.
        more = extent - cut - stride if shortest else self.chosen_output(n, 0)
        return Flow(stride, extent, pad, max(pad, -more))

    def axis(self, n: int, input: int, output: int) -> Axis:
        """Axis `n` at these lengths, with the crop before it: for SAME, half of what is cut, rounded down."""
        span = (input - 1) * self.stride[n] + self.extent(n)
        if max(abs(span), output, self.stride[n], self.dilation[n]) >= LONGEST:
            raise ValueError(
                f"input length {input}, filter length {self.kernel[n]}, stride {self.stride[n]} and dilation "
                f"{self.dilation[n]} together span {span} cells; fewer than 2**62 are possible"
            )
        pad = max(span - output, 0) // 2 if self.crop is None else self.crop[n][0]
        return Axis(input, self.kernel[n], output, self.stride[n], self.dilation[n], pad)

    def resolve(
        self,
        batch: int,
        in_channels: int,
        out_channels: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        channels_first: bool = False,
    ) -> Geometry:
        """The geometry at these sizes; `inputs` and `outputs` are spatial lengths which fit each other."""
        axes = tuple(self.axis(n, *lengths) for n, lengths in enumerate(zip(inputs, outputs, strict=True)))
        return Geometry(axes, batch, in_channels, out_channels, self.groups, channels_first)
