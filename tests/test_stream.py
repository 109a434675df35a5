# SPDX-License-Identifier: Apache-2.0
"""Streams: the bits of the whole call from chunks of any lengths, and what is carried between them."""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import autograd.numpy as anp
import ml_dtypes
import numpy as np
import pytest
from autograd import grad
from conftest import Python
from hypothesis import given as over
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import backstride
from backstride import _native, _stream

FLOATS = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(scope="module", autouse=True)
def strict() -> Iterator[None]:
    """In which the bits are the same."""
    with backstride.precision("strict"):
        yield


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
ACTIVATIONS = [None, "relu", ("leaky_relu", 0.1), ("elu", 0.5), "gelu", "sigmoid", "tanh", ("snake", 2.0)]


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def values(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """Numbers whose sums round, and wrap; the same for the same shape."""
    array = 40 * np.random.default_rng(list(shape)).standard_normal(shape)
    return abs(array).astype(dtype) if np.dtype(dtype).kind == "u" else array.astype(dtype)


@dataclass(frozen=True)
class Layer:
    """A layer of one axis: SAME, VALID or a pair, and groups of channels (input, output)."""

    kernel: int
    stride: int
    padding: Any = "SAME"
    dilation: int = 1
    groups: int = 1
    channels: tuple[int, int] = (3, 2)
    channels_first: bool = False
    bias: bool = True
    activation: Any = None
    dtype: str = "float32"

    @property
    def axis(self) -> int:
        return 2 if self.channels_first else 1

    @property
    def extent(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def plan(self) -> backstride.Plan:
        dtype, (into, out) = dtype_of(self.dtype), self.channels
        pairs = [(0, 0)] * 3
        if not isinstance(self.padding, str):
            pairs[self.axis] = self.padding
        return backstride.plan(
            values((self.kernel, out, into * self.groups), dtype),
            self.stride,
            self.padding if isinstance(self.padding, str) else pairs,
            data_format="NCW" if self.channels_first else "NWC",
            dilations=self.dilation,
            groups=self.groups,
            bias=values((out * self.groups,), dtype) if self.bias else None,
            activation=self.activation,
        )

    def input(self, length: int, batch: int = 1) -> np.ndarray:
        channels = self.channels[0] * self.groups
        shape = (batch, channels, length) if self.channels_first else (batch, length, channels)
        return values(shape, dtype_of(self.dtype))

    @property
    def delay(self) -> int:
        """As the documentation has it."""
        if self.padding == "SAME":
            return max(self.extent - self.stride, 0) // 2
        if self.padding == "VALID":
            return 0
        before, after = self.padding
        return before + max(after + self.stride - self.extent, 0)

    @property
    def most_carried(self) -> int:
        after = 0 if isinstance(self.padding, str) else self.padding[1]
        return max((self.extent - 1) // self.stride, -(-after // self.stride))


def chunks(x: np.ndarray, lengths: Iterable[int], axis: int = 1) -> Iterator[np.ndarray]:
    """Copies of these stretches of x, each of which is overwritten when the next one is asked for."""
    begin = 0
    for length in [*lengths, None]:
        end = x.shape[axis] if length is None else min(begin + length, x.shape[axis])
        chunk = x.take(range(begin, end), axis)
        yield chunk
        chunk[...] = 77
        begin = end


def streamed(layer: Layer, p: backstride.Plan, x: np.ndarray, lengths: Iterable[int]) -> np.ndarray:
    """The result by a stream, which gives what is documented and carries no more than it must."""
    stream, parts, inputs = p.stream(), [], 0
    for chunk in chunks(x, lengths, layer.axis):
        parts.append(stream(chunk))
        inputs += chunk.shape[layer.axis]
        assert sum(part.shape[layer.axis] for part in parts) == max(inputs * layer.stride - layer.delay, 0)
        assert stream._place.past.shape[layer.axis] <= layer.most_carried
    parts.append(stream.finish())
    return np.concatenate(parts, layer.axis)


def joined(bytes: int) -> Any:
    """Chunks above so many bytes are not copied as a whole."""
    return mock.patch.object(_stream, "_JOINED", bytes)


# Bits


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kernel, stride, dilation = draw(st.integers(1, 17)), draw(st.integers(1, 9)), draw(st.sampled_from((1, 1, 2, 3, 7)))
    extent = (kernel - 1) * dilation + 1
    pairs = st.tuples(*[st.integers(0, extent + 3)] * 2)
    causal = st.just((0, max(extent - stride, 0)))
    padding = draw(st.one_of(st.sampled_from(("SAME", "VALID")), pairs, causal))
    groups, (into, out) = draw(st.sampled_from((1, 1, 1, 2, 3))), (draw(st.integers(1, 20)) for _ in "io")
    if draw(st.integers(0, 7)) == 0:
        groups, into, out = draw(st.integers(2, 40)), 1, 1
    return Layer(
        kernel,
        stride,
        padding,
        dilation,
        groups,
        (into, out),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(ACTIVATIONS)),
        draw(st.sampled_from(["float32", "float32", "float64", "float16", "bfloat16"])),
    )


@over(
    layer=layers(),
    lengths=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 70)), max_size=12),
    batch=st.integers(0, 3),
    bytes=st.sampled_from((0, 200, 1 << 18)),
)
def test_any_cutting_has_the_bits_of_the_whole_call(layer: Layer, lengths: list[int], batch: int, bytes: int) -> None:
    p, x = layer.plan, layer.input(sum(lengths) + 3, batch)
    try:
        whole = p(x)
    except ValueError as error:
        with joined(bytes), pytest.raises(ValueError, match=str(error).partition("`x`")[0]):
            streamed(layer, p, x, lengths)
        return
    with joined(bytes):
        got = streamed(layer, p, x, lengths)
    assert got.dtype == whole.dtype
    assert got.shape == whole.shape
    assert got.tobytes() == whole.tobytes()


CUTTINGS = [[1] * 50, [50], [7] * 8, [0, 0, 3, 0, 20, 1, 1], [40, 1, 9]]
EDGES = [
    Layer(4, 2, "VALID"),
    Layer(5, 2, "SAME"),
    Layer(16, 8, (4, 4)),
    Layer(4, 2, (0, 2)),
    Layer(2, 5, "SAME"),
    Layer(2, 5, "VALID"),
    Layer(2, 5, (0, 0)),
    Layer(2, 5, (1, 1)),
    Layer(1, 1),
    Layer(1, 3, (0, 0)),
    Layer(3, 1, (9, 7)),
    Layer(3, 4, (0, 30)),
    Layer(3, 4, (30, 0)),
    Layer(7, 3, "SAME", dilation=5),
    Layer(2, 3, "VALID", dilation=20),
    Layer(4, 2, (0, 2), groups=33, channels=(1, 1)),
    Layer(4, 2, (0, 2), groups=2, channels=(9, 5), channels_first=True),
    Layer(9, 1, "SAME", channels=(16, 1)),
    Layer(16, 8, "SAME", channels=(20, 2), channels_first=True),
    Layer(0, 2, "SAME"),
    Layer(3, 2, "VALID", channels=(0, 2)),
    Layer(3, 2, "VALID", channels=(2, 0)),
]


def check_edges() -> None:
    """Every edge with every cutting, in one piece and in two, and every activation once to each cell."""
    for layer, lengths, bytes in itertools.product(EDGES, CUTTINGS, (0, 1 << 18)):
        p, x = layer.plan, layer.input(50, 2)
        with joined(bytes):
            assert streamed(layer, p, x, lengths).tobytes() == p(x).tobytes(), (layer, lengths, bytes)
    for activation, bias in itertools.product(ACTIVATIONS, (False, True)):
        layer = Layer(5, 2, bias=bias, activation=activation, channels=(18, 3))
        p, x = layer.plan, layer.input(50, 2)
        assert streamed(layer, p, x, [7] * 8).tobytes() == p(x).tobytes(), (activation, bias)


@pytest.mark.parametrize("isa", _native.ISAS)
def test_edges_have_the_bits_of_the_whole_call(python: Python, isa: str) -> None:
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import test_stream; test_stream.check_edges()"
    python(code, BACKSTRIDE_ISA=isa, BACKSTRIDE_PRECISION="strict")


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("first", [False, True])
def test_every_dtype(dtype: str, first: bool) -> None:
    for padding, channels in itertools.product(("SAME", (0, 3)), [(9, 2), (5, 33)]):
        layer = Layer(5, 2, padding, channels=channels, channels_first=first, activation="relu", dtype=dtype)
        p, x = layer.plan, layer.input(40, 2)
        with np.errstate(all="ignore"):
            whole = p(x)
        for lengths, bytes in itertools.product(([1] * 40, [13, 0, 20]), (0, 1 << 18)):
            with joined(bytes):
                got = streamed(layer, p, x, lengths)
            assert got.dtype == dtype_of(dtype)
            assert got.tobytes() == whole.tobytes()


def test_chunks_may_need_another_algorithm_than_the_whole() -> None:
    """A chunk of one cell does not fill the lanes of a vector, the whole signal does."""
    layer = Layer(7, 1, "VALID", channels=(16, 1))
    p, x = layer.plan, layer.input(300)
    with mock.patch.object(p, "_part", wraps=p._part) as part:
        assert streamed(layer, p, x, [1] * 100).tobytes() == p(x).tobytes()
        kernels = {p._sizes.part(*call.args).kernel for call in part.call_args_list}
    assert "_lanes_" in p._resolve(x.shape, None).plan.kernel
    assert len(kernels) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_where_they_are(value: float) -> None:
    layer = Layer(5, 2, (1, 2), channels=(16, 2))
    p, x = layer.plan, layer.input(60)
    x[0, [0, 17, 18, 59], 3] = value
    whole = p(x)
    assert 0 < np.isfinite(whole).sum() < whole.size
    assert_array_equal(streamed(layer, p, x, [3] * 20), whole)


def test_a_large_chunk_is_split_and_the_first_is_read_where_it_is() -> None:
    layer = Layer(16, 8, channels=(64, 4))
    p, x = layer.plan, layer.input(4800)
    cut = np.split(x, [400, 4400], 1)
    assert cut[1].nbytes > _stream._JOINED > cut[0].nbytes
    stream = p.stream()
    with mock.patch.object(p, "_run_part", wraps=p._run_part) as run:
        got = np.concatenate([*map(stream, cut), stream.finish()], 1)
    assert got.tobytes() == p(x).tobytes()
    parts = [call.args[0] for call in run.call_args_list]
    assert [part.shape[1] for part in parts] == [400, 2, 4000, 401, 1]
    assert parts[0] is cut[0]
    assert parts[2] is cut[1]


def test_the_sign_of_a_sum_that_underflows() -> None:
    w, x = np.full((7, 1, 16), 1e-30, np.float32), np.full((1, 300, 16), -1e-30, np.float32)
    p = backstride.plan(w, padding="VALID")
    stream = p.stream()
    got = np.concatenate([*map(stream, np.split(x, 300, 1)), stream.finish()], 1)
    assert_array_equal(np.signbit(got), np.signbit(p(x)))


# What a chunk gives


@pytest.mark.parametrize(
    ("layer", "given", "rest"),
    [
        (Layer(16, 8, "SAME"), [36, 40, 0, 8], 4),
        (Layer(16, 8, "VALID"), [40, 40, 0, 8], 8),
        (Layer(16, 8, (0, 8)), [40, 40, 0, 8], 0),
        (Layer(16, 8, (4, 4)), [36, 40, 0, 8], 4),
        (Layer(16, 8, (0, 0)), [40, 40, 0, 8], 8),
        (Layer(16, 8, (0, 14)), [34, 40, 0, 8], 0),
        (Layer(2, 5, "VALID"), [25, 25, 0, 5], 0),
        (Layer(2, 5, (0, 0)), [22, 25, 0, 5], 0),
        (Layer(2, 1, (12, 0)), [0, 0, 0, 0], 0),
    ],
    ids=repr,
)
def test_cells_come_as_soon_as_they_are_settled(layer: Layer, given: list[int], rest: int) -> None:
    stream = layer.plan.stream()
    parts = [stream(chunk) for chunk in chunks(layer.input(11), [5, 5, 0, 1])][: len(given)]
    assert [part.shape[1] for part in parts] == given
    assert stream.finish().shape[1] == rest


@pytest.mark.parametrize("layer", [each for each in EDGES if 0 not in (each.kernel, *each.channels)], ids=repr)
def test_no_cell_is_given_later_than_it_is_settled(layer: Layer) -> None:
    """The first cell that is kept back does change with what follows, or might be cut off."""
    p, x = layer.plan, layer.input(60)
    begin, rest = np.split(x, [50], layer.axis)
    given = p.stream()(begin).shape[layer.axis]
    differs = p(x) != p(np.concatenate([begin, rest + 1], layer.axis))
    first = np.flatnonzero(differs.any(axis=(0, 3 - layer.axis)))[0]
    assert given == min(first, p(begin).shape[layer.axis])


@pytest.mark.parametrize("padding", ["SAME", "VALID", (1, 2)])
def test_streams_without_any_input(padding: Any) -> None:
    layer = Layer(5, 2, padding)
    p, nothing = layer.plan, layer.input(0, 3)
    stream = p.stream()
    assert stream(nothing).shape == (3, 0, 2)
    assert_array_equal(stream.finish(), p(nothing))


def test_the_batch_may_be_empty() -> None:
    layer = Layer(5, 2)
    stream = layer.plan.stream()
    assert stream(layer.input(4, 0)).shape == (0, 7, 2)
    assert stream.finish().shape == (0, 1, 2)


# What is carried


def test_nothing_of_a_chunk_is_kept_but_its_end() -> None:
    layer = Layer(16, 8, channels=(64, 4))
    stream = layer.plan.stream()
    for length in (3000, 1, 20):
        chunk = layer.input(length)
        gone = weakref.ref(chunk)
        part = stream(chunk)
        del chunk
        assert gone() is None
        assert part.base is None or part.base.nbytes == part.nbytes
        assert stream._place.past.nbytes == 64 * 4
        assert stream._place.past.base is None


PEAK = """
import numpy as np, backstride

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

backstride.set_num_threads(2)
p = backstride.plan(np.ones((16, 16, 32), np.float32), 8, bias=np.ones(16, np.float32), activation="tanh")
stream = p.stream()
stream(np.ones((1, 100, 32), np.float32)), p(np.ones((1, 100, 32), np.float32))
x = np.full((1, 200_000, 32), 1, np.float32)
before, peak_before = status("VmRSS"), status("VmHWM")
result = stream(x)
print(peak_before - before, status("VmHWM") - before - result.nbytes)
"""

GROWTH = """
import numpy as np, backstride

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) * 1024

p = backstride.plan(np.ones((16, 16, 32), np.float32), 8, bias=np.ones(16, np.float32), activation="tanh")
x = np.ones((1, 1500, 32), np.float32)
streams = [p.stream() for _ in range(20)]
for length in (1, 100, 1499):
    p(x[:, :length]), streams[0](x[:, :length])
before = resident()
for n in range(6000):
    streams[n % 20](x[:, : n % 1500])
print(resident() - before)
"""


def test_a_large_chunk_takes_little_memory_beyond_its_result(python: Python) -> None:
    """The chunk has 25 MB, its result 100."""
    hidden, extra = map(int, python(PEAK).split())
    assert hidden < 2 << 20
    assert extra < 4 << 20


def test_many_chunks_take_little_memory(python: Python) -> None:
    """Of 1500 lengths, in 20 streams at once."""
    assert int(python(GROWTH)) < 4 << 20


def test_a_copy_goes_on_from_the_same_place() -> None:
    layer = Layer(9, 2)
    p, x = layer.plan, layer.input(30)
    stream = p.stream()
    first = stream(x[:, :10])
    fork = copy.copy(stream)
    other = np.concatenate([first, fork(x[:, 20:]), fork.finish()], 1)
    same = np.concatenate([first, stream(x[:, 10:]), stream.finish()], 1)
    assert_array_equal(other, p(np.concatenate([x[:, :10], x[:, 20:]], 1)))
    assert_array_equal(same, p(x))


# Chunks as they come


def test_chunks_as_they_come() -> None:
    for layer in (Layer(5, 2), Layer(5, 2, channels_first=True)):
        p, x = layer.plan, layer.input(12, 2)
        cut = (slice(None), slice(None), slice(5)) if layer.channels_first else (slice(None), slice(5))
        unaligned = np.zeros(x[cut].nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x[cut].shape)
        unaligned[...] = x[cut]
        frozen = x[cut].copy()
        frozen.flags.writeable = False
        same = (frozen, np.asfortranarray(x[cut]), x[cut][::-1].copy()[::-1], x[cut].astype(">f4"), unaligned)
        for chunk, bytes in itertools.product((*same, x[cut].tolist()), (0, 1 << 18)):
            stream = p.stream()
            rest = np.delete(x, range(5), layer.axis)
            with joined(bytes):
                parts = [stream(chunk), stream(rest.astype(">f4")), stream.finish()]
            assert np.concatenate(parts, layer.axis).tobytes() == p(x).tobytes()


def test_the_result_is_of_native_byte_order() -> None:
    stream = Layer(5, 2).plan.stream()
    for _ in range(3):
        assert stream(values((1, 4, 3), ">f4")).dtype.isnative
        assert stream._place.past.dtype.isnative


def test_variables_are_arrays() -> None:
    layer = Layer(3, 2)
    p, x = layer.plan, layer.input(5)
    with backstride.VariableStore():
        part = p.stream()(backstride.get_variable("x", initializer=x))
    assert_array_equal(part, p.stream()(x))


def test_many_threads_have_streams_of_one_plan() -> None:
    layer = Layer(16, 4, channels=(20, 3), activation="gelu")
    p = layer.plan
    inputs = [layer.input(200 + n) for n in range(8)]
    expected = [p(x).tobytes() for x in inputs]
    wrong: list[int] = []

    def run(n: int) -> None:
        for length in range(1, 30):
            same = streamed(layer, p, inputs[n], [length] * (200 // length)).tobytes() == expected[n]
            wrong.extend([] if same else [n])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Messages

X = values((2, 6, 3))
WRONG: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "`chunk` must be a NumPy array, a list of numbers or a buffer; got NoneType"),
    (X[0], ValueError, r"`chunk` must have 3 dimensions; got shape \(6, 3\)"),
    (X[..., :2], ValueError, "`chunk` has 2 channels, but the last dimension of `filters` is 3; they must be equal"),
    (X[:1], ValueError, "`chunk` has batch 1, but the first one of this stream had batch 2; they must be equal"),
    (X.astype(float), TypeError, r"`chunk` has dtype float64; the plan's `filters` have float32 \(convert with .asty"),
    (np.ma.array(X), TypeError, "`chunk` is a masked array, whose mask would be lost"),
    ([[["a"]]], TypeError, "`chunk` has dtype <U1; it must be one of float16, bfloat16"),
]


@pytest.mark.parametrize(("chunk", "error", "message"), WRONG, ids=lambda value: repr(value)[:40])
def test_wrong_chunks_are_told_and_change_nothing(chunk: Any, error: type[Exception], message: str) -> None:
    layer = Layer(5, 2)
    p, stream = layer.plan, layer.plan.stream()
    first = stream(X)
    with pytest.raises(error, match=message):
        stream(chunk)
    got = np.concatenate([first, stream(X), stream.finish()], 1)
    assert_array_equal(got, p(np.concatenate([X, X], 1)))


def test_the_first_chunk_may_be_wrong() -> None:
    stream = Layer(5, 2).plan.stream()
    with pytest.raises(ValueError, match="`chunk` has 4 channels"):
        stream(np.ones((9, 6, 4), np.float32))
    assert stream(X).shape == (2, 11, 2)


def test_channels_first_are_told() -> None:
    stream = Layer(5, 2, channels_first=True).plan.stream()
    with pytest.raises(ValueError, match="`chunk` has 6 channels"):
        stream(X)


def test_a_call_that_is_interrupted_changes_nothing() -> None:
    layer = Layer(5, 2)
    p = layer.plan
    stream = p.stream()
    first = stream(X)
    with mock.patch.object(p, "_run_part", side_effect=KeyboardInterrupt):
        for call in (lambda: stream(X), stream.finish):
            with pytest.raises(KeyboardInterrupt):
                call()
    got = np.concatenate([first, stream(X), stream.finish()], 1)
    assert_array_equal(got, p(np.concatenate([X, X], 1)))


def test_result_beyond_the_memory_is_told() -> None:
    stream = backstride.plan(np.ones((1, 2**20, 1), np.float32), 2**30).stream()
    stream(np.ones((1, 0, 1), np.float32))
    with pytest.raises(MemoryError, match=r"the result of shape .* this machine has"):
        stream(np.ones((1, 1000, 1), np.float32))


def test_the_whole_result_may_be_beyond_the_memory() -> None:
    """Only its parts are made."""
    p = backstride.plan(np.ones((1, 2**12, 1), np.float32), 2**10)
    stream = p.stream()
    with mock.patch("backstride._native.physical_memory", return_value=2**25):
        with pytest.raises(MemoryError):
            p(np.ones((1, 3, 1), np.float32))
        assert sum(stream(np.ones((1, 1, 1), np.float32)).shape[1] for _ in range(3)) == 3 * 2**10
        assert stream.finish().shape == (1, 0, 2**12)


def test_a_stream_is_over_after_finish() -> None:
    stream = Layer(5, 2).plan.stream()
    stream(X)
    stream.finish()
    for call in (lambda: stream(X), stream.finish):
        with pytest.raises(ValueError, match=r"this stream is over since `finish`; start another by `stream\(\)`"):
            call()
    assert "over" in repr(stream)


def test_finish_needs_a_batch() -> None:
    stream = Layer(5, 2).plan.stream()
    with pytest.raises(ValueError, match="`finish` needs a chunk before it, from which it knows the batch; one of len"):
        stream.finish()
    assert stream(X).shape == (2, 11, 2)


def test_too_little_input_for_the_padding_is_told_and_may_go_on() -> None:
    layer = Layer(3, 1, (9, 9))
    p, x = layer.plan, layer.input(20)
    stream = p.stream()
    parts = [stream(x[:, :2])]
    with pytest.raises(ValueError, match=r"`result` width 0 does not fit `chunks` of width 2: .* no width would fit"):
        stream.finish()
    parts += [stream(x[:, 2:]), stream.finish()]
    assert_array_equal(np.concatenate(parts, 1), p(x))


@pytest.mark.parametrize("shape", [(3, 3, 2, 2), (1, 3, 3, 2, 2)])
def test_plans_of_more_axes_have_no_stream(shape: tuple[int, ...]) -> None:
    p = backstride.plan(np.ones(shape, np.float32))
    message = rf"only plans of one axis have streams; this plan's `filters` have {len(shape) - 2}: shape \({shape[0]}, "
    for start in (p.stream, lambda: backstride.Stream(p)):
        with pytest.raises(ValueError, match=message):
            start()


def test_plans_of_a_given_length_have_no_stream() -> None:
    p = backstride.plan(np.ones((3, 2, 2), np.float32), 2, output_shape=(7,))
    with pytest.raises(ValueError, match=r"as long as its chunks make it, .* output_shape=\(7,\); make one without"):
        p.stream()


def test_tracers_are_told_where_to_go() -> None:
    stream = Layer(5, 2).plan.stream()
    with pytest.raises(TypeError, match="`chunk` is traced by autograd, and a plan has no gradient"):
        grad(lambda x: anp.sum(stream(x)))(X)
    assert stream(X).shape == (2, 11, 2)


def test_streams_are_shown() -> None:
    p = Layer(5, 2, bias=False).plan
    stream = p.stream()
    stream(X)
    assert repr(stream) == f"<Stream of {p}: 6 cells taken, 11 given>"
    assert stream.delay == 1
