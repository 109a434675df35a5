# SPDX-License-Identifier: Apache-2.0
"""Everything there is to say of a layer at an input of one size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backstride._arguments import AXES
from backstride._explain.arithmetic import Along, Padding, along, padding_of
from backstride._explain.cost import Cost, cost
from backstride._explain.verdict import Verdict, verdict
from backstride.convert import FRAMEWORKS, ConvTranspose, Port
from backstride.convert._layer import FIELDS

LISTED = 1024  # phases, legal lengths and cells of either end, of which there may be billions


@dataclass(frozen=True)
class Explanation:
    """A layer in numbers.

    Attributes:
        layer: which one.
        padding: what TensorFlow calls its padding.
        axes: the axes in numbers, each with the length of its input.
        verdict: on checkerboard artifacts.
        ports: by framework; what it says of a layer that it does not have is a str.
        cost: of one call.
    """

    layer: ConvTranspose
    padding: Padding
    axes: tuple[Along, ...]
    verdict: Verdict
    ports: dict[str, Port | str]
    cost: Cost

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the axes."""
        return AXES[self.layer.rank]


def explanation(
    layer: ConvTranspose,
    input: int | Sequence[int],
    padding: Padding | None = None,
    frameworks: Iterable[str] = tuple(FRAMEWORKS),
) -> Explanation:
    """The explanation of `layer` at an input of these lengths, and in the terms of these frameworks."""
    axes = along(layer, input)
    ports = {name: _port(name, layer) for name in frameworks}
    lengths = [axis.input for axis in axes]
    return Explanation(layer, padding or padding_of(layer), axes, verdict(axes), ports, cost(layer, lengths))


def _port(name: str, layer: ConvTranspose) -> Port | str:
    try:
        return FRAMEWORKS[name].write(layer)
    except ValueError as error:
        return str(error)


def document(explained: Explanation) -> dict[str, Any]:
    """All of it in JSON's own types."""
    return {
        "layer": {name: getattr(explained.layer, name) for name in FIELDS},
        "padding": explained.padding,
        "input": [axis.input for axis in explained.axes],
        "output": [axis.output for axis in explained.axes],
        "axes": [
            {"name": name, **_axis(axis, explained.padding)}
            for name, axis in zip(explained.names, explained.axes, strict=True)
        ],
        "checkerboard": asdict(explained.verdict),
        "frameworks": {name: _said(port) for name, port in explained.ports.items()},
        "cost": asdict(explained.cost),
    }


def paddings(padding: Padding) -> tuple[Padding, ...]:
    """The rules whose legal lengths are told: TensorFlow's names, and the layer's own pairs."""
    return ("SAME", "VALID", "explicit") if padding == "explicit" else ("SAME", "VALID")


def _axis(axis: Along, padding: Padding) -> dict[str, Any]:
    edge = min(axis.output, LISTED)
    inside = axis.interior
    return {
        "input": axis.input,
        "kernel": axis.kernel,
        "stride": axis.stride,
        "dilation": axis.dilation,
        "full": axis.full,
        "cut_before": axis.before,
        "cut_after": axis.after,
        "output": axis.output,
        "legal": [
            {"padding": rule, "output": length, "cut_before": sized.before, "cut_after": sized.after}
            for rule in paddings(padding)
            for length in axis.legal(rule)[:LISTED]
            for sized in [axis.sized(rule, length)]
        ],
        "phases": [
            {"residue": residue, "taps": list(axis.phase(residue)[:LISTED]), "count": len(axis.phase(residue))}
            for residue in range(min(axis.stride, LISTED))
        ],
        "overlap": {
            "fewest": axis.fewest,
            "most": axis.most,
            "inside": [inside.start, inside.stop] if inside else None,
            "first": [len(axis.taps(cell)) for cell in range(edge)],
            "last": [len(axis.taps(cell)) for cell in range(axis.output - edge, axis.output)],
        },
    }


def _said(port: Port | str) -> dict[str, Any]:
    if isinstance(port, str):
        return {"refused": port}
    return {
        "arguments": dict(port.arguments),
        "exact": port.exact,
        "cut": port.crop,
        "usual": port.usual and {"arguments": port.usual.arguments, "cut": port.usual.crop, "shift": port.shift},
        "filter": {"order": port.layout.order, "flipped": port.layout.flipped},
        "code": port.code,
        "notes": port.notes,
    }
