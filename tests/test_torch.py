# SPDX-License-Identifier: Apache-2.0
"""The operators that PyTorch's dispatcher has: values, derivatives of any order, transforms, compilation, devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cases
import ml_dtypes  # noqa: F401
import numpy as np
import pytest
import torch
from cases import Case
from conftest import Python
from numpy.testing import assert_array_equal
from test_autograd import EVERY, FEW, Differentiable
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from backstride import _backends, _ops, nn
from backstride._backends import torch as backend
from backstride._backends import torch_operators as operators
from backstride._backends.torch_operators import Sizes, call, compute_elsewhere, layer

OPERANDS = pytest.mark.parametrize("wrt", cases.OPERANDS)

# What PyTorch itself warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*functools.lru_cache.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    torch.manual_seed(0)


def tensors(case: Case, wrt: str, dtype: str = "float64") -> list[Tensor]:
    """The operands of small integers, in PyTorch's order of axes."""
    return [torch_order(operand, torch.from_numpy(case.integers(operand, dtype))) for operand in cases.given(wrt)]


def torch_order(operand: str, x: Any) -> Any:
    order = (-1, -2, *range(x.ndim - 2)) if operand == "filter" else (0, -1, *range(1, x.ndim - 1))
    return x.permute(order) if isinstance(x, Tensor) else x.transpose(*(n % x.ndim for n in order))


def sizes(case: Case, wrt: str, channels_last: bool = False) -> Sizes:
    axes = case.geometry.axes
    lengths = [axis.kernel if wrt == "filter" else getattr(axis, wrt) for axis in axes]
    layer = ([getattr(axis, name) for axis in axes] for name in ("stride", "dilation", "pad"))
    return Sizes(lengths, *layer, case.geometry.groups, channels_last)


# Values


@OPERANDS
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", cases.SELECTED, ids=str)
def test_values_in_any_memory_order(case: Case, wrt: str, channels_last: bool) -> None:
    first, second = tensors(case, wrt)
    want = torch_order(wrt, case.exact(wrt))
    for pair in ((first, second), (first.contiguous(), second), (first, second.contiguous())):
        result = call(wrt, *pair, sizes(case, wrt, channels_last))
        assert_array_equal(result.numpy(), want)
        memory = [0, *range(2, result.ndim), 1] if wrt != "filter" else [*range(2, result.ndim), 1, 0]
        assert (result.permute(memory) if channels_last else result).is_contiguous()


@OPERANDS
@pytest.mark.parametrize("case", [case for case in cases.GEOMETRIES if "huge" not in str(case)], ids=str)
def test_other_devices_have_the_same_geometry(case: Case, wrt: str) -> None:
    """PyTorch's own convolution, which computes where the core can't, on a CPU."""
    first, second = tensors(case, wrt)
    for channels_last in (False, True):
        given = sizes(case, wrt, channels_last)
        result = compute_elsewhere(wrt, first, second, given)
        assert_array_equal(result.numpy(), torch_order(wrt, case.exact(wrt)))
        assert result.stride() == call(wrt, first, second, given).stride()


@OPERANDS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "uint64"])
def test_dtypes(wrt: str, dtype: str) -> None:
    case = cases.SELECTED[0]
    first, second = (tensor.to(getattr(torch, dtype)) for tensor in tensors(case, wrt))
    result = call(wrt, first, second, sizes(case, wrt))
    assert result.dtype == first.dtype
    want = torch_order(wrt, torch.from_numpy(case.exact(wrt).copy())).to(first.dtype)
    assert torch.equal(result, want)


@OPERANDS
@pytest.mark.parametrize("empty", ["batch", "input", "in_channels"])
def test_empty_tensors(wrt: str, empty: str) -> None:
    lengths = {"batch": 2, "input": 3, "in_channels": 4} | {empty: 0}
    shapes = {
        "input": (lengths["batch"], lengths["in_channels"], lengths["input"]),
        "filter": (lengths["in_channels"], 5, 2),
        "output": (lengths["batch"], 5, 6),
    }
    first, second = (torch.ones(shapes[operand]) for operand in cases.given(wrt))
    given = Sizes(shapes[wrt][2:], [2], [1], [0], 1, False)
    for compute in (call, compute_elsewhere):
        result = compute(wrt, first, second, given)
        assert result.shape == shapes[wrt]
        assert not result.any()


def test_views_are_read_where_they_are() -> None:
    """Expanded, strided and shifted tensors, and parameters, without gradients of them."""
    x, w = torch.randn(1, 5, 6, 3), torch.nn.Parameter(torch.randn(3, 3, 4, 3))
    large = torch.randn(4, 11, 13, 7)
    for view in (x.expand(4, -1, -1, -1), large[:, ::2, 1::2, 2:5], large.flip(0)[..., :3][:, :5, :6]):
        want = nn.conv2d_transpose(view.numpy(), w.detach().numpy(), [2 * n for n in view.shape[1:3]], 2)
        with torch.no_grad():
            assert_array_equal(nn.conv2d_transpose(view, w, [2 * n for n in view.shape[1:3]], 2).numpy(), want)
        assert np.shares_memory(operators._view("input", view), view.numpy())


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 300, 50, 64)])
def test_results_have_the_memory_format_of_the_input(shape: tuple[int, ...]) -> None:
    x, w = torch.randn(shape), torch.randn(3, 3, 2, shape[1])
    output = [2 * n for n in shape[2:]]
    result = nn.conv2d_transpose(x, w, output, 2, data_format="NCHW")
    assert result.is_contiguous()
    last = nn.conv2d_transpose(x.to(memory_format=torch.channels_last), w, output, 2, data_format="NCHW")
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last, result, atol=1e-4)
    assert nn.conv2d_transpose(x.movedim(1, -1).contiguous(), w, output, 2).is_contiguous()


def test_results_may_be_written_to() -> None:
    """Also large ones, whose memory comes from the core; two results never share any."""
    x, w = torch.randn(1, 64, 64, 64), torch.randn(2, 2, 64, 64)
    results = [nn.conv2d_transpose(x, w, [128, 128], 2, data_format="NCHW") for _ in range(3)]
    results[0].zero_()
    assert torch.equal(results[1], results[2])
    assert results[1].any()
    assert not results[1]._is_view()


# Derivatives


@EVERY
def test_gradients_to_the_second_order(function: Differentiable) -> None:
    pair = [torch.from_numpy(array).requires_grad_() for array in function.reals]
    assert gradcheck(function.apply, pair, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function.apply, pair)


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_of_layers(keep: bool) -> None:
    case = cases.SELECTED[-1]
    shapes = [tensor.shape for tensor in tensors(case, "output")]
    bias = torch.randn(case.geometry.out_channels, dtype=torch.float64, requires_grad=True)
    pair = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    small = [pair[0][:1, :3].detach().requires_grad_(), pair[1][:3, :2].detach().requires_grad_()]
    small.append(bias[:2].detach().requires_grad_())

    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return layer(x, w.clone(), b, sizes(case, "output"), keep)  # numerical derivatives write past the versions

    assert gradcheck(function, small, check_forward_ad=True)
    assert gradgradcheck(function, small)


def test_gradients_have_the_memory_order_of_their_tensor() -> None:
    x = torch.randn(2, 5, 6, 3, requires_grad=True)
    w = torch.randn(3, 3, 4, 3, requires_grad=True)
    for by in torch.autograd.grad(nn.conv2d_transpose(x, w, [10, 12], 2).sum(), (x, w)):
        assert by.is_contiguous()
    w = torch.randn(3, 4, 3, 3, requires_grad=True)
    result = call("output", x.movedim(-1, 1), w, Sizes([10, 12], [2, 2], [1, 1], [0, 0], 1, True))
    for by, to in zip(torch.autograd.grad(result.sum(), (x, w)), (x, w), strict=True):
        assert by.stride() == to.stride()


def test_gradients_through_what_is_not_a_leaf() -> None:
    x, w = torch.randn(2, 5, 6, 3, requires_grad=True), torch.randn(3, 3, 4, 3)
    (by,) = torch.autograd.grad(nn.conv2d_transpose(torch.tanh(x) * 2, w, [10, 12], 2).sum(), x)
    ones = torch.ones(2, 10, 12, 4)
    assert torch.allclose(by, nn.conv2d(ones, w, 2, "SAME") * 2 * (1 - torch.tanh(x) ** 2), atol=1e-5)


def test_only_needed_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    whole = _ops.transpose
    monkeypatch.setattr(_ops, "transpose", lambda wrt, by, *rest: computed.append(by) or whole(wrt, by, *rest))
    x, w = torch.randn(2, 5, 3), torch.randn(3, 4, 3, requires_grad=True)
    nn.conv1d_transpose(x, w, [10], 2).sum().backward()
    assert computed == ["filter"]


# Transforms


def loops(function: Callable[..., Tensor], dims: tuple[int | None, ...], *arrays: Tensor) -> Tensor:
    count = next(array.shape[dim] for array, dim in zip(arrays, dims, strict=True) if dim is not None)
    return torch.stack(
        [
            function(*(a if dim is None else a.select(dim, n) for a, dim in zip(arrays, dims, strict=True)))
            for n in range(count)
        ]
    )


DIMS = [(0, None), (None, 0), (0, 0), (2, 1)]


def many(arrays: Any, dims: Any) -> list[Tensor]:
    """Small integers, so that any order of sums is exact, with a dimension of 3 where one is mapped."""
    result = []
    for array, dim in zip(arrays, dims, strict=True):
        shape = list(array.shape)
        if dim is not None:
            shape.insert(dim, 3)
        result.append(torch.randint(-3, 4, shape).double())
    return result


@FEW
@pytest.mark.parametrize("dims", DIMS)
def test_vmap(function: Differentiable, dims: tuple[int | None, ...]) -> None:
    arrays = many(function.operands, dims)
    assert torch.equal(torch.func.vmap(function.apply, dims)(*arrays), loops(function.apply, dims, *arrays))
    twice = [array[None].expand(2, *array.shape) for array in arrays]
    result = torch.func.vmap(torch.func.vmap(function.apply, dims))(*twice)
    assert torch.equal(result[1], loops(function.apply, dims, *arrays))


@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, 0), (0, 0, None), (None, None, 0), (1, 0, 1)])
def test_vmap_of_layers(dims: tuple[int | None, ...]) -> None:
    arrays = many((np.ones((2, 3, 4)), np.ones((3, 5, 2)), np.ones(5)), dims)

    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return layer(x, w, b, Sizes([8], [2], [1], [0], 1, False), False)

    assert torch.equal(torch.func.vmap(function, dims)(*arrays), loops(function, dims, *arrays))


@FEW
def test_gradients_of_functions(function: Differentiable) -> None:
    one, other = map(torch.from_numpy, function.operands)

    def loss(x: Tensor, w: Tensor) -> Tensor:
        return function.apply(x, w).square().sum()

    wanted = torch.autograd.functional.jacobian(loss, (one, other))
    for got, want in zip(torch.func.grad(loss, (0, 1))(one, other), wanted, strict=True):
        assert torch.equal(got, want)
    arrays = many(function.operands, (0, 0))
    each = torch.func.vmap(torch.func.grad(loss))(*arrays)
    assert torch.equal(each, loops(torch.func.grad(loss), (0, 0), *arrays))
    hessian = torch.func.jacrev(torch.func.grad(loss, 1), 1)(one, other)
    assert torch.allclose(hessian, torch.func.jacfwd(torch.func.grad(loss, 1), 1)(one, other))
    assert torch.allclose(hessian, torch.autograd.functional.hessian(lambda w: loss(one, w), other))


def test_forward_mode() -> None:
    x, w, tangent = (torch.randn(*shape) for shape in ((2, 5, 3), (3, 4, 3), (2, 5, 3)))
    with forward_ad.dual_level():
        result = forward_ad.unpack_dual(nn.conv1d_transpose(forward_ad.make_dual(x, tangent), w, [10], 2))
    assert torch.equal(result.tangent, nn.conv1d_transpose(tangent, w, [10], 2))
    x, tangent = x.movedim(1, 2), tangent.movedim(1, 2)

    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return layer(x, w, b, Sizes([10], [2], [1], [0], 1, False), False)

    one, other = torch.randn(3, 4, 2), torch.randn(4)
    _, moved = torch.func.jvp(function, (x, one, other), (tangent, one, other))
    want = function(tangent, one, other) + function(x, one, torch.zeros(4))
    assert torch.allclose(moved, want, atol=1e-5)


# Compilation


@OPERANDS
@pytest.mark.parametrize("channels_last", [False, True])
def test_operators_keep_the_dispatchers_rules(wrt: str, channels_last: bool) -> None:
    case = cases.SELECTED[3]
    pair = [tensor.requires_grad_() for tensor in tensors(case, wrt, "float32")]
    torch.library.opcheck(operators._OPERATORS[wrt], (*pair, *sizes(case, wrt, channels_last)))


@pytest.mark.parametrize("keep", [False, True])
def test_layers_keep_the_dispatchers_rules(keep: bool) -> None:
    case = cases.SELECTED[3]
    pair = [tensor.requires_grad_() for tensor in tensors(case, "output", "float32")]
    bias = torch.randn(case.geometry.out_channels, requires_grad=True)
    for given in (bias, None):
        torch.library.opcheck(torch.ops.backstride.layer.default, (*pair, given, *sizes(case, "output"), keep))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [None, True, False])
def test_functions_compile_without_a_break(dynamic: bool | None) -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        shape = [x.shape[0], 2 * x.shape[1], 2 * x.shape[2] - 1, w.shape[2]]
        return nn.silu(nn.conv2d_transpose(x, w, shape, 2) + 1)

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((1, 4, 5, 3), (2, 6, 5, 3), (3, 7, 9, 3)):
        x, w = torch.randn(shape, requires_grad=True), torch.randn(3, 4, 6, 3, requires_grad=True)
        got, want = compiled(x, w), function(x, w)
        assert torch.equal(got, want)
        assert got.stride() == want.stride()
        pairs = (torch.autograd.grad(result.square().sum(), (x, w)) for result in (got, want))
        assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))


@pytest.mark.usefixtures("fresh_compiler")
def test_a_first_call_may_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing has asked for the backend yet."""
    monkeypatch.setattr(_backends, "_loaded", {})
    monkeypatch.setattr(_backends, "_homes", {})
    compiled = torch.compile(nn.relu, fullgraph=True, backend="eager")
    assert compiled(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
    monkeypatch.undo()


@pytest.mark.parametrize("name", [name for name in nn.__all__ if "conv" not in name and name != "bias_add"])
@pytest.mark.usefixtures("fresh_compiler")
def test_activations_compile_without_a_break(name: str) -> None:
    x = torch.randn(7)
    assert torch.allclose(torch.compile(getattr(nn, name), fullgraph=True, backend="eager")(x), getattr(nn, name)(x))


# Modes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    x, w = torch.randn(2, 5, 6, 3, requires_grad=True), torch.randn(3, 3, 4, 3, requires_grad=True)
    with torch.autocast("cpu", dtype):
        result = nn.conv2d_transpose(x, w, [10, 12], 2)
        mixed = nn.conv2d_transpose(x.to(dtype), w, [10, 12], 2)
        twice = nn.conv2d_transpose(result, torch.randn(2, 2, 1, 4), [20, 24], 2)
    want = nn.conv2d_transpose(x.to(dtype), w.to(dtype), [10, 12], 2)
    assert result.dtype == twice.dtype == dtype
    assert torch.equal(result, want)
    assert torch.equal(mixed, want)
    by = torch.autograd.grad(result.float().sum(), (x, w))
    assert [gradient.dtype for gradient in by] == [torch.float32] * 2
    with torch.autocast("cpu", dtype):
        double = nn.conv2d_transpose(x.double(), w.double(), [10, 12], 2)
    assert double.dtype == torch.float64


def test_inference_mode() -> None:
    x, w = torch.randn(2, 5, 6, 3), torch.randn(3, 3, 4, 3, requires_grad=True)
    with torch.inference_mode():
        result = nn.conv2d_transpose(x, w, [10, 12], 2)
        again = nn.conv2d_transpose(result, torch.randn(2, 2, 1, 4), [20, 24], 2)
    assert result.is_inference()
    assert again.shape == (2, 20, 24, 1)
    assert torch.equal(result, nn.conv2d_transpose(x, w, [10, 12], 2))


# Threads

THREADS = """
import os, threading, torch, backstride
from pathlib import Path

torch.set_num_threads({torch})
backstride.set_num_threads(3)
x, w = torch.randn(2, 64, 60, 24), torch.randn(4, 4, 40, 24)

def call(x=x):
    return backstride.nn.conv2d_transpose(x, w, [128, 120], 2)

def running():
    return len(list(Path("/proc/self/task").iterdir()))

torch.mul(torch.ones(1 << 20), 2)
before = running()
want = backstride.nn.conv2d_transpose(x.numpy(), w.numpy(), [128, 120], 2)
assert running() == before + 2
"""


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_calls_run_on_the_threads_of_pytorch(python: Python, threads: int) -> None:
    """Which it has already, and the core's pool comes with the first call on NumPy arrays. Bits are the same."""
    code = """
pool = running()
assert pool == before + 2
for _ in range(20):
    assert (call().numpy() == want).all()
assert running() == pool
"""
    calls_first = "before = running()\ncall()\nassert running() == before\n"
    body = THREADS.format(torch=threads).replace("before = running()\n", calls_first)
    assert python(body + code + "print('done')") == "done\n"


def test_many_threads_call_at_once(python: Python) -> None:
    code = """
def work():
    for _ in range(20):
        assert (call().numpy() == want).all()
        torch.mul(torch.ones(1 << 20), 2)

others = [threading.Thread(target=work) for _ in range(6)]
for other in others: other.start()
for other in others: other.join()
print("done")
"""
    assert python(THREADS.format(torch=3) + code) == "done\n"


def test_a_forked_child_has_threads_of_its_own(python: Python) -> None:
    """Those of PyTorch stay with the parent, and a child that asked for them would wait for ever."""
    code = """
call()
for _ in range(10):
    if (pid := os.fork()) == 0:
        assert (call().numpy() == want).all()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert (call().numpy() == want).all()
print("done")
"""
    assert python(THREADS.format(torch=3) + code) == "done\n"


def test_calls_from_within_a_parallel_region(python: Python) -> None:
    code = """
import ctypes
from backstride._backends.torch_operators import _crew

results = []
Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
body = Body(lambda _: results.append(call().numpy()))
ctypes.CFUNCTYPE(None, Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(_crew())(body, None, 3, 0)
assert len(results) == 3
assert all((result == want).all() for result in results)
print("done")
"""
    assert python(THREADS.format(torch=3) + code) == "done\n"


def test_signals_stop_calls(python: Python) -> None:
    """This one would take longer than that."""
    code = """
import signal, time

def stop(*_):
    raise TimeoutError("enough")

signal.signal(signal.SIGALRM, stop)
images, filter = torch.ones(32, 64, 60, 256), torch.ones(8, 8, 40, 256)
for _ in range(3):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    start = time.monotonic()
    try:
        backstride.nn.conv2d_transpose(images, filter, [128, 120], 2)
    except TimeoutError as error:
        print(error)
    assert time.monotonic() - start < 5
assert (call().numpy() == want).all()
"""
    assert python(THREADS.format(torch=3) + code, BACKSTRIDE_ISA="portable") == "enough\n" * 3


# What is refused


def test_tensors_of_two_devices() -> None:
    x, w = torch.ones(2, 5, 6, 3), torch.ones(3, 3, 4, 3, device="meta")
    with pytest.raises(ValueError, match=r"^the input is on cpu and the filter on meta; move one of them by .to$"):
        nn.conv2d_transpose(x, w, [10, 12], 2)


def test_tensors_without_numbers_have_shapes() -> None:
    x, w = torch.ones(2, 5, 6, 3, device="meta"), torch.ones(3, 3, 4, 3, device="meta")
    assert nn.conv2d_transpose(x, w, [10, 12], 2).shape == (2, 10, 12, 4)


def test_sparse_tensors() -> None:
    with pytest.raises(TypeError, match=r"^`value` is a tensor of layout torch.sparse_coo; make it dense"):
        nn.conv2d_transpose(torch.ones(2, 5, 6, 3).to_sparse(), torch.ones(3, 3, 4, 3), [10, 12], 2)


def test_operators_refuse_what_does_not_fit() -> None:
    x, w, given = torch.ones(2, 3, 5), torch.ones(3, 4, 2), Sizes([10], [2], [1], [0], 1, False)
    for first, second, error, message in [
        (x, w.double(), TypeError, "must be of one dtype"),
        (x.bool(), w.bool(), TypeError, "must be of one dtype"),
        (x, w[:2], ValueError, r"the input of shape \(2, 3, 5\) and the filter of shape \(2, 4, 2\) do not fit"),
        (x, w[..., None], ValueError, "do not fit"),
    ]:
        for compute in (call, compute_elsewhere):
            with pytest.raises(error, match=message):
                compute("output", first, second, given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stride": [0, 1]}, r"`stride` must be 2 ints of at least 1; got stride=\[0, 1\]"),
        ({"dilation": [1, -1]}, r"`dilation` must be 2 ints of at least 1"),
        ({"stride": [1]}, r"`stride` must be 2 ints"),
        ({"lengths": [5, -1]}, r"`lengths` must be 2 ints of at least 0"),
        ({"pad": [-(2**63), 0]}, r"`pad` must be 2 ints"),
        ({"pad": [2**63 - 1, 0]}, r"an axis must span fewer than 2\*\*62 cells"),
        ({"stride": [2**62, 1], "dilation": [2**62, 1], "pad": [-(2**62), 0]}, r"fewer than 2\*\*62"),
        ({"groups": 0}, r"`groups` must divide the channels, 3 and 0; got groups=0"),
        ({"groups": 2}, r"`groups` must divide the channels"),
        ({"groups": 7}, r"`groups` must divide the channels"),
    ],
)
def test_operators_refuse_what_no_layer_has(wrong: dict[str, Any], message: str) -> None:
    right = Sizes([5, 5], [1, 1], [1, 1], [0, 0], 1, False)
    with pytest.raises(ValueError, match=message):
        call("output", torch.ones(1, 3, 3, 3), torch.ones(3, 2, 3, 3), right._replace(**wrong))


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
@OPERANDS
def test_vmap_over_nothing(wrt: str, dims: tuple[int | None, int | None]) -> None:
    case = cases.SELECTED[0]
    pair = [x if dim is None else x.new_zeros((0, *x.shape)) for x, dim in zip(tensors(case, wrt), dims, strict=True)]
    result = torch.vmap(lambda *two: call(wrt, *two, sizes(case, wrt)), dims)(*pair)
    assert result.shape == (0, *call(wrt, *tensors(case, wrt), sizes(case, wrt)).shape)


def test_a_result_beyond_the_memory() -> None:
    one = torch.ones(1, 1, 1, 1).expand(1, 1, 1, 1)
    with pytest.raises(MemoryError, match=r"the result of shape .* would take"):
        nn.conv2d_transpose(one, one, [2**20, 2**20], (2**20, 2**20))


# Conversions of the backend


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int16", "uint32"])
def test_arrays_become_tensors_and_back(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = backend.like("w", array, backend.astype(torch.empty(0), dtype))
    assert backend.dtype_name(tensor) == dtype
    assert tensor.tolist() == array.tolist()
    assert_array_equal(backend.to_numpy(tensor), array)
    assert isinstance(tensor, torch.nn.Parameter) is ("float" in dtype)
