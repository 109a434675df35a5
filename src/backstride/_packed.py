# SPDX-License-Identifier: Apache-2.0
"""`plan`: a layer and its filter, packed once and called many times with any batch and any lengths."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from backstride import _arguments, _native, _plan, _precision
from backstride._arguments import Argument, Shape, Side, Window
from backstride._backends import numpy as backend
from backstride._geometry import Axis, Flow, Geometry, Layer
from backstride._settings import get_num_threads
from backstride._stream import Stream

# The sizes for which `repr` and `explain` state times where none are given.
_IMAGES, _LENGTH = 16, 96


def plan(
    filters: Any,
    strides: Any = 1,
    padding: Any = "SAME",
    *,
    output_shape: Any = None,
    data_format: Any = None,
    dilations: Any = 1,
    groups: Any = 1,
    bias: Any = None,
    activation: Any = None,
    precision: str | None = None,
    algorithm: str | None = None,
    workspace_bytes: Any = None,
) -> Plan:
    """A transposed convolution with its filter, packed once and called many times: `p(x)`.

    It computes `activation(conv_transpose(x) + bias)` in one pass, for any batch and any lengths of `x`. Without bias
    and activation the result has the bits of `nn.conv2d_transpose` and its kin of one and three axes. Plans take NumPy
    arrays, PyTorch tensors on CPUs and JAX arrays, and give the same back; they have no gradient, and compilers can't
    see into them: within a function for `torch.compile` call `torch.compiler.disable(p)`.

    >>> import numpy as np, backstride
    >>> filters = np.ones((4, 4, 8, 16), np.float32)
    >>> p = backstride.plan(filters, strides=2, bias=np.ones(8, np.float32), activation=("leaky_relu", 0.1))
    >>> p(np.ones((1, 32, 32, 16), np.float32)).shape
    (1, 64, 64, 8)
    >>> p(np.ones((5, 7, 9, 16), np.float32), output_shape=(13, 17)).shape
    (5, 13, 17, 8)

    Args:
        filters: array `[*kernel, out_channels / groups, in_channels]` of one to three axes. It is copied: what is
            written to it later changes nothing.
        strides: as in `nn.conv2d_transpose`.
        padding: 'SAME' or 'VALID', in any case, or a (before, after) pair per dimension, as there.
        output_shape: the shape, or the lengths alone, of results for which a call asks none. None: an axis of length
            I becomes `I * stride` long with SAME, `I * stride + max(extent - stride, 0)` with VALID, where `extent =
            (kernel - 1) * dilation + 1`, and as short as is legal with pairs.
        data_format: TensorFlow's or Keras' name, such as 'NCHW' or 'channels_first'; None is channels last.
        dilations: as in `nn.conv2d_transpose`.
        groups: into how many shares the channels are divided; the n-th of the input makes the n-th of the output.
        bias: None, or an array `[out_channels]` of the dtype of `filters`, which is copied too.
        precision: a mode of `backstride.precision`, in which the plan computes from then on; None is the one that holds
            now.
        algorithm: None for the fastest by the cost model (see `Plan.explain`), or, for experiments, 'tiles', 'lanes',
            'scatter', 'merged', 'matrix', 'winograd3', 'winograd4' or 'winograd6'. Sizes that it can't compute are
            computed by tiles. Of few channels, or few pixels with edges all around, Winograd's algorithm has larger
            errors than the precision admits: the model does not take it there.
        workspace_bytes: how much memory a call may take at most besides `filters` as they are packed, its input and its
            result, and some ten KB for lists of blocks. Blocks get smaller, and fewer threads compute, where they would
            take more; an algorithm that would take more in any case is not taken. None: calls take at most 64 MB, those
            of streams 4 MB, but for an input that is copied as a whole: one that is not aligned or not of native byte
            order, or, of a dilated layer, of 16 bits or with channels that are no neighbours.
        activation: None or one of 'relu', 'leaky_relu', 'elu', 'gelu', 'sigmoid', 'tanh' and 'snake', which is
            `x + sin(alpha * x)**2 / alpha`; or a pair of name and alpha for 'leaky_relu' (0.2 if it is not given),
            'elu' (1) and 'snake' (1). Integers take 'relu' alone.

    Returns:
        A `Plan`. Its `repr` says which kernels compute and how large the packed filter is.

    Raises:
        ValueError: an argument is not legal.
        TypeError: an argument is of the wrong type, traced, or a tensor that requires a gradient.
    """
    filters = _arguments.lent("filters", filters)[0]
    rank = filters.ndim - 2
    if rank not in _arguments.AXES:
        raise ValueError(f"`filters` must have 3, 4 or 5 dimensions; got shape {filters.shape}")
    first = _arguments.any_channels_first(data_format, rank)
    window = _arguments.window(rank, strides, _arguments.any_case(padding), _arguments.FORMATS[rank][first], dilations)
    groups = _arguments.groups(groups, filters.shape)
    mode = _precision.current() if precision is None else _precision.checked("precision", precision)
    return Plan(
        filters,
        _Sizes(
            window,
            groups,
            Argument("filters", Shape(filters.shape)),
            filters.dtype.newbyteorder("="),
            None if output_shape is None else _arguments.sizes("output_shape", output_shape, rank + 2, rank),
            not isinstance(padding, str),
            mode,
            "" if algorithm is None else _precision.algorithm(algorithm, mode),
            _arguments.workspace_bytes(workspace_bytes),
        ),
        _arguments.channel_bias(bias, filters, groups),
        _arguments.activation(activation, filters.dtype),
    )


class Plan:
    """What `plan` returns; many threads may call it at once.

    >>> import numpy as np, backstride
    >>> p = backstride.plan(np.ones((3, 2, 2), np.float32), strides=2, activation="relu")
    >>> result = np.empty((1, 8, 2), np.float32)
    >>> p(np.ones((1, 4, 2), np.float32), out=result) is result
    True
    """

    def __init__(
        self, filters: np.ndarray, sizes: _Sizes, bias: np.ndarray | None, activation: tuple[str, float]
    ) -> None:
        self._sizes, self._dtype, self._bias, self._activation = sizes, sizes.dtype, bias, activation
        # By lengths alone; not of a method, which would keep the plan alive in a cycle.
        self._resolve = functools.lru_cache(maxsize=1024)(sizes.resolve)
        self._part = functools.lru_cache(maxsize=1024)(sizes.part)
        self._packed = None
        if filters.size:
            self._packed = backend.packed(sizes.smallest(), filters, bias, *activation)

    def __call__(self, x: Any, output_shape: Any = None, out: np.ndarray | None = None) -> Any:
        """The result for `x`.

        Args:
            x: array `[batch, *lengths, in_channels]`, or channels second, of the dtype of the filters.
            output_shape: the result's shape, or its lengths alone; None is the plan's.
            out: None, or a NumPy array of the result's shape and dtype that is filled and returned. Its memory may be
                strided, but must be aligned and not that of `x`.

        Raises:
            ValueError: a shape or a length is not legal, `out` cannot be written to, or the plan's `workspace_bytes`
                are too few.
            TypeError: an argument is of the wrong type or dtype, traced, or a tensor that requires a gradient.
            MemoryError: the result would not fit into this machine's memory.
        """
        library: Any = backend
        if type(x) is not np.ndarray:
            x, library = _arguments.lent("x", x)
        if x.dtype is not self._dtype:
            _arguments.check_dtype("x", x, self._dtype)
        if output_shape is not None:
            output_shape = _arguments.integers("output_shape", output_shape)
        shape, sized = self._resolve(x.shape, output_shape)
        if fresh := out is None:
            out = backend.empty(shape, self._dtype)
        else:
            _arguments.check_out(out, shape, self._dtype, x)
        if sized is None or self._packed is None:
            self._fill(out)
        else:
            self._compute(self._packed, sized, x, out, library.borrowed())
        return library.given_back(out) if fresh else out

    def stream(self) -> Stream:
        """A stream: takes one input of any length chunk by chunk, and gives the result's cells as soon as it can.

        >>> import numpy as np, backstride
        >>> p = backstride.plan(np.ones((3, 2, 2), np.float32), strides=2)
        >>> stream = p.stream()
        >>> parts = [stream(np.ones((1, length, 2), np.float32)) for length in (5, 1, 2)] + [stream.finish()]
        >>> bool((np.concatenate(parts, 1) == p(np.ones((1, 8, 2), np.float32))).all())
        True

        Returns:
            A new `Stream`. A plan may have many at once, in any threads.

        Raises:
            ValueError: the plan has more than one axis, or was given an `output_shape`.
        """
        return Stream(self)

    def _run_part(self, x: np.ndarray, pad: int, out: np.ndarray, threads: int) -> None:
        """Computes neighbouring cells of a result of one axis: input cell i of `x` reaches `out` from
        `i * stride - pad` on, and all that reach it are there."""
        if self._packed is None or not x.size:
            self._fill(out)
        elif out.size:
            self._compute(self._packed, self._part(x.shape, out.shape, pad), x, out, threads)

    def _compute(
        self, packed: _native.Packed, sized: _native.Plan, x: np.ndarray, out: np.ndarray, threads: int
    ) -> None:
        if self._sizes.workspace is not None:
            _arguments.check_in_place("x", x, self._sizes.workspace)
        backend.run(packed, sized, x, out, threads)

    def _fill(self, out: np.ndarray) -> None:
        """Gives all cells the value of those that no tap reaches, where no tap or no input exists."""
        if out.size:
            first = self._sizes.window.channels_first
            channels = out.shape[1 if first else -1]
            zeros = np.zeros((1, channels, 1), self._dtype)
            point = plan(zeros, bias=self._bias, activation=_spelled(self._activation))
            out[...] = point(zeros[:, :1]).reshape([-1] + [1] * (out.ndim - 2) if first else [-1])

    def __repr__(self) -> str:
        sizes = self._sizes
        given = [
            f"filters={sizes.filters.value.shape}",
            str(self._dtype),
            f"strides={sizes.window.stride}",
            f"padding={sizes.window.padding}",
            f"data_format={_arguments.FORMATS[len(sizes.window.stride)][sizes.window.channels_first]!r}",
        ]
        if set(sizes.window.dilation) != {1}:
            given.append(f"dilations={sizes.window.dilation}")
        if sizes.groups > 1:
            given.append(f"groups={sizes.groups}")
        if sizes.output_shape is not None:
            given.append(f"output_shape={sizes.output_shape}")
        if self._bias is not None:
            given.append("bias")
        if self._activation[0] != "none":
            given.append(f"activation={_spelled(self._activation)!r}")
        given.append(f"precision={sizes.precision!r}")
        if sizes.algorithm:
            given.append(f"algorithm={sizes.algorithm!r}")
        if sizes.workspace is not None:
            given.append(f"workspace_bytes={sizes.workspace}")
        if self._packed is None:
            return f"<Plan {' '.join(given)}: nothing to compute>"
        large = sizes.square(_IMAGES, _LENGTH)
        pixels = _IMAGES * _LENGTH ** len(sizes.window.stride)
        return (
            f"<Plan {' '.join(given)}: {' or '.join(self._packed.kernels)}, {self._packed.bytes} bytes packed, "
            f"{dict(large.costs())[large.algorithm] / pixels:.3g} ns a thread for a pixel of large inputs>"
        )

    def explain(self, shape: Any = None) -> None:
        """Prints what the cost model expects of each algorithm, and which one is taken.

        Times are those of the machine that the model was measured on, divided by the threads of this one; the choice
        depends on nothing but shapes, dtype, precision and instruction set.

        >>> import numpy as np, backstride
        >>> p = backstride.plan(np.ones((4, 4, 64, 256), np.float32), strides=2)
        >>> p.explain((1, 64, 64, 256))  # doctest: +ELLIPSIS
        (1, 64, 64, 256) to (1, 128, 128, 64), ... threads, precision 'default', ... bytes packed
        tiles      ... ms  taken...

        Args:
            shape: of an input; None is 16 images of length 96 along every axis.

        Raises:
            ValueError: the plan takes no input of this shape.
            TypeError: it is not a shape.
        """
        sizes = self._sizes
        if shape is None:
            rank = len(sizes.window.stride)
            lengths, channels = (_LENGTH,) * rank, sizes.filters.value.shape[-1]
            shape = (_IMAGES, channels, *lengths) if sizes.window.channels_first else (_IMAGES, *lengths, channels)
        shape = _arguments.integers("shape", shape)
        result, sized = self._resolve(shape, None)
        packed = 0 if self._packed is None else self._packed.bytes
        threads = get_num_threads()
        print(f"{shape} to {result}, {threads} threads, precision {sizes.precision!r}, {packed} bytes packed")
        if sized is None:
            print("nothing to compute")
            return
        for name, time in sized.costs():
            taken = "  taken" if name == sized.algorithm else ""
            print(f"{name:9}  {time / threads / 1e6:.3g} ms{taken}")


class _Sizes(NamedTuple):
    """What a plan knows of its results' shapes before it sees an input."""

    window: Window
    groups: int
    filters: Argument
    dtype: np.dtype
    output_shape: tuple[int, ...] | None
    shortest: bool
    precision: str
    algorithm: str
    workspace: int | None

    def smallest(self) -> _native.Plan:
        """The core's plan for one pixel, which is packed for."""
        return self.square(1, 1)

    def square(self, batch: int, length: int) -> _native.Plan:
        """The core's plan for inputs of one length along every axis, whatever `output_shape` is."""
        *kernel, out_channels, in_channels = self.filters.value.shape
        lengths = (length,) * len(kernel)
        outputs = [max(chosen, 1) for chosen in self._chosen(lengths)]
        first, channels = self.window.channels_first, out_channels * self.groups
        return self.sized(self._layer().resolve(batch, in_channels, channels, lengths, outputs, first))

    def resolve(self, shape: tuple[int, ...], output_shape: tuple[int, ...] | None) -> _Resolved:
        """The result's shape, and the core's plan for it unless it is empty or nothing reaches it."""
        _arguments.check_rank("x", shape, len(self.window.stride) + 2)
        source = _arguments.side(Argument("x", Shape(shape)), self.window)
        asked = self.output_shape if output_shape is None else output_shape
        if asked is None:
            result = self._unasked(source)
        else:
            result = _arguments.target(Argument("output_shape", asked), source, self.filters, self.window, self.groups)
        geometry = _arguments.resolve(self.window, source, self.filters, result, self.groups)
        whole = geometry.shape("output")
        backend.check_size("the result", whole, self.dtype)
        if 0 in whole or 0 in shape or 0 in self.filters.value.shape:
            return _Resolved(whole, None)
        return _Resolved(whole, self.sized(geometry))

    def sized(self, geometry: Geometry, workspace: int = _plan.WORKSPACE) -> _native.Plan:
        """The core's plan at these sizes, with the plan's own workspace, or one that is not binding."""
        return _plan.plan(
            "output",
            geometry,
            backend.element(self.dtype),
            self.precision,
            packed=True,
            algorithm=self.algorithm,
            workspace=workspace if self.workspace is None else self.workspace,
            binding=self.workspace is not None,
        )

    def _unasked(self, source: Side) -> Side:
        """The result where none is asked."""
        return Side("result", source.batch, self._chosen(source.lengths), self.filters.value.shape[-2] * self.groups)

    def _chosen(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """The result's lengths for an input's where none are asked."""
        layer = self._layer()
        choose = layer.lowest_output if self.shortest else layer.chosen_output
        return tuple(choose(n, length) for n, length in enumerate(lengths))

    def part(self, shape: tuple[int, ...], result: tuple[int, ...], pad: int) -> _native.Plan:
        """The core's plan for a part of a result of one axis."""
        kernel, out_channels, in_channels = self.filters.value.shape
        (stride,), (dilation,), _, first, _ = self.window
        input, output = (each[2 if first else 1] for each in (shape, result))
        axis = Axis(input, kernel, output, stride, dilation, pad)
        geometry = Geometry((axis,), shape[0], in_channels, out_channels * self.groups, self.groups, first)
        return self.sized(geometry, _plan.STREAM_WORKSPACE)

    def flow(self) -> Flow:
        """The only axis, as its input arrives."""
        return self._layer().flow(0, self.shortest)

    def end(self, inputs: int) -> int:
        """The length of the result of one axis for so many cells of input, if such an input is legal."""
        source = Side("chunks", 1, (inputs,), self.filters.value.shape[-1])
        result = self._unasked(source)
        _arguments.resolve(self.window, source, self.filters, result, self.groups)
        return result.lengths[0]

    def _layer(self) -> Layer:
        window = self.window
        return Layer(self.filters.value.shape[:-2], window.stride, window.dilation, window.crop, self.groups)


class _Resolved(NamedTuple):
    shape: tuple[int, ...]
    plan: _native.Plan | None


def _spelled(activation: tuple[str, float]) -> Any:
    """An activation as an argument of `plan`."""
    name, parameter = activation
    if name == "none":
        return None
    return (name, parameter) if name in _arguments.ALPHAS else name
