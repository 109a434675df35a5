# SPDX-License-Identifier: Apache-2.0
"""HIPS autograd differentiates every public function, in both modes and to any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import autograd
import autograd.numpy as anp
import cases
import numpy as np
import pytest
import reference
from autograd import elementwise_grad, grad, jacobian, make_jvp, make_vjp
from autograd.differential_operators import hessian_vector_product
from autograd.test_util import check_grads
from cases import Call
from numpy.testing import assert_allclose, assert_array_equal

from backstride import nn
from backstride.keras import backend

Function = Callable[..., Any]

PLANE = Call((3, 2), (3, 2), (5, 6), (2, 3), (1, 2), "SAME", 2, 2, 3, False)
LINE = Call((4,), (3,), (8,), (2,), (2,), "SAME", 2, 2, 3, False)
CUBE = Call((2, 2, 1), (2, 1, 3), (4, 2, 3), (2, 1, 3), (1, 1, 1), "SAME", 1, 2, 2, False)
VALID = replace(PLANE, padding="VALID", output=(8, 6))


@dataclass(frozen=True)
class Differentiable:
    """A public function of two arrays: which operands they are, and which derivative it computes of them."""

    name: str
    wrt: str
    first: str
    second: str
    call: Call
    apply: Function

    def __str__(self) -> str:
        return self.name

    def integers(self, operand: str, dtype: Any = np.float64) -> np.ndarray:
        return self.call.integers(operand, dtype)

    @property
    def operands(self) -> tuple[np.ndarray, np.ndarray]:
        return self.integers(self.first), self.integers(self.second)

    @property
    def reals(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(7)
        one, other = (rng.standard_normal(array.shape) for array in self.operands)
        return one, other

    def gradient(self, of: str, cotangent: np.ndarray) -> np.ndarray:
        """The derivative of <cotangent, result> by an operand, from the definition."""
        arrays = {self.first: self.operands[0], self.second: self.operands[1], self.wrt: cotangent}
        return reference.derivative(of, *(arrays[name] for name in cases.given(of)), self.call.geometry)

    def cotangent(self, dtype: Any = np.float64) -> np.ndarray:
        return self.integers(self.wrt, dtype)


def window(call: Call) -> dict[str, Any]:
    return {
        "strides": call.strides,
        "padding": call.padding,
        "data_format": call.data_format,
        "dilations": call.dilations,
    }


def tensorflow(name: str, function: Function, call: Call) -> Differentiable:
    def apply(x: Any, w: Any) -> Any:
        return function(x, w, output_shape=call.output_shape, **window(call))

    return Differentiable(name, "output", "input", "filter", call, apply)


def keras(name: str, call: Call) -> Differentiable:
    def apply(x: Any, w: Any) -> Any:
        data_format = "channels_first" if call.channels_first else "channels_last"
        shape = (None, *call.output_shape[1:])
        return backend.conv2d_transpose(x, w, shape, call.strides, call.padding.lower(), data_format, call.dilations)

    return Differentiable(name, "output", "input", "filter", call, apply)


def aliases(call: Call) -> Differentiable:
    def apply(x: Any, w: Any) -> Any:
        return nn.conv2d_transpose(input=x, filters=w, output_shape=call.output, **window(call))

    return Differentiable("aliases", "output", "input", "filter", call, apply)


def atrous(call: Call) -> Differentiable:
    def apply(x: Any, w: Any) -> Any:
        return nn.atrous_conv2d_transpose(x, w, call.output_shape, call.dilations[0], call.padding)

    return Differentiable("atrous_conv2d_transpose", "output", "input", "filter", call, apply)


def convolution(name: str, call: Call) -> Differentiable:
    def apply(w: Any, g: Any) -> Any:
        return nn.conv2d(g, w, **window(call))

    return Differentiable(name, "input", "filter", "output", call, apply)


def backprop_input(call: Call) -> Differentiable:
    def apply(x: Any, w: Any) -> Any:
        return nn.conv2d_backprop_input(call.output_shape, w, x, **window(call))

    return Differentiable("conv2d_backprop_input", "output", "input", "filter", call, apply)


def backprop_filter(call: Call) -> Differentiable:
    def apply(x: Any, g: Any) -> Any:
        return nn.conv2d_backprop_filter(g, call.geometry.shape("filter"), x, **window(call))

    return Differentiable("conv2d_backprop_filter", "filter", "input", "output", call, apply)


FUNCTIONS = [
    tensorflow("conv2d_transpose", nn.conv2d_transpose, PLANE),
    tensorflow("conv2d_transpose-valid", nn.conv2d_transpose, VALID),
    tensorflow("conv2d_transpose-nchw", nn.conv2d_transpose, replace(PLANE, channels_first=True)),
    tensorflow("conv1d_transpose", nn.conv1d_transpose, LINE),
    tensorflow("conv3d_transpose", nn.conv3d_transpose, CUBE),
    tensorflow("conv3d_transpose-ncdhw", nn.conv3d_transpose, replace(CUBE, channels_first=True)),
    tensorflow("conv_transpose-1d", nn.conv_transpose, LINE),
    tensorflow("conv_transpose-2d", nn.conv_transpose, PLANE),
    aliases(PLANE),
    atrous(replace(PLANE, strides=(1, 1), dilations=(2, 2), output=(3, 2))),
    keras("keras", PLANE),
    keras("keras-valid-first", replace(VALID, channels_first=True)),
    convolution("conv2d", PLANE),
    convolution("conv2d-nchw", replace(VALID, channels_first=True)),
    backprop_input(VALID),
    backprop_filter(PLANE),
]
EVERY = pytest.mark.parametrize("function", FUNCTIONS, ids=str)
FEW = pytest.mark.parametrize("function", [FUNCTIONS[0], FUNCTIONS[10], FUNCTIONS[12], FUNCTIONS[15]], ids=str)
MODES = pytest.mark.parametrize("mode", ["rev", "fwd"])


def test_every_function_that_takes_arrays_is_here() -> None:
    tested = {str(function).split("-")[0] for function in FUNCTIONS}
    conv = {name for name in nn.__all__ if "conv" in name}
    assert conv | {"keras"} == tested - {"aliases"}


@pytest.fixture(autouse=True)
def same_directions_every_time() -> None:
    """check_grads draws its directions from NumPy's global generator."""
    np.random.seed(0)  # noqa: NPY002


# Numbers


@EVERY
def test_value_is_the_definition(function: Differentiable) -> None:
    one, other = function.operands
    want = reference.derivative(function.wrt, one, other, function.call.geometry)
    assert_array_equal(function.apply(one, other), want)
    for argument in (0, 1):
        _, value = make_vjp(function.apply, argument)(one, other)
        assert_array_equal(value, want)


@EVERY
@MODES
def test_derivatives_are_those_of_finite_differences(function: Differentiable, mode: str) -> None:
    one, other = function.reals
    check_grads(function.apply, modes=[mode], order=2)(one, other)
    check_grads(lambda x: function.apply(x, other), modes=[mode], order=2)(one)
    check_grads(lambda w: function.apply(one, w), modes=[mode], order=2)(other)


@FEW
def test_derivatives_of_a_nonlinear_loss(function: Differentiable) -> None:
    def loss(x: Any, w: Any) -> Any:
        return anp.sum(anp.tanh(function.apply(anp.sin(x), w * w)) ** 2)

    check_grads(loss, modes=["rev", "fwd"], order=2)(*function.reals)


@EVERY
def test_reverse_mode_is_exact(function: Differentiable) -> None:
    one, other = function.operands
    for argument, operand in enumerate((function.first, function.second)):
        pull_back, _ = make_vjp(function.apply, argument)(one, other)
        assert_array_equal(pull_back(function.cotangent()), function.gradient(operand, function.cotangent()))


@EVERY
def test_forward_mode_is_exact(function: Differentiable) -> None:
    """The tangent of a result is linear in the tangent of either argument, and the sum where both move."""
    one, other = function.operands
    tangents = one[::-1].copy(), other[::-1].copy()
    first = reference.derivative(function.wrt, tangents[0], other, function.call.geometry)
    second = reference.derivative(function.wrt, one, tangents[1], function.call.geometry)
    assert_array_equal(make_jvp(function.apply, 0)(one, other)(tangents[0])[1], first)
    assert_array_equal(make_jvp(function.apply, 1)(one, other)(tangents[1])[1], second)
    both = make_jvp(lambda pair: function.apply(*pair))((one, other))(tangents)[1]
    assert_array_equal(both, first + second)


@EVERY
def test_mixed_second_derivative_is_exact(function: Differentiable) -> None:
    """d/d(second) of <v, d/d(first) <g, F>> is F's third partial: the operation by `second` of v and g."""
    one, other = function.operands
    g, v = function.cotangent(), one[::-1].copy()

    def slope(w: Any) -> Any:
        return anp.sum(v * grad(lambda x: anp.sum(g * function.apply(x, w)))(one))

    arrays = {function.first: v, function.wrt: g}
    want = reference.derivative(
        function.second, *(arrays[name] for name in cases.given(function.second)), function.call.geometry
    )
    assert_array_equal(grad(slope)(other), want)


@EVERY
def test_second_derivative_by_one_argument_is_zero(function: Differentiable) -> None:
    one, other = function.operands

    def slope(x: Any) -> Any:
        gradient = grad(lambda y: anp.sum(function.cotangent() * function.apply(y, other)))(x)
        return anp.sum(gradient * x)

    assert_array_equal(grad(slope)(one), function.gradient(function.first, function.cotangent()))


@FEW
def test_jacobian(function: Differentiable) -> None:
    """Its contraction with a tangent is the tangent of the result, for the function is linear."""
    one, other = function.operands
    rows = jacobian(function.apply, 0)(one, other)
    assert rows.shape == function.apply(one, other).shape + one.shape
    want = reference.derivative(function.wrt, one, other, function.call.geometry)
    assert_array_equal(np.tensordot(rows, one, one.ndim), want)


def test_jacobian_of_a_jacobian() -> None:
    function = tensorflow("tiny", nn.conv1d_transpose, Call((2,), (2,), (4,), (2,), (1,), "SAME", 1, 2, 1, False))
    one, other = function.operands
    twice = jacobian(jacobian(function.apply, 0), 1)(one, other)
    assert twice.shape == (1, 4, 1, *one.shape, *other.shape)
    got = np.tensordot(np.tensordot(twice, other, other.ndim), one, one.ndim)
    assert_array_equal(got, reference.derivative("output", one, other, function.call.geometry))


@FEW
def test_hessian_vector_product(function: Differentiable) -> None:
    """Of half the squared norm of the result, which is quadratic: J'J v."""
    one, other = function.operands
    v = one[::-1].copy()

    def loss(x: Any) -> Any:
        return anp.sum(function.apply(x, other) ** 2) / 2

    tangent = reference.derivative(function.wrt, v, other, function.call.geometry)
    assert_array_equal(hessian_vector_product(loss)(one, v), function.gradient(function.first, tangent))


@FEW
def test_third_derivative(function: Differentiable) -> None:
    """The form is linear in its three operands, so that its third partial is a number for any three of them."""
    one, other = function.operands
    g = function.cotangent()

    def form(a: Any, b: Any, c: Any) -> Any:
        return anp.sum(c * g * function.apply(a * one, b * other))

    third = grad(grad(grad(form, 0), 1), 2)(1.0, 1.0, 1.0)
    assert third == np.sum(g * reference.derivative(function.wrt, one, other, function.call.geometry))


# Boxes among other arrays


@EVERY
def test_one_argument_may_be_a_plain_array(function: Differentiable) -> None:
    one, other = function.operands
    g = function.cotangent()
    got = grad(lambda x: anp.sum(g * function.apply(x, other)))(one)
    assert type(got) is np.ndarray
    assert_array_equal(got, function.gradient(function.first, g))
    assert_array_equal(
        grad(lambda w: anp.sum(g * function.apply(one, w)))(other), function.gradient(function.second, g)
    )


def test_one_argument_may_be_a_list() -> None:
    x = PLANE.integers("input", np.float32)
    w = PLANE.integers("filter", np.float32)
    got = grad(lambda v: anp.sum(nn.conv2d_transpose(v, w.tolist(), PLANE.output_shape, **window(PLANE))))(x)
    ones = np.ones(PLANE.output_shape, np.float32)
    assert_array_equal(got, reference.derivative("input", w, ones, PLANE.geometry))


def test_one_array_may_be_both_operands() -> None:
    x = np.arange(1.0, 5).reshape(1, 4, 1)
    got = grad(lambda v: anp.sum(nn.conv1d_transpose(v, anp.reshape(v, (4, 1, 1)), [1, 7, 1], 1, "VALID")))(x)
    assert_array_equal(got, np.full((1, 4, 1), 20.0))


def test_memory_layout_of_boxes() -> None:
    x, w = PLANE.integers("input", np.float64), PLANE.integers("filter", np.float64)

    def loss(v: Any) -> Any:
        turned = anp.transpose(v[:, ::-1], (0, 2, 1, 3))
        return anp.sum(
            anp.sin(nn.conv2d_transpose(anp.transpose(turned, (0, 2, 1, 3)), w, PLANE.output_shape, **window(PLANE)))
        )

    check_grads(loss, modes=["rev", "fwd"], order=2)(x)


def test_empty_arrays() -> None:
    got = grad(lambda w: anp.sum(nn.conv2d_transpose(np.zeros((0, 3, 3, 2)), w, [0, 3, 3, 1], 1)))(
        np.ones((3, 3, 1, 2))
    )
    assert_array_equal(got, np.zeros((3, 3, 1, 2)))
    got = grad(lambda x: anp.sum(nn.conv2d_transpose(x, np.ones((3, 3, 0, 2)), [1, 3, 3, 0], 1)))(np.ones((1, 3, 3, 2)))
    assert_array_equal(got, np.zeros((1, 3, 3, 2)))


def test_inputs_are_not_written_to() -> None:
    x, w = PLANE.integers("input", np.float64), PLANE.integers("filter", np.float64)
    before = x.tobytes(), w.tobytes()
    x.flags.writeable = w.flags.writeable = False
    elementwise_grad(nn.conv2d_transpose)(x, w, PLANE.output_shape, **window(PLANE))
    assert (x.tobytes(), w.tobytes()) == before


# Dtypes


@EVERY
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_gradients_have_the_dtype_of_the_argument(function: Differentiable, dtype: Any) -> None:
    one, other = function.integers(function.first, dtype), function.integers(function.second, dtype)
    g = function.cotangent(dtype)
    for argument, operand in enumerate((function.first, function.second)):
        pull_back, value = make_vjp(function.apply, argument)(one, other)
        gradient = pull_back(g)
        assert value.dtype == gradient.dtype == dtype
        assert_array_equal(gradient, function.gradient(operand, function.cotangent()))
        _, tangent = make_jvp(function.apply, argument)(one, other)((one, other)[argument])
        assert tangent.dtype == dtype


def test_real_gradients_in_float32() -> None:
    """Close to those in float64."""
    function = FUNCTIONS[0]
    one, other = function.reals
    loss = grad(lambda x, w: anp.sum(anp.tanh(function.apply(x, w))))
    got = loss(one.astype(np.float32), other.astype(np.float32))
    assert got.dtype == np.float32
    assert_allclose(got, loss(one, other), rtol=0, atol=1e-5)


@EVERY
@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=lambda dtype: dtype.__name__)
def test_losses_may_be_of_a_wider_dtype(function: Differentiable, dtype: Any) -> None:
    """As the mean is, or a product with float64: cotangents and tangents then arrive in that dtype."""
    one, other = function.integers(function.first, dtype), function.integers(function.second, dtype)
    weights = function.cotangent(np.float64)
    got = grad(lambda x: anp.sum(function.apply(x, other) * weights))(one)
    assert got.dtype == dtype
    assert_array_equal(got, function.gradient(function.first, weights))
    assert grad(lambda x: anp.mean(function.apply(x, other)))(one).dtype == dtype

    def slope(w: Any) -> Any:
        return anp.sum(grad(lambda x: anp.sum(function.apply(x, w) * weights))(one) * one)

    assert_array_equal(grad(slope)(other), function.gradient(function.second, weights))


@EVERY
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32], ids=lambda dtype: dtype.__name__)
def test_cotangents_and_tangents_may_be_of_another_dtype(function: Differentiable, dtype: Any) -> None:
    """One of the same width, too, whose bits mean something else."""
    one, other = function.operands
    for argument, operand in enumerate((function.first, function.second)):
        pull_back, _ = make_vjp(function.apply, argument)(one, other)
        assert_array_equal(pull_back(function.cotangent(dtype)), function.gradient(operand, function.cotangent()))
        tangent = function.integers(operand, dtype)
        _, moved = make_jvp(function.apply, argument)(one, other)(tangent)
        assert_array_equal(moved, reference.derivative(function.wrt, one, other, function.call.geometry))


# Refused as without autograd


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda x, w: (x[0], w), ValueError, r"`value` must have 4 dimensions; got shape \(3, 2, 2\)"),
        (
            lambda x, w: (x, w.astype(np.float32)),
            TypeError,
            "`value` and `filter` must have one dtype; got float64 and",
        ),
        (lambda x, w: (x, w > 0), TypeError, "`filter` has dtype bool"),
        (lambda x, w: (x[..., :1], w), ValueError, "`value` has 1 channels"),
        (lambda x, w: ([[[[x[0, 0, 0, 0], 1.0]]]], w), TypeError, "`value` is a list of arrays under autograd"),
        (lambda x, w: ([x[0], x[1]], w), TypeError, "`value` "),
        (lambda x, w: (x, np.ma.array(w)), TypeError, "`filter` is a masked array"),
        (lambda x, w: (x, object()), TypeError, "`filter` must be a NumPy array"),
        (lambda x, w: (x + 1j, w), TypeError, "`value` has dtype complex128"),
    ],
    ids=["rank", "dtype", "bool", "channels", "box in a list", "boxes in a list", "masked", "foreign", "complex"],
)
def test_refused(change: Function, kind: type[Exception], message: str) -> None:
    x, w = PLANE.integers("input", np.float64), PLANE.integers("filter", np.float64)

    def loss(v: Any) -> Any:
        value, filter = change(v, w)
        return anp.sum(nn.conv2d_transpose(value, filter, PLANE.output_shape, **window(PLANE)))

    with pytest.raises(kind, match=message):
        grad(loss)(x)


@pytest.mark.parametrize("container", [list, tuple])
def test_a_list_is_no_array_to_differentiate_by(container: Any) -> None:
    """autograd boxes lists and tuples too; their entries are no elements of one array."""
    x, w = PLANE.integers("input", np.float32), PLANE.integers("filter", np.float32)
    with pytest.raises(TypeError, match="`value` "):
        grad(lambda v: anp.sum(nn.conv2d_transpose(v, w, PLANE.output_shape, **window(PLANE))))(container(x))
    with pytest.raises(TypeError, match="`value` "):
        grad(lambda v: anp.sum(nn.conv2d_transpose(v, w, PLANE.output_shape, **window(PLANE))))(container(x.tolist()))


def test_boxes_are_no_sizes() -> None:
    """Sizes have no gradient, and a traced number is not an int."""
    x, w = PLANE.integers("input", np.float64), PLANE.integers("filter", np.float64)
    with pytest.raises(TypeError, match="`strides` takes ints"):
        grad(lambda s: anp.sum(nn.conv2d_transpose(x, w, PLANE.output_shape, [s, s])))(2.0)
    with pytest.raises(TypeError, match="`output_shape` takes ints"):
        grad(lambda n: anp.sum(nn.conv2d_transpose(x, w, [n, n], 2)))(6.0)


def test_autograd_is_not_needed_for_plain_arrays() -> None:
    assert autograd.__name__ == "autograd"
    x, w = PLANE.integers("input", np.float32), PLANE.integers("filter", np.float32)
    assert type(nn.conv2d_transpose(x, w, PLANE.output_shape, **window(PLANE))) is np.ndarray
