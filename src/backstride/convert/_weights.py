# SPDX-License-Identifier: Apache-2.0
"""How frameworks lay out the filter of a transposed convolution, and filters for those without groups or dilations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backstride import _arguments as arguments
from backstride import _backends


@dataclass(frozen=True)
class Layout:
    """One order of a filter's dimensions.

    >>> import numpy as np
    >>> from backstride import convert
    >>> filters = np.zeros((5, 4, 3, 16), np.float32)  # height, width, out channels, in channels: TensorFlow's order
    >>> convert.LAYOUTS["torch"].write(filters).shape
    (16, 3, 5, 4)

    Arrays of every supported library are taken, and come back as such; with gradients, where the library has them.

    Attributes:
        order: 'K' for the axes, 'I' and 'O' for the input and output channels, as they follow each other.
        flipped: whether the last tap comes first, as where a convolution is run over an input with zeros put between.
        grouped: which of 'I' and 'O' counts the channels of one group; the other one counts all.
    """

    order: str
    flipped: bool = False
    grouped: str = "O"

    def write(self, filters: Any, groups: int = 1) -> Any:
        """A filter in TensorFlow's order, `[*kernel, out_channels // groups, in_channels]`, in this one."""
        filters = _array("filters", filters)
        *kernel, out_channels, in_channels = filters.shape
        share = _share("filters", in_channels, groups)
        if self.grouped == "I" and groups > 1:
            filters = filters.reshape(*kernel, out_channels, groups, share)
            filters = _transposed(filters, [*range(len(kernel)), -2, -3, -1]).reshape(
                *kernel, -1, in_channels // groups
            )
        if self.flipped:
            filters = _flipped(filters, range(len(kernel)))
        return _transposed(filters, self._places(len(kernel)))

    def read(self, weights: Any, groups: int = 1) -> Any:
        """Weights in this order in TensorFlow's: the inverse of `write`."""
        weights = _array("weights", weights)
        places = self._places(weights.ndim - 2)
        filters = _transposed(weights, [places.index(n) for n in range(weights.ndim)])
        *kernel, out_channels, in_channels = filters.shape
        share = _share("weights", out_channels if self.grouped == "I" else in_channels, groups)
        if self.flipped:
            filters = _flipped(filters, range(len(kernel)))
        if self.grouped == "I" and groups > 1:
            filters = filters.reshape(*kernel, groups, share, in_channels)
            filters = _transposed(filters, [*range(len(kernel)), -2, -3, -1]).reshape(
                *kernel, out_channels // groups, groups * in_channels
            )
        return filters

    def _places(self, rank: int) -> list[int]:
        """Where TensorFlow's order has what this one has one after the other."""
        places = {"K": range(rank), "O": [rank], "I": [rank + 1]}
        return [n for letter in self.order for n in places[letter]]


# By the name of the framework whose layers keep their filter so. Where JAX's `transpose_kernel` is true, it is
# TensorFlow's order, by its own documentation.
LAYOUTS = {
    "tensorflow": Layout("KOI"),
    "torch": Layout("IOK"),
    "jax": Layout("KIO", flipped=True, grouped="I"),
    "haiku": Layout("KOI", flipped=True),
    "equinox": Layout("OIK", flipped=True, grouped="I"),
    "mlx": Layout("OKI"),
    "tflite": Layout("OKI"),
}


def dense(filters: Any, groups: int) -> Any:
    """The filter of a layer without groups that does the same: zeros wherever two groups would meet."""
    namespace = _backends.of(filters).namespace
    share = filters.shape[-1] // groups
    columns = []
    for group in range(groups):
        block = filters[..., group * share : (group + 1) * share]
        zeros = namespace.zeros_like(block)
        columns.append(namespace.concatenate([block if n == group else zeros for n in range(groups)], -2))
    return namespace.concatenate(columns, -1)


def spread(filters: Any, dilation: Sequence[int]) -> Any:
    """The filter of a layer without dilations that does the same: with taps of zeros between its own."""
    namespace = _backends.of(filters).namespace
    for axis, step in enumerate(dilation):
        taps = [filters[(slice(None),) * axis + (slice(n, n + 1),)] for n in range(filters.shape[axis])]
        between = [namespace.zeros_like(taps[0])] * (step - 1)
        filters = namespace.concatenate([taps[0], *(part for tap in taps[1:] for part in (*between, tap))], axis)
    return filters


def _array(name: str, value: Any) -> Any:
    ((_, array),) = arguments.of_one_library(arguments.Argument(name, value))
    if not 3 <= array.ndim <= 5:
        raise ValueError(f"`{name}` must have one to three axes and two of channels; got shape {tuple(array.shape)}")
    return array


def _share(name: str, channels: int, groups: int) -> int:
    """The channels of one group, of so many in all."""
    if channels % arguments.count("groups", groups):
        raise ValueError(f"`groups` must divide the {channels} channels of `{name}`; got {groups=}")
    return channels // groups


def _transposed(array: Any, order: Sequence[int]) -> Any:
    order = [n % array.ndim for n in order]
    return array.permute(order) if hasattr(array, "permute") else array.transpose(order)


def _flipped(array: Any, axes: Sequence[int]) -> Any:
    """`array` with these axes backwards. Not every library has steps below 0, but each takes an array of places."""
    for axis in axes:
        array = array[(slice(None),) * axis + (np.arange(array.shape[axis])[::-1].copy(),)]
    return array
