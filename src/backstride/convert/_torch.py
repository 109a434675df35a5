# SPDX-License-Identifier: Apache-2.0
"""PyTorch's convention, which MLX and candle share: one crop for both ends, and cells added back at the end.

Sources: the documentation of `torch.nn.ConvTranspose2d`, of `mlx.nn.ConvTranspose2d`, and of candle_nn's
`ConvTranspose2dConfig`.
"""

from __future__ import annotations

from typing import Any

from backstride import _arguments as arguments
from backstride._geometry import Crop
from backstride.convert._code import Python
from backstride.convert._layer import ConvTranspose
from backstride.convert._port import Framework, Port, Usual, never

IntOrInts = int | tuple[int, ...]


def from_torch(
    in_channels: int,
    out_channels: int,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    bias: bool = True,
    dilation: IntOrInts = 1,
    padding_mode: str = "zeros",
    *,
    rank: int = 2,
) -> ConvTranspose:
    """The layer that `torch.nn.ConvTranspose1d`, `2d` or `3d` makes of these arguments.

    >>> from backstride import convert
    >>> convert.from_torch(64, 32, 4, stride=2, padding=1)
    ConvTranspose((4, 4), stride=(2, 2), crop=((1, 1), (1, 1)), in_channels=64, out_channels=32, channels_first=True)

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding: as PyTorch documents them.
        groups, bias, dilation, padding_mode: likewise.
        rank: how many axes there are where `kernel_size` is an int.

    Raises:
        TypeError, ValueError: if PyTorch has no such layer, as for an `output_padding` that is below neither `stride`
            nor `dilation`.
    """
    if padding_mode != "zeros":
        raise ValueError(f"`padding_mode` must be 'zeros', as PyTorch says; got padding_mode={padding_mode!r}")
    layer = ConvTranspose(
        arguments.kernel("kernel_size", kernel_size, rank), stride, dilation, (0, 0), in_channels, out_channels, groups
    )
    return layer.replace(crop=_crop(layer, padding, output_padding), channels_first=True, bias=bias)


def from_mlx(
    in_channels: int,
    out_channels: int,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    output_padding: IntOrInts = 0,
    bias: bool = True,
    *,
    rank: int = 2,
) -> ConvTranspose:
    """The layer that `mlx.nn.ConvTranspose1d`, `2d` or `3d` makes of these arguments.

    >>> from backstride import convert
    >>> convert.from_mlx(64, 32, 4, stride=2, padding=1).output((8, 8))
    (16, 16)

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, bias: as MLX documents them.
        rank: how many axes there are where `kernel_size` is an int.
    """
    layer = ConvTranspose(
        arguments.kernel("kernel_size", kernel_size, rank),
        stride,
        dilation,
        (0, 0),
        in_channels,
        out_channels,
        bias=bias,
    )
    return layer.replace(crop=_crop(layer, padding, output_padding))


def from_candle(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    padding: int = 0,
    output_padding: int = 0,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
    *,
    rank: int = 2,
) -> ConvTranspose:
    """The layer that `candle_nn::conv_transpose1d` or `conv_transpose2d` makes with a config of these fields.

    >>> from backstride import convert
    >>> convert.from_candle(64, 32, 4, padding=1, stride=2).output((8, 8))
    (16, 16)

    Args:
        in_channels, out_channels, kernel_size, padding, output_padding, stride, dilation: ints that hold for all axes.
        groups, bias: as candle documents them; there are groups in 1-D only.
        rank: 1 or 2.
    """
    if rank not in (1, 2) or (rank == 2 and groups != 1):
        raise ValueError(f"candle has this layer in 1-D, and in 2-D without `groups`; got {rank=}, {groups=}")
    return from_torch(
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, rank=rank
    )


def to_torch(layer: ConvTranspose) -> Port:
    """The layer in PyTorch; where its ends are cropped in a way that PyTorch can't say, the rest is cut.

    >>> from backstride import convert
    >>> port = convert.to_torch(convert.from_keras(32, 3, strides=2, padding="same", in_channels=64))
    >>> port.exact, port.crop, port.shift
    (False, ((0, 1), (0, 1)), (1, 1))

    Args:
        layer: any layer.
    """
    return TORCH.port(layer, *_say(TORCH.told(layer)), usual(layer))


def to_mlx(layer: ConvTranspose) -> Port:
    """The layer in MLX, whose layers have no groups.

    >>> from backstride import convert
    >>> convert.to_mlx(convert.from_torch(64, 32, 4, stride=2, padding=1)).exact
    True

    Args:
        layer: any layer.
    """
    return MLX.port(layer, *_say(MLX.told(layer)), usual(layer))


def to_candle(layer: ConvTranspose) -> Port:
    """The layer in candle, where every number holds for both axes.

    >>> from backstride import convert
    >>> print(convert.to_candle(convert.from_torch(64, 32, 4, stride=2, padding=1)).code)
    let config = candle_nn::ConvTranspose2dConfig { padding: 1, stride: 2, ..Default::default() };
    let y = candle_nn::conv_transpose2d(64, 32, 4, config, vb)?.forward(&x)?;

    Args:
        layer: one of one or two axes, with the same numbers for both.

    Raises:
        ValueError: for a layer of three axes, or whose axes have different kernels, strides or dilations.
    """
    told = CANDLE.told(layer)
    for name in ("kernel", "stride", "dilation"):
        if len(set(getattr(told, name))) > 1:
            raise ValueError(f"candle has one `{name}` for both axes; got {layer!r}")
    said, left = _say(told)
    if len({(said["padding"][n], said["output_padding"][n]) for n in range(layer.rank)}) > 1:
        said["padding"] = said["output_padding"] = (0,) * layer.rank
        left = layer.crop
    said = {name: value[0] if isinstance(value, tuple) else value for name, value in said.items()}
    return CANDLE.port(layer, said, left, usual(layer))


def usual(layer: ConvTranspose) -> Usual | None:
    """What ports to PyTorch usually have: half of the kernel as padding, and what is missing to the right length.

    For results of `input * stride` cells that is, for odd kernels, `padding=kernel // 2, output_padding=stride - 1`,
    and for even ones `padding=ceil((kernel - stride) / 2), output_padding=(kernel - stride) % 2`.
    """
    paddings, added = [], []
    for stride, dilation, extent, crop in zip(layer.stride, layer.dilation, layer.extent, layer.crop, strict=True):
        total = sum(crop)
        padding = extent // 2
        if extent % 2 == 0 or not 0 <= 2 * padding - total < max(stride, dilation):
            padding = max(-(-total // 2), 0)
        paddings.append(padding)
        added.append(2 * padding - total)
        if added[-1] >= max(stride, dilation):
            return None
    crops = tuple((padding, padding - more) for padding, more in zip(paddings, added, strict=True))
    return Usual(f"padding={_short(paddings)}, output_padding={_short(added)}", crops)


def _short(values: list[int]) -> str:
    return repr(values[0] if len(set(values)) == 1 else tuple(values))


def _crop(layer: ConvTranspose, padding: Any, output_padding: Any) -> Crop:
    """What `padding` and `output_padding` crop: the first both ends, the second less of the end."""
    crop = []
    cut = arguments.layer_ints("padding", padding, layer.rank, lowest=0)
    added = arguments.layer_ints("output_padding", output_padding, layer.rank, lowest=0)
    for stride, dilation, cells, more in zip(layer.stride, layer.dilation, cut, added, strict=True):
        if more >= max(stride, dilation):
            raise ValueError(
                f"`output_padding` must be below the stride or the dilation; got output_padding={output_padding!r} "
                f"with stride {stride} and dilation {dilation}"
            )
        crop.append((cells, cells - more))
    return tuple(crop)


def _say(layer: ConvTranspose) -> tuple[dict[str, Any], Crop]:
    """PyTorch's arguments, and what is left to be cut from their result: as little as can be."""
    padding, added, left = [], [], []
    for stride, dilation, (before, after) in zip(layer.stride, layer.dilation, layer.crop, strict=True):
        common = max(min(before, after), 0) if before < 0 or before > after else before
        more = min(max(common - after, 0), max(stride, dilation) - 1)
        padding.append(common)
        added.append(more)
        left.append((before - common, after - (common - more)))
    said = {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel,
        "stride": layer.stride,
        "padding": tuple(padding),
        "output_padding": tuple(added),
        "groups": layer.groups,
        "dilation": layer.dilation,
    }
    return said, tuple(left)


def _rust(port: Port) -> str:
    """candle's code, which adds zeros by `pad_with_zeros` and cuts by `narrow`."""
    layer, said = port.layer, port.arguments
    n = layer.rank
    fields = [
        f"{name}: {said[name]}"
        for name in ("padding", "output_padding", "stride", "dilation", "groups")
        if name in said and said[name] != (name in ("stride", "dilation", "groups"))
    ]
    fields = [field for field in fields if n == 1 or not field.startswith("groups")]
    config = f"candle_nn::ConvTranspose{n}dConfig {{ {', '.join([*fields, '..Default::default()'])} }}"
    function = f"candle_nn::conv_transpose{n}d{'' if said['bias'] else '_no_bias'}"
    lines = [
        f"let config = {config};",
        f"let y = {function}({said['in_channels']}, {said['out_channels']}, {said['kernel_size']}, config, vb)?"
        ".forward(&x)?;",
    ]
    for axis, (before, after) in enumerate(port.crop, 2):
        if before > 0 or after > 0:
            first, cut = max(before, 0), max(before, 0) + max(after, 0)
            lines.append(f"let y = y.narrow({axis}, {first}, y.dim({axis})? - {cut})?;")
        if before < 0 or after < 0:
            lines.append(f"let y = y.pad_with_zeros({axis}, {max(-before, 0)}, {max(-after, 0)})?;")
    if port.bias_after:
        lines.append(f"let y = y.broadcast_add(&bias.reshape((1, (), {', '.join(['1'] * n)}))?)?;")
    return "\n".join(lines)


TORCH = Framework(
    "torch",
    from_torch,
    to_torch,
    Python(
        "import torch",
        "layer = torch.nn.ConvTranspose{n}d({arguments})\ny = layer(x){cut}",
        "torch.nn.functional.pad",
        flat=True,
    ),
    "torch",
    channels_first=True,
    bias="bias",
)
MLX = Framework(
    "mlx",
    from_mlx,
    to_mlx,
    Python(
        "import mlx.core as mx\nimport mlx.nn",
        "layer = mlx.nn.ConvTranspose{n}d({arguments})\ny = layer(x){cut}",
        "mx.pad",
    ),
    "mlx",
    channels_first=False,
    bias="bias",
    groups=never,
)
CANDLE = Framework(
    "candle",
    from_candle,
    to_candle,
    _rust,
    "torch",
    channels_first=True,
    bias="bias",
    groups=lambda layer: layer.rank == 1,
    ranks=(1, 2),
)
