# SPDX-License-Identifier: Apache-2.0
"""The layouts of libraries that put channels second, and input channels first in filters."""

from __future__ import annotations

import numpy as np


def first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 1, -1)


def filter_first(filter: np.ndarray) -> np.ndarray:
    """`[in_channels, out_channels / groups, *kernel]`."""
    rank = filter.ndim - 2
    return np.ascontiguousarray(filter.transpose(rank + 1, rank, *range(rank)))


def filter_last(filter: np.ndarray) -> np.ndarray:
    """Undoes `filter_first`."""
    return filter.transpose(*range(2, filter.ndim), 1, 0)
