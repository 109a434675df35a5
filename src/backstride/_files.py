# SPDX-License-Identifier: Apache-2.0
"""Arrays by name in files: .npz by NumPy, .safetensors by the library of that name."""

from __future__ import annotations

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
        content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        data = _safetensors().save(content)
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
    library = _safetensors() if path.suffix == ".safetensors" else None
    try:
        arrays = library.load(data) if library else _read_npz(path)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} can't be read as a {path.suffix} file: {error}") from None
    except Exception as error:
        if library is None or type(error).__module__.partition(".")[0] != "safetensors":
            raise
        raise ValueError(f"{path} can't be read as a .safetensors file: {error}") from None
    result: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        plain = name.removesuffix(":0")
        if plain in result:
            raise ValueError(f"{path} holds {plain!r} twice, with and without ':0'")
        result[plain] = array
    return result


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        return {name: file[name] for name in file.files}


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(".safetensors files need the extra `layers`: pip install 'backstride[layers]'") from None
    return safetensors.numpy


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those that a new file would get."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
