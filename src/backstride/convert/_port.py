# SPDX-License-Identifier: Apache-2.0
"""A layer as one framework says it: its arguments, what is still to be cut from its result, its filter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backstride import _arguments
from backstride._arguments import AXES
from backstride._geometry import Crop
from backstride.convert import _weights
from backstride.convert._layer import ConvTranspose
from backstride.convert._weights import LAYOUTS, Layout


@dataclass(frozen=True, eq=False)
class Framework:
    """What is to be known of a framework besides how it crops.

    Attributes:
        name: what it is called here.
        read: the function that makes a `ConvTranspose` of the framework's arguments, which are its positional ones.
        write: the function that makes a `Port` of a `ConvTranspose`.
        code: the function that makes code of a `Port`.
        layout: the name of how it lays out the filter.
        channels_first: how it takes arrays; None is both ways.
        bias: the argument that says whether there is a bias; None if it is added by itself.
        ranks: for how many axes it has layers.
        groups, dilations: whether it can say those of a layer; if not, its filter is written with zeros.
        every_size: whether its arguments hold for inputs of every size, not of one size only.
    """

    name: str
    read: Callable[..., ConvTranspose]
    write: Callable[[ConvTranspose], Port]
    code: Callable[[Port], str]
    layout: str
    channels_first: bool | None = None
    bias: str | None = None
    ranks: tuple[int, ...] = (1, 2, 3)
    groups: Callable[[ConvTranspose], bool] = lambda layer: True
    dilations: Callable[[ConvTranspose], bool] = lambda layer: True
    every_size: bool = True

    def check_rank(self, rank: int) -> None:
        """Refuses a layer of a number of axes for which the framework has none."""
        if rank not in self.ranks:
            ranks = " and ".join(f"{rank}-D" for rank in self.ranks)
            raise ValueError(f"{self.name} has transposed convolutions in {ranks} only; got one in {rank}-D")

    def told(self, layer: ConvTranspose) -> ConvTranspose:
        """The layer as the framework has to be told it: without groups or dilations, if it has none."""
        if not isinstance(layer, ConvTranspose):
            raise TypeError(f"`layer` must be a ConvTranspose; got {_arguments.shown(layer)}")
        self.check_rank(layer.rank)
        if not self.groups(layer):
            layer = layer.replace(groups=1)
        if not self.dilations(layer):
            layer = layer.replace(kernel=layer.extent, dilation=1)
        return layer

    def port(
        self, layer: ConvTranspose, said: Mapping[str, Any], left: Crop, usual: Usual | None, layout: str | None = None
    ) -> Port:
        """The port of `layer` to the arguments that `said` has, from whose result `left` is still to be cut."""
        if self.bias:
            said = {**said, self.bias: layer.bias and not _adds_zeros(left)}
        arguments = {name: said[name] for name in inspect.signature(self.read).parameters if name in said}
        return Port(self, layer, arguments, left, usual, LAYOUTS[layout or self.layout])


@dataclass(frozen=True)
class Usual:
    """What people write who only look at the length of the result, and what that cuts."""

    arguments: str
    crop: Crop


@dataclass(frozen=True)
class Port:
    """A layer in the terms of one framework.

    >>> from backstride import convert
    >>> layer = convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)
    >>> port = convert.to_torch(layer)
    >>> port.arguments["padding"], port.crop, port.shift
    ((1, 1), ((0, 1), (0, 1)), (1, 1))
    >>> print(port.code)
    import torch
    <BLANKLINE>
    layer = torch.nn.ConvTranspose2d(16, 3, 5, stride=2, padding=1)
    y = layer(x)[:, :, :-1, :-1]

    Attributes:
        framework: which one, with its `name`.
        layer: what is said.
        arguments: the framework's own, by name; `framework.read` says what they mean.
        crop: (before, after) pairs of cells that are still to be cut from its result; of negative numbers, zeros to be
            added. All are 0 where the framework's arguments say everything.
        usual: what people write who only look at the length of the result; None if that can't be had so.
        layout: how it lays out the filter.
    """

    framework: Framework
    layer: ConvTranspose
    arguments: Mapping[str, Any]
    crop: Crop
    usual: Usual | None
    layout: Layout

    @property
    def exact(self) -> bool:
        """Whether the framework's own arguments say everything, so that nothing is left to cut."""
        return not any(map(any, self.crop))

    @property
    def every_size(self) -> bool:
        """Whether the port holds for inputs of every size, not of one size only."""
        return self.framework.every_size

    @property
    def said(self) -> ConvTranspose:
        """The layer that the framework's arguments say by themselves, of whose result `crop` is cut."""
        return self.framework.told(self.layer).cropped(tuple((-before, -after) for before, after in self.crop))

    @property
    def shift(self) -> tuple[int, ...]:
        """By how many cells the usual recipe's result lies too near the beginning, along each axis; 0 is right."""
        if self.usual is None:
            return (0,) * self.layer.rank
        return tuple(usual - right for (usual, _), (right, _) in zip(self.usual.crop, self.layer.crop, strict=True))

    @property
    def channels_first(self) -> bool:
        """How this port takes arrays."""
        first = self.framework.channels_first
        return self.layer.channels_first if first is None else first

    @property
    def bias_after(self) -> bool:
        """Whether the bias is to be added by itself, after what is left to be cut or added."""
        return self.layer.bias and (self.framework.bias is None or _adds_zeros(self.crop))

    @property
    def code(self) -> str:
        """The call, with `x`, `weight` and `bias` for the arrays and `y` for the result."""
        return self.framework.code(self)

    def weights(self, filters: Any) -> Any:
        """The filter, given in TensorFlow's order, as this port wants it; an array of the same library."""
        ((_, filters),) = _arguments.of_one_library(_arguments.Argument("filters", filters))
        layer, framework = self.layer, self.framework
        if tuple(filters.shape) != layer.filter_shape:
            raise ValueError(f"`filters` must have shape {layer.filter_shape}; got {tuple(filters.shape)}")
        if not framework.dilations(layer):
            filters = _weights.spread(filters, layer.dilation)
        if not framework.groups(layer):
            return self.layout.write(_weights.dense(filters, layer.groups))
        return self.layout.write(filters, layer.groups)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the code has to know, in sentences."""
        layer, name, notes = self.layer, self.framework.name, []
        if not self.exact:
            notes.append(f"{name} has no arguments for this layer: {_recipe(self.crop)}.")
        if self.usual and any(self.shift):
            usual = self.usual.arguments
            notes.append(f"The usual recipe, {usual}, has the right length and is shifted {moved(self.shift)}.")
        if not self.every_size:
            notes.append(f"{name} has the lengths of the result in the file; as constants, for one size of input only.")
        if layer.groups > 1 and not self.framework.groups(layer):
            notes.append(f"{name} has no groups here: the filter is block-diagonal, {layer.groups} times the work.")
        if max(layer.dilation) > 1 and not self.framework.dilations(layer):
            notes.append(f"{name} has no dilations here: the filter has taps of zeros between its own.")
        if self.channels_first and name.startswith("tf."):
            notes.append("TensorFlow computes channels first on GPUs only; backstride does anywhere.")
        if self.channels_first != layer.channels_first:
            notes.append(f"{name} takes arrays with channels {'first' if self.channels_first else 'last'}.")
        return tuple(notes)


def never(layer: ConvTranspose) -> bool:
    """What a framework without groups, or without dilations, can say of them."""
    return False


def _adds_zeros(crop: Crop) -> bool:
    return any(cells < 0 for pair in crop for cells in pair)


def _recipe(crop: Crop) -> str:
    """What is to be done to a result, in words."""
    steps = []
    for axis, (before, after) in zip(AXES[len(crop)], crop, strict=True):
        for cells, end in (before, "beginning"), (after, "end"):
            if cells:
                steps.append(f"{'cut' if cells > 0 else 'add zeros,'} {_pixels(cells)} at the {end} of the {axis}")
    return ", ".join(steps)


def moves(shift: Sequence[int]) -> list[tuple[int, str]]:
    """By how many pixels and where to a shift moves a result, along each axis along which it does."""
    ways = {"width": ("left", "right"), "height": ("up", "down"), "depth": ("to the front", "to the back")}
    return [(abs(cells), ways[axis][cells < 0]) for axis, cells in zip(AXES[len(shift)], shift, strict=True) if cells]


def moved(shift: Sequence[int]) -> str:
    """The same in words."""
    return "by " + " and ".join(f"{_pixels(count)} {way}" for count, way in moves(shift))


def _pixels(count: int) -> str:
    return f"{abs(count)} pixel{'s' if abs(count) != 1 else ''}"
