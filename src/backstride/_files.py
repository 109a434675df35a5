# SPDX-License-Identifier: Apache-2.0
"""Arrays by name in files, .npz and .safetensors, and what reading files has in common."""

from __future__ import annotations

import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, BinaryIO

import numpy as np

# What the note of a file is called among the metadata.
NOTE = "backstride"


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], note: str = "") -> None:
    """Writes a whole file or nothing, with any text as a note that other readers don't take for an array."""
    path = Path(path)
    if path.suffix == ".safetensors":
        content = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = safetensors().numpy.save(content, {NOTE: note} if note else None)
    elif path.suffix != ".npz":
        raise ValueError(f"`path` must end in .safetensors or .npz; got {str(path)!r}")
    elif foreign := [name for name, array in arrays.items() if array.dtype.kind not in "iuf"]:
        raise ValueError(f".npz files don't know the dtype of {', '.join(foreign)}; save as .safetensors")
    elif len(note.encode()) > zipfile.ZIP_MAX_COMMENT:
        raise ValueError(f".npz files have room for {zipfile.ZIP_MAX_COMMENT} bytes of notes; save as .safetensors")
    with whole_file(path) as file:
        if path.suffix == ".safetensors":
            file.write(data)
        else:
            _write_npz(file, arrays, note)


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
    with path.open("rb"), complaints(path):
        arrays = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    result: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
            raise ValueError(f"{path} holds {name!r} of dtype {array.dtype}, which no variable has")
        plain = name.removesuffix(":0")
        if plain in result:
            raise ValueError(f"{path} holds {plain!r} twice, with and without ':0'")
        result[plain] = array
    return result


def read_note(path: Path) -> str:
    """The note that `write` put into a file; nothing if it has none."""
    if path.suffix == ".safetensors":
        return header(path)[1].get(NOTE, "")
    with archive(path) as members:
        return members.comment.decode()


@contextmanager
def complaints(path: Path) -> Iterator[None]:
    """Makes one error of what goes wrong in reading; broken bytes come out of several libraries as almost anything."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        said = error if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} can't be read as a {path.suffix} file: {said}") from None


def check_size(what: str, size: int, stored: int) -> None:
    """Refuses what would be far larger in memory than the `stored` bytes of its file: compressed zeros, or a lie."""
    if size > max(2**26, 100 * stored):
        raise ValueError(f"{what} would take {size} bytes, of a file of {stored}")


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose members have credible sizes."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip archive")
    with zipfile.ZipFile(path) as members:
        check_size("what is in it", sum(member.file_size for member in members.infolist()), path.stat().st_size)
        yield members


def _write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray], note: str) -> None:
    """As `np.savez`, for which some names would be arguments."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = note.encode()


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with archive(path) as members:
        for name in members.namelist():
            with members.open(name) as content:
                arrays[name.removesuffix(".npy")] = _read_npy(content)
    return arrays


def _read_npy(content: IO[bytes]) -> np.ndarray:
    """As `np.load`, which makes room for as much as the header says before it looks whether it is there."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(content)
    if version not in readers:
        raise ValueError(f"its arrays are of the unknown version {version}")
    shape, transposed, dtype = readers[version](content)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    data = content.read()
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if transposed else "C")


# What safetensors calls the dtypes that variables have.
_DTYPES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    **{f"{sign}{bits}": f"{word}{bits}" for sign, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Tensor:
    """Where an array is in a .safetensors file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self) -> np.ndarray:
        """The array; its file is one that `header` has checked."""
        if self.dtype not in _DTYPES:
            raise ValueError(f"the dtype {self.dtype} is not one that variables have")
        if self.dtype == "BF16":
            know_bfloat16()
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        return np.frombuffer(data, np.dtype(_DTYPES[self.dtype]).newbyteorder("<")).reshape(self.shape)


def header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors file, as they follow each other in it, and the metadata."""
    library = safetensors()
    try:
        with library.safe_open(path, "numpy"):
            pass  # it has checked that the header is sound and the file as long as it says
    except library.SafetensorError as error:
        raise ValueError(error) from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries: dict[str, Any] = json.loads(file.read(length))
    metadata = entries.pop("__metadata__", None) or {}
    tensors = {
        name: Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
        for name, entry in entries.items()
        for begin, end in [entry["data_offsets"]]
    }
    return dict(sorted(tensors.items(), key=lambda item: item[1].start)), metadata


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """By name in alphabetical order."""
    tensors, _ = header(path)
    return {name: tensors[name].read() for name in sorted(tensors)}


def know_bfloat16() -> None:
    """Makes `np.dtype("bfloat16")` known."""
    try:
        import ml_dtypes  # noqa: F401
    except ImportError:
        raise ImportError("arrays of bfloat16 need ml_dtypes: pip install ml-dtypes") from None


def safetensors() -> ModuleType:
    """The library of that name."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError(".safetensors files need the extra `layers`: pip install 'backstride[layers]'") from None
    return safetensors
