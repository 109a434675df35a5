# SPDX-License-Identifier: Apache-2.0
"""PyTorch's transposed convolutions, computed by the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from backstride import _arguments
from backstride._backends.torch_operators import Sizes, channels_are_last, layer
from backstride._geometry import Layer
from backstride.torch._weights import constant_weight, forget


class _ConvTranspose(nn.modules.conv._ConvTransposeNd):
    """The layers of one, two and three axes. Besides what they override they are PyTorch's own."""

    padding: Any

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        named = dict(zip(_NAMES, arguments, strict=False)) | keywords
        padding = named.get("padding", 0)
        if not isinstance(padding, str):
            super().__init__(*arguments, **keywords)
            return
        if padding not in ("same", "valid"):
            raise ValueError(f"`padding` must be ints, 'same' or 'valid'; got padding={_arguments.shown(padding)}")
        if any(_numbers(named.get("output_padding", 0))):
            raise ValueError(
                f"`output_padding` goes with a padding of ints; with padding={padding!r} choose the length of a result "
                f"by `output_size`"
            )
        super().__init__(**(named | {"padding": 0}))
        self.padding = padding

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The result for `input`.

        Args:
            input: tensor `[batch, in_channels, *lengths]`, or one without a batch.
            output_size: None, or the result's lengths, or its shape. With a padding of ints it must be within what
                `output_padding` could add; otherwise a length from which a forward convolution makes the input's.

        Raises:
            ValueError: a length or a number of channels is not legal.
            TypeError: the dtypes differ.
        """
        if not isinstance(input, Tensor):
            raise TypeError(f"`input` must be a torch.Tensor; got {type(input).__module__}.{type(input).__qualname__}")
        rank = len(self.kernel_size)
        if input.ndim == rank + 1:
            if isinstance(output_size, Sequence) and len(output_size) == rank + 1:
                output_size = output_size[1:]  # without channels
            return _ConvTranspose.forward(self, input[None], output_size)[0]
        if input.ndim != rank + 2:
            raise ValueError(f"`input` must have {rank + 2} or {rank + 1} dimensions; got shape {tuple(input.shape)}")
        lengths, pad = (_tensorflow if isinstance(self.padding, str) else _own)(self, input, output_size)
        weight, keep = constant_weight(self)
        sizes = Sizes(lengths, self.stride, self.dilation, pad, self.groups, channels_are_last(input))
        return layer(input, weight, self.bias, sizes, keep)

    def train(self, mode: bool = True) -> Any:
        """As PyTorch's; and lets go of what is kept of the weight."""
        forget(self)
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """What `to`, `double` and their kin are made of, which may swap tensors that nobody else refers to."""
        forget(self)
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def _own(module: Any, input: Tensor, output_size: Sequence[int] | None) -> tuple[list[int], Sequence[int]]:
    """Lengths and crop as PyTorch means them."""
    extra: Sequence[int] = module.output_padding
    if output_size is not None:
        rank = len(module.kernel_size)
        extra = module._output_padding(
            input, list(output_size), module.stride, module.padding, module.kernel_size, rank, module.dilation
        )
    lengths = [
        (length - 1) * stride - 2 * pad + dilation * (kernel - 1) + more + 1
        for length, stride, pad, dilation, kernel, more in zip(
            input.shape[2:], module.stride, module.padding, module.dilation, module.kernel_size, extra, strict=True
        )
    ]
    if min(lengths) < 0:
        raise ValueError(f"`input` of shape {tuple(input.shape)} would have a result of lengths {lengths}")
    return lengths, module.padding


def _tensorflow(module: Any, input: Tensor, output_size: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Lengths and crop as TensorFlow means them."""
    crop = _arguments.keras_crop(module.padding, len(module.kernel_size))
    layer = Layer(module.kernel_size, module.stride, module.dilation, crop)
    inputs = input.shape[2:]
    lengths = [layer.chosen_output(n, length) for n, length in enumerate(inputs)]
    if output_size is not None:
        if not isinstance(output_size, Sequence) or len(output_size) not in (len(inputs), len(inputs) + 2):
            raise ValueError(
                f"`output_size` must be {len(inputs)} lengths, or a batch and channels before them; got "
                f"output_size={output_size!r}"
            )
        lengths = list(output_size)[-len(inputs) :]
        for n, length in enumerate(lengths):
            lowest, end = layer.bounds(n, inputs[n])
            if not lowest <= length < end:
                raise ValueError(
                    f"`output_size` {length} does not fit an input of length {inputs[n]}; "
                    f"{lowest} to {end - 1} would fit"
                )
    return lengths, [layer.axis(n, *pair).pad for n, pair in enumerate(zip(inputs, lengths, strict=True))]


# The parameters of PyTorch's constructors.
_NAMES = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "bias",
    "dilation",
    "padding_mode",
    "device",
    "dtype",
)


def _numbers(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d`, computed by the core; see `ConvTranspose2d`.

    >>> import torch, backstride.torch
    >>> backstride.torch.ConvTranspose1d(4, 2, 16, stride=8, padding=4)(torch.ones(1, 4, 10)).shape
    torch.Size([1, 2, 80])
    """


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, computed by the core: the same arguments, parameters and `state_dict`.

    Results have the memory format of the input, and gradients of any order. On devices other than the CPU PyTorch's own
    convolution computes.

    In evaluation, where the weight needs no gradient, a packed copy of it is kept, and made anew after the weight was
    written to, a call needed its gradient, or `train` or `eval` was called. Writing through `weight.data`, `.numpy()`
    or other memory that the weight was made a view of by `.data` is not noticed: call `eval()` after it. A weight that
    was made or copied in inference mode tells of no writing, and is packed in every call: make it outside. Large
    results are in memory that earlier ones gave back, and can't be resized.

    >>> import torch, backstride.torch
    >>> up = backstride.torch.ConvTranspose2d(16, 8, 5, stride=2, padding="same").eval()
    >>> with torch.inference_mode():
    ...     image = torch.ones(1, 16, 8, 8)
    ...     up(image).shape, up(image, output_size=(15, 16)).shape
    (torch.Size([1, 8, 16, 16]), torch.Size([1, 8, 15, 16]))

    Args:
        in_channels, out_channels, kernel_size, stride, output_padding, groups, bias, dilation, padding_mode, device,
            dtype: as in PyTorch.
        padding: ints as in PyTorch; or 'same' or 'valid' as TensorFlow means them: an axis of length I becomes `I *
            stride` long with 'same', `I * stride + max(extent - stride, 0)` with 'valid', or as `output_size` says.

    Raises:
        ValueError: an argument is not legal.
    """


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d`, computed by the core; see `ConvTranspose2d`.

    >>> import torch, backstride.torch
    >>> backstride.torch.ConvTranspose3d(4, 2, 2, stride=2)(torch.ones(1, 4, 3, 3, 3)).shape
    torch.Size([1, 2, 6, 6, 6])
    """
