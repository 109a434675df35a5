# SPDX-License-Identifier: Apache-2.0
"""The picture of a layer: of its only axis, or of its last two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from backstride._explain.arithmetic import Along, along
from backstride._explain.line import Usual, line
from backstride._explain.plane import plane
from backstride._explain.scene import Scene, svg
from backstride._explain.verdict import verdict
from backstride.convert import FRAMEWORKS, ConvTranspose
from backstride.convert._port import moved

# The input of pictures in notebooks.
PIXELS = 4


def picture(layer: ConvTranspose, input: int | Sequence[int]) -> Scene:
    """What the layer does to an input of these lengths; of three axes, the last two are drawn."""
    axes = along(layer, input)
    headline = verdict(axes).headline
    port = FRAMEWORKS["torch"].write(layer)
    if layer.rank == 1:
        usual = None
        if port.usual and any(port.shift) and axes[0].output:
            words = f"PyTorch's usual {port.usual.arguments} keeps these cells instead."
            usual = Usual(port.usual.crop[0][0], words)
        return line(axes[0], _title(axes, "cell"), headline, usual)
    notes = []
    if port.usual and any(port.shift):
        notes.append(f"PyTorch's usual {port.usual.arguments} is shifted {moved(port.shift)}.")
    if layer.rank == 3:
        notes.append("Height and width of three axes; the counts along the depth multiply those that are drawn.")
    return plane(axes[-2:], _title(axes, "pixel"), headline, notes)


def notebook_svg(layer: ConvTranspose) -> str:
    """The picture of a small input."""
    return svg(picture(layer, (PIXELS,) * layer.rank))


def notebook_html(layer: ConvTranspose) -> str:
    """The picture of a small input, under what `repr` says."""
    return f"<div><code>{escape(repr(layer))}</code><br>{notebook_svg(layer)}</div>"


def _title(axes: Sequence[Along], unit: str) -> str:
    said = [f"Kernel {_by(axis.kernel for axis in axes)}", f"stride {_each(axis.stride for axis in axes)}"]
    if any(axis.dilation > 1 for axis in axes):
        said.append(f"dilation {_each(axis.dilation for axis in axes)}")
    inputs, outputs = (_by(getattr(axis, name) for axis in axes) for name in ("input", "output"))
    units = unit if inputs == "1" else f"{unit}s"
    return f"{', '.join(said)}: {inputs} {units} {'becomes' if inputs == '1' else 'become'} {outputs}"


def _by(values: Iterable[int]) -> str:
    return "x".join(map(str, values))


def _each(values: Iterable[int]) -> str:
    """One number if all axes have the same."""
    numbers = list(values)
    return str(numbers[0]) if len(set(numbers)) == 1 else _by(numbers)
