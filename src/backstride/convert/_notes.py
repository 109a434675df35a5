# SPDX-License-Identifier: Apache-2.0
"""What `save` notes in a file besides the weights, so that `load` gives back what was saved.

A framework has no word for some layers, as for crops that PyTorch can't say; what it has to be told instead is in the
file in its own terms, and the note holds the descriptions. A note that no longer fits its file, since another program
changed it, is passed over: then the layers are what the file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backstride.convert._layer import ConvTranspose
from backstride.convert._named_layer import NamedLayer
from backstride.convert._port import Framework, Port


@dataclass(frozen=True)
class Noted:
    """What a note says of one layer."""

    name: str
    port: Port

    def layer(self, weights: np.ndarray, bias: np.ndarray | None) -> NamedLayer:
        """The layer with its weights, which are in the framework's order."""
        return NamedLayer(self.name, self.port.layer, filters(self.port, weights), bias)


def stored(
    layers: Sequence[NamedLayer], framework: Framework, foreign: str = "", own: str = ""
) -> dict[str, tuple[NamedLayer, Port]]:
    """Layers with their ports, by what a file calls them: by their names with `own` for each of `foreign`'s signs."""
    result: dict[str, tuple[NamedLayer, Port]] = {}
    for found in layers:
        name = "".join(own if sign in foreign else sign for sign in found.name)
        if not name or name in result:
            raise ValueError(f"every layer needs a name of its own; got {[layer.name for layer in layers]}")
        result[name] = found, framework.write(found.layer)
    return result


def write(framework: str, layers: Mapping[str, tuple[NamedLayer, Port]]) -> str:
    """The note for these layers, by what the file calls them."""
    entries = {
        name: {
            "name": found.name,
            "layer": json.loads(found.layer.to_json()),
            "arguments": dict(port.arguments),
            "crop": port.crop,
        }
        for name, (found, port) in layers.items()
    }
    return json.dumps({"framework": framework, "layers": entries}, separators=(",", ":"))


def read(note: str, frameworks: Mapping[str, Framework]) -> tuple[str, dict[str, Noted]]:
    """The framework for which a file was written, and what the note says of each layer in it; nothing of no note."""
    if not note:
        return "", {}
    try:
        said = json.loads(note)
        framework = frameworks[said["framework"]]
        return said["framework"], {
            name: Noted(str(entry["name"]), framework.write(ConvTranspose(**entry["layer"])))
            for name, entry in said["layers"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"its note is not one that `save` wrote: {type(error).__name__}: {error}") from None


def filters(port: Port, weights: np.ndarray) -> np.ndarray:
    """The filter, in TensorFlow's order, that the port's framework has as these weights: `port.weights` undone."""
    layer, framework = port.layer, port.framework
    told = framework.told(layer)
    result: Any = weights
    if weights.ndim == layer.rank + 2:
        result = port.layout.read(weights, told.groups)
    if result.shape != told.filter_shape:
        raise ValueError(f"weights of shape {weights.shape} are not those of {layer!r}")
    if told == layer:
        return np.ascontiguousarray(result)
    result = result[tuple(slice(None, None, step if told.dilation != layer.dilation else 1) for step in layer.dilation)]
    if told.groups != layer.groups:
        outs, ins = layer.out_channels // layer.groups, layer.in_channels // layer.groups
        blocks = [result[..., n * outs :, n * ins :][..., :outs, :ins] for n in range(layer.groups)]
        result = np.concatenate(blocks, -1)
    if port.weights(result).tobytes() != weights.tobytes():
        raise ValueError(f"weights of shape {weights.shape} are not zero where {layer!r} has none")
    return np.ascontiguousarray(result)
