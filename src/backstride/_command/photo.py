# SPDX-License-Identifier: Apache-2.0
"""Photographs in: any file that Pillow reads, as 8-bit RGB or as it is stored; anything else one sentence."""

from __future__ import annotations

import importlib.resources
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from backstride._command.files import FileError

Photo = NDArray[np.uint8]
Levels = NDArray[np.unsignedinteger[Any]]  # of 8 or 16 bits
Result = TypeVar("Result")

SCIKIT_IMAGE = importlib.resources.files("skimage") / "data"


@dataclass(frozen=True)
class Raster:
    """An image as it is stored: `[height, width, channels]` of 8 or 16 bits, and its ICC profile, if any.

    The channels are grey; grey, alpha; red, green, blue; or red, green, blue, alpha.
    """

    levels: Levels
    profile: bytes = b""


def scikit_image(*names: str) -> list[Path]:
    """Photographs that ship inside scikit-image's wheel, so that nothing is downloaded."""
    return [Path(str(SCIKIT_IMAGE / name)) for name in names]


def read_photo(path: Path) -> Photo:
    """The image as `[height, width, 3]`, upright as its EXIF tag says, on white where it is transparent."""
    return _guarded(path, _photo)


def read_raster(path: Path) -> Raster:
    """The image in its own colours and depth, upright as its EXIF tag says."""
    return _guarded(path, _raster)


def _guarded(path: Path, decode: Callable[[Path], Result]) -> Result:
    try:
        _check_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow reports oddities of metadata as warnings
            return decode(path)
    except Exception as error:  # what a decoder raises on damaged bytes is not a closed list
        raise FileError(f"cannot read {str(path)!r}: {' '.join(_reason(error).split())}") from error


def _check_file(path: Path) -> None:
    """Refuses what should not even be opened: a pipe might never send anything."""
    if path.is_dir():
        raise FileError("it is a directory")
    if path.exists() and not path.is_file():
        raise FileError("not a regular file")
    if path.stat().st_size == 0:
        raise FileError("the file is empty")


def _reason(error: Exception) -> str:
    if isinstance(error, FileError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"broken or unsupported image ({error})"


def _photo(path: Path) -> Photo:
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if _is_deep_grey(image):
        return np.repeat(_scaled(np.asarray(image), 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _raster(path: Path) -> Raster:
    with Image.open(path) as file:
        swapped = _swapped(file)
        image = ImageOps.exif_transpose(file)
    levels = _levels(image)
    if swapped:
        with Image.open(path) as file:
            file.tile = swapped
            low = _levels(ImageOps.exif_transpose(file))
        levels = np.left_shift(levels, 8, dtype=np.uint16) | low
    keeps_colours = image.mode in ("L", "LA", "P", "RGB", "RGBA") or _is_deep_grey(image)
    return Raster(levels, image.info.get("icc_profile") or b"" if keeps_colours else b"")


def _swapped(file: Image.Image) -> list[ImageFile._Tile]:
    """What makes Pillow read the low bytes of 16-bit colours: of each two it keeps the one it takes for the high one.

    Empty for all other images.
    """
    order = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    swapped = []
    for tile in getattr(file, "tile", []):
        mode, *others = (tile.args,) if isinstance(tile.args, str) else tile.args
        kind, _, depth = mode.partition(";16")
        if kind not in ("RGB", "RGBA") or depth not in order or "transparency" in file.info:
            return []
        mode = f"{kind};16{order[depth]}"
        swapped.append(tile._replace(args=(mode, *others) if others else mode))
    return swapped


def _levels(image: Image.Image) -> Levels:
    """`[height, width, channels]`, deep grey as 16 bits, any other image as 8."""
    if _is_deep_grey(image):
        return _scaled(np.asarray(image), 65535).astype(np.uint16)[..., None]
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode += "A"
    levels: Photo = np.asarray(image.convert(mode))
    return levels if levels.ndim == 3 else levels[..., None]


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _scaled(levels: NDArray[np.generic], top: int) -> NDArray[np.float64]:
    """Grey levels to 0..top: from 16 bits or from 0..1 where they fit those, else from their own range."""
    values = levels.astype(np.float64)
    if not np.isfinite(values).all():
        raise FileError("it holds values that are not finite")
    low, high = 0.0, 1.0 if levels.dtype.kind == "f" else 65535.0
    if values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    return np.rint((values - low) * (top / ((high - low) or 1)))
