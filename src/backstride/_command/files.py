# SPDX-License-Identifier: Apache-2.0
"""Files that can't be used, pictures as files, and names for them."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from PIL import Image

from backstride._files import whole_file


class FileError(Exception):
    """A file that can't be used; the message is one line."""


def write_png(picture: Image.Image, path: Path) -> None:
    """The picture as a file, whole or not at all."""
    with whole_file(path) as file:
        picture.save(file, format="PNG", optimize=True)


def paths_for(photos: list[Path], folder: Path, ending: str) -> list[Path]:
    """A name in `folder` for each photo's picture, none of them another's or that of a photo."""
    taken = {path.resolve() for path in photos}
    pictures: list[Path] = []
    for path in photos:
        names = (f"{path.stem}{ending}{'' if n == 1 else f'-{n}'}.png" for n in count(1))
        picture = next(folder / name for name in names if (folder / name).resolve() not in taken)
        taken.add(picture.resolve())
        pictures.append(picture)
    return pictures
