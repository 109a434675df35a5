# SPDX-License-Identifier: Apache-2.0
"""State dicts of PyTorch: weights by the names of modules. What the layers do is not among them and has to be given."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backstride import _arguments as arguments
from backstride._files import Tensor
from backstride.convert._layer import ConvTranspose
from backstride.convert._named_layer import NamedLayer
from backstride.convert._torch import from_torch
from backstride.convert._weights import LAYOUTS

Config = Mapping[str, Any]

# The magnitudes and directions of torch.nn.utils.weight_norm, and of that in torch.nn.utils.parametrizations.
NORMS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def read_config(config: Any) -> Config:
    """A mapping, or that of a JSON file."""
    if isinstance(config, str | os.PathLike):
        try:
            said = json.loads(Path(config).read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`config` must be a JSON file; {config} can't be read: {error}") from None
        config = said
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        raise TypeError(f"`config` must map names of layers to their arguments; got config={arguments.shown(config)}")
    return config


def load(tensors: Mapping[str, Tensor], config: Config | None) -> list[NamedLayer]:
    """The layers of `config`, in its order."""
    if config is None:
        raise ValueError(_question(tensors))
    result = []
    for name, said in config.items():
        prefix = f"{name}." if name else ""
        weight, bias = _weight(tensors, prefix), tensors.get(f"{prefix}bias")
        try:
            layer = _described(said, weight.shape, bias is not None)
            result.append(
                NamedLayer(
                    name, layer, LAYOUTS["torch"].read(weight, layer.groups), None if bias is None else bias.read()
                )
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"`config` of {name!r} does not fit: {error}") from None
    return result


def _question(tensors: Mapping[str, Tensor]) -> str:
    """Which of the tensors may be layers, and what to say of them."""
    forms = {"weight": "", **{direction: "" for _, direction in NORMS}}
    names = [
        name.removesuffix(form).removesuffix(".")
        for name, tensor in tensors.items()
        for form in forms
        if 3 <= len(tensor.shape) <= 5 and f".{name}".endswith(f".{form}")
    ]
    if not names:
        return "it has no weights of a layer, which would be called '<layer>.weight' and have three to five dimensions"
    few = ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} others" if len(names) > 20 else "")
    return (
        "a state dict does not say what its layers do; give the arguments of those that are transposed convolutions as "
        f"`config`, such as {{{names[0]!r}: {{'stride': 2, 'padding': 1}}}}. Its weights of three to five dimensions "
        f"are those of {few}"
    )


def _weight(tensors: Mapping[str, Tensor], prefix: str) -> np.ndarray:
    if plain := tensors.get(f"{prefix}weight"):
        return plain.read()
    for names in NORMS:
        magnitude, direction = (tensors.get(prefix + name) for name in names)
        if magnitude and direction:
            return _normed(prefix, magnitude.read(), direction.read())
    others = [name for name in tensors if prefix and name.startswith(prefix)]
    has = f"what it has there is {', '.join(map(repr, others[:8]))}" if others else "nothing there has a name like that"
    raise ValueError(f"it has no '{prefix}weight', nor what weight_norm makes of it; {has}")


def _normed(prefix: str, magnitude: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The weight of weight_norm, rounded once. The norms are over the dimensions of which there is one magnitude."""
    dims = magnitude.shape or (1,) * direction.ndim
    if len(dims) != direction.ndim or any(n not in (1, m) for n, m in zip(dims, direction.shape, strict=True)):
        raise ValueError(f"the magnitudes of '{prefix}weight' have shape {dims}, its directions {direction.shape}")
    exact = direction.astype(np.float64)
    norm = np.sqrt((exact**2).sum(tuple(n for n, length in enumerate(dims) if length == 1), keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight: np.ndarray = (exact * (magnitude.astype(np.float64).reshape(dims) / norm)).astype(direction.dtype)
    return weight


def _described(said: Any, shape: tuple[int, ...], bias: bool) -> ConvTranspose:
    """A layer from the arguments of PyTorch, or of `ConvTranspose`; what they leave out, the weights say."""
    if isinstance(said, ConvTranspose):
        layer = said
    elif not isinstance(said, Mapping):
        raise TypeError(f"it must be a mapping of arguments or a ConvTranspose; got {arguments.shown(said)}")
    elif not 3 <= len(shape) <= 5:
        raise ValueError(f"the weight has shape {shape}, and such layers have three to five dimensions")
    else:
        channels = {
            "in_channels": shape[0],
            "out_channels": shape[1] * arguments.count("groups", said.get("groups", 1)),
        }
        if "kernel" in said:
            layer = ConvTranspose(**{**channels, "channels_first": True, "bias": bias, **said})
        else:
            if unknown := said.keys() - inspect.signature(from_torch).parameters.keys():
                raise ValueError(f"ConvTranspose{len(shape) - 2}d has no argument {', '.join(map(repr, unknown))}")
            layer = from_torch(**{**channels, "kernel_size": shape[2:], "bias": bias, **said}, rank=len(shape) - 2)
    if shape != (expected := (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)):
        raise ValueError(f"the weight has shape {shape}, and that of {layer!r} has {expected}")
    return layer
