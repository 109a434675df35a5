# SPDX-License-Identifier: Apache-2.0
"""Arrays by name in files: .npz by NumPy, .safetensors by the library of that name."""

from __future__ import annotations

import io
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a whole file or nothing."""
    path = Path(path)
    if path.suffix == ".safetensors":
        content = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = _safetensors().numpy.save(content)
    elif path.suffix != ".npz":
        raise ValueError(f"`path` must end in .safetensors or .npz; got {str(path)!r}")
    elif foreign := [name for name, array in arrays.items() if array.dtype.kind not in "iuf"]:
        raise ValueError(f".npz files don't know the dtype of {', '.join(foreign)}; save as .safetensors")
    with whole_file(path) as file:
        if path.suffix == ".safetensors":
            file.write(data)
        else:
            _write_npz(file, arrays)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file under another name, which takes the place of `path` when it is whole, and of nothing if it never is."""
    path = Path(os.path.realpath(path))  # a link stays one
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by name, without the ':0' with which TensorFlow's own names of variables end."""
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"`path` must end in .safetensors or .npz; got {str(path)!r}")
    data = path.read_bytes()
    try:
        arrays = _read_npz(data) if path.suffix == ".npz" else _read_safetensors(data)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # broken bytes come out of several libraries as almost anything
        raise ValueError(f"{path} can't be read as a {path.suffix} file: {error}") from None
    result: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
            raise ValueError(f"{path} holds {name!r} of dtype {array.dtype}, which no variable has")
        plain = name.removesuffix(":0")
        if plain in result:
            raise ValueError(f"{path} holds {plain!r} twice, with and without ':0'")
        result[plain] = array
    return result


def _write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """As `np.savez`, for which some names would be arguments."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("it is not an archive of arrays by name")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
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
            know_bfloat16()
        array = np.frombuffer(entry["data"], np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<"))
        arrays[name] = array.reshape(entry["shape"])
    return arrays


def know_bfloat16() -> None:
    """Makes `np.dtype("bfloat16")` known."""
    try:
        import ml_dtypes  # noqa: F401
    except ImportError:
        raise ImportError("arrays of bfloat16 need ml_dtypes: pip install ml-dtypes") from None


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError(".safetensors files need the extra `layers`: pip install 'backstride[layers]'") from None
    return safetensors
