# SPDX-License-Identifier: Apache-2.0
"""The canonical description of a transposed convolution: what every framework's arguments come down to.

Every rule of padding that a framework documents cuts, of the full result of each axis, a number of cells before it and
a number after it, and neither depends on the length of the input; where a result is longer than that, zeros follow it.
So two numbers per axis say exactly what names of paddings, output shapes and output paddings say.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backstride import _arguments as arguments
from backstride import _ops, nn
from backstride._geometry import Axis, Crop, Geometry

FIELDS = ("kernel", "stride", "dilation", "crop", "in_channels", "out_channels", "groups", "channels_first", "bias")


@dataclass(frozen=True, init=False, repr=False)
class ConvTranspose:
    """A transposed convolution layer, without its weights and for inputs of any size.

    >>> from backstride import convert
    >>> layer = convert.ConvTranspose((5, 5), stride=2, crop=(1, 2), in_channels=16, out_channels=3)
    >>> layer.output((16, 16))
    (32, 32)
    >>> layer == convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)
    True

    Input cell i stamps the filter, tap k onto cell `i * stride + k * dilation` of the full result, which has
    `(input - 1) * stride + (kernel - 1) * dilation + 1` cells. Of these `crop` cuts off so many before and so many
    after; a negative number adds zeros instead. The bias is added last, to those zeros too.

    Args:
        kernel: the number of taps of each axis, one to three positive ints, or one for an only axis.
        stride, dilation: a positive int per axis, or one for all.
        crop: a (before, after) pair of ints per axis, or one for all.
        in_channels, out_channels, groups: positive ints; `groups` divides both numbers of channels.
        channels_first: whether arrays are `[batch, channels, *axes]` instead of `[batch, *axes, channels]`.
        bias: whether the layer adds a number to each output channel.

    Raises:
        TypeError, ValueError: for anything else.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    crop: Crop
    in_channels: int
    out_channels: int
    groups: int
    channels_first: bool
    bias: bool

    def __init__(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        crop: Any = 0,
        in_channels: int = 1,
        out_channels: int = 1,
        groups: int = 1,
        channels_first: bool = False,
        bias: bool = True,
    ) -> None:
        taps = arguments.kernel("kernel", kernel, 1)
        if not 1 <= (rank := len(taps)) <= 3:
            raise ValueError(f"`kernel` must have one to three ints, one per axis; got {kernel=}")
        channels = {"groups": groups, "in_channels": in_channels, "out_channels": out_channels}
        flags = {"channels_first": channels_first, "bias": bias}
        fields = {
            "kernel": arguments.layer_ints("kernel", taps, rank),
            "stride": arguments.layer_ints("stride", stride, rank),
            "dilation": arguments.layer_ints("dilation", dilation, rank),
            "crop": arguments.pairs("crop", crop, rank),
            **{name: arguments.count(name, value) for name, value in channels.items()},
        }
        for name in ("in_channels", "out_channels"):
            if channels[name] % groups:
                raise ValueError(f"`groups` must divide `{name}`; got {groups=} and {name}={channels[name]}")
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"`{name}` must be a bool; got {name}={flag!r}")
        for name, value in (fields | flags).items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """What differs from the defaults, in the order of the arguments."""
        plain = ConvTranspose(self.kernel)
        said = [f"{name}={getattr(self, name)!r}" for name in FIELDS if getattr(self, name) != getattr(plain, name)]
        return f"ConvTranspose({', '.join([repr(self.kernel), *said])})"

    def _repr_svg_(self) -> str:
        """In notebooks: a picture of what the layer does to four cells along each axis."""
        from backstride._explain import picture

        return picture.notebook_svg(self)

    def _repr_html_(self) -> str:
        """In notebooks: the same picture under the text."""
        from backstride._explain import picture

        return picture.notebook_html(self)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """The cells of each axis from the first to the last tap."""
        return tuple((taps - 1) * step + 1 for taps, step in zip(self.kernel, self.dilation, strict=True))

    @property
    def filter_shape(self) -> tuple[int, ...]:
        """The shape of the filter, in TensorFlow's order: `[*kernel, out_channels // groups, in_channels]`."""
        return *self.kernel, self.out_channels // self.groups, self.in_channels

    def output(self, input: int | Sequence[int]) -> tuple[int, ...]:
        """The spatial lengths of the result, from those of the input; of no input cells there is no result."""
        return tuple(
            max((cells - 1) * stride + extent - sum(crop), 0) if cells else 0
            for cells, stride, extent, crop in zip(
                self._lengths(input), self.stride, self.extent, self.crop, strict=True
            )
        )

    def _lengths(self, input: Any) -> tuple[int, ...]:
        lengths = arguments.lengths("input", input)
        lengths = lengths * self.rank if len(lengths) == 1 else lengths
        if len(lengths) != self.rank:
            raise ValueError(f"`input` must be {self.rank} lengths, one per axis of {self!r}; got input={input!r}")
        return lengths

    def geometry(self, batch: int, input: int | Sequence[int]) -> Geometry:
        """The layer at these sizes, as the whole package describes a call."""
        axes = tuple(
            Axis(*axis)
            for axis in zip(
                self._lengths(input),
                self.kernel,
                self.output(input),
                self.stride,
                self.dilation,
                (before for before, _ in self.crop),
                strict=True,
            )
        )
        return Geometry(axes, batch, self.in_channels, self.out_channels, self.groups, self.channels_first)

    def __call__(self, input: Any, filters: Any, bias: Any = None) -> Any:
        """The layer's result, from arrays of any supported library.

        >>> import numpy as np
        >>> from backstride import convert
        >>> layer = convert.ConvTranspose(3, stride=2, crop=(0, 1))
        >>> layer(np.float32([[[1], [2], [3]]]), np.float32([1, 10, 100]).reshape(3, 1, 1)).ravel()
        array([  1.,  10., 102.,  20., 203.,  30.], dtype=float32)

        Args:
            input: array `[batch, *axes, in_channels]`, or `[batch, in_channels, *axes]`.
            filters: array of `filter_shape` and the input's dtype.
            bias: None, or an array of `out_channels` numbers.
        """
        (_, x), (_, w) = arguments.arrays(
            self.rank + 2, arguments.Argument("input", input), arguments.Argument("filters", filters)
        )
        if tuple(w.shape) != self.filter_shape:
            raise ValueError(f"`filters` must have shape {self.filter_shape}; got {tuple(w.shape)}")
        batch, *lengths, channels = arguments.channels_last(x.shape) if self.channels_first else x.shape
        arguments.check_channels("input", channels, "filters", self.in_channels)
        result = _ops.derivative("output", self.geometry(batch, lengths), x, w)
        return result if bias is None else nn.bias_add(result, bias, "NC..." if self.channels_first else "N...C")

    def replace(self, **changes: Any) -> ConvTranspose:
        """The same with some fields changed."""
        return dataclasses.replace(self, **changes)

    def cropped(self, crop: Any) -> ConvTranspose:
        """The layer whose result is this one's with so many more cells cut off."""
        more = arguments.pairs("crop", crop, self.rank)
        both = tuple((a + c, b + d) for (a, b), (c, d) in zip(self.crop, more, strict=True))
        return self.replace(crop=both)

    def to_json(self) -> str:
        """All fields, as a JSON object."""
        return json.dumps({name: getattr(self, name) for name in FIELDS})

    @staticmethod
    def from_json(text: str) -> ConvTranspose:
        """The layer that `to_json` wrote."""
        if not isinstance(text, str):
            raise TypeError(f"`text` must be what `to_json` wrote; got {arguments.shown(text)}")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`text` is no JSON: {error}") from None
        if not isinstance(fields, dict) or "kernel" not in fields or not fields.keys() <= set(FIELDS):
            raise ValueError(f"`text` must be a JSON object of {', '.join(FIELDS)}; got {arguments.shown(fields)}")
        return ConvTranspose(**fields)
