# SPDX-License-Identifier: Apache-2.0
"""A layer of a file: its name, what it does, its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backstride import _arguments as arguments
from backstride import _backends
from backstride.convert._layer import ConvTranspose


@dataclass(frozen=True, eq=False)
class NamedLayer:
    """A transposed convolution with its weights, as `load` finds it and `save` writes it.

    >>> import numpy as np
    >>> from backstride import convert
    >>> layer = convert.from_torch(16, 3, 4, stride=2, padding=1, bias=False)
    >>> up = convert.NamedLayer("decoder.up", layer, np.ones((4, 4, 3, 16), np.float32))
    >>> up(np.ones((1, 16, 8, 8), np.float32)).shape
    (1, 3, 16, 16)

    Args:
        name: what it is called.
        layer: what it does.
        filters: array of `layer.filter_shape` of any supported library and a floating dtype; kept as a NumPy array.
        bias: array of `layer.out_channels` numbers, or None if the layer has no bias.

    Raises:
        TypeError, ValueError: if `filters` or `bias` is not what `layer` needs.
    """

    name: str
    layer: ConvTranspose
    filters: np.ndarray
    bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.layer.bias != (self.bias is not None):
            needed = "an array, since the layer has a bias" if self.layer.bias else "None, since the layer has no bias"
            raise ValueError(f"`bias` of {self.name!r} must be {needed}; got bias={arguments.shown(self.bias)}")
        object.__setattr__(self, "filters", self._array("filters", self.filters, self.layer.filter_shape))
        if self.bias is not None:
            object.__setattr__(self, "bias", self._array("bias", self.bias, (self.layer.out_channels,)))

    def _array(self, field: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        ((_, array),) = arguments.of_one_library(arguments.Argument(field, value))
        array = _backends.of(array).to_numpy(array)
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise TypeError(f"`{field}` of {self.name!r} must have a floating dtype; got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"`{field}` of {self.name!r} must have shape {shape}; got {array.shape}")
        return array

    def __call__(self, input: Any) -> Any:
        """The layer's result; see `ConvTranspose.__call__`."""
        return self.layer(input, self.filters, self.bias)
