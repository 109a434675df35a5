# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's names of paddings, which Keras, JAX and TFLite have as well, and which layers they can say."""

from __future__ import annotations

from collections.abc import Sequence

from backstride._geometry import Crop, Layer
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Usual


def crop(layer: ConvTranspose, same: bool, lengths: Sequence[int] | None = None) -> Crop:
    """What SAME or VALID crops, where the results of one input cell have these lengths, or those `tf.layers` chooses.

    Since results of all lengths are cropped alike, one cell is as good as any other number.
    """
    rule = Layer(layer.kernel, layer.stride, layer.dilation, None if same else ((0, 0),) * layer.rank)
    pairs = []
    for n in range(layer.rank):
        length = rule.chosen_output(n, 1) if lengths is None else lengths[n]
        before = rule.axis(n, 1, length).pad
        pairs.append((before, rule.extent(n) - length - before))
    return tuple(pairs)


def lengths(layer: ConvTranspose) -> tuple[int, ...]:
    """The lengths of the result of one input cell, also where they are none or negative."""
    return tuple(extent - sum(pair) for extent, pair in zip(layer.extent, layer.crop, strict=True))


def is_same(layer: ConvTranspose) -> bool:
    """Whether SAME, with the right lengths, is this layer; they are legal from 1 to the stride, of one input cell."""
    legal = all(1 <= length <= stride for length, stride in zip(lengths(layer), layer.stride, strict=True))
    return legal and crop(layer, True, lengths(layer)) == layer.crop


def is_valid(layer: ConvTranspose) -> bool:
    """Whether VALID, with the right lengths, is this layer: nothing is cut, and zeros for less than a stride follow."""
    return all(
        before == 0 and -stride < after <= 0 for (before, after), stride in zip(layer.crop, layer.stride, strict=True)
    )


def left(layer: ConvTranspose, cropped: Crop) -> Crop:
    """What is still to be cut of a result that is cropped so."""
    return tuple((a - c, b - d) for (a, b), (c, d) in zip(layer.crop, cropped, strict=True))


def usual(layer: ConvTranspose, name: str, shortened: bool = False) -> Usual | None:
    """What ports by name usually have: SAME, for `input * stride` cells, or fewer where they can be `shortened`."""
    legal = (
        length == stride or (shortened and 1 <= length < stride)
        for length, stride in zip(lengths(layer), layer.stride, strict=True)
    )
    return Usual(name, crop(layer, True, lengths(layer))) if all(legal) else None
