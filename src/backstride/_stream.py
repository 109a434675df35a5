# SPDX-License-Identifier: Apache-2.0
"""`Plan.stream`: one input that arrives in chunks, and the cells of its result as soon as they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backstride import _arguments
from backstride._backends import numpy as backend

if TYPE_CHECKING:
    from backstride._packed import Plan

# Chunks of up to so many bytes are copied behind what is carried, and computed in one call of the core. Of larger ones
# only the beginning is, and the rest is read where it is. On a Sapphire Rapids the second call takes as long as the
# copy of 128 to 256 KiB, and half as long as that of 4 MiB (depthwise, 256 channels, kernel 4, stride 2).
_JOINED = 1 << 18


class Stream:
    """What `Plan.stream` returns: takes the input of a plan of one axis chunk by chunk.

    Every call gives the cells of the result that are settled by then, which no later chunk can change, and `finish`
    gives the rest. Together they are the plan's result for all chunks together, bit for bit if the plan's precision is
    'strict', and else within the rounding errors of its mode. Chunks may be of any lengths, also of 0, and each of
    another. What is carried from call to call are the last few cells of the input.

    >>> import numpy as np, backstride
    >>> signal = np.random.default_rng(0).standard_normal((1, 1000, 16), np.float32)
    >>> p = backstride.plan(np.ones((16, 4, 16), np.float32), strides=8, activation="tanh", precision="strict")
    >>> stream = p.stream()
    >>> parts = [stream(signal[:, n : n + 40]) for n in range(0, 1000, 40)]
    >>> parts.append(stream.finish())
    >>> [part.shape[1] for part in parts[:3]], parts[-1].shape[1], stream.delay
    ([316, 320, 320], 4, 4)
    >>> bool((np.concatenate(parts, axis=1) == p(signal)).all())
    True

    After n cells of input it has given `max(n * stride - delay, 0)` cells, so that a chunk gives `stride` for each of
    its own once the first few are in. With `extent = (kernel - 1) * dilation + 1` the delay is `max(extent - stride,
    0) // 2` with SAME, 0 with VALID and `before + max(after + stride - extent, 0)` with a (before, after) pair. So a
    layer that is causal, with the pair (0, extent - stride), gives everything at once, and nothing at `finish`.

    A stream serves one thread at a time, a plan any number of streams. `copy.copy(stream)` goes on from the same place.
    """

    def __init__(self, plan: Plan) -> None:
        sizes = plan._sizes
        if len(sizes.window.stride) != 1:
            raise ValueError(
                f"only plans of one axis have streams; this plan's `filters` have {len(sizes.window.stride)}: "
                f"shape {sizes.filters.value.shape}"
            )
        if sizes.output_shape is not None:
            raise ValueError(
                f"a stream's result is as long as its chunks make it, but this plan has "
                f"output_shape={sizes.output_shape}; make one without"
            )
        self._plan, self._flow = plan, sizes.flow()
        self._axis = 2 if sizes.window.channels_first else 1
        self._channels = sizes.filters.value.shape[-2] * sizes.groups
        self._place: _Place | None = _Place(0, None, backend)

    @property
    def delay(self) -> int:
        """By how many cells the result lags: of n cells of input, `max(n * stride - delay, 0)` are given at once."""
        return self._flow.delay

    def __call__(self, chunk: Any) -> Any:
        """The cells that are settled with this chunk and were not before.

        After an error the stream is where it was.

        Args:
            chunk: array `[batch, length, in_channels]`, or channels second, of the dtype of the filters, and of one
                batch in all calls. It is no longer needed after the call.

        Raises:
            ValueError: the shape is not legal, or the stream is over.
            TypeError: `chunk` is of the wrong type or dtype, traced, or a tensor that requires a gradient.
            MemoryError: the result would not fit into this machine's memory.
        """
        place, flow = self._open(), self._flow
        library: Any = backend
        if type(chunk) is not np.ndarray:
            chunk, library = _arguments.lent("chunk", chunk)
        self._check(chunk, place.past)
        past = self._cut(chunk, 0, 0) if place.past is None else place.past
        carried, length = past.shape[self._axis], chunk.shape[self._axis]
        inputs = place.inputs + length
        begin, end = flow.settled(place.inputs), flow.settled(inputs)
        out = self._empty(chunk.shape[0], end - begin)

        # What the past reaches is computed from both; what comes after that, from the chunk where it is.
        middle = begin
        if carried and begin < end:
            middle = end if chunk.nbytes <= _JOINED else min(flow.reached(place.inputs), end)
            needed = max(flow.inputs(middle) - place.inputs, 0)
            both = self._joined(past, self._cut(chunk, 0, needed))
            self._compute(both, place.inputs - carried, self._cut(out, 0, middle - begin), begin, library.borrowed())
        if middle < end:
            self._compute(chunk, place.inputs, self._cut(out, middle - begin, end - begin), middle, library.borrowed())

        keep = max(inputs - flow.first_input(end), 0)
        if keep <= length:
            last = np.array(self._cut(chunk, length - keep, length), self._plan._dtype)
        else:
            last = self._joined(self._cut(past, carried - (keep - length), carried), chunk)
        self._place = _Place(inputs, last, library)
        return library.given_back(out)

    def finish(self) -> Any:
        """The cells that are left, now that there are no more chunks. The stream is over after it.

        Returns:
            An array of the library of the last chunk.

        Raises:
            ValueError: there was no chunk, or padding crops more than the chunks make; the stream is not over then.
        """
        place = self._open()
        if place.past is None:
            raise ValueError("`finish` needs a chunk before it, from which it knows the batch; one of length 0 will do")
        begin, end = self._flow.settled(place.inputs), self._plan._sizes.end(place.inputs)
        out = self._empty(place.past.shape[0], end - begin)
        self._compute(place.past, place.inputs - place.past.shape[self._axis], out, begin, place.library.borrowed())
        self._place = None
        return place.library.given_back(out)

    def __repr__(self) -> str:
        if self._place is None:
            return f"<Stream of {self._plan}: over>"
        inputs, cells = self._place.inputs, self._flow.settled(self._place.inputs)
        return f"<Stream of {self._plan}: {inputs} cells taken, {cells} given>"

    def _open(self) -> _Place:
        if self._place is None:
            raise ValueError("this stream is over since `finish`; start another by `stream()` of its plan")
        return self._place

    def _check(self, chunk: np.ndarray, past: np.ndarray | None) -> None:
        """Refuses a chunk that does not fit the plan or the chunks before."""
        sizes, shape = self._plan._sizes, chunk.shape
        if chunk.dtype is not sizes.dtype:
            _arguments.check_dtype("chunk", chunk, sizes.dtype)
        _arguments.check_rank("chunk", shape, 3)
        filters = sizes.filters
        _arguments.check_channels("chunk", shape[3 - self._axis], filters.name, filters.value.shape[-1])
        if past is not None and shape[0] != past.shape[0]:
            raise ValueError(
                f"`chunk` has batch {shape[0]}, but the first one of this stream had batch {past.shape[0]}; "
                f"they must be equal"
            )

    def _compute(self, x: np.ndarray, first: int, out: np.ndarray, begin: int, threads: int) -> None:
        """The cells from `begin` on, of whose input `x` has the cells from `first` on."""
        self._plan._run_part(x, begin + self._flow.pad - first * self._flow.stride, out, threads)

    def _empty(self, batch: int, length: int) -> np.ndarray:
        channels = self._channels
        shape = (batch, channels, length) if self._axis == 2 else (batch, length, channels)
        backend.check_size("the result", shape, self._plan._dtype)
        return backend.empty(shape, self._plan._dtype)

    def _cut(self, array: np.ndarray, begin: int, end: int) -> np.ndarray:
        return array[:, :, begin:end] if self._axis == 2 else array[:, begin:end]

    def _joined(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.concatenate((before, after), self._axis)


class _Place(NamedTuple):
    """Where a stream is: how many cells of input it has had, and the last of them, which later cells of the result need
    too; None is before the first chunk. And of which library the last chunk was. One value, so that a call that is
    interrupted has changed nothing."""

    inputs: int
    past: np.ndarray | None
    library: Any
