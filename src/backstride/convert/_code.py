# SPDX-License-Identifier: Apache-2.0
"""Ports as Python code."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backstride._geometry import Crop
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Port


@dataclass(frozen=True)
class Python:
    """How a framework's calls look.

    Attributes:
        imports: what comes before them.
        lines: the call, with {n} for the number of axes, {arguments}, and {cut} for an index to cut by.
        pad: the function that adds zeros, of which it takes a pair for each dimension; or, if `flat`, one number after
            the other, from the last dimension on.
        function: whether arrays are among the arguments, not given to a layer that is made of them.
        weight: the argument that says the filter's shape, and stands for the filter.
        lengths: the argument that has the shape of the result.
        more: arguments that come after the layer's own.
        scalars: whether an int stands for all axes.
    """

    imports: str
    lines: str
    pad: str
    flat: bool = False
    function: bool = False
    weight: str | None = None
    lengths: str | None = None
    more: tuple[str, ...] = ()
    scalars: bool = True

    def __call__(self, port: Port) -> str:
        """The code of a port."""
        rank, first = port.layer.rank, port.channels_first
        leading = 1 + first
        said = self._arguments(port)
        lines = self._lines(port, ", ".join(said))
        if max(map(len, lines.splitlines())) > 80:
            lines = self._lines(port, "".join(f"\n    {argument}," for argument in said) + "\n")
        if pairs := zeros(port.crop):
            whole = [(0, 0)] * leading + pairs + [(0, 0)] * (not first)
            flat = tuple(cells for pair in reversed(whole[leading:]) for cells in pair)
            lines += f"\ny = {self.pad}(y, {flat if self.flat else whole})"
        if port.bias_after:
            column = f"[:{', None' * rank}]" if first else ""
            lines += f"\ny = y + bias{column}"
        return f"{self.imports}\n\n{lines}"

    def _lines(self, port: Port, arguments: str) -> str:
        return self.lines.format(
            n=port.layer.rank, arguments=arguments, cut=cut_code(port.crop, 1 + port.channels_first)
        )

    def _arguments(self, port: Port) -> list[str]:
        """The arguments that are not left at their defaults."""
        said = ["x"] if self.function else []
        for name, parameter in inspect.signature(port.framework.read).parameters.items():
            if name == self.weight:
                said.append("weight")
            elif name == self.lengths:
                lengths = [f"x.shape[{n}]" for n in (0, *(n + 1 + port.channels_first for n in range(port.layer.rank)))]
                said.append(f"{name}={shape_code(port.said, lengths, port.channels_first)}")
            elif name in port.arguments:
                value = port.arguments[name]
                if parameter.default is not parameter.empty and _is(name, value, parameter.default):
                    continue
                by_name = parameter.default is not parameter.empty or (said and "=" in said[-1])
                said.append(f"{name}={self._short(value)}" if by_name else self._short(value))
        return [*said, *self.more]

    def _short(self, value: Any) -> str:
        if self.scalars and isinstance(value, tuple) and len(set(value)) == 1 and isinstance(value[0], int):
            return repr(value[0])
        return repr(value)


def _is(name: str, value: Any, default: Any) -> bool:
    """Whether an argument is what it would be without being said: of strides and dilations, None is 1."""
    if default is None and ("stride" in name or "dilation" in name):
        default = 1
    if isinstance(value, tuple) and isinstance(default, int):
        return all(entry == default for entry in value)
    return bool(value == default)


def cut_code(crop: Crop, leading: int) -> str:
    """The index that cuts what is positive of `crop`, of arrays with so many dimensions before their axes."""
    places = [":"] * leading + [f"{max(a, 0) or ''}:{-b if b > 0 else ''}" for a, b in crop]
    while places and places[-1] == ":":
        places.pop()
    return f"[{', '.join(places)}]" if places else ""


def zeros(crop: Crop) -> list[tuple[int, int]]:
    """How many zeros to add before and after each axis; nothing if none are to be added."""
    pairs = [(max(-before, 0), max(-after, 0)) for before, after in crop]
    return pairs if any(map(any, pairs)) else []


def shape_code(layer: ConvTranspose, lengths: Sequence[str], first: bool) -> str:
    """The shape of the result, from the code of the batch and the lengths of an input."""
    batch, *inputs = lengths
    results = []
    for length, stride, extent, crop in zip(inputs, layer.stride, layer.extent, layer.crop, strict=True):
        more = extent - stride - sum(crop)
        result = length if stride == 1 else f"{stride} * {length}"
        results.append(result if more == 0 else f"{result} {'+' if more > 0 else '-'} {abs(more)}")
    results.insert(0 if first else layer.rank, str(layer.out_channels))
    return f"[{', '.join([batch, *results])}]"
