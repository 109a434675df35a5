# SPDX-License-Identifier: Apache-2.0
"""Layers as a Keras 3 model in a .keras archive, with an input and an output for each of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backstride import _files
from backstride._geometry import Crop
from backstride.convert import _keras_file, _notes
from backstride.convert._keras import KERAS
from backstride.convert._named_layer import NamedLayer
from backstride.convert._port import Port


@dataclass(frozen=True)
class Step:
    """One layer of a chain."""

    kind: str
    name: str
    config: dict[str, Any]


def save(path: Path, layers: Sequence[NamedLayer]) -> None:
    """Writes one functional model of all layers."""
    stored = _notes.stored(layers, KERAS, "/.", "_")
    chains = {name: _chain(name, found, port) for name, (found, port) in stored.items()}
    names = [step.name for chain in chains.values() for step in chain]
    if len(set(names)) < len(names):
        raise ValueError(f"names such as 'up' and 'up_input' are one too many in a Keras model; got {list(stored)}")
    # Keras counts the layers of a class by how many follow until an output, and the first comes first among equals.
    order = sorted(stored, key=lambda name: _after(chains[name]), reverse=True)
    entries = [entry for name in order for entry in _entries(chains[name], stored[name][0])]
    ends: dict[str, list[Any]] = {
        "input_layers": [[chain[0].name, 0, 0] for chain in chains.values()],
        "output_layers": [[chain[-1].name, 0, 0] for chain in chains.values()],
    }
    if len(layers) == 1:
        ends = {key: value[0] for key, value in ends.items()}
    model = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": "layers", "trainable": True, "layers": entries, **ends},
        "registered_name": "Functional",
    }
    metadata = {"keras_version": "3.0.0", _files.NOTE: _notes.write("keras", stored)}
    weights = _weights([stored[name] for name in order])
    with _files.whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr(_keras_file.WEIGHTS, weights)


def _weights(layers: Sequence[tuple[NamedLayer, Port]]) -> bytes:
    """The HDF5 file of the weights, where layers are found by their class and their number."""
    content, counts = io.BytesIO(), dict.fromkeys(_keras_file.RANKS.values(), 0)
    with _keras_file.open_hdf5(content, "w") as file:
        for found, port in layers:
            rank = found.layer.rank
            number = f"_{counts[rank]}" if counts[rank] else ""
            counts[rank] += 1
            group = file.create_group(f"layers/conv{rank}d_transpose{number}/vars")
            for n, array in enumerate([port.weights(found.filters), *([found.bias] if found.layer.bias else [])]):
                dataset = group.create_dataset(str(n), data=array)
                if array.dtype.name == "bfloat16":
                    dataset.attrs["dtype"] = "bfloat16"
    return content.getvalue()


def _chain(name: str, found: NamedLayer, port: Port) -> list[Step]:
    """An input, the layer, and what crops its result. Zeros in the result come of zeros around the input."""
    layer = found.layer
    around = tuple(
        (-(min(before, 0) // stride), -(min(after, 0) // stride))
        for (before, after), stride in zip(port.crop, layer.stride, strict=True)
    )
    crop = tuple(
        (before + a * stride, after + b * stride)
        for (before, after), (a, b), stride in zip(port.crop, around, layer.stride, strict=True)
    )
    said = {key: value for key, value in port.arguments.items() if value is not None}
    shape: list[int | None] = [None] * (layer.rank + 2)
    shape[1 if layer.channels_first else -1] = layer.in_channels
    return [
        Step("InputLayer", f"{name}_input", {"batch_shape": shape}),
        *_resized("ZeroPadding", "padding", f"{name}_pad", port, around),
        Step(f"Conv{layer.rank}DTranspose", name, {**said, "use_bias": layer.bias}),
        *_resized("Cropping", "cropping", f"{name}_crop", port, crop),
    ]


def _resized(kind: str, argument: str, name: str, port: Port, cells: Crop) -> list[Step]:
    """The layers that pad or crop, if there is something to do; those of one axis take channels last."""
    if not any(map(any, cells)):
        return []
    rank, first = port.layer.rank, port.layer.channels_first
    config: dict[str, Any] = {argument: cells[0] if rank == 1 else cells}
    if rank > 1 and first:
        config["data_format"] = "channels_first"
    step = Step(f"{kind}{rank}D", name, config)
    if rank > 1 or not first:
        return [step]
    turned = [Step("Permute", f"{name}_{way}", {"dims": (2, 1)}) for way in ("channels_last", "channels_first")]
    return [turned[0], step, turned[1]]


def _after(chain: Sequence[Step]) -> int:
    """How many layers follow the transposed convolution."""
    return len(chain) - 1 - next(n for n, step in enumerate(chain) if step.kind in _keras_file.RANKS)


def _entries(chain: Sequence[Step], found: NamedLayer) -> list[dict[str, Any]]:
    """A chain in a model's config."""
    entries, dtype = [], found.filters.dtype.name
    for n, step in enumerate(chain):
        source = {"shape": [None] * (found.layer.rank + 2), "dtype": dtype, "keras_history": [chain[n - 1].name, 0, 0]}
        node = {"args": [{"class_name": "__keras_tensor__", "config": source}], "kwargs": {}}
        entries.append(
            {
                "module": "keras.layers",
                "class_name": step.kind,
                "config": {"name": step.name, "dtype": dtype, **step.config},
                "registered_name": None,
                "name": step.name,
                "inbound_nodes": [node] if n else [],
            }
        )
    return entries
