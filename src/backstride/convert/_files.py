# SPDX-License-Identifier: Apache-2.0
"""Layers from files and to files, by the ends of their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from backstride import _arguments as arguments
from backstride import _files
from backstride.convert import _arrays, _keras_file, _keras_model, _onnx_file, _state_dict
from backstride.convert._named_layer import NamedLayer

READERS: dict[str, Callable[[Path], list[NamedLayer]]] = {
    ".keras": _keras_file.load,
    ".h5": _keras_file.load,
    ".hdf5": _keras_file.load,
    ".onnx": _onnx_file.load,
}
ARRAYS = (".safetensors", ".npz")
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")


def load(path: str | os.PathLike[str], config: Any = None) -> list[NamedLayer]:
    """The transposed convolutions of a model in a file, in its order, with their weights.

    >>> from backstride import convert
    >>> for up in convert.load("decoder.keras"):  # doctest: +SKIP
    ...     print(up.name, up.layer)

    Activations are not part of a layer here. Nothing in a file is ever executed, and the frameworks aren't imported.

    Args:
        path: a file whose name ends in
            .keras, .h5, .hdf5: a whole Sequential or Functional model of Keras 2 or 3, with models in it;
            .onnx: a model whose nodes ConvTranspose have constant weights, in it or in files beside it;
            .safetensors: a PyTorch state dict, with `config`; or what `save` wrote, as .npz.
        config: for a state dict, what its layers do: a mapping from their names to arguments of PyTorch's
            `ConvTranspose1d` to `3d`, or of `ConvTranspose`, or to a `ConvTranspose`; or the path of a JSON file
            with one. Channels, `kernel_size` and `bias` may be left out, since the weights say them.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the library that reads such files is missing; the extra `convert` has them all.
        TypeError: if `config` is no mapping.
        ValueError: if the file is damaged or of another kind, or a layer's weights or arguments are not in it.
    """
    path = Path(path)
    _check_suffix(path, (*READERS, *ARRAYS))
    if path.exists() and not path.is_file():
        raise ValueError(f"`path` must be a file; {path} is none")
    said = None if config is None else _state_dict.read_config(config)
    if said is not None and path.suffix not in ARRAYS:
        raise ValueError(f"`config` is for state dicts; {path.suffix} files say what their layers do")
    with path.open("rb"), _files.complaints(path):
        return _arrays.load(path, said) if path.suffix in ARRAYS else READERS[path.suffix](path)


def save(path: str | os.PathLike[str], layers: Iterable[NamedLayer], framework: str | None = None) -> None:
    """Writes layers in the terms of another framework; a whole file or none.

    >>> from backstride import convert
    >>> convert.save("decoder.onnx", convert.load("decoder.keras"))  # doctest: +SKIP

    `load` reads back what was saved, to the bit: the file has a note with the layers' descriptions.

    Args:
        path: the end of its name says what is written:
            .onnx: a model with an input and an output, `<name>.input` and `<name>.output`, for each layer;
            .keras: a Functional model of Keras 3, with an input and an output for each layer;
            .safetensors, .npz: the weights, by the names that `framework` has for them.
        layers: each with a name of its own. In names '/' becomes '.' or the reverse, as the framework has it; Keras has
            neither, and '_' for both.
        framework: 'torch' ('<name>.weight' and '<name>.bias'; where none is given, .safetensors files are for it),
            'flax' or 'tensorflow' ('<name>/kernel' and '<name>/bias'). Where a framework has no groups or dilations,
            the filter has zeros instead; what is left to crop is in the note, as JSON.

    Raises:
        ImportError: if the library that writes such files is missing; the extra `convert` has them all.
        TypeError, ValueError: for other layers, names and frameworks.
    """
    path = Path(path)
    _check_suffix(path, (".keras", ".onnx", *ARRAYS))
    if not isinstance(layers, Iterable):
        raise TypeError(f"`layers` must be of NamedLayer, as `load` returns them; got {arguments.shown(layers)}")
    found = list(layers)
    for one in found:
        if not isinstance(one, NamedLayer):
            raise TypeError(f"`layers` must be of NamedLayer, as `load` returns them; got {type(one).__qualname__}")
    if not found:
        raise ValueError("`layers` must have at least one layer")
    if path.suffix in ARRAYS:
        names = framework or ("torch" if path.suffix == ".safetensors" else None)
        if names not in _arrays.NAMES:
            known = ", ".join(_arrays.NAMES)
            raise ValueError(f"`framework` must be one of {known} for {path.suffix} files; got framework={framework!r}")
        _arrays.save(path, found, names)
    elif framework not in (None, path.suffix[1:]):
        raise ValueError(
            f"`framework` must be {path.suffix[1:]!r} for {path.suffix} files; got framework={framework!r}"
        )
    elif path.suffix == ".onnx":
        _onnx_file.save(path, found)
    else:
        _keras_model.save(path, found)


def _check_suffix(path: Path, known: tuple[str, ...]) -> None:
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} may be a pickle, which runs code when it is loaded; load it where you trust it and save it by "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    if path.suffix not in known:
        raise ValueError(f"`path` must end in {', '.join(known[:-1])} or {known[-1]}; got {str(path)!r}")
