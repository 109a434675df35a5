# SPDX-License-Identifier: Apache-2.0
"""Weights by name in .safetensors and .npz files, in the order and by the names of one framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backstride import _files
from backstride.convert import _notes, _state_dict
from backstride.convert._jax import LINEN
from backstride.convert._named_layer import NamedLayer
from backstride.convert._port import Framework
from backstride.convert._tensorflow import TF_NN
from backstride.convert._torch import TORCH


@dataclass(frozen=True)
class Names:
    """What a framework calls weights: '<layer><separator><filter>', and the same with 'bias'."""

    framework: Framework
    filter: str
    separator: str
    foreign: str


NAMES = {
    "torch": Names(TORCH, "weight", ".", foreign="/"),
    "flax": Names(LINEN, "kernel", "/", foreign="."),
    "tensorflow": Names(TF_NN, "kernel", "/", foreign="."),
}


def load(path: Path, config: _state_dict.Config | None) -> list[NamedLayer]:
    """The layers that the note of `save` describes, or else `config`."""
    if path.suffix == ".npz":
        arrays, note = _files.read(path), _files.read_note(path)
        if config is not None or not note:
            raise ValueError("only .npz files that `save` wrote say what their layers do; state dicts are .safetensors")
    else:
        tensors, metadata = _files.header(path)
        note = metadata.get(_files.NOTE, "")
        if config is not None or not note:
            return _state_dict.load(tensors, config)
    framework, layers = _notes.read(note, {name: names.framework for name, names in NAMES.items()})
    names, result = NAMES[framework], []
    for stored, noted in layers.items():
        wanted = [
            f"{stored}{names.separator}{weight}" for weight in (names.filter, "bias")[: 1 + noted.port.layer.bias]
        ]
        if missing := [name for name in wanted if name not in (arrays if path.suffix == ".npz" else tensors)]:
            raise ValueError(f"it has no {missing[0]!r}")
        weights, *bias = (arrays[name] if path.suffix == ".npz" else tensors[name].read() for name in wanted)
        result.append(noted.layer(weights, bias[0] if bias else None))
    return result


def save(path: Path, layers: Sequence[NamedLayer], framework: str) -> None:
    """Writes the weights of `layers` as a framework has them, with a note that describes the layers."""
    names = NAMES[framework]
    stored = _notes.stored(layers, names.framework, names.foreign, names.separator)
    arrays = {}
    for name, (found, port) in stored.items():
        arrays[f"{name}{names.separator}{names.filter}"] = port.weights(found.filters)
        if found.bias is not None:
            arrays[f"{name}{names.separator}bias"] = found.bias
    _files.write(path, arrays, _notes.write(framework, stored))
