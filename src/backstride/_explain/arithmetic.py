# SPDX-License-Identifier: Apache-2.0
"""One axis of a layer in numbers, for an input of one length.

Cell n of the result is cell `n + before` of the full one, and sums the taps k for which an input cell i has
`i * stride + k * dilation == n + before`. Modulo the stride these are always the same taps, equally far apart, so
they are ranges, and nothing here takes longer for long kernels or inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Literal

from backstride import _arguments as arguments
from backstride._arguments import AXES
from backstride._geometry import LONGEST, Layer
from backstride.convert import ConvTranspose, _same

Padding = Literal["SAME", "VALID", "explicit"]


@dataclass(frozen=True)
class Along:
    """An axis of a layer, and the length of its input."""

    input: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def extent(self) -> int:
        """The cells of a stamp, from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def full(self) -> int:
        """The cells of the full result."""
        return (self.input - 1) * self.stride + self.extent

    @property
    def output(self) -> int:
        """The cells of the result."""
        return max(self.full - self.before - self.after, 0)

    @cached_property
    def _step(self) -> tuple[int, int, int]:
        """What stride and dilation have in common, how far the taps of a phase are apart, 1 / dilation modulo that."""
        common = gcd(self.stride, self.dilation)
        step = self.stride // common
        return common, step, pow(self.dilation // common, -1, step)

    def phase(self, cell: int) -> range:
        """The taps that can reach `cell`, which depend on it modulo the stride."""
        common, step, inverse = self._step
        place, rest = divmod(cell + self.before, common)
        return range(0) if rest else range(place * inverse % step, self.kernel, step)

    def taps(self, cell: int) -> range:
        """The taps by which some input reaches `cell`."""
        phase, place = self.phase(cell), cell + self.before
        # Of the phase, those that the first input or a later one has there, and the last input or an earlier one.
        lowest = -((self.full - self.extent - place) // self.dilation)
        skipped = max(-((phase.start - lowest) // phase.step), 0)
        return range(phase.start + skipped * phase.step, min(place // self.dilation + 1, phase.stop), phase.step)

    def source(self, cell: int, tap: int) -> int:
        """The input cell that reaches `cell` by `tap`."""
        return (cell + self.before - tap * self.dilation) // self.stride

    @property
    def interior(self) -> range:
        """The cells that no end of the input keeps a tap from; there are none if the input is short."""
        first = max(self.extent - 1 - self.before, 0)
        return range(first, max(min((self.input - 1) * self.stride - self.before + 1, self.output), first))

    @property
    def fewest(self) -> int:
        """How many taps the phase with the fewest has: none if the stride leaves cells out that no tap reaches."""
        common, step, _ = self._step
        return self.kernel // step if common == 1 else 0

    @property
    def most(self) -> int:
        """How many taps the phase with the most has."""
        return -(-self.kernel // self._step[1])

    def rule(self, padding: Padding) -> Layer:
        """TensorFlow's rule of a padding along this axis; `explicit` is by the pair that the axis has."""
        crop = {"SAME": None, "VALID": ((0, 0),), "explicit": ((self.before, self.after),)}[padding]
        return Layer((self.kernel,), (self.stride,), (self.dilation,), crop)

    def legal(self, padding: Padding) -> range:
        """The lengths that TensorFlow takes for the result."""
        return self.rule(padding).outputs(0, self.input)

    def sized(self, padding: Padding, output: int) -> Along:
        """The same axis with a result of a legal length; what that cuts may be less than nothing, zeros to be added."""
        before = self.rule(padding).axis(0, self.input, output).pad
        return dataclasses.replace(self, before=before, after=self.full - output - before)


def along(layer: ConvTranspose, input: int | Sequence[int]) -> tuple[Along, ...]:
    """The axes of `layer` at an input of these lengths."""
    axes = tuple(
        Along(axis.input, axis.kernel, axis.stride, axis.dilation, *pair)
        for axis, pair in zip(layer.geometry(1, input).axes, layer.crop, strict=True)
    )
    for name, axis in zip(AXES[layer.rank], axes, strict=True):
        if axis.input < 1:
            raise ValueError(f"`input` must be at least 1 along each axis, to be explained; got {name} {axis.input}")
        if max(axis.full, axis.output) >= LONGEST:
            raise ValueError(f"`input` {name} {axis.input} makes {axis.full} cells; fewer than 2**62 can be explained")
    return axes


def resized(
    layer: ConvTranspose, input: int | Sequence[int], output: int | Sequence[int], padding: Padding
) -> ConvTranspose:
    """The layer whose result has other legal lengths, as `tf.nn`'s `output_shape` and PyTorch's `output_size` ask."""
    axes = along(layer, input)
    lengths = arguments.layer_ints("output", output, layer.rank, lowest=0)
    for name, axis, length in zip(AXES[layer.rank], axes, lengths, strict=True):
        legal = axis.legal(padding)
        if length not in legal:
            fits = f"{legal[0]} to {legal[-1]}" if len(legal) > 1 else f"{legal[0]}" if legal else "none"
            raise ValueError(
                f"`output` {name} {length} does not fit: an input of {axis.input} with kernel {axis.kernel}, stride "
                f"{axis.stride} and {padding} padding has legal lengths {fits}"
            )
    chosen = [axis.sized(padding, length) for axis, length in zip(axes, lengths, strict=True)]
    return layer.replace(crop=tuple((axis.before, axis.after) for axis in chosen))


def padding_of(layer: ConvTranspose) -> Padding:
    """What TensorFlow calls the layer's padding."""
    return "SAME" if _same.is_same(layer) else "VALID" if _same.is_valid(layer) else "explicit"
