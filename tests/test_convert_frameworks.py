# SPDX-License-Identifier: Apache-2.0
"""Layers in the terms of other frameworks, run by these frameworks: values, and not only shapes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from conftest import Python
from frameworks import RUNNERS, TENSORFLOW, run, run_nodes, run_operator
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import layers
from numpy.testing import assert_allclose, assert_array_equal

from backstride import convert
from backstride.convert import FRAMEWORKS, LAYOUTS, ConvTranspose

os.environ.setdefault("KERAS_BACKEND", "jax")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

# JAX compiles every new shape, which takes as long as a hundred runs of the others.
JAX = ("keras", "jax.lax.conv_transpose", "jax.lax.conv_general_dilated", "flax.linen", "flax.nnx", "haiku", "equinox")
EXAMPLES = dict.fromkeys(RUNNERS, 30) | dict.fromkeys(JAX, 6)


def integers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Small enough that every sum is exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def operands(layer: ConvTranspose, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = integers(layer.geometry(2, lengths).shape("input"))
    return x, integers(layer.filter_shape, 1), integers((layer.out_channels,), 2)


@pytest.mark.parametrize("name", RUNNERS)
def test_the_code_of_a_port_is_the_layer(name: str) -> None:
    """Any layer that the framework has, by the code that is to be pasted."""
    framework, ran = FRAMEWORKS[name], 0
    ranks = [rank for rank in framework.ranks if (name, rank) != ("tf.layers", 3)]

    @settings(max_examples=EXAMPLES[name])
    @given(layer=st.sampled_from(ranks).flatmap(layers), data=st.data())
    def check(layer: ConvTranspose, data: Any) -> None:
        nonlocal ran
        lengths = tuple(data.draw(st.integers(3, 5)) for _ in range(layer.rank))
        port = framework.write(layer)
        if min(port.said.output(lengths)) < 1:
            return
        x, filters, bias = operands(layer, lengths)
        assert_array_equal(run(port, x, filters, bias), layer(x, filters, bias if layer.bias else None))
        ran += 1

    check()
    assert ran > 0


def test_keras_on_torch(python: Python) -> None:
    """The same in an interpreter of its own, since Keras has one backend per process."""
    code = f"""
import sys, warnings
sys.path.insert(0, {os.path.dirname(__file__)!r})
warnings.simplefilter("ignore")
import keras
assert keras.backend.backend() == "torch"
import test_convert_frameworks as tests
tests.EXAMPLES["keras"] = 20
tests.test_the_code_of_a_port_is_the_layer("keras")
print("ran")
"""
    assert "ran" in python(code, KERAS_BACKEND="torch")


# Gradients: those of the ported layer are those of the layer, ported


@settings(max_examples=15)
@given(layer=layers(rank=2))
def test_gradients_in_torch(layer: ConvTranspose) -> None:
    import torch

    x, filters, bias = (torch.from_numpy(array).double().requires_grad_() for array in operands(layer, (4, 4)))
    seed = torch.from_numpy(integers(tuple(layer(x, filters).shape), 3)).double()
    layer(x, filters, bias).mul(seed).sum().backward()
    want = [x.grad.clone(), filters.grad.clone(), bias.grad.clone()]

    port = convert.to_torch(layer)
    moved = not layer.channels_first
    ours = [array.detach().clone().requires_grad_() for array in (x, filters, bias)]
    said = port.arguments
    y = torch.nn.functional.conv_transpose2d(
        ours[0].movedim(-1, 1) if moved else ours[0],
        port.weights(ours[1]).contiguous(),
        None,
        said["stride"],
        said["padding"],
        said["output_padding"],
        said["groups"],
        said["dilation"],
    )
    y = torch.nn.functional.pad(y, [-cells for before, after in reversed(port.crop) for cells in (before, after)])
    y = y + ours[2][:, None, None]
    (y.movedim(1, -1) if moved else y).mul(seed).sum().backward()
    for got, expected in zip(ours, want, strict=True):
        assert_array_equal(got.grad, expected)


def test_gradients_in_jax() -> None:
    import jax

    layer = convert.from_keras(3, 5, strides=2, padding="same", in_channels=4)
    port = convert.to_lax(layer)
    x, filters, _ = operands(layer, (4, 4))

    def ported(x: Any, filters: Any) -> Any:
        said = port.arguments
        return jax.lax.conv_transpose(x, port.weights(filters), said["strides"], said["padding"])

    seed = integers((2, 8, 8, 3), 3)
    arrays = jax.numpy.asarray(x), jax.numpy.asarray(filters)
    got = jax.grad(lambda *arrays: (ported(*arrays) * seed).sum(), (0, 1))(*arrays)
    want = jax.grad(lambda *arrays: (layer(*arrays) * seed).sum(), (0, 1))(*arrays)
    for one, other in zip(got, want, strict=True):
        assert_array_equal(one, other)


# From every framework: its own arguments, also those that no port has


@settings(max_examples=60)
@given(
    rank=st.integers(1, 3),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.integers(0, 4),
    added=st.integers(0, 3),
    groups=st.integers(1, 3),
)
def test_from_torch(rank: int, kernel: int, stride: int, dilation: int, padding: int, added: int, groups: int) -> None:
    import torch

    added = min(added, max(stride, dilation) - 1)
    arguments = (2 * groups, groups, kernel, stride, padding, added, groups, True, dilation)
    layer = convert.from_torch(*arguments, rank=rank)
    lengths = (6, 4, 5)[:rank]
    if min(layer.output(lengths)) < 1:
        return
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(*arguments)
    x, filters, bias = operands(layer, lengths)
    module.load_state_dict(
        {"weight": torch.from_numpy(LAYOUTS["torch"].write(filters)), "bias": torch.from_numpy(bias)}
    )
    assert_array_equal(module(torch.from_numpy(x)).detach(), layer(x, filters, bias))


@settings(max_examples=12)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    padding=st.one_of(
        st.sampled_from(["SAME", "VALID"]), st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda pair: [pair] * 2)
    ),
    first=st.booleans(),
    transposed=st.booleans(),
    consistent=st.booleans(),
)
def test_from_lax(
    kernel: int, stride: int, dilation: int, padding: Any, first: bool, transposed: bool, consistent: bool
) -> None:
    """Named paddings, and both readings of pairs."""
    import jax

    shape = (kernel, kernel, 3, 2) if transposed else (kernel, kernel, 2, 3)
    numbers = ("NCHW", "HWIO", "NCHW") if first else ("NHWC", "HWIO", "NHWC")
    arguments: Any = ((stride,) * 2, padding, (dilation,) * 2, numbers, transposed)
    layer = convert.from_lax(shape, *arguments, use_consistent_padding=consistent)
    if min(layer.output(4)) < 1:
        return
    x, filters, _ = operands(layer, (4, 4))
    weight = LAYOUTS["tensorflow" if transposed else "jax"].write(filters)
    assert weight.shape == shape
    got = jax.lax.conv_transpose(x, weight, *arguments, use_consistent_padding=consistent)
    assert_array_equal(got, layer(x, filters))


@settings(max_examples=8)
@given(kernel=st.integers(1, 5), stride=st.integers(1, 4), length=st.integers(1, 16), same=st.booleans())
def test_from_haiku_with_output_shape(kernel: int, stride: int, length: int, same: bool) -> None:
    import haiku
    import jax

    arguments: Any = (2, kernel, stride, length, "SAME" if same else "VALID")
    net = haiku.transform(lambda x: haiku.Conv1DTranspose(*arguments)(x))
    x = integers((1, 4, 3))
    try:
        params = net.init(jax.random.key(0), x)
    except ValueError:
        with pytest.raises(ValueError):
            convert.from_haiku(*arguments, in_channels=3, rank=1, input=4)
        return
    layer = convert.from_haiku(*arguments, in_channels=3, rank=1, input=4)
    filters, bias = integers(layer.filter_shape, 1), integers((2,), 2)
    params = {"conv1_d_transpose": {"w": LAYOUTS["haiku"].write(filters), "b": bias}}
    assert_array_equal(net.apply(params, None, x), layer(x, filters, bias))


@settings(max_examples=10)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    added=st.integers(0, 3),
    padding=st.sampled_from(["SAME", "SAME_LOWER", "VALID", "same", 1, (1,), ((2, 1),)]),
    groups=st.sampled_from([1, 2]),
)
def test_from_equinox(kernel: int, stride: int, added: int, padding: Any, groups: int) -> None:
    import equinox
    import jax

    arguments: Any = (1, 4, 2, kernel, stride, padding, min(added, stride - 1), 1, groups)
    layer = convert.from_equinox(*arguments)
    if min(layer.output(4)) < 1:
        return
    module = equinox.nn.ConvTranspose(*arguments, key=jax.random.key(0))
    x, filters, bias = operands(layer, (4,))
    module = equinox.tree_at(
        lambda module: (module.weight, module.bias),
        module,
        (jax.numpy.asarray(LAYOUTS["equinox"].write(filters, groups)), jax.numpy.asarray(bias)[:, None]),
    )
    assert_array_equal(jax.vmap(module)(x), layer(x, filters, bias))


@settings(max_examples=10)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    added=st.one_of(st.none(), st.integers(0, 3)),
    padding=st.sampled_from(["same", "valid"]),
)
def test_from_keras(kernel: int, stride: int, added: int | None, padding: str) -> None:
    import keras

    added = None if added is None else min(added, stride - 1)
    arguments: Any = (2, kernel, stride, padding, added)
    layer = convert.from_keras(*arguments, in_channels=3, rank=1)
    if min(layer.output(4)) < 1:
        return
    module = keras.layers.Conv1DTranspose(*arguments)
    x, filters, bias = operands(layer, (4,))
    module.build(x.shape)
    module.set_weights([filters, bias])
    assert_array_equal(module(x), layer(x, filters, bias))


@settings(max_examples=80)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    auto_pad=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    length=st.one_of(st.none(), st.integers(1, 20)),
    added=st.integers(0, 3),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_from_onnx(
    kernel: int, stride: int, dilation: int, auto_pad: str, length: int | None, added: int, pads: tuple[int, int]
) -> None:
    """As ONNX Runtime reads the attributes, wherever it takes them."""
    from onnx import helper

    attributes: dict[str, Any] = {
        "auto_pad": auto_pad,
        "dilations": [dilation],
        "output_padding": [min(added, stride - 1)],
        "strides": [stride],
    }
    if length is not None:
        attributes["output_shape"] = [length]
    elif auto_pad == "NOTSET":
        attributes["pads"] = list(pads)
    x, weight = integers((1, 2, 4)), integers((2, 3, kernel), 1)
    layer = convert.from_onnx(weight, **attributes, input=4, bias=False)
    node = helper.make_node("ConvTranspose", ["x", "weight"], ["y"], **attributes)
    try:
        got = run_nodes([node], x, {"weight": weight})
    except Exception as error:  # ONNX Runtime has several types of its own
        assert "onnx" in str(type(error)).lower()
        return
    assert_array_equal(got, layer(x, LAYOUTS["torch"].read(weight)))


@settings(max_examples=30)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    same=st.booleans(),
    less=st.integers(0, 3),
    more=st.integers(0, 3),
)
def test_from_tflite(kernel: int, stride: int, same: bool, less: int, more: int) -> None:
    """All lengths that TensorFlow takes; the interpreter itself checks none."""
    height, width = (
        4 * stride - min(n, stride - 1) if same else 3 * stride + kernel + min(n, stride - 1) for n in (less, more)
    )
    x, weight = integers((1, 4, 4, 2)), integers((3, kernel, kernel, 2), 1)
    shape, padding = np.array([1, height, width, 3]), "SAME" if same else "VALID"
    layer = convert.from_tflite(weight, shape, padding, stride, stride, input=(4, 4))
    got = run_operator(x, weight, shape, padding, (stride, stride))
    assert_array_equal(got, layer(x, LAYOUTS["tflite"].read(weight)))


# Real layers, from TensorFlow to PyTorch, JAX and ONNX and back

REAL = {
    "DCGAN-TF": (2, 8, 16, 8, 5, 2, (1, 1)),
    "DeepLabCut": (2, 10, 32, 16, 3, 2, (1, 1)),
    "FSRCNN x4": (2, 9, 56, 1, 9, 4, (2, 2)),
    "WaveGAN": (1, 16, 32, 16, 25, 4, (2,)),
    "EnCodec": (1, 40, 32, 16, 16, 8, (0,)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_layers(name: str) -> None:
    """One after the other, each from what the one before it has made; equal values within rounding."""
    rank, length, in_channels, out_channels, kernel, stride, shift = REAL[name]
    layer = convert.from_keras(out_channels, kernel, strides=stride, padding="same", in_channels=in_channels, rank=rank)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, *[length] * rank, in_channels)).astype(np.float32)
    filters = rng.standard_normal(layer.filter_shape).astype(np.float32) / (kernel**rank * in_channels) ** 0.5
    bias = rng.standard_normal(out_channels).astype(np.float32)
    want = run(convert.to_tf_nn(layer), x, filters, bias)
    assert convert.to_torch(layer).shift == shift
    moved, weights = layer, filters
    for write in (convert.to_torch, convert.to_lax, convert.to_onnx, convert.to_flax_linen, convert.to_keras):
        port = write(moved)
        assert_allclose(run(port, x, weights, bias), want, rtol=0, atol=1e-5)
        weights = port.layout.read(port.weights(weights), moved.groups)
        moved = port.said.cropped(port.crop).replace(bias=True)
    assert moved == layer
    assert_array_equal(weights, filters)


# What others have reported


def test_keras_22876() -> None:
    """PyTorch's backend of Keras was shifted by a pixel for 'same' with odd kernels: the usual recipe, which `to_torch`
    does not follow. https://github.com/keras-team/keras/pull/22876"""
    layer = convert.from_keras(32, 3, strides=2, padding="same", in_channels=16)
    port = convert.to_torch(layer)
    assert port.usual and port.usual.crop == ((1, 0), (1, 0))
    assert (port.shift, port.arguments["padding"], port.crop) == ((1, 1), (0, 0), ((0, 1), (0, 1)))
    x, filters, bias = operands(layer, (16, 16))
    assert_array_equal(run(port, x, filters, bias), run(convert.to_keras(layer), x, filters, bias))


def test_keras_20949() -> None:
    """An even kernel with stride 1 needs an output padding that PyTorch refuses; a cut does without.
    https://github.com/keras-team/keras/issues/20949"""
    layer = convert.from_keras(32, 2, strides=1, padding="same", in_channels=16, rank=3)
    port = convert.to_torch(layer)
    assert port.usual is None
    assert (port.arguments["padding"], port.arguments["output_padding"], port.crop) == (
        (0,) * 3,
        (0,) * 3,
        ((0, 1),) * 3,
    )
    x, filters, bias = operands(layer, (4, 4, 4))
    got = run(port, x, filters, bias)
    assert got.shape == (2, 4, 4, 4, 32)
    assert_array_equal(got, run(convert.to_keras(layer), x, filters, bias))


def test_onnxruntime_9370() -> None:
    """SAME_UPPER and SAME_LOWER, which ONNX Runtime had the wrong way round: UPPER cuts the odd cell at the end, as
    TensorFlow does. https://github.com/microsoft/onnxruntime/issues/9370"""
    from onnx import helper

    x, weight = integers((1, 1, 4, 4)), integers((1, 1, 3, 3), 1)
    for name, crop in ("SAME_UPPER", (0, 1)), ("SAME_LOWER", (1, 0)):
        layer = convert.from_onnx(weight, auto_pad=name, strides=[2, 2], bias=False)
        assert layer.crop == (crop, crop)
        node = helper.make_node("ConvTranspose", ["x", "weight"], ["y"], auto_pad=name, strides=[2, 2])
        assert_array_equal(run_nodes([node], x, {"weight": weight}), layer(x, LAYOUTS["torch"].read(weight)))
    assert (
        convert.from_onnx(weight, "SAME_UPPER", strides=[2, 2]).crop == convert.from_lax((3, 3, 1, 1), 2, "SAME").crop
    )


@pytest.mark.parametrize(("auto_pad", "crop"), [("NOTSET", (2, 1)), ("SAME_LOWER", (2, 1)), ("SAME_UPPER", (1, 2))])
def test_onnx_1609(auto_pad: str, crop: tuple[int, int]) -> None:
    """The specification contradicted itself about `output_shape`; now only SAME_UPPER has the odd cell at the end.
    https://github.com/onnx/onnx/issues/1609"""
    from onnx import helper

    x, weight = integers((1, 1, 4, 4)), integers((1, 1, 5, 5), 1)
    attributes: dict[str, Any] = {"auto_pad": auto_pad, "strides": [2, 2], "output_shape": [8, 8]}
    layer = convert.from_onnx(weight, **attributes, input=4, bias=False)
    assert layer.crop == (crop, crop)
    node = helper.make_node("ConvTranspose", ["x", "weight"], ["y"], **attributes)
    assert_array_equal(run_nodes([node], x, {"weight": weight}), layer(x, LAYOUTS["torch"].read(weight)))


def test_jax_17618() -> None:
    """Pairs of 0 are not VALID: in `lax.conv_transpose` they pad the spread input, and so cut the result.
    https://github.com/jax-ml/jax/issues/17618"""
    named = convert.from_lax((4, 4, 3, 8), 4, "VALID", transpose_kernel=True)
    pairs = convert.from_lax((4, 4, 3, 8), 4, [(0, 0), (0, 0)], transpose_kernel=True)
    assert (named.output(128), pairs.output(128)) == ((512, 512), (506, 506))
    assert pairs.crop == ((3, 3), (3, 3))
    consistent = convert.from_lax((4, 4, 3, 8), 4, [(0, 0), (0, 0)], transpose_kernel=True, use_consistent_padding=True)
    assert consistent == named
    assert convert.to_lax(pairs, transpose_kernel=True).arguments["padding"] == [(0, 0), (0, 0)]


def test_tico_420() -> None:
    """PyTorch's padding cuts the result; it does not pad the input. https://github.com/Samsung/TICO/issues/420"""
    layer = convert.from_torch(16, 3, (1, 3), (1, 2), (0, 1), (0, 1))
    port = convert.to_tflite(layer)
    assert (port.arguments["padding"], port.crop) == ("VALID", ((0, 0), (1, 0)))
    x, filters, bias = operands(layer, (1, 8))
    assert_array_equal(run(port, x, filters, bias), run(convert.to_torch(layer), x, filters, bias))


def test_the_forum_case_of_kernel_9_and_stride_4() -> None:
    """FSRCNN by 4, two pixels off when `padding=4, output_padding=3` stands for 'same'."""
    layer = convert.from_keras(1, 9, strides=4, padding="same", in_channels=8)
    x, filters, bias = operands(layer, (6, 6))
    port = convert.to_torch(layer)
    right = run(port, x, filters, bias)
    assert_array_equal(right, TENSORFLOW.nn.conv2d_transpose(x, filters, [2, 24, 24, 1], 4) + bias)
    usual = convert.from_torch(8, 1, 9, 4, 4, 3).replace(channels_first=False)
    assert port.usual == convert.Usual("padding=4, output_padding=3", usual.crop)
    wrong = usual(x, filters, bias)
    assert wrong.shape == right.shape
    assert_array_equal(wrong[:, :-2, :-2], right[:, 2:, 2:])
