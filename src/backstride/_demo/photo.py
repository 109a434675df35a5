# SPDX-License-Identifier: Apache-2.0
"""Photographs in: any file that Pillow reads becomes 8-bit RGB, anything else one sentence."""

from __future__ import annotations

import importlib.resources
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Photo = NDArray[np.uint8]

# The 300 x 451 of the cat make the chain's middle stages odd; the 512 x 512 of the astronaut keep them even.
SAMPLES = ("chelsea.png", "astronaut.png")
SAMPLE_FOLDER = importlib.resources.files("skimage") / "data"


class PhotoError(Exception):
    """A file that can't be used as a photograph; the message is one line."""


def sample_photos() -> list[Path]:
    """The photographs that ship inside scikit-image's wheel, so that nothing is downloaded."""
    return [Path(str(SAMPLE_FOLDER / name)) for name in SAMPLES]


def read_photo(path: Path) -> Photo:
    """The image as `[height, width, 3]`, upright as its EXIF tag says, on white where it is transparent."""
    try:
        _check_file(path)
        return _decode(path)
    except Exception as error:  # what a decoder raises on damaged bytes is not a closed list
        raise PhotoError(f"cannot read {str(path)!r}: {' '.join(_reason(error).split())}") from error


def _check_file(path: Path) -> None:
    """Refuses what should not even be opened: a pipe might never send anything."""
    if path.is_dir():
        raise PhotoError("it is a directory")
    if path.exists() and not path.is_file():
        raise PhotoError("not a regular file")
    if path.stat().st_size == 0:
        raise PhotoError("the file is empty")


def _reason(error: Exception) -> str:
    if isinstance(error, PhotoError):
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


def _decode(path: Path) -> Photo:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow reports oddities of metadata as warnings
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Photo:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_to_8_bits(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _to_8_bits(levels: NDArray[np.generic]) -> Photo:
    """Grey levels to 0..255: from 16 bits or from 0..1 where they fit those, else from their own range."""
    values = levels.astype(np.float64)
    if not np.isfinite(values).all():
        raise PhotoError("it holds values that are not finite")
    low, high = 0.0, 1.0 if levels.dtype.kind == "f" else 65535.0
    if values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    return np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)
