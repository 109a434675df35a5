# SPDX-License-Identifier: Apache-2.0
"""Arrays by name in files: .npz by NumPy, .safetensors by the library of that name."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a whole file or nothing: under another name first, which takes the place of `path` at the end."""
    path = Path(path)
    if path.suffix == ".safetensors":
        content = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = _safetensors().numpy.save(content)
    elif path.suffix != ".npz":
        raise ValueError(f"`path` must end in .safetensors or .npz; got {str(path)!r}")
    elif foreign := [name for name, array in arrays.items() if array.dtype.kind not in "iuf"]:
        raise ValueError(f".npz files don't know the dtype of {', '.join(foreign)}; save as .safetensors")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if path.suffix == ".safetensors":
                file.write(data)
            else:
                np.savez(file, **arrays)  # type: ignore[arg-type] # mypy takes the names for those of parameters
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by name, without the ':0' with which TensorFlow's own names of variables end."""
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"`path` must end in .safetensors or .npz; got {str(path)!r}")
    data = path.read_bytes()
    try:
        arrays = _read_npz(data) if path.suffix == ".npz" else _read_safetensors(data)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} can't be read as a {path.suffix} file: {error}") from None
    result: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        plain = name.removesuffix(":0")
        if plain in result:
            raise ValueError(f"{path} holds {plain!r} twice, with and without ':0'")
        result[plain] = array
    return result


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    file = np.load(io.BytesIO(data), allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise ValueError("it holds one array without a name")
    return {name: file[name] for name in file.files}


# What safetensors calls the dtypes that variables have.
_DTYPES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    **{f"{sign}{bits}": f"{word}{bits}" for sign, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """By name in alphabetical order; the library's own is another one every time, and it knows no bfloat16."""
    library = _safetensors()
    try:
        entries = dict(library.deserialize(data))
    except library.SafetensorError as error:
        raise ValueError(error) from None
    arrays = {}
    for name, entry in sorted(entries.items()):
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"the dtype {entry['dtype']} of {name!r} is not one that variables have")
        if entry["dtype"] == "BF16":
            import ml_dtypes  # noqa: F401 # defines the name bfloat16
        array = np.frombuffer(entry["data"], np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<"))
        arrays[name] = array.reshape(entry["shape"])
    return arrays


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError(".safetensors files need the extra `layers`: pip install 'backstride[layers]'") from None
    return safetensors


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those that a new file would get."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
