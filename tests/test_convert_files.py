# SPDX-License-Identifier: Apache-2.0
"""Layers from real files of Keras, ONNX and PyTorch, to files of others, and files that are damaged or foreign."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import h5py
import keras
import ml_dtypes  # noqa: F401
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from numpy.testing import assert_array_equal

from backstride import _files, convert
from backstride.convert import ConvTranspose, NamedLayer

Layers = list[NamedLayer]


def close(actual: Any, expected: Any, found: NamedLayer, x: np.ndarray) -> None:
    """Equal to rounding: so many products of the largest numbers, each rounded and added in any order."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    terms = found.filters.size // found.layer.out_channels * found.layer.groups + 1
    largest = max(abs(x).max(initial=0) * abs(found.filters).max(), 0 if found.bias is None else abs(found.bias).max())
    assert actual.shape == expected.shape
    assert abs(actual - expected).max(initial=0) <= np.finfo(np.float32).eps * 2 * terms * largest * terms


def same(actual: Layers, expected: Layers) -> None:
    """Equal in everything, to the bit."""
    assert [(one.name, one.layer) for one in actual] == [(one.name, one.layer) for one in expected]
    for one, other in zip(actual, expected, strict=True):
        assert one.filters.dtype == other.filters.dtype
        assert one.filters.tobytes() == other.filters.tobytes()
        assert (one.bias is None) == (other.bias is None)
        assert one.bias is None or other.bias is None or one.bias.tobytes() == other.bias.tobytes()


def drawn(seed: int, dtype: str = "float32") -> Layers:
    """Layers of every rank, of all that descriptions can say; each has a result for every input."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    layers = []
    for n, rank in enumerate([1, 2, 3, draw.randint(1, 3)]):
        kernel = [draw.randint(1, 4) for _ in range(rank)]
        dilation = [draw.choice([1, 1, 2, 3]) for _ in range(rank)]
        crop = []
        for taps, step in zip(kernel, dilation, strict=True):
            before = draw.randint(-4, (taps - 1) * step)
            crop.append((before, draw.randint(-4, (taps - 1) * step - max(before, 0))))
        groups = draw.choice([1, 1, 2, 3])
        layer = ConvTranspose(
            kernel,
            [draw.randint(1, 3) for _ in range(rank)],
            dilation,
            crop,
            groups * draw.randint(1, 3),
            groups * draw.randint(1, 3),
            groups,
            draw.random() < 0.5,
            draw.random() < 0.7,
        )
        bias = numbers.standard_normal(layer.out_channels).astype(dtype) if layer.bias else None
        layers.append(NamedLayer(f"net/up.{n}", layer, numbers.standard_normal(layer.filter_shape).astype(dtype), bias))
    return layers


def input_of(found: NamedLayer, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    lengths = [int(n) for n in numbers.integers(2, 6, found.layer.rank)]
    channels = found.layer.in_channels
    shape = [2, channels, *lengths] if found.layer.channels_first else [2, *lengths, channels]
    return numbers.standard_normal(shape, np.float32)


# Keras


def keras_layer(draw: random.Random, rank: int, name: str) -> Any:
    stride = draw.choice([1, 1, 2, 3])
    return getattr(keras.layers, f"Conv{rank}DTranspose")(
        draw.randint(1, 3),
        [draw.randint(stride, 5) for _ in range(rank)],
        strides=stride,
        padding=draw.choice(["same", "valid"]),
        output_padding=draw.choice([None, stride - 1]),
        dilation_rate=draw.choice([1, 2]) if stride == 1 else 1,
        use_bias=draw.random() < 0.7,
        bias_initializer="normal",
        name=name,
    )


def keras_model(seed: int, rank: int) -> Any:
    """A model within a model within a model, with layers of the same class and one of another between them."""
    draw = random.Random(seed)
    inner = keras.Sequential(
        [keras_layer(draw, rank, "one"), keras.layers.ReLU(), keras_layer(draw, rank, "two")], name="inner"
    )
    outer = keras.Sequential([keras_layer(draw, rank, "zero"), inner], name="outer")
    x = keras.Input([None] * rank + [2])
    return keras.Model(x, keras_layer(draw, rank, "last")(outer(keras_layer(draw, rank, "first")(x))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_keras_models(tmp_path: Path, suffix: str, rank: int) -> None:
    for seed in range(2):
        model = keras_model(seed, rank)
        path = tmp_path / f"model{suffix}"
        model.save(path)
        found = convert.load(path)
        outer = model.get_layer("outer")
        inner = outer.get_layer("inner")
        layers = {
            "first": model.get_layer("first"),
            "outer/zero": outer.get_layer("zero"),
            "outer/inner/one": inner.get_layer("one"),
            "outer/inner/two": inner.get_layer("two"),
            "last": model.get_layer("last"),
        }
        assert [one.name for one in found] == list(layers)
        for one in found:
            x = input_of(one, seed)
            close(one(x), layers[one.name](x), one, x)


@pytest.mark.filterwarnings("ignore")
def test_keras_wrappers_and_dtypes(tmp_path: Path) -> None:
    for dtype in ("float16", "bfloat16"):
        x = keras.Input([3, None, None, 2])
        layer = keras.layers.TimeDistributed(keras.layers.Conv2DTranspose(3, 4, dtype=dtype, name="up"), name="frames")
        keras.Model(x, layer(x)).save(tmp_path / "model.keras")
        (found,) = convert.load(tmp_path / "model.keras")
        assert (found.name, found.filters.dtype.name) == ("frames/up", dtype)
        assert_array_equal(found.filters, np.asarray(layer.layer.kernel.value).astype(dtype))


def keras2_file(path: Path) -> Layers:
    """As tf_keras 2.21 writes a model: a Sequential one in a Functional one, with ':0' in the names of weights."""
    numbers = np.random.default_rng(0)
    entry = {"padding": "same", "data_format": "channels_last", "groups": 1, "output_padding": None}
    configs = {
        "first": {"name": "first", "filters": 3, "kernel_size": [3, 3], "strides": [1, 1], "use_bias": False, **entry},
        "up": {"name": "up", "filters": 4, "kernel_size": [5, 4], "strides": [2, 2], "use_bias": True, **entry},
    }
    layers = {name: {"class_name": "Conv2DTranspose", "config": config} for name, config in configs.items()}
    inner = {"class_name": "Sequential", "config": {"name": "decoder", "layers": [layers["up"]]}}
    model = {"class_name": "Functional", "config": {"name": "net", "layers": [layers["first"], inner]}}
    kernels = {"first": numbers.random((3, 3, 3, 2), np.float32), "up": numbers.random((5, 4, 4, 3), np.float32)}
    weights: dict[str, dict[str, np.ndarray]] = {
        "first": {"first/kernel:0": kernels["first"]},
        "decoder": {
            "bn/gamma:0": np.ones(4, np.float32),
            "up/kernel:0": kernels["up"],
            "up/bias:0": np.ones(4, np.float32),
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.create_group("model_weights").attrs["layer_names"] = [name.encode() for name in weights]
        for group, arrays in weights.items():
            place = file.create_group(f"model_weights/{group}")
            place.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                place[name] = array
    first = convert.from_keras(3, 3, 1, "same", use_bias=False, in_channels=2)
    up = convert.from_keras(4, (5, 4), 2, "same", in_channels=3)
    return [
        NamedLayer("first", first, kernels["first"]),
        NamedLayer("decoder/up", up, kernels["up"], np.ones(4, np.float32)),
    ]


def test_keras_2(tmp_path: Path) -> None:
    expected = keras2_file(tmp_path / "model.h5")
    same(convert.load(tmp_path / "model.h5"), expected)
    same(convert.load(str(tmp_path / "model.h5")), expected)


# ONNX


def onnx_file(
    path: Path, nodes: list[Any], arrays: dict[str, np.ndarray], lengths: Any = (None, None), **options: Any
) -> None:
    dims = ["n", 4, *lengths]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, dims)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path, **options)


def up_node(*inputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node("ConvTranspose", list(inputs), ["y"], "up", **attributes)


W = np.random.default_rng(1).standard_normal((4, 3, 5, 4), np.float32)
B = np.random.default_rng(2).standard_normal(6).astype(np.float32)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2], "group": 2},
        {"dilations": [1, 2], "kernel_shape": [5, 4], "group": 2},
        {"auto_pad": "VALID", "strides": [2, 2], "group": 2},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2], "output_shape": [10, 12]},
        {"strides": [2, 2], "output_shape": [10, 11], "group": 2},
    ],
    ids=str,
)
def test_onnx_nodes(tmp_path: Path, attributes: dict[str, Any]) -> None:
    bias = {"b": B[: 3 * attributes.get("group", 1)]}
    for arrays in {"w": W}, {"w": W, **bias}:
        onnx_file(tmp_path / "m.onnx", [up_node("x", *arrays, **attributes)], arrays, (5, 6))
        (found,) = convert.load(tmp_path / "m.onnx")
        x = np.random.default_rng(0).standard_normal((2, 4, 5, 6), np.float32)
        (expected,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": x})
        assert (found.name, found.layer.bias) == ("up", len(arrays) == 2)
        close(found(x), expected, found, x)


def test_onnx_constants_branches_and_functions(tmp_path: Path) -> None:
    constant = onnx.helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(W))
    alias = onnx.helper.make_node("Identity", ["w"], ["v"])
    onnx_file(tmp_path / "m.onnx", [constant, alias, up_node("x", "v")], {})
    assert_array_equal(convert.load(tmp_path / "m.onnx")[0].filters, W.transpose(2, 3, 1, 0))
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    inner = onnx.numpy_helper.from_array(2 * W, "w2")
    branches = [
        onnx.helper.make_graph([onnx.helper.make_node("ConvTranspose", ["x", "w"], ["y"])], "a", [], [result]),
        onnx.helper.make_graph(
            [onnx.helper.make_node("ConvTranspose", ["x", "w2"], ["z"])], "b", [], [result], [inner]
        ),
    ]
    choice = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    onnx_file(tmp_path / "m.onnx", [choice], {"w": W, "c": np.array(True)})
    first, second = convert.load(tmp_path / "m.onnx")
    assert (first.name, second.name) == ("z", "y")  # the attributes of the node are in the order of the alphabet
    assert_array_equal(first.filters, 2 * second.filters)


def test_onnx_external_data_is_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "m.onnx"
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx_file(path, [up_node("x", "w", "b")], {"w": W, "b": B[:3]}, **options)
    (found,) = convert.load(path)
    assert_array_equal(found.filters, W.transpose(2, 3, 1, 0))
    outside = tmp_path / "weights.bin"
    (path.parent / "weights.bin").rename(outside)
    with pytest.raises(ValueError, match=r"m\.onnx .* 'weights\.bin', which is no file beside the model"):
        convert.load(path)
    (path.parent / "weights.bin").symlink_to(outside)
    with pytest.raises(ValueError, match="no file beside the model"):
        convert.load(path)
    (path.parent / "weights.bin").unlink()
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"'\.\./weights\.bin', which is no file beside the model"):
        convert.load(path)
    (path.parent / "short.bin").write_bytes(outside.read_bytes()[:-100])
    model.graph.initializer[0].external_data[0].value = "short.bin"
    model.graph.initializer[1].external_data[0].value = "short.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"bytes from \d+ on, are not in short\.bin, of \d+ bytes"):
        convert.load(path)


def test_onnx_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx_file(path, [onnx.helper.make_node("Relu", ["w"], ["v"]), up_node("x", "v")], {"w": W})
    with pytest.raises(
        ValueError, match=r"weights of the node 'up' must be constants, .*'v', the result of a node Relu"
    ):
        convert.load(path)
    onnx_file(path, [up_node("x", "x")], {})
    with pytest.raises(ValueError, match="'x', an input of the model"):
        convert.load(path)
    onnx_file(path, [up_node("x", "w", output_shape=[10, 12], strides=[2, 2])], {"w": W})
    with pytest.raises(ValueError, match="the model does not say the lengths of 'x'; export it with fixed lengths"):
        convert.load(path)
    onnx_file(path, [up_node("x", "w", strides=[0, 2])], {"w": W})
    with pytest.raises(ValueError, match="the node 'up' is no layer: `strides` must be"):
        convert.load(path)


# State dicts


def torch_models(seed: int) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Layers of PyTorch and their arguments."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    layers = {}
    for rank in (1, 2, 3):
        groups, stride = draw.choice([1, 2]), draw.randint(1, 3)
        config = {
            "stride": stride,
            "padding": draw.randint(0, 1),
            "output_padding": draw.randint(0, stride - 1),
            "dilation": draw.randint(1, 2),
            "groups": groups,
        }
        bias = draw.random() < 0.7
        kind = getattr(torch.nn, f"ConvTranspose{rank}d")
        layers[f"up.{rank}"] = kind(2 * groups, 3 * groups, draw.randint(2, 4), bias=bias, **config), config
    return layers


def test_state_dicts(tmp_path: Path) -> None:
    for seed in range(5):
        layers = torch_models(seed)
        state = {
            f"{name}.{key}": value for name, (layer, _) in layers.items() for key, value in layer.state_dict().items()
        }
        state["mask"] = torch.ones(3, dtype=torch.bool)
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(state, path)
        config = {name: said for name, (_, said) in layers.items()}
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = convert.load(path, config)
        same(convert.load(path, str(tmp_path / "config.json")), found)
        same(convert.load(path, {one.name: one.layer for one in found}), found)
        same(convert.load(path, {one.name: json.loads(one.layer.to_json()) for one in found}), found)
        assert [one.name for one in found] == list(layers)
        for one in found:
            x = input_of(one, seed)
            with torch.no_grad():
                close(one(x), layers[one.name][0](torch.from_numpy(x)), one, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dim", [0, 1, 2, None])
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
def test_weight_norm(tmp_path: Path, norm: Callable[..., Any], dim: int | None) -> None:
    layer = norm(torch.nn.ConvTranspose2d(4, 3, 3), dim=dim)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5)
    safetensors.torch.save_file(
        {f"up.{key}": value for key, value in layer.state_dict().items()}, tmp_path / "m.safetensors"
    )
    (found,) = convert.load(tmp_path / "m.safetensors", {"up": {}})
    x = input_of(found)
    with torch.no_grad():
        layer(torch.from_numpy(x))
        weight = layer.weight.numpy()
    # Rounded once here; in PyTorch a sum of 36 squares, a root, a quotient and a product.
    np.testing.assert_allclose(found.filters, weight.transpose(2, 3, 1, 0), rtol=24 * np.finfo(np.float32).eps)


def test_state_dicts_need_a_config_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    layers = {"a.up": torch.nn.ConvTranspose2d(4, 3, 3), "b": torch.nn.Linear(2, 2), "c": torch.nn.Conv1d(2, 2, 3)}
    safetensors.torch.save_file(
        {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}, path
    )
    for config, message in [
        (None, r"does not say what its layers do; .* as `config`, such as \{'a\.up': .* are those of 'a\.up', 'c'"),
        ({"up": {}}, r"no 'up\.weight', nor what weight_norm makes of it; nothing there"),
        ({"a": {}}, r"no 'a\.weight', .*; what it has there is 'a\.up\.weight', 'a\.up\.bias'|'a\.up\.bias'"),
        ({"a.up": {"pading": 1}}, "`config` of 'a.up' does not fit: .*pading"),
        ({"a.up": {"kernel_size": 5}}, r"the weight has shape \(4, 3, 3, 3\), and that of .* has \(4, 3, 5, 5\)"),
        ({"a.up": {"bias": False}}, "`bias` of 'a.up' must be None"),
        ({"a.up": {"groups": "2"}}, "`groups` takes ints"),
        ({"a.up": 3}, "must be a mapping of arguments or a ConvTranspose; got 3"),
        ({"b": {}}, r"the weight has shape \(2, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert.load(path, config)
    with pytest.raises(TypeError, match="`config` must map names of layers to their arguments; got config=3"):
        convert.load(path, 3)
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ValueError, match=r"`config` must be a JSON file; .*c\.json can't be read"):
        convert.load(path, tmp_path / "c.json")
    keras2_file(tmp_path / "m.h5")
    with pytest.raises(ValueError, match=r"`config` is for state dicts; \.h5 files say what their layers do"):
        convert.load(tmp_path / "m.h5", {})


# To files

TARGETS = [(".keras", None), (".onnx", None), (".safetensors", None)] + [
    (suffix, framework) for suffix in (".safetensors", ".npz") for framework in ("torch", "flax", "tensorflow")
]


@pytest.mark.parametrize(("suffix", "framework"), TARGETS)
def test_round_trips(tmp_path: Path, suffix: str, framework: str | None) -> None:
    path = tmp_path / f"layers{suffix}"
    for seed in range(10):
        layers = drawn(seed)
        convert.save(path, layers, framework)
        same(convert.load(path), layers)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("suffix", [".keras", ".onnx", ".safetensors"])
def test_round_trips_of_dtypes(tmp_path: Path, suffix: str, dtype: str) -> None:
    layers = drawn(3, dtype)
    convert.save(tmp_path / f"layers{suffix}", layers)
    same(convert.load(tmp_path / f"layers{suffix}"), layers)


def test_through_all_formats(tmp_path: Path) -> None:
    layers = keras2_file(tmp_path / "start.h5")
    for n, (suffix, framework) in enumerate(TARGETS):
        convert.save(tmp_path / f"{n}{suffix}", layers, framework)
        layers = convert.load(tmp_path / f"{n}{suffix}")
    same(layers, convert.load(tmp_path / "start.h5"))


def test_saved_onnx_runs(tmp_path: Path) -> None:
    for seed in range(10):
        layers = drawn(seed)
        convert.save(tmp_path / "m.onnx", layers)
        onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
        for one in layers:
            x = input_of(one, seed)
            first = x if one.layer.channels_first else np.moveaxis(x, -1, 1)
            inputs = {
                f"{other.name}.input": np.zeros((1, other.layer.in_channels, *[2] * other.layer.rank), np.float32)
                for other in layers
            }
            (y,) = session.run([f"{one.name}.output"], {**inputs, f"{one.name}.input": first})
            close(y if one.layer.channels_first else np.moveaxis(y, 1, -1), one(x), one, x)


@pytest.mark.filterwarnings("ignore")
def test_saved_keras_models_run(tmp_path: Path) -> None:
    for seed in range(2):
        layers = drawn(seed)
        convert.save(tmp_path / "m.keras", layers)
        model = keras.saving.load_model(tmp_path / "m.keras")
        inputs = [input_of(one, seed) for one in layers]
        for one, x, y in zip(layers, inputs, model(inputs), strict=True):
            close(y, one(x), one, x)
        model.save(tmp_path / "again.keras")
        for one in convert.load(tmp_path / "again.keras"):
            x = input_of(one, seed)
            close(model.get_layer(one.name)(x), one(x), one, x)


def test_saved_state_dicts_fit_torch(tmp_path: Path) -> None:
    layers = drawn(4)
    convert.save(tmp_path / "m.safetensors", layers)
    state = safetensors.torch.load_file(tmp_path / "m.safetensors")
    for one in layers:
        port = convert.to_torch(one.layer)
        layer = getattr(torch.nn, f"ConvTranspose{one.layer.rank}d")(**port.arguments)
        name = one.name.replace("/", ".")
        weights = {
            "weight": state[f"{name}.weight"],
            **({"bias": state[f"{name}.bias"]} if port.arguments["bias"] else {}),
        }
        layer.load_state_dict(weights)
    with safetensors.safe_open(tmp_path / "m.safetensors", "numpy") as file:
        note = json.loads(file.metadata()["backstride"])
    assert note["framework"] == "torch"
    assert ConvTranspose(**note["layers"]["net.up.0"]["layer"]) == layers[0].layer
    assert note["layers"]["net.up.0"]["arguments"]["stride"] == list(layers[0].layer.stride)


def test_names_of_flax_and_tensorflow(tmp_path: Path) -> None:
    layers = keras2_file(tmp_path / "start.h5")
    layers[1] = NamedLayer("decoder.up", layers[1].layer, layers[1].filters, layers[1].bias)
    for framework, kernel in ("flax", layers[1].filters[::-1, ::-1].swapaxes(2, 3)), ("tensorflow", layers[1].filters):
        convert.save(tmp_path / "w.npz", layers, framework)
        with np.load(tmp_path / "w.npz") as file:
            assert file.files == ["first/kernel", "decoder/up/kernel", "decoder/up/bias"]
            assert_array_equal(file["decoder/up/kernel"], kernel)


def test_a_note_that_no_longer_fits_is_passed_over(tmp_path: Path) -> None:
    layer = convert.from_torch(2, 2, 3, stride=2, groups=2)
    convert.save(
        tmp_path / "m.onnx", [NamedLayer("up", layer.cropped((-1, 0)), np.ones((3, 3, 1, 2), np.float32), np.ones(2))]
    )
    model = onnx.load(tmp_path / "m.onnx")
    (node,) = (node for node in model.graph.node if node.op_type == "ConvTranspose")
    strides = next(entry for entry in node.attribute if entry.name == "strides")
    strides.ints[:] = [3, 3]
    onnx.save(model, tmp_path / "m.onnx")
    (found,) = convert.load(tmp_path / "m.onnx")
    assert found.layer == layer.replace(stride=(3, 3), bias=False)


def test_save_says_what_it_cannot(tmp_path: Path) -> None:
    one = NamedLayer("up", ConvTranspose(3, bias=False), np.ones((3, 1, 1), np.float32))
    other = NamedLayer("a/b", one.layer, one.filters)
    for name, layers, framework, error, message in [
        ("m.pt", [one], None, ValueError, "may be a pickle"),
        ("m.txt", [one], None, ValueError, r"`path` must end in \.keras, \.onnx, \.safetensors or \.npz"),
        ("m.h5", [one], None, ValueError, r"`path` must end in"),
        ("m.npz", [one], None, ValueError, "`framework` must be one of torch, flax, tensorflow for .npz files"),
        ("m.onnx", [one], "torch", ValueError, "`framework` must be 'onnx' for .onnx files"),
        ("m.onnx", [], None, ValueError, "at least one layer"),
        ("m.onnx", [one, one], None, ValueError, "a name of its own"),
        ("m.keras", [other, NamedLayer("a.b", one.layer, one.filters)], None, ValueError, "a name of its own"),
        ("m.onnx", [one.layer], None, TypeError, "`layers` must be of NamedLayer"),
        ("m.npz", drawn(0, "bfloat16"), "flax", ValueError, r"\.npz files don't know the dtype"),
    ]:
        with pytest.raises(error, match=message):
            convert.save(tmp_path / name, layers, framework)  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


def test_layers_need_their_weights() -> None:
    layer = ConvTranspose(3, in_channels=2)
    w, b = np.ones((3, 1, 2), np.float32), np.ones(1, np.float32)
    for filters, bias, error, message in [
        (w, None, ValueError, "`bias` of 'up' must be an array"),
        (w[1:], b, ValueError, r"`filters` of 'up' must have shape \(3, 1, 2\); got \(2, 1, 2\)"),
        (w, b[:0], ValueError, r"`bias` of 'up' must have shape \(1,\)"),
        (w.astype(int), b, TypeError, "`filters` of 'up' must have a floating dtype; got int64"),
        (None, b, TypeError, "`filters` must be a NumPy array"),
    ]:
        with pytest.raises(error, match=message):
            NamedLayer("up", layer, filters, bias)
    found = NamedLayer("up", layer, torch.ones(3, 1, 2), torch.ones(1))  # type: ignore[arg-type]
    assert isinstance(found.filters, np.ndarray)


# Damaged and foreign files


def samples(folder: Path) -> list[Path]:
    """One file of each kind."""
    keras2_file(folder / "keras2.h5")
    for suffix, framework in TARGETS:
        convert.save(folder / f"{framework}{suffix}", drawn(1), framework)
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("error")
def test_damaged_files_are_value_errors(tmp_path: Path) -> None:
    draw = random.Random(0)
    (tmp_path / "damaged").mkdir()
    refused = 0
    for sample in [path for path in samples(tmp_path) if path.is_file()]:
        whole, path = sample.read_bytes(), tmp_path / "damaged" / sample.name
        for n in range(60):
            data = bytearray(whole)
            if n < 20:
                del data[len(data) * n // 20 :]
            elif n < 40:
                for _ in range(draw.choice([1, 2, 32])):
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            else:
                start = draw.randrange(len(data))
                data[start : start + draw.randint(1, 64)] = draw.randbytes(draw.randint(0, 64))
            path.write_bytes(data)
            try:
                convert.load(path)
            except ValueError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused > 300


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".onnx", ".safetensors", ".npz"])
def test_foreign_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    with pytest.raises(FileNotFoundError):
        convert.load(path)
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    for data in b"", b"\0" * 100, b"\xff" * 100, pickle.dumps({"weight": [1.0]}), foreign.getvalue(), b"{}":
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"model\{suffix} can't be read as a \{suffix} file: "):
            convert.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="`path` must be a file"):
        convert.load(path)


@pytest.mark.parametrize(("suffix", "library"), [(".h5", "h5py"), (".keras", "h5py"), (".onnx", "onnx")])
def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: Any, suffix: str, library: str) -> None:
    path = tmp_path / "m.h5"
    layers = keras2_file(path)
    if suffix != ".h5":
        path = tmp_path / f"m{suffix}"
        convert.save(path, layers)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"need the extra `convert`: pip install 'backstride\[convert\]'"):
        convert.load(path)
    if suffix != ".h5":
        with pytest.raises(ImportError, match="need the extra `convert`"):
            convert.save(tmp_path / f"other{suffix}", layers)


class Trap:
    """Fails the test if it is ever unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was run",)


def test_pickles_are_never_run(tmp_path: Path) -> None:
    torch.save({"weight": Trap()}, tmp_path / "model.pt")
    for suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".safetensors", ".npz", ".keras", ".h5", ".onnx"):
        path = tmp_path / f"copy{suffix}"
        path.write_bytes((tmp_path / "model.pt").read_bytes())
        with pytest.raises(ValueError, match=r"may be a pickle.*safetensors|can't be read as a"):
            convert.load(path)
    np.savez(tmp_path / "objects.npz", **{"up/kernel": np.array([Trap()], object)})
    with pytest.raises(ValueError, match="Python objects, which are never loaded"):
        convert.load(tmp_path / "objects.npz")


def keras_archive(
    path: Path, layers: list[Any], weights: dict[str, Any], compression: int = zipfile.ZIP_STORED
) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, value in weights.items():
            file[name] = value
    with zipfile.ZipFile(path, "w", compression) as archive:
        model = {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", content.getvalue())


def test_keras_files_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    config = {"name": "up", "filters": 2, "kernel_size": [3], "strides": [2], "use_bias": False}
    entry = {"class_name": "Conv1DTranspose", "config": config}
    place, kernel = "layers/conv1d_transpose/vars/0", np.ones((3, 2, 1), np.float32)
    bomb = {"class_name": "Lambda", "config": {"name": "run", "function": ["raise SystemExit", None, None]}}
    keras_archive(path, [bomb, entry], {place: kernel})
    assert [one.name for one in convert.load(path)] == ["up"]
    for layers, weights, message in [
        ([entry], {}, "the layer 'up': it has no weights, which would be 'layers/conv1d_transpose'"),
        ([entry], {place: kernel[1:]}, r"the layer 'up': `filters` of 'up' must have shape \(3, 2, 1\)"),
        ([entry], {place: kernel.astype(int)}, "must have a floating dtype"),
        ([entry], {place: h5py.ExternalLink("other.h5", "/w")}, "a link to somewhere else, which is not followed"),
        ([entry], {place: h5py.SoftLink("/w"), "w": kernel}, "a link to somewhere else, which is not followed"),
        ([{"class_name": "Conv1DTranspose", "config": {"name": "up"}}], {place: kernel}, "the layer 'up'"),
        ([{**entry, "config": {**config, "strides": "2"}}], {place: kernel}, "`strides` takes ints"),
        ([{**entry, "config": {**config, "groups": 2}}], {place: kernel}, "groups=2, which no such layer can have"),
        ([7], {place: kernel}, "its config has 7 in place of a layer"),
    ]:
        keras_archive(path, layers, weights)
        with pytest.raises(ValueError, match=rf"m\.keras can't be read .*{message}"):
            convert.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "MyNet", "config": {"width": 3}}))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ValueError, match="its model is a MyNet, whose layers the file does not list"):
        convert.load(path)
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["up/kernel"] = kernel
    with pytest.raises(ValueError, match="it has no model_config, as files of weights alone"):
        convert.load(tmp_path / "weights.h5")


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """Before any memory is taken for them."""
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(100):
                member.write(bytes(2**20))
    with pytest.raises(ValueError, match="what is in it would take 1048576"):
        convert.load(tmp_path / "m.keras")
    keras2_file(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        del file["model_weights/first/first/kernel:0"]
        file.create_dataset("model_weights/first/first/kernel:0", (2**20, 2**20, 3, 2), "f4", chunks=(64, 64, 3, 2))
    with pytest.raises(ValueError, match=r"kernel:0' would take \d+ bytes, of a file of"):
        convert.load(tmp_path / "m.h5")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("up/kernel.npy", header.getvalue())
    with pytest.raises(ValueError, match="an array of shape"):
        convert.load(tmp_path / "m.npz")


def test_notes_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for note in [
        "[",
        "[]",
        "{}",
        '{"framework": "caffe", "layers": {}}',
        '{"framework": "torch", "layers": {"a": 1}}',
        "[" * 10**5,
    ]:
        _files.write(path, {"up.weight": np.ones((1, 1, 3), np.float32)}, note)
        with pytest.raises(ValueError, match="its note is not one that `save` wrote"):
            convert.load(path)
    layer = json.loads(ConvTranspose(3, in_channels=2, groups=2, out_channels=2, bias=False).to_json())
    note = {"framework": "flax", "layers": {"up": {"name": "up", "layer": layer}}}
    for arrays, message in [
        ({}, "it has no 'up/kernel'"),
        ({"up/kernel": np.ones((3, 2, 1), np.float32)}, r"weights of shape \(3, 2, 1\) are not those of"),
        ({"up/kernel": np.ones((3, 2, 2), np.float32)}, "are not zero where"),
    ]:
        _files.write(path, {"other": np.ones(1), **arrays}, json.dumps(note))
        with pytest.raises(ValueError, match=message):
            convert.load(path)
