# SPDX-License-Identifier: Apache-2.0
"""backstride against values recorded from TensorFlow (tests/golden, written by tests/golden/record.py)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import autograd
import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import backstride
import backstride.compat.v1.nn
import backstride.keras.backend
import backstride.nn

GOLDEN = Path(__file__).with_name("golden")

# function: (cases, with first derivatives, with second derivatives)
RECORDED = {
    "compat.v1.nn.conv2d_transpose": (701, 696, 37),
    "keras.backend.conv2d_transpose": (38, 38, 5),
    "nn.conv1d_transpose": (48, 48, 6),
    "nn.conv3d_transpose": (48, 48, 6),
    "nn.conv_transpose": (145, 145, 19),
    "nn.atrous_conv2d_transpose": (18, 18, 6),
    "nn.conv2d": (140, 139, 26),
    "nn.conv2d_backprop_input": (128, 127, 26),
    "nn.conv2d_backprop_filter": (127, 127, 26),
}

# The three roles of the form sum small[i] * filter[k] * long[i * stride + k * dilation - pad] that the two
# arrays of each call play, in the order of the recorded gradients; the answer plays the third.
TRANSPOSE = ("small", "filter")
ROLES = {
    "nn.conv2d": ("long", "filter"),
    "nn.conv2d_backprop_input": TRANSPOSE,
    "nn.conv2d_backprop_filter": ("long", "small"),
}
ARRAYS = {
    "compat.v1.nn.conv2d_transpose": ("value", "filter"),
    "keras.backend.conv2d_transpose": ("x", "kernel"),
    "nn.conv1d_transpose": ("input", "filters"),
    "nn.conv3d_transpose": ("input", "filters"),
    "nn.conv_transpose": ("input", "filters"),
    "nn.atrous_conv2d_transpose": ("value", "filters"),
    "nn.conv2d": ("input", "filter"),
    "nn.conv2d_backprop_input": ("out_backprop", "filter"),
    "nn.conv2d_backprop_filter": ("input", "out_backprop"),
}


@dataclass(frozen=True)
class Case:
    name: str
    function: str
    arguments: dict[str, Any]
    exact: bool
    arrays: dict[str, np.ndarray]

    def __str__(self) -> str:
        return self.name

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self[name] for name in ARRAYS[self.function]]

    @property
    def rank(self) -> int:
        return self.inputs[0].ndim - 2

    def recorded(self, kind: str) -> list[np.ndarray]:
        """The recorded `gradient`s, `direction`s or `second` derivatives, one per input."""
        return [self[f"{name}_{kind}"] for name in ARRAYS[self.function]]

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.arrays[name]
        return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array

    def __contains__(self, name: str) -> bool:
        return name in self.arrays


def _load(path: Path) -> list[Case]:
    with np.load(path) as stored:
        buffers = {name: stored[name] for name in stored.files}
    taken: Counter[str] = Counter()

    def take(dtype: str, shape: list[int]) -> np.ndarray:
        start = taken[dtype]
        taken[dtype] += int(np.prod(shape))
        array = buffers[dtype][start : taken[dtype]].reshape(shape)
        array.flags.writeable = False
        return array

    cases = []
    for index, case in enumerate(json.loads(str(buffers["cases"]))):
        arrays = {name: take(*layout) for name, layout in case["arrays"].items()}
        name = f"{path.stem}-{index}"
        cases.append(Case(name, case["function"], case["arguments"], case["exact"], arrays))
    assert all(taken[dtype] == buffers[dtype].size for dtype in taken), "a file holds what its cases name"
    return cases


CASES = [case for path in sorted(GOLDEN.glob("*.npz")) for case in _load(path)]
DIFFERENTIATED = [case for case in CASES if "cotangent" in case]
TWICE = [case for case in DIFFERENTIATED if "cotangent_second" in case]


def test_every_recorded_case_is_here() -> None:
    counts = [Counter(case.function for case in cases) for cases in (CASES, DIFFERENTIATED, TWICE)]
    assert {function: tuple(count[function] for count in counts) for function in ARRAYS} == RECORDED
    assert len(CASES) == sum(cases for cases, _, _ in RECORDED.values())


def call(case: Case, *arrays: Any) -> Any:
    """backstride's answer to the recorded call, with `arrays` in place of its two arrays."""
    function = reduce(getattr, case.function.split("."), backstride)
    arguments = dict(case.arguments)
    if case.function.startswith("keras."):  # JSON has no tuples; Keras documents them
        windows = arguments.keys() & {"strides", "dilation_rate"}
        arguments |= {name: tuple(arguments[name]) for name in windows}
    return function(**dict(zip(ARRAYS[case.function], arrays, strict=True)), **arguments)


def check(case: Case, got: Any, want: np.ndarray, *pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """`got` is `want`, exactly, or within the rounding of the sums of products of the `pairs`.

    No element of either array meets an output twice, so a sum has at most as many terms as the smaller.
    """
    assert isinstance(got, np.ndarray)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    wide = np.result_type(want.dtype, np.float64) if want.dtype.kind != "i" else want.dtype
    got, want = got.astype(wide), want.astype(wide)
    if case.exact:
        assert_array_equal(got, want)
        return
    terms = sum(min(a.size, b.size) * _largest(a) * _largest(b) for a, b in pairs)
    assert_allclose(got, want, rtol=0, atol=_epsilon(case["output"].dtype) * terms)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array.astype(np.float64)).max(initial=0))


def _epsilon(dtype: np.dtype) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_output(case: Case) -> None:
    first, second = case.inputs
    check(case, call(case, first, second), case["output"], (first, second))


@pytest.mark.parametrize("case", [case for case in DIFFERENTIATED if case.rank < 3], ids=str)
def test_gradients_are_the_other_operations(case: Case) -> None:
    first, second = case.inputs
    weight = case["cotangent"]
    third = _third(case)
    wanted = case.recorded("gradient")
    check(case, third(None, second, weight), wanted[0], (second, weight))
    check(case, third(first, None, weight), wanted[1], (first, weight))


@pytest.mark.parametrize("case", [case for case in TWICE if case.rank < 3], ids=str)
def test_second_derivatives_are_the_operations_again(case: Case) -> None:
    """The gradients of <weight, call(a, second)> + <weight, call(first, b)>, a and b being directions."""
    first, second = case.inputs
    a, b = case.recorded("direction")
    weight = case["cotangent"]
    third = _third(case)
    wanted = case.recorded("second")
    check(case, third(None, b, weight), wanted[0], (b, weight))
    check(case, third(a, None, weight), wanted[1], (a, weight))
    total = third(a, second, None) + third(first, b, None)
    check(case, total, case["cotangent_second"], (a, second), (first, b))


@pytest.mark.parametrize("case", DIFFERENTIATED, ids=str)
def test_gradients_by_autograd(case: Case) -> None:
    first, second = case.inputs
    weight = case["cotangent"]
    for argnum, (other, want) in enumerate(zip((second, first), case.recorded("gradient"), strict=True)):
        pull, output = autograd.make_vjp(lambda *arrays: call(case, *arrays), argnum)(first, second)
        check(case, output, case["output"], (first, second))
        check(case, pull(weight), want, (other, weight))


@pytest.mark.parametrize("case", TWICE, ids=str)
def test_second_derivatives_by_autograd(case: Case) -> None:
    arrays = (*case.inputs, case["cotangent"])
    directions = case.recorded("direction")
    wanted = (*case.recorded("second"), case["cotangent_second"])

    def gradient(of: int) -> Callable[..., Any]:
        def pulled(first: Any, second: Any, weight: Any) -> Any:
            return autograd.make_vjp(lambda *arrays: call(case, *arrays), of)(first, second)[0](weight)

        return pulled

    for by, want in enumerate(wanted):
        # <gradient by x, a> does not depend on x, the call being linear in it: that share is zero.
        shares = [autograd.make_vjp(gradient(of), by)(*arrays)[0](directions[of]) for of in (0, 1) if of != by]
        pairs = [_factors(arrays, directions, of, by) for of in (0, 1) if of != by]
        check(case, sum(shares[1:], start=shares[0]), want, *pairs)


def _factors(
    arrays: Sequence[np.ndarray], directions: Sequence[np.ndarray], of: int, by: int
) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays whose products make the derivative by array `by` of <direction, gradient by `of`>."""
    (rest,) = {0, 1, 2} - {of, by}
    return directions[of], arrays[rest]


def _third(case: Case) -> Callable[..., Any]:
    """Whichever of (first input, second input, answer) is None, from the other two, by nn.conv2d*."""
    first, second = ROLES.get(case.function, TRANSPOSE)
    (answer,) = {"small", "filter", "long"} - {first, second}
    shapes = dict(zip((first, second, answer), [a.shape for a in (*case.inputs, case["output"])], strict=True))
    form = _form(case)
    if case.rank == 1:
        return _through_width(case.arguments["data_format"], shapes, form)
    return lambda *arrays: _solve(form, shapes, dict(zip(shapes, arrays, strict=True)))


def _solve(form: dict[str, Any], shapes: dict[str, tuple[int, ...]], known: dict[str, Any]) -> Any:
    (wanted,) = (role for role, array in known.items() if array is None)
    if wanted == "small":
        return backstride.nn.conv2d(known["long"], known["filter"], **form)
    if wanted == "long":
        return backstride.nn.conv2d_backprop_input(shapes["long"], known["filter"], known["small"], **form)
    return backstride.nn.conv2d_backprop_filter(known["long"], shapes["filter"], known["small"], **form)


def _through_width(
    data_format: str | None, shapes: dict[str, tuple[int, ...]], form: dict[str, Any]
) -> Callable[..., Any]:
    """`third` for lines, as images of height 1."""
    height = {role: 0 if role == "filter" else 2 if data_format == "NCW" else 1 for role in shapes}
    tall = {role: (*shape[: height[role]], 1, *shape[height[role] :]) for role, shape in shapes.items()}

    def third(*arrays: Any) -> Any:
        known = {
            role: None if array is None else array.reshape(tall[role])
            for role, array in zip(shapes, arrays, strict=True)
        }
        (wanted,) = (role for role, array in known.items() if array is None)
        return _solve(form, tall, known).reshape(shapes[wanted])

    return third


def _form(case: Case) -> dict[str, Any]:
    """The recorded call's strides, dilations, padding and data format as nn.conv2d takes them."""
    given = case.arguments
    first = str(given.get("data_format") or "").lower().startswith(("nc", "channels_first"))
    rate = given.get("rate", given.get("dilation_rate", given.get("dilations")))
    padding = given.get("padding", "SAME")
    return {
        "strides": _window(given.get("strides"), case.rank, first),
        "dilations": _window(rate, case.rank, first),
        "padding": padding.upper() if isinstance(padding, str) else padding,
        "data_format": "NCHW" if first else "NHWC",
    }


def _window(values: Any, rank: int, channels_first: bool) -> list[int]:
    values = [1] if values is None else [values] if isinstance(values, int) else list(values)
    spatial = {1: values * rank, rank: values, rank + 2: values[2:] if channels_first else values[1:-1]}
    height_width = ([1, 1, *spatial[len(values)]])[-2:]
    return [1, 1, *height_width] if channels_first else [1, *height_width, 1]
