# SPDX-License-Identifier: Apache-2.0
"""Layers in files of Keras models: .keras archives, and HDF5 files as of Keras 2. Nothing of a model is ever run."""

from __future__ import annotations

import inspect
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backstride import _files
from backstride._arguments import shown
from backstride.convert import _notes
from backstride.convert._keras import KERAS, from_keras
from backstride.convert._named_layer import NamedLayer

RANKS = {f"Conv{rank}DTranspose": rank for rank in (1, 2, 3)}
WEIGHTS = "model.weights.h5"
# What of a layer's config are arguments that say what it does.
ARGUMENTS = [name for name, one in inspect.signature(from_keras).parameters.items() if one.kind is not one.KEYWORD_ONLY]


@dataclass(frozen=True)
class Place:
    """A layer in a model's config.

    Attributes:
        names: its name, after those of the models that it is in.
        path: where an archive has its weights.
        rank: how many axes it has.
        config: its own config.
    """

    names: tuple[str, ...]
    path: str
    rank: int
    config: Mapping[str, Any]


def load(path: Path) -> list[NamedLayer]:
    """The layers of a model, and of those in it."""
    if path.suffix == ".keras":
        return _load_archive(path)
    with open_hdf5(path) as file:
        if "model_config" not in file.attrs:
            raise ValueError("it has no model_config, as files of weights alone; save the whole model")
        model = json.loads(file.attrs["model_config"])
        return [_layer(place, lambda place: _legacy(file, place), path.stat().st_size) for place in _places(model)]


def _load_archive(path: Path) -> list[NamedLayer]:
    with _files.archive(path) as members:
        if missing := {"config.json", WEIGHTS} - set(members.namelist()):
            raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
        model, data = json.loads(members.read("config.json")), members.read(WEIGHTS)
        metadata = json.loads(members.read("metadata.json")) if "metadata.json" in members.namelist() else {}
    note = metadata.get(_files.NOTE, "") if isinstance(metadata, dict) else ""
    _, noted = _notes.read(note, {"keras": KERAS})
    places = _places(model)
    with open_hdf5(io.BytesIO(data)) as file:
        layers = [_layer(place, lambda place: _stored(file, place), len(data)) for place in places]
    order = {name: n for n, name in enumerate(noted)}
    layers.sort(key=lambda layer: order.get(layer.name, len(order)))
    return [_as_noted(layer, noted.get(layer.name)) for layer in layers]


def _as_noted(found: NamedLayer, noted: _notes.Noted | None) -> NamedLayer:
    """A layer as the note has it, if what the file says of it is still what the note's layer is in Keras."""
    if (
        noted
        and noted.port.said.replace(bias=found.layer.bias) == found.layer
        and noted.port.layer.bias == found.layer.bias
    ):
        return noted.layer(found.filters, found.bias)
    return found


def _places(model: Any) -> list[Place]:
    """The layers of a config."""
    kind, config = _kind(model)
    if _children(config) is None:
        raise ValueError(
            f"its model is a {kind}, whose layers the file does not list; those of Sequential and Functional models are"
        )
    return list(_walk(model, (), ""))


def _walk(entry: Any, names: tuple[str, ...], path: str) -> Iterator[Place]:
    kind, config = _kind(entry)
    children = _children(config)
    if kind in RANKS and str(entry.get("module") or "keras").split(".")[0] in ("keras", "tf_keras"):
        yield Place(names, path, RANKS[kind], config)
    elif children is not None:
        counts = Counter[str]()
        for child in children:
            name = _snake_case(_kind(child)[0])
            count = f"_{counts[name]}" if counts[name] else ""
            counts[name] += 1
            yield from _walk(child, (*names, _name(child)), f"{path}layers/{name}{count}/")
    elif isinstance(config, dict) and isinstance(
        inner := config.get("layer"), dict
    ):  # of a layer that wraps another one
        yield from _walk(inner, (*names, _name(inner)), f"{path}layer/")


def _kind(entry: Any) -> tuple[str, Any]:
    """The class of a layer and its config, in which very old models have their layers by themselves."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str) or "config" not in entry:
        raise ValueError(f"its config has {shown(entry)} in place of a layer")
    return entry["class_name"], entry["config"]


def _children(config: Any) -> list[Any] | None:
    layers = config.get("layers") if isinstance(config, dict) else config
    return layers if isinstance(layers, list) else None


def _name(entry: dict[str, Any]) -> str:
    config = entry["config"]
    return str((config.get("name") if isinstance(config, dict) else None) or entry.get("name") or entry["class_name"])


def _snake_case(name: str) -> str:
    """As Keras makes names of classes."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _layer(place: Place, datasets: Callable[[Place], Sequence[Any]], stored: int) -> NamedLayer:
    name = "/".join(place.names)
    try:
        kernel, *bias = (_array(dataset, stored) for dataset in datasets(place))
        said = {key: _tuple(place.config[key]) for key in ARGUMENTS if key in place.config}
        if place.config.get("groups") not in (None, 1):
            raise ValueError(f"its config has groups={shown(place.config['groups'])}, which no such layer can have")
        layer = from_keras(**said, in_channels=kernel.shape[-1] if kernel.ndim else 1, rank=place.rank)
        return NamedLayer(name, layer, kernel, bias[0] if bias else None)
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"the layer {name!r}: {error}") from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _stored(file: Any, place: Place) -> list[Any]:
    """Kernel and bias in an archive; the first models of its kind have another name for the same."""
    usual = place.path.strip("/")
    for path in usual, usual.replace("layers", "_layer_checkpoint_dependencies"):
        if _get(file, path) is not None:
            return [_needed(file, f"{path}/vars/{n}") for n in range(1 + _has_bias(place))]
    raise ValueError(f"it has no weights, which would be {usual!r}")


def _legacy(file: Any, place: Place) -> list[Any]:
    """Kernel and bias in an HDF5 file, where a model's layer has a list of all weights in it."""
    group = _needed(file, f"model_weights/{place.names[0]}")
    names, count = _strings(group.attrs, "weight_names"), 1 + _has_bias(place)
    if len(names) != count:
        names = [_match(names, place.names, weight) for weight in ("kernel", "bias")[:count]]
    return [_needed(group, name) for name in names]


def _match(weights: Sequence[str], names: Sequence[str], weight: str) -> str:
    """The one of `weights` that is called after most of the layer's names."""
    for first in range(len(names)):
        end = "/".join([*names[first:], weight])
        found = [name for name in weights if f"/{name.removesuffix(':0')}".endswith(f"/{end}")]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"the names of the weights {', '.join(found)} don't tell which one is its {weight}")
    raise ValueError(f"it has no {weight} among the weights {', '.join(weights) or '(none)'}")


def _has_bias(place: Place) -> bool:
    return bool(place.config.get("use_bias", True))


def _strings(attributes: Mapping[str, Any], name: str) -> list[str]:
    """A list of names; long ones are in several parts."""
    parts = [name] if name in attributes else []
    while not (parts and parts[0] == name) and f"{name}{len(parts)}" in attributes:
        parts.append(f"{name}{len(parts)}")
    values = [value for part in parts for value in np.atleast_1d(attributes[part])]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def open_hdf5(file: Any, mode: str = "r") -> Any:
    """An HDF5 file."""
    try:
        import h5py
    except ImportError:
        raise ImportError("files of Keras need the extra `convert`: pip install 'backstride[convert]'") from None
    return h5py.File(file, mode)


def _get(group: Any, path: str) -> Any:
    """What is at a path, by links that stay in the file; or None."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path!r} is a link to somewhere else, which is not followed")
        group = None if link is None else group[part]
    return group


def _needed(group: Any, path: str) -> Any:
    found = _get(group, path)
    if found is None:
        raise ValueError(f"it has no {path!r}")
    return found


def _array(dataset: Any, stored: int) -> np.ndarray:
    """The array of a dataset in a file of so many bytes."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError(f"{dataset.name!r} is no array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name!r} is in another file, which is not read")
    _files.check_size(repr(dataset.name), math.prod(dataset.shape) * dataset.dtype.itemsize, stored)
    array = np.asarray(dataset[()])
    if array.dtype == np.dtype("V2"):  # what h5py makes of bfloat16
        _files.know_bfloat16()
        return array.view(np.dtype("bfloat16"))
    return array.astype(array.dtype.newbyteorder("="))
