# SPDX-License-Identifier: Apache-2.0
"""An image enlarged in tiles, so that memory is bounded; no bit of the result tells where they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)

TILE = 128  # pixels of the small image, each way; 32 channels of a tile are 2.6 MB


def bands(
    enlarge: Callable[[NDArray[Number]], NDArray[Number]],
    image: NDArray[Number],
    scale: int,
    halo: int,
    tile: int = TILE,
) -> Iterator[NDArray[Number]]:
    """The rows of `enlarge(image)`, some at a time, from top to bottom.

    `enlarge` makes `scale` times the size, where each pixel follows from those of `image` up to `halo` away.
    """
    height, width = image.shape[:2]
    for rows, kept_rows in _spans(height, scale, halo, tile):
        tiles = [enlarge(image[rows, columns])[kept_rows, kept] for columns, kept in _spans(width, scale, halo, tile)]
        yield np.concatenate(tiles, axis=1)


def _spans(length: int, scale: int, halo: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Of each tile along one axis, what to enlarge, and which part of that to keep."""
    for begin in range(0, length, tile):
        end, first = min(begin + tile, length), max(begin - halo, 0)
        yield slice(first, min(end + halo, length)), slice((begin - first) * scale, (end - first) * scale)
