# SPDX-License-Identifier: Apache-2.0
"""JAX's convention, which Flax, Haiku and Equinox share: a convolution over the input with zeros put between.

Its explicit pairs count what the spread input is padded by, so they say everything: a crop of c cells is a padding by
`(kernel - 1) * dilation - c`. With `use_consistent_padding=True`, and in Equinox, they count what is cropped instead.
Sources: the documentation of `jax.lax.conv_transpose`, `flax.linen.ConvTranspose`, `flax.nnx.ConvTranspose`,
`haiku.ConvNDTranspose` and `equinox.nn.ConvTranspose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backstride import _arguments as arguments
from backstride._geometry import Crop
from backstride.convert import _same
from backstride.convert._code import Python
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Framework, Port, never
from backstride.convert._tensorflow import from_tf_nn

# The axes' letters in JAX's default dimension numbers.
AXES = {1: "H", 2: "HW", 3: "HWD"}


def from_lax(
    rhs: Any,
    strides: Any,
    padding: Any,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    use_consistent_padding: bool = False,
    *,
    bias: bool = True,
) -> ConvTranspose:
    """The layer of a call of `jax.lax.conv_transpose`, and of an addition of a bias after it.

    >>> from backstride import convert
    >>> convert.from_lax((5, 5, 16, 3), (2, 2), "SAME").crop
    ((1, 2), (1, 2))
    >>> convert.from_lax((5, 5, 16, 3), (2, 2), [(2, 3), (2, 3)]).crop
    ((2, 1), (2, 1))

    Args:
        rhs: the filter or its shape, `[*kernel, in_channels, out_channels]` unless `dimension_numbers` say otherwise.
        strides, padding, rhs_dilation, dimension_numbers, transpose_kernel, use_consistent_padding: as JAX documents.
        bias: whether one is added.
    """
    shape = arguments.lengths("rhs", getattr(rhs, "shape", rhs))
    rank = len(shape) - 2
    kernel, in_channels, out_channels, first = _numbers(shape, dimension_numbers)
    if transpose_kernel:
        in_channels, out_channels = out_channels, in_channels
    layer = _layer(kernel, strides, rhs_dilation, in_channels, out_channels, first, bias)
    if isinstance(padding, str):
        return layer.replace(crop=_by_name(layer, padding))
    pairs = _pairs(padding, rank)
    return layer.replace(crop=pairs if use_consistent_padding else _turned(layer, pairs))


def from_conv_general_dilated(
    rhs: Any,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    *,
    bias: bool = True,
) -> ConvTranspose:
    """The layer of a call of `jax.lax.conv_general_dilated` whose windows make steps of 1 over a spread input.

    >>> from backstride import convert
    >>> convert.from_conv_general_dilated((4, 4, 1, 8), (1, 1), [(2, 2)] * 2, (2, 2), feature_group_count=8).output(16)
    (32, 32)

    Args:
        rhs: the filter or its shape, `[*kernel, in_channels // feature_group_count, out_channels]` unless
            `dimension_numbers` say otherwise.
        window_strides: 1.
        padding: pairs.
        lhs_dilation: the strides of the transposed convolution.
        rhs_dilation, dimension_numbers, feature_group_count: as JAX documents them.
        bias: whether one is added.
    """
    shape = arguments.lengths("rhs", getattr(rhs, "shape", rhs))
    rank = len(shape) - 2
    kernel, share, out_channels, first = _numbers(shape, dimension_numbers)
    if set(arguments.layer_ints("window_strides", window_strides, rank)) != {1}:
        raise ValueError(f"`window_strides` must be 1 in a transposed convolution; got {window_strides=}")
    if isinstance(padding, str):
        raise ValueError(f"`padding` must be pairs, whose meaning does not depend on the input; got {padding=}")
    groups = arguments.count("feature_group_count", feature_group_count)
    layer = _layer(kernel, lhs_dilation, rhs_dilation, share * groups, out_channels, first, bias, groups)
    return layer.replace(crop=_turned(layer, _pairs(padding, rank)))


def from_flax_linen(
    features: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Any = "SAME",
    kernel_dilation: int | Sequence[int] | None = None,
    use_bias: bool = True,
    transpose_kernel: bool = False,
    *,
    in_channels: int = 1,
) -> ConvTranspose:
    """The layer that `flax.linen.ConvTranspose` makes of these arguments; an int as `kernel_size` is of one axis.

    >>> from backstride import convert
    >>> convert.from_flax_linen(3, (5, 5), (2, 2), in_channels=16).output((16, 16))
    (32, 32)

    Args:
        features, kernel_size, strides, padding, kernel_dilation, use_bias: as Flax documents them.
        transpose_kernel: how the filter is laid out; it changes nothing else.
        in_channels: those of the input.
    """
    return from_flax_nnx(in_channels, features, kernel_size, strides, padding, kernel_dilation, use_bias=use_bias)


def from_flax_nnx(
    in_features: int,
    out_features: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Any = "SAME",
    kernel_dilation: int | Sequence[int] | None = None,
    use_bias: bool = True,
    transpose_kernel: bool = False,
) -> ConvTranspose:
    """The layer that `flax.nnx.ConvTranspose` makes of these arguments; an int as `kernel_size` is of one axis.

    >>> from backstride import convert
    >>> convert.from_flax_nnx(16, 3, (5, 5), (2, 2)).output((16, 16))
    (32, 32)

    Args:
        in_features, out_features, kernel_size, strides, padding, kernel_dilation, use_bias: as Flax documents them.
        transpose_kernel: how the filter is laid out; it changes nothing else.
    """
    kernel = arguments.kernel("kernel_size", kernel_size, 1)
    layer = _layer(kernel, strides, kernel_dilation, in_features, out_features, False, use_bias)
    if isinstance(padding, str):
        return layer.replace(crop=_by_name(layer, padding))
    return layer.replace(crop=_turned(layer, _pairs(padding, layer.rank, ints=True)))


def from_haiku(
    output_channels: int,
    kernel_shape: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    output_shape: int | Sequence[int] | None = None,
    padding: Any = "SAME",
    with_bias: bool = True,
    data_format: str | None = None,
    *,
    in_channels: int = 1,
    rank: int = 2,
    input: Any = None,
) -> ConvTranspose:
    """The layer that `haiku.Conv1DTranspose`, `Conv2DTranspose` or `Conv3DTranspose` makes of these arguments.

    >>> from backstride import convert
    >>> convert.from_haiku(3, 5, stride=2, output_shape=31, input=16).crop
    ((2, 2), (2, 2))

    Args:
        output_channels, kernel_shape, stride, output_shape, padding, with_bias, data_format: as documented.
        in_channels: those of the input.
        rank: how many axes there are where `kernel_shape` is an int.
        input: the spatial lengths of the input; needed with `output_shape`, which is for one size of input.
    """
    kernel = arguments.kernel("kernel_shape", kernel_shape, rank)
    first = arguments.channels_first(data_format, len(kernel))
    layer = _layer(kernel, stride, None, in_channels, output_channels, first, with_bias)
    if output_shape is not None:
        lengths = arguments.layer_ints("output_shape", output_shape, layer.rank)
        return layer.replace(crop=_sized(layer, padding, input, lengths))
    if isinstance(padding, str):
        return layer.replace(crop=_by_name(layer, padding))
    return layer.replace(crop=_turned(layer, _pairs(padding, layer.rank)))


def from_equinox(
    num_spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    use_bias: bool = True,
    padding_mode: str = "ZEROS",
) -> ConvTranspose:
    """The layer that `equinox.nn.ConvTranspose` makes of these arguments.

    >>> from backstride import convert
    >>> convert.from_equinox(2, 16, 3, 5, stride=2, padding=((1, 2), (1, 2))).output((16, 16))
    (32, 32)

    Args:
        num_spatial_dims, in_channels, out_channels, kernel_size, stride, padding: as Equinox documents them.
        output_padding, dilation, groups, use_bias, padding_mode: likewise.
    """
    if not isinstance(padding_mode, str) or padding_mode.upper() != "ZEROS":
        raise ValueError(
            f"`padding_mode` must be 'ZEROS'; 'CIRCULAR' is no transposed convolution; got {padding_mode=}"
        )
    kernel = arguments.layer_ints("kernel_size", kernel_size, num_spatial_dims)
    layer = _layer(kernel, stride, dilation, in_channels, out_channels, True, use_bias, groups)
    added = arguments.layer_ints("output_padding", output_padding, layer.rank, lowest=0)
    if any(more >= step for more, step in zip(added, layer.stride, strict=True)):
        raise ValueError(f"`output_padding` must be below the stride; got {output_padding=} with {stride=}")
    name = padding.upper() if isinstance(padding, str) else ""
    if name not in ("SAME", "SAME_LOWER"):
        pairs = ((0, 0),) * layer.rank if name == "VALID" else _pairs(padding, layer.rank, ints=True)
        return layer.replace(crop=tuple((a, b - more) for (a, b), more in zip(pairs, added, strict=True)))
    crop = []
    for extent, step, more in zip(layer.extent, layer.stride, added, strict=True):
        total = extent - step + more
        before = (max(total, 0) + (name == "SAME_LOWER")) // 2
        crop.append((before, total - before))
    return layer.replace(crop=tuple(crop))


def to_lax(layer: ConvTranspose, *, transpose_kernel: bool = False) -> Port:
    """The layer by `jax.lax.conv_transpose`, which has no groups; `to_conv_general_dilated` has them.

    >>> from backstride import convert
    >>> print(convert.to_lax(convert.from_torch(16, 3, 5, 2, 2, output_padding=1)).code)
    import jax
    <BLANKLINE>
    y = jax.lax.conv_transpose(
        x,
        weight,
        (2, 2),
        [(2, 3), (2, 3)],
        dimension_numbers=('NCHW', 'HWIO', 'NCHW'),
    )
    y = y + bias[:, None, None]

    Args:
        layer: any layer.
        transpose_kernel: whether the filter stays in TensorFlow's order.
    """
    told = LAX.told(layer)
    out_channels, in_channels = told.filter_shape[-2:]
    said: dict[str, Any] = {
        "rhs": told.filter_shape if transpose_kernel else (*told.kernel, in_channels, out_channels),
        "strides": told.stride,
        "padding": _named(told) or list(_turned(told, told.crop)),
        "rhs_dilation": told.dilation,
        "transpose_kernel": transpose_kernel,
    }
    if layer.channels_first:
        said["dimension_numbers"] = _first(layer.rank)
    nothing = ((0, 0),) * layer.rank
    return LAX.port(
        layer, said, nothing, _same.usual(layer, "padding='SAME'"), "tensorflow" if transpose_kernel else "jax"
    )


def to_conv_general_dilated(layer: ConvTranspose) -> Port:
    """The layer by `jax.lax.conv_general_dilated`.

    >>> from backstride import convert
    >>> convert.to_conv_general_dilated(convert.from_torch(8, 8, 4, 2, 1, groups=8)).arguments["rhs"]
    (4, 4, 1, 8)

    Args:
        layer: any layer.
    """
    layer = GENERAL.told(layer)
    said = {
        "rhs": (*layer.kernel, layer.in_channels // layer.groups, layer.out_channels),
        "window_strides": (1,) * layer.rank,
        "padding": list(_turned(layer, layer.crop)),
        "lhs_dilation": layer.stride,
        "rhs_dilation": layer.dilation,
        "dimension_numbers": _first(layer.rank) if layer.channels_first else _last(layer.rank),
        "feature_group_count": layer.groups,
    }
    return GENERAL.port(layer, said, ((0, 0),) * layer.rank, _same.usual(layer, "padding='SAME' of conv_transpose"))


def to_flax_linen(layer: ConvTranspose, *, transpose_kernel: bool = False) -> Port:
    """The layer by `flax.linen.ConvTranspose`, which has no groups.

    >>> from backstride import convert
    >>> print(convert.to_flax_linen(convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)).code)
    import flax.linen
    <BLANKLINE>
    layer = flax.linen.ConvTranspose(3, (5, 5), strides=(2, 2))
    y = layer.apply(variables, x)

    Args:
        layer: any layer.
        transpose_kernel: whether the filter stays in TensorFlow's order.
    """
    told = LINEN.told(layer)
    said = {"features": told.out_channels, **_flax(told, transpose_kernel)}
    layout = "tensorflow" if transpose_kernel else "jax"
    return LINEN.port(layer, said, ((0, 0),) * layer.rank, _same.usual(layer, "padding='SAME'"), layout)


def to_flax_nnx(layer: ConvTranspose, *, transpose_kernel: bool = False) -> Port:
    """The layer by `flax.nnx.ConvTranspose`, which has no groups.

    >>> from backstride import convert
    >>> convert.to_flax_nnx(convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)).arguments["padding"]
    'SAME'

    Args:
        layer: any layer.
        transpose_kernel: whether the filter stays in TensorFlow's order.
    """
    told = NNX.told(layer)
    said = {"in_features": told.in_channels, "out_features": told.out_channels, **_flax(told, transpose_kernel)}
    layout = "tensorflow" if transpose_kernel else "jax"
    return NNX.port(layer, said, ((0, 0),) * layer.rank, _same.usual(layer, "padding='SAME'"), layout)


def to_haiku(layer: ConvTranspose) -> Port:
    """The layer by `haiku.Conv1DTranspose`, `Conv2DTranspose` or `Conv3DTranspose`, without groups and dilations.

    >>> from backstride import convert
    >>> convert.to_haiku(convert.from_torch(16, 3, 5, 2, 2, output_padding=1)).arguments["padding"]
    [(2, 3), (2, 3)]

    Args:
        layer: any layer.
    """
    told = HAIKU.told(layer)
    said = {
        "output_channels": told.out_channels,
        "kernel_shape": told.kernel,
        "stride": told.stride,
        "padding": _named(told) or list(_turned(told, told.crop)),
    }
    if layer.channels_first:
        said["data_format"] = arguments.FORMATS[layer.rank][True]
    return HAIKU.port(layer, said, ((0, 0),) * layer.rank, _same.usual(layer, "padding='SAME'"))


def to_equinox(layer: ConvTranspose) -> Port:
    """The layer by `equinox.nn.ConvTranspose`, whose arrays have no batch.

    >>> from backstride import convert
    >>> convert.to_equinox(convert.from_keras(3, 5, strides=2, padding="same", in_channels=16)).arguments["padding"]
    ((1, 2), (1, 2))

    Args:
        layer: any layer.
    """
    layer = EQUINOX.told(layer)
    said = {
        "num_spatial_dims": layer.rank,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel,
        "stride": layer.stride,
        "padding": layer.crop,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    return EQUINOX.port(layer, said, ((0, 0),) * layer.rank, _same.usual(layer, "padding='SAME'"))


def _layer(
    kernel: tuple[int, ...],
    stride: Any,
    dilation: Any,
    in_channels: int,
    out_channels: int,
    first: bool,
    bias: bool,
    groups: int = 1,
) -> ConvTranspose:
    """The uncropped layer; strides and dilations of None are 1."""
    return ConvTranspose(
        kernel,
        arguments.layer_ints("strides", 1 if stride is None else stride, len(kernel)),
        arguments.layer_ints("dilation", 1 if dilation is None else dilation, len(kernel)),
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        channels_first=first,
        bias=bias,
    )


def _by_name(layer: ConvTranspose, padding: str) -> Crop:
    """What JAX's named paddings crop: what TensorFlow's do."""
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"`padding` must be 'SAME', 'VALID' or pairs of ints; got padding={padding!r}")
    return _same.crop(layer, padding == "SAME")


def _sized(layer: ConvTranspose, padding: str, input: Any, lengths: Sequence[int]) -> Crop:
    """What a named padding crops, of inputs and results of these lengths."""
    shape, format = layer.filter_shape, arguments.FORMATS[layer.rank][False]
    return from_tf_nn(shape, lengths, layer.stride, padding, format, input=input).crop


def _named(layer: ConvTranspose) -> str | None:
    """The name of the padding that says the layer, if one does."""
    return next((name for name in ("SAME", "VALID") if _by_name(layer, name) == layer.crop), None)


def _turned(layer: ConvTranspose, pairs: Sequence[tuple[int, int]]) -> Crop:
    """Paddings of the spread input as crops, and crops as paddings: they add up to the extent less one."""
    return tuple((extent - 1 - a, extent - 1 - b) for extent, (a, b) in zip(layer.extent, pairs, strict=True))


def _pairs(padding: Any, rank: int, ints: bool = False) -> Crop:
    """A pair for each axis; with `ints`, an int, alone or among others, is both numbers of one."""
    entries = [padding] * rank if ints and isinstance(padding, int) else arguments.entries("padding", padding)
    pairs = [(entry, entry) if ints and isinstance(entry, int) else entry for entry in entries]
    if len(pairs) != rank or any(isinstance(pair, int) for pair in pairs):
        an_int = "an int or " if ints else ""
        raise ValueError(f"`padding` must be a name, {an_int}{rank} (before, after) pairs; got {padding=}")
    return arguments.pairs("padding", pairs, rank)


def _numbers(shape: Sequence[int], dimension_numbers: Any) -> tuple[tuple[int, ...], int, int, bool]:
    """The kernel, the channels of a filter marked 'I' and 'O', and whether arrays have channels first."""
    rank = len(shape) - 2
    if not 1 <= rank <= 3:
        raise ValueError(f"`rhs` must have 3 to 5 dimensions; got shape {tuple(shape)}")
    specs = _last(rank) if dimension_numbers is None else dimension_numbers
    if not isinstance(specs, tuple) or len(specs) != 3 or not all(isinstance(spec, str) for spec in specs):
        raise ValueError(
            f"`dimension_numbers` must be three strings such as {_last(rank)}; got dimension_numbers={specs!r}"
        )
    lhs, rhs, out = specs
    axes = "".join(letter for letter in rhs if letter not in "IO")
    first = lhs == "NC" + axes
    if lhs != out or (not first and lhs != f"N{axes}C") or sorted(rhs) != sorted(axes + "IO") or len(axes) != rank:
        raise ValueError(
            f"`dimension_numbers` must have one layout for input and result, with the batch first, the channels "
            f"second or last and the axes in the filter's order; got dimension_numbers={specs!r}"
        )
    kernel = tuple(shape[rhs.index(axis)] for axis in axes)
    return kernel, shape[rhs.index("I")], shape[rhs.index("O")], first


def _last(rank: int) -> tuple[str, str, str]:
    axes = AXES[rank]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"


def _first(rank: int) -> tuple[str, str, str]:
    axes = AXES[rank]
    return f"NC{axes}", f"{axes}IO", f"NC{axes}"


def _flax(layer: ConvTranspose, transpose_kernel: bool) -> dict[str, Any]:
    return {
        "kernel_size": layer.kernel,
        "strides": layer.stride,
        "padding": _named(layer) or list(_turned(layer, layer.crop)),
        "kernel_dilation": layer.dilation,
        "transpose_kernel": transpose_kernel,
    }


_PAD = "jax.numpy.pad"

LAX = Framework(
    "jax.lax.conv_transpose",
    from_lax,
    to_lax,
    Python(
        "import jax", "y = jax.lax.conv_transpose({arguments}){cut}", _PAD, function=True, weight="rhs", scalars=False
    ),
    "jax",
    groups=never,
)
GENERAL = Framework(
    "jax.lax.conv_general_dilated",
    from_conv_general_dilated,
    to_conv_general_dilated,
    Python(
        "import jax",
        "y = jax.lax.conv_general_dilated({arguments}){cut}",
        _PAD,
        function=True,
        weight="rhs",
        scalars=False,
    ),
    "jax",
)
LINEN = Framework(
    "flax.linen",
    from_flax_linen,
    to_flax_linen,
    Python(
        "import flax.linen",
        "layer = flax.linen.ConvTranspose({arguments})\ny = layer.apply(variables, x){cut}",
        _PAD,
        scalars=False,
    ),
    "jax",
    channels_first=False,
    bias="use_bias",
    groups=never,
)
NNX = Framework(
    "flax.nnx",
    from_flax_nnx,
    to_flax_nnx,
    Python(
        "import flax.nnx",
        "layer = flax.nnx.ConvTranspose({arguments})\ny = layer(x){cut}",
        _PAD,
        more=("rngs=flax.nnx.Rngs(0)",),
        scalars=False,
    ),
    "jax",
    channels_first=False,
    bias="use_bias",
    groups=never,
)
HAIKU = Framework(
    "haiku",
    from_haiku,
    to_haiku,
    Python("import haiku", "y = haiku.Conv{n}DTranspose({arguments})(x){cut}  # in haiku.transform", _PAD),
    "haiku",
    bias="with_bias",
    groups=never,
    dilations=never,
)
EQUINOX = Framework(
    "equinox",
    from_equinox,
    to_equinox,
    Python(
        "import equinox\nimport jax",
        "layer = equinox.nn.ConvTranspose({arguments})\ny = jax.vmap(layer)(x){cut}",
        _PAD,
        more=("key=jax.random.key(0)",),
    ),
    "equinox",
    channels_first=True,
    bias="use_bias",
)
